"""The hub's own client against a server that speaks the hub's protocol: what is fetched, and every way it can fail."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resalign.assets import fetch as fetching
from resalign.assets.fetch import fetch
from resalign.assets.source import (
    BrokenFileError,
    FetchError,
    GatedError,
    HashMismatchError,
    ManualDownloadError,
    RemovedError,
)
from resalign.config.assets import AssetConfig
from tests.data.pictures import names

from .hub_server import PAGE, Answer, Server, refusal, sha256

ROOT = Path(__file__).resolve().parents[2]
ASSET = AssetConfig(
    hub="someone/prompts", repo_type="dataset", revision="0123456789abcdef" * 2 + "01234567", files=("*.csv", "*.zip")
)
TREE = f"/api/datasets/someone/prompts/tree/{ASSET.revision}"
FILES = {
    "README.md": b"no",
    "a.csv": b"prompt\nhello, two\nlines\n",
    "images/0.zip": b"PK\x03\x04" + bytes(range(256)),
    "images/1.png": b"no",
}
WANTED = {name: sha256(FILES[name]) for name in ("a.csv", "images/0.zip")}


def resolved(name: str) -> str:
    """The path at which the hub is asked for a file."""
    return f"/datasets/someone/prompts/resolve/{ASSET.revision}/{name}"


def fetched(folder: Path) -> dict[str, str]:
    """Fetches the dataset; nothing but its files, and the client's notes, may be there."""
    hashes = fetch("prompts", ASSET, folder)
    assert [name for name in names(folder) if not name.startswith(".cache/")] == sorted(hashes)
    return hashes


def refused(folder: Path, *parts: str, kind: type[FetchError] = FetchError) -> None:
    """A fetch is refused in one line with an error of that very class, and leaves whole files alone."""
    with pytest.raises(FetchError) as caught:
        fetched(folder)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.startswith(f"asset 'prompts' (dataset someone/prompts at {ASSET.revision}): ")
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    left = {name: sha256((folder / name).read_bytes()) for name in names(folder)}
    assert {item for item in left.items() if item[0].endswith((".csv", ".zip", ".incomplete"))} <= set(WANTED.items())


def test_the_files_that_are_named_are_fetched_once(tmp_path: Path, hub: Server) -> None:
    places = hub.publish(ASSET, FILES)
    hub.page = 2
    assert fetched(tmp_path) == WANTED
    asked = [path for _, path, *_ in hub.requests]
    assert asked.count(TREE) >= 3, "its list has three pages"
    assert {path for path in asked if path != TREE} == {path for n in WANTED for path in (resolved(n), places[n])}
    assert fetched(tmp_path) == WANTED
    assert {path for _, path, *_ in hub.requests[len(asked) :]} == {TREE}


def test_the_rules_script_asks_the_hub_that_hf_endpoint_names(tmp_path: Path, server: Server) -> None:
    server.publish(ASSET, FILES)
    job = {"asset": "prompts", "origin": ASSET.model_dump(mode="json", exclude_defaults=True)}
    command = [sys.executable, str(ROOT / "scripts" / "fetch.py"), "--job", json.dumps(job), "--output", "asset"]
    home = {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "home" / "hub")}
    environment = {**os.environ, **home, "HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0"}
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert {name: sha256((tmp_path / "asset" / name).read_bytes()) for name in WANTED} == WANTED
    assert not (tmp_path / "home").exists(), "the client writes into the asset's folder alone"


def test_a_token_opens_what_is_gated_and_goes_to_the_hub_alone(
    tmp_path: Path, hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = hub.publish(ASSET, FILES)
    hub.tokens["datasets/someone/prompts"] = "hf_right"
    for token in (None, "hf_wrong"):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        refused(tmp_path, "accept its terms", "HF_TOKEN", kind=GatedError)
    hub.requests.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert fetched(tmp_path) == WANTED
    told_to = {asked.path for asked in hub.requests if asked.authorization}
    assert {*map(resolved, WANTED), TREE} <= told_to
    assert places["images/0.zip"] not in told_to


ZIP, CSV = "images/0.zip", "a.csv"
TERMS, VALID, GONE = "accept its terms on its page", "set HF_TOKEN to a valid token", "removed or renamed"


@pytest.mark.parametrize("path", [TREE, resolved(CSV)])
@pytest.mark.parametrize(
    ("answer", "kind", "remedy"),
    [
        (refusal(401, "GatedRepo", "Access to dataset someone/prompts is restricted."), GatedError, TERMS),
        (refusal(403, "GatedRepo"), GatedError, TERMS),
        (refusal(401, "", "Invalid credentials in Authorization header"), GatedError, VALID),
        (refusal(403), GatedError, VALID),
        (refusal(401, "RepoNotFound", "Invalid username or password."), RemovedError, GONE),
        (refusal(404, "RepoNotFound"), RemovedError, GONE),
        (refusal(404, "RevisionNotFound"), RemovedError, GONE),
        (refusal(404, "EntryNotFound"), RemovedError, GONE),
        (refusal(403, "", "Access to this resource is disabled."), RemovedError, GONE),
        (refusal(409), FetchError, "409 Conflict"),
    ],
)
def test_refusals_are_classes_of_their_own(
    tmp_path: Path, hub: Server, path: str, answer: Answer, kind: type[FetchError], remedy: str
) -> None:
    hub.publish(ASSET, FILES)
    hub.faults[path] = answer
    (tmp_path / "old.txt").write_text("of an earlier pin")  # which snapshot_download would take for the whole
    (tmp_path / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "download" / "0.1.incomplete").write_text("of an attempt that was killed")
    refused(tmp_path, remedy, kind=kind)


def test_what_the_hub_does_not_have(tmp_path: Path, hub: Server) -> None:
    refused(tmp_path, "Repository Not Found", GONE, kind=RemovedError)
    hub.publish(ASSET.model_copy(update={"revision": "f" * 40}), FILES)
    refused(tmp_path, "Revision Not Found", GONE, kind=RemovedError)
    hub.publish(ASSET, FILES)
    del hub.redirects[resolved(ZIP)]
    refused(tmp_path / "entry", "Entry Not Found", GONE, kind=RemovedError)
    hub.publish(ASSET, {"a.csv": b"prompt\n"})
    refused(tmp_path / "fewer", "no file there matches '*.zip'; correct assets.prompts.files", kind=RemovedError)


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda content: content[:-1] + b"!", HashMismatchError, "has"),
        (lambda content: content[:-1], FetchError, "file should be of size"),
        (lambda content: content + b"!", FetchError, "file should be of size"),
        (lambda content: PAGE, FetchError, "file should be of size"),
        (lambda content: PAGE.strip()[: len(content)].ljust(len(content)), ManualDownloadError, "a web page came"),
    ],
)
def test_other_content_than_the_commits(
    tmp_path: Path, hub: Server, name: str, change: Callable[[bytes], bytes], kind: type[FetchError], said: str
) -> None:
    places = hub.publish(ASSET, FILES)
    hub.files[places[name]] = change(FILES[name])
    refused(tmp_path, said, kind=kind)
    hub.files[places[name]] = FILES[name]
    assert fetched(tmp_path) == WANTED


def test_a_page_of_the_network_in_place_of_the_hub(tmp_path: Path, hub: Server) -> None:
    hub.publish(ASSET, FILES)
    hub.faults[resolved(ZIP)] = Answer(content=PAGE)
    refused(tmp_path, "does not seem to be served by a Hugging Face Hub endpoint")
    hub.faults[TREE] = Answer(content=PAGE)
    refused(tmp_path, "the hub's list of its files cannot be read (JSONDecodeError", kind=BrokenFileError)


@pytest.mark.parametrize("path", [TREE, resolved(ZIP), f"/{WANTED[ZIP]}"])
def test_a_busy_hub_is_waited_for_as_it_asks(
    tmp_path: Path, hub: Server, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=slept.append))
    hub.publish(ASSET, FILES)
    # The client asks once more at once for what it knows of a file.
    hub.faults[path] = Answer(429, {"Retry-After": "30"}, times=2 if path == resolved(ZIP) else 1)
    assert fetched(tmp_path) == WANTED
    assert slept == [31]
    hub.faults[path] = Answer(429, {"Retry-After": "30"})
    refused(tmp_path / "again", "429 Too Many Requests", "try again later")


def test_a_connection_that_breaks_is_resumed(tmp_path: Path, hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50)  # of what came, the client keeps whole chunks
    path = hub.publish(ASSET, FILES)[ZIP]
    hub.faults[path] = Answer(cut=120, times=2)
    assert fetched(tmp_path) == WANTED
    assert [asked.range for asked in hub.requests if asked.path == path] == [None, "bytes=100-", "bytes=200-"]
    hub.faults[path] = Answer(cut=0)
    refused(tmp_path / "again", "try again later")
    hub.endless.add(path)
    monkeypatch.setattr(fetching, "SLACK_BYTES", 1 << 16)
    refused(tmp_path / "endless", "File too large")


def test_without_a_network(tmp_path: Path, hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(tmp_path, "HF_HUB_OFFLINE is set; unset it where there is internet")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: [{**tree[0], "size": -1}], "gives 'a.csv' the size -1"),
        (lambda tree: [{**tree[0], "size": "many"}], "gives 'a.csv' the size 'many'"),
        (lambda tree: [{"type": "file", "path": "a.csv"}], "cannot be read (KeyError"),
        (lambda tree: ["a.csv"], "cannot be read (TypeError"),
        (lambda tree: tree * 4, "has more than 3 entries"),
    ],
)
def test_a_list_that_is_none(
    tmp_path: Path, hub: Server, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object], said: str
) -> None:
    monkeypatch.setattr(fetching, "MOST_LISTED", 3)
    hub.publish(ASSET, {"a.csv": b"prompt\n"})
    hub.files[TREE] = json.dumps(change(json.loads(hub.files[TREE]))).encode()
    refused(tmp_path, f"the hub's list of its files {said}", kind=BrokenFileError)
