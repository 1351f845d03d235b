"""Downloads against a server on the loopback interface, and against a mirror folder: offline, byte by byte."""

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from resalign import hashes
from resalign.assets import download
from resalign.assets.fetch import fetch
from resalign.assets.source import (
    BrokenFileError,
    FetchError,
    GatedError,
    HashMismatchError,
    ManualDownloadError,
    NotPublicError,
    RemovedError,
    SchemaMismatchError,
)
from resalign.config.assets import AssetConfig, CatalogueEntry
from tests.data.pictures import names, write_table
from tests.refusals import told

from .hub_server import PAGE, Answer, Server, sha256

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_zip(size: int = 300_000) -> bytes:
    """A whole zip archive of some size, the same at every call: a name alone would be dated by the clock."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("images/0.bin"), bytes(range(256)) * (size // 256))
    return buffer.getvalue()


def url_asset(server: Server, path: str, sha: str | None = None) -> AssetConfig:
    return AssetConfig(url=f"{server.address}{path}", sha256=sha)


def test_a_file_is_downloaded_and_not_again(tmp_path: Path, server: Server) -> None:
    content = make_zip()
    server.files["/data/set%20one.zip"] = content
    asset = url_asset(server, "/data/set%20one.zip", sha256(content))
    for _ in range(2):
        assert fetch("pictures", asset, tmp_path / "asset") == {"set one.zip": sha256(content)}
    assert (tmp_path / "asset" / "set one.zip").read_bytes() == content
    assert names(tmp_path) == ["asset/set one.zip"]
    assert len(server.requests) == 1


def test_a_broken_download_goes_on_where_it_ended(tmp_path: Path, server: Server) -> None:
    content = make_zip()
    server.files["/set.zip"], server.faults["/set.zip"] = content, Answer(cut=100_000, times=1)
    asset = url_asset(server, "/set.zip", sha256(content))
    with pytest.raises(FetchError, match=r"asset 'pictures'.*broke off.*run again: it goes on from byte 100000"):
        fetch("pictures", asset, tmp_path)
    assert "set.zip" not in names(tmp_path)
    assert fetch("pictures", asset, tmp_path) == {"set.zip": sha256(content)}
    assert (tmp_path / "set.zip").read_bytes() == content
    assert [asked.range for asked in server.requests] == [None, "bytes=100000-"]
    assert names(tmp_path) == ["set.zip"]


def test_a_download_that_brings_something_goes_on_by_itself(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LEAST_BYTES", 100_000)
    content = make_zip()
    server.files["/set.zip"], server.faults["/set.zip"] = content, Answer(cut=100_000, times=2)
    assert fetch("pictures", url_asset(server, "/set.zip"), tmp_path) == {"set.zip": sha256(content)}
    assert [asked.range for asked in server.requests] == [None, "bytes=100000-", "bytes=200000-"]
    # One that always breaks off at the same place, because it cannot be resumed, ends.
    server.faults["/set.zip"] = Answer(cut=150_000, headers={"ETag": "\t"})
    refused(tmp_path / "other", url_asset(server, "/set.zip"), "broke off (150000 of")
    assert len(server.requests) == 5


def test_a_file_that_changed_meanwhile_starts_afresh(tmp_path: Path, server: Server) -> None:
    server.files["/set.zip"], server.faults["/set.zip"] = make_zip(), Answer(cut=100_000, times=1)
    asset = url_asset(server, "/set.zip")
    with pytest.raises(FetchError, match="broke off"):
        fetch("pictures", asset, tmp_path)
    server.files["/set.zip"] = make_zip(600_000)
    fetch("pictures", asset, tmp_path)
    assert (tmp_path / "set.zip").read_bytes() == make_zip(600_000)


def test_a_part_that_is_whole_already_is_fetched_anew(tmp_path: Path, server: Server) -> None:
    content = make_zip()
    server.files["/set.zip"] = content
    (tmp_path / ".set.zip.download").write_bytes(content)
    (tmp_path / ".set.zip.download.validator").write_text(f'"{hashlib.sha1(content).hexdigest()}"')
    assert fetch("pictures", url_asset(server, "/set.zip"), tmp_path) == {"set.zip": sha256(content)}
    assert names(tmp_path) == ["set.zip"]


def test_a_file_that_was_tampered_with_is_fetched_again(tmp_path: Path, server: Server) -> None:
    content = make_zip()
    server.files["/set.zip"] = content
    (tmp_path / "set.zip").write_bytes(content[:-1] + b"!")
    fetch("pictures", url_asset(server, "/set.zip", sha256(content)), tmp_path)
    assert (tmp_path / "set.zip").read_bytes() == content


PAGE_CAME = r"asset 'pictures'.*web page came instead of {}; .*RESALIGN_ASSET_ROOT/pictures/"


@pytest.mark.parametrize(
    ("name", "content", "sha", "kind", "problem"),
    [
        # A page is refused even where its hash was published by mistake.
        *(
            (name, PAGE, sha256(PAGE), ManualDownloadError, PAGE_CAME.format(name))
            for name in ("set.zip", "prompts.csv", "weights.pt", "model.safetensors")
        ),
        ("set.zip", b"\x89PNG\r\n\x1a\n", None, BrokenFileError, r"is no \.zip file"),
        ("table.parquet", b"PK\x03\x04", None, BrokenFileError, r"is no \.parquet file"),
        ("model.safetensors", b"PK\x03\x04" * 9, None, BrokenFileError, r"is no \.safetensors file"),
        ("weights.bin", b"version https://git-lfs.github.com/spec/v1\n", None, BrokenFileError, "a Git LFS pointer"),
        ("set.zip", make_zip(), "0" * 64, HashMismatchError, rf"'pictures'.*set.zip has sha256 .*, not {'0' * 64}"),
    ],
)
def test_a_file_of_another_kind_or_hash_is_refused(
    tmp_path: Path, server: Server, name: str, content: bytes, sha: str | None, kind: type[FetchError], problem: str
) -> None:
    server.files[f"/{name}"] = content
    with pytest.raises(kind, match=problem):
        fetch("pictures", url_asset(server, f"/{name}", sha), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, GatedError), (403, GatedError), (404, RemovedError), (410, RemovedError), (503, FetchError)],
)
def test_refusals_are_classes_of_their_own(tmp_path: Path, server: Server, status: int, kind: type[FetchError]) -> None:
    server.faults["/set.zip"] = Answer(status)
    with pytest.raises(FetchError, match=rf"asset 'pictures' \(http://127.*: the server answered {status}") as caught:
        fetch("pictures", url_asset(server, "/set.zip"), tmp_path)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "asked", "waited"),
    [
        (429, "30", 30.0),
        (503, "0", 0.0),
        (429, "Wed, 21 Oct 2015 07:28:00 GMT", 0.0),  # which has passed
        (429, "901", None),
        (429, "Wed, 21 Oct 2099 07:28:00 GMT", None),
        (429, "soon", None),
        (404, "30", None),
    ],
)
def test_a_busy_server_is_waited_for_as_it_asks(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, status: int, asked: str, waited: float | None
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    asset = url_asset(server, "/set.zip")
    server.files["/set.zip"], server.faults["/set.zip"] = make_zip(), Answer(status, {"Retry-After": asked}, times=2)
    if waited is None:
        refused(tmp_path, asset, f"the server answered {status}")
        assert slept == []
    else:
        assert fetch("pictures", asset, tmp_path) == {"set.zip": sha256(make_zip())}
        assert slept == [waited] * 2
        server.faults["/set.zip"].times = None
        refused(tmp_path / "again", asset, f"the server answered {status}", "try again later")
        assert slept == [waited] * (2 + download.WAITS)


def test_what_an_earlier_pin_has_left_is_no_part_of_the_asset(tmp_path: Path) -> None:
    mirror, asset = tmp_path / "mirror" / "model" / COMMIT, tmp_path / "asset"
    (mirror / "unet").mkdir(parents=True)
    (mirror / "unet" / "new.safetensors").write_bytes(bytes(8) + b"{}")
    (asset / "unet").mkdir(parents=True)
    for name in ("unet/old.safetensors", "run.json", ".cache.json", ".old.zip.download", "unet/.0.incomplete"):
        (asset / name).write_text("{}")
    fetch("model", AssetConfig(hub="someone/model", revision=COMMIT), asset, tmp_path / "mirror")
    assert names(asset) == [".cache.json", "run.json", "unet/new.safetensors"]


# --- what never ends --------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, asset: AssetConfig, *parts: str) -> None:
    """A fetch is refused in one line, and leaves no file."""
    message = told(lambda: fetch("pictures", asset, tmp_path / "asset"), *parts, kind=FetchError)
    assert message.startswith("asset 'pictures' (")
    assert {name for name in names(tmp_path) if not name.startswith("asset/.")} == set()


@pytest.mark.parametrize(
    ("status", "header", "value", "parts"),
    [
        *(
            (200, "Content-Length", n, [f"the server announces '{n}' bytes"])
            for n in ("abc", "-5", "1e3", "", "9" * 30)
        ),
        (302, "Location", "/set.zip", ["the server answered 302", "infinite loop"]),
    ],
)
def test_an_answer_that_cannot_be(
    tmp_path: Path, server: Server, status: int, header: str, value: str, parts: list[str]
) -> None:
    server.faults["/set.zip"] = Answer(status, {header: value}, b"")
    refused(tmp_path, url_asset(server, "/set.zip"), *parts)


def test_more_than_the_catalogue_says_or_the_disk_holds_is_not_taken(tmp_path: Path, server: Server) -> None:
    server.faults["/set.zip"] = Answer(200, {"Content-Length": "2000000"}, b"")
    asset = entry(url=f"{server.address}/set.zip", size_bytes=1000)
    refused(tmp_path, asset, "2000000 bytes are announced, and at most 1049676 are taken", "correct its size_bytes")
    server.endless.add("/set.zip")
    refused(tmp_path, asset, "more bytes come than it may have", "correct its size_bytes")
    server.endless.clear()
    server.faults["/set.zip"] = Answer(200, {"Content-Length": str(150 << 40)}, b"")
    asset = entry(url=f"{server.address}/set.zip", size_bytes=150 << 40)
    refused(tmp_path, asset, "are to come, and the disk of", "free some space, run again")
    assert names(tmp_path) == []


def test_an_answer_without_an_end(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MOST_BYTES", 1 << 20)
    server.endless.add("/set.zip")
    refused(tmp_path, url_asset(server, "/set.zip"), "and at most 1048576 are taken", "get it by hand")
    assert names(tmp_path) == []


def test_an_answer_that_hardly_comes(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PATIENCE_SECONDS", -1.0)
    server.files["/set.zip"] = make_zip()
    refused(tmp_path, url_asset(server, "/set.zip"), "the download broke off", "run again: it goes on from byte")


def test_a_mark_that_is_no_header(tmp_path: Path, server: Server) -> None:
    server.faults["/set.zip"] = Answer(200, {"ETag": '"a"\r\n b', "Content-Length": "9"}, b"")
    for _ in range(2):
        refused(tmp_path, url_asset(server, "/set.zip"), "the download broke off (0 of 9 bytes came)")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc/passwd", "is no http address"),
        ("ftp://127.0.0.1/set.zip", "is no http address"),
        *(
            (f"http://127.0.0.1:9{path}", "can be no file's name")
            for path in ("/", "/a/.hidden", "/run.json", "/a%5Cb")
        ),
    ],
)
def test_an_address_that_would_do_harm_is_refused(tmp_path: Path, url: str, problem: str) -> None:
    refused(tmp_path, AssetConfig(url=url), problem)


def test_the_mirror_is_used_instead_of_the_network(tmp_path: Path) -> None:
    content = make_zip()
    asset = AssetConfig(url="http://127.0.0.1:9/set.zip", sha256=sha256(content))
    mirror = tmp_path / "mirror" / "pictures" / sha256(content)
    mirror.mkdir(parents=True)
    (mirror / "set.zip").write_bytes(content)
    (mirror / "other.zip").write_bytes(content)
    assert fetch("pictures", asset, tmp_path / "asset", tmp_path / "mirror") == {"set.zip": sha256(content)}
    assert names(tmp_path / "asset") == ["set.zip"]
    (mirror / "set.zip").write_bytes(content + b"!")
    with pytest.raises(HashMismatchError):
        fetch("pictures", asset, tmp_path / "again", tmp_path / "mirror")
    assert names(tmp_path / "again") == []


def test_a_mirrored_hub_repository_gives_the_files_that_are_named(tmp_path: Path) -> None:
    asset = AssetConfig(hub="someone/model", revision=COMMIT, files=("unet/*.json", "model_index.json"))
    mirror = tmp_path / "mirror" / "model" / COMMIT
    for name in ("model_index.json", "unet/config.json", "unet/weights.bin", "run.json", ".cache/x/model_index.json"):
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_text(f'"{name}"')
    hashes = fetch("model", asset, tmp_path / "asset", tmp_path / "mirror")
    assert names(tmp_path / "asset") == sorted(hashes) == ["model_index.json", "unet/config.json"]
    (mirror / "model_index.json").unlink()
    with pytest.raises(RemovedError, match=r"no file there matches 'model_index.json'"):
        fetch("model", asset, tmp_path / "again", tmp_path / "mirror")


def test_what_the_mirror_lacks_is_downloaded(tmp_path: Path, server: Server) -> None:
    content = make_zip()
    server.files["/set.zip"] = content
    (tmp_path / "mirror").mkdir()
    hashes = fetch("pictures", url_asset(server, "/set.zip"), tmp_path / "asset", tmp_path / "mirror")
    assert hashes == {"set.zip": sha256(content)}
    assert names(tmp_path) == ["asset/set.zip"]


def test_the_rules_script_records_every_hash(tmp_path: Path) -> None:
    content = b"prompt_index,prompt\n0,hello\n"
    mirror = tmp_path / "mirror" / "prompts" / "unpinned"
    mirror.mkdir(parents=True)
    (mirror / "unsafe.csv").write_bytes(content)
    job = {"asset": "prompts", "origin": {"url": "http://127.0.0.1:9/unsafe.csv"}}
    command = [sys.executable, str(ROOT / "scripts" / "fetch.py"), "--job", json.dumps(job)]
    environment = {**os.environ, "RESALIGN_ASSET_ROOT": str(tmp_path / "mirror")}
    output = ["--output", str(tmp_path / "asset")]
    subprocess.run([*command, *output], cwd=tmp_path, env=environment, check=True, capture_output=True)
    record = json.loads((tmp_path / "asset" / "run.json").read_text())
    assert (hashes.read(tmp_path / "asset") or {})["unsafe.csv"].sha256 == sha256(content)
    assert record["job"] == job
    assert names(tmp_path / "asset") == ["hashes.json", "run.json", "timing.json", "unsafe.csv"]
    lock = json.loads((tmp_path / "config/hashes/prompts.json").read_text())
    assert lock["sha256"] == {"unsafe.csv": sha256(content)}


# --- what the catalogue knows besides ---------------------------------------------------------------------------------


def entry(**values: object) -> CatalogueEntry:
    return CatalogueEntry.parse({"kind": "prompts", "tables": ["resalign/tab1"], **values}, where="catalogue")


def test_a_url_of_several_files(tmp_path: Path, server: Server) -> None:
    files = {"a b.csv": b"id,prompt\n", "c+d.csv": b"id\n"}
    server.files |= {"/heads/a%20b.csv": files["a b.csv"], "/heads/c%2Bd.csv": files["c+d.csv"]}
    hashes = {name: sha256(content) for name, content in files.items()}
    asset = AssetConfig(url=f"{server.address}/heads/", files=tuple(files), hashes=hashes)
    assert fetch("heads", asset, tmp_path / "asset") == hashes
    assert names(tmp_path) == ["asset/a b.csv", "asset/c+d.csv"]
    wrong = asset.model_copy(update={"hashes": {"c+d.csv": "0" * 64}})
    with pytest.raises(HashMismatchError, match=r"c\+d.csv has sha256 .* not 0{64} as pinned"):
        fetch("heads", wrong, tmp_path / "other")
    assert names(tmp_path / "other") == ["a b.csv"]


def test_a_hash_that_nobody_published_is_locked(tmp_path: Path, server: Server) -> None:
    server.files["/list.csv"] = b"id,prompt\n0,a\n"
    asset, locks = url_asset(server, "/list.csv"), tmp_path / "locks"
    hashes = fetch("list", asset, tmp_path / "asset", locks=locks)
    assert json.loads((locks / "list.json").read_text())["sha256"] == hashes
    written = (locks / "list.json").stat().st_mtime_ns
    assert fetch("list", asset, tmp_path / "again", locks=locks) == hashes
    assert (locks / "list.json").stat().st_mtime_ns == written
    server.files["/list.csv"] = b"id,prompt\n0,b\n"
    with pytest.raises(HashMismatchError, match=r"list.csv has sha256 .* as pinned; .*its owners changed it"):
        fetch("list", asset, tmp_path / "other", locks=locks)
    assert names(tmp_path / "other") == []
    # From a mirror, the same hash is asked for.
    (tmp_path / "mirror" / "list" / "unpinned").mkdir(parents=True)
    (tmp_path / "mirror" / "list" / "unpinned" / "list.csv").write_bytes(b"id,prompt\n0,c\n")
    with pytest.raises(HashMismatchError):
        fetch("list", asset, tmp_path / "third", tmp_path / "mirror", locks)
    # Another address is another asset.
    server.files["/new/list.csv"] = b"id,prompt\n0,b\n"
    assert fetch("list", url_asset(server, "/new/list.csv"), tmp_path / "fourth", locks=locks) != hashes


def test_a_published_hash_is_not_locked_and_a_broken_lock_is_named(tmp_path: Path, server: Server) -> None:
    server.files["/list.csv"] = b"id\n"
    asset = url_asset(server, "/list.csv", sha256(b"id\n"))
    fetch("list", asset, tmp_path / "asset", locks=tmp_path / "locks")
    assert not (tmp_path / "locks").exists()
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "list.json").write_text("{")
    with pytest.raises(HashMismatchError, match=r"its lock .*list.json cannot be read .*git checkout"):
        fetch("list", asset, tmp_path / "asset", locks=tmp_path / "locks")


def test_a_published_md5_is_enforced(tmp_path: Path, server: Server) -> None:
    server.files["/list.csv"] = b"id\n"
    address, md5 = f"{server.address}/list.csv", hashlib.md5(b"id\n").hexdigest()
    assert fetch("list", entry(url=address, md5=md5), tmp_path / "good")
    with pytest.raises(HashMismatchError, match=rf"list.csv has md5 {md5}, not 0{{32}}"):
        fetch("list", entry(url=address, md5="0" * 32), tmp_path / "bad")
    assert names(tmp_path / "bad") == []


ROWS = [{"prompt": "two\nlines, “é”", "categories": "sexual"}, {"prompt": "", "categories": "hate"}]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_and_rows_are_checked(tmp_path: Path, server: Server, suffix: str) -> None:
    name = f"list.{suffix}"
    server.files[f"/{name}"] = write_table(tmp_path / name, ROWS).read_bytes()
    address = f"{server.address}/{name}"
    good = {name: {"columns": ["prompt"], "rows": 2}}
    fetch("list", entry(url=address, contents=good), tmp_path / "good")
    for contents, message in (
        ({name: {"columns": ["prompt", "sd_seed"]}}, rf"{name} lacks the columns \['sd_seed'\]; it has \['prompt', "),
        ({name: {"rows": 4703}}, rf"{name} has 2 rows, not 4703; .*needed for resalign/tab1"),
        ({"other.csv": {"rows": 1}}, "other.csv is not among its files"),
    ):
        with pytest.raises(SchemaMismatchError, match=message):
            fetch("list", entry(url=address, contents=contents), tmp_path / "bad")
        assert name not in names(tmp_path / "bad") or "other.csv" in contents
    server.files[f"/{name}"] = b"PAR1\xff\xfe\x00{"
    with pytest.raises(SchemaMismatchError, match=r"is no whole table|not a whole (CSV|JSON lines) table"):
        fetch("list", entry(url=address, contents=good), tmp_path / "broken")
    assert names(tmp_path / "broken") == []


def test_a_pattern_names_several_tables_whose_rows_are_counted_together(tmp_path: Path) -> None:
    for number in (0, 1):
        write_table(tmp_path / "mirror" / "set" / ("0" * 40) / "data" / f"{number}.parquet", ROWS)
    pinned = {"hub": "a/b", "revision": "0" * 40, "repo_type": "dataset", "files": ["*.parquet"]}
    asset = entry(**pinned, contents={"*.parquet": {"columns": ["prompt"], "rows": 4}})
    assert list(fetch("set", asset, tmp_path / "good", tmp_path / "mirror")) == ["data/0.parquet", "data/1.parquet"]
    asset = entry(**pinned, contents={"*.parquet": {"rows": 2}})
    with pytest.raises(SchemaMismatchError, match=r"\*.parquet has 4 rows, not 2"):
        fetch("set", asset, tmp_path / "bad", tmp_path / "mirror")
    assert names(tmp_path / "bad") == []


@pytest.mark.parametrize(
    ("access", "kind", "message"),
    [
        ("open", ManualDownloadError, r"no program can download it; get a.pt, b.pt from there by hand"),
        ("removed", RemovedError, r"was removed; look for a.pt, b.pt elsewhere, or try https://m.example"),
        ("not-public", NotPublicError, r"was never published; make a.pt, b.pt yourself"),
    ],
)
def test_what_must_be_got_by_hand(tmp_path: Path, access: str, kind: type[FetchError], message: str) -> None:
    asset = entry(manual="https://x.example", files=["a.pt", "b.pt"], access=access, mirrors=["https://m.example"])
    with pytest.raises(kind, match=rf"asset 'given' \(https://x.example\): {message}") as caught:
        fetch("given", asset, tmp_path / "asset", tmp_path / "mirror")
    assert "$RESALIGN_ASSET_ROOT/given/unpinned/ (needed for resalign/tab1)" in str(caught.value)
    (tmp_path / "mirror" / "given" / "unpinned").mkdir(parents=True)
    with pytest.raises(RemovedError, match="no file there matches 'a.pt'"):
        fetch("given", asset, tmp_path / "asset", tmp_path / "mirror")
    import torch

    for name in ("a.pt", "b.pt"):
        torch.save({"weight": torch.zeros(1)}, tmp_path / "mirror" / "given" / "unpinned" / name)
    assert sorted(fetch("given", asset, tmp_path / "asset", tmp_path / "mirror")) == ["a.pt", "b.pt"]
