"""What must not be published: secrets are found by line, folders of this machine get no names."""

import json
from pathlib import Path

import pytest

from resalign import disclosure

# Put together here, so that no scanner takes this file for what it tests.
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP"
SECRETS = {
    "a private key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "a token of the Hugging Face hub": "token: hf" + f"_{LETTERS[:34]}",
    "a GitHub token": "gh" + f"p_{LETTERS[:30]}012345",
    "an AWS access key": "AK" + "IAIOSFODNN7EXAMPLE",
    "a password in an address": "url: https://alice:" + "hunter2@example.org/set.zip",
    "a token in an address": "https://example.org/set.zip?X-Amz-Signature=" + "0123456789abcdef0123",
    "a key or password": "WANDB_API_" + "KEY=0123456789abcdef0123456789abcdef",
}


@pytest.mark.parametrize("prefix", ["AK" + "IA", "AS" + "IA", "AB" + "IA", "AC" + "CA", "A3" + "TX"])
def test_every_kind_of_aws_key_is_found(prefix: str) -> None:
    assert list(disclosure.secrets(f"{prefix}IOSFODNN7EXAMPLE")) == [(1, "an AWS access key")]


@pytest.mark.parametrize(("kind", "line"), SECRETS.items())
def test_secrets_are_found_by_their_line(kind: str, line: str) -> None:
    assert list(disclosure.secrets(f"one\n  {line}\nthree")) == [(2, kind)]
    assert not list(disclosure.secrets(f"{line}  # {disclosure.ALLOWED}"))


@pytest.mark.parametrize(
    "line",
    [
        "hf_hub_download(repo_id, revision=revision)",
        "api_key = os.environ['WANDB_API_KEY']",
        "password: null",
        "sha256: 3fbcd2c5f0a5b8f3b0a1d0a6f3bcd2c5f0a5b8f3b0a1d0a6f3bcd2c5f0a5b8f3",
        "https://example.org/page?id=0123456789abcdef0123#part",
        "https://{user}:{password}@example.org",
        "training.access_key_of_row = row_2_of_3",
    ],
)
def test_what_is_none_is_let_through(line: str) -> None:
    assert not list(disclosure.secrets(line))


def test_in_prose_a_word_for_a_key_is_no_secret_and_a_token_is() -> None:
    loose = SECRETS["a key or password"]
    assert not list(disclosure.secrets(loose, is_prose=True))
    for kind, line in SECRETS.items():
        if line != loose:
            assert list(disclosure.secrets(f"{loose} {line}", is_prose=True)) == [(1, kind)]


def test_names_of_files_that_hold_secrets() -> None:
    held = (".env", "config/.env.local", "id_rsa", "deploy/server.pem", ".netrc", "x/.git-credentials")
    assert all(map(disclosure.secret_name, held))
    assert not any(map(disclosure.secret_name, (".env.example", "environment.py", "id_rsa.pub", "monkey.py")))


def test_folders_of_this_machine_get_no_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, clone = tmp_path / "home" / "alice", tmp_path / "clone"
    clone.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(clone)
    text = f'{{"path": "{home}/data", "log": "{clone}/logs/x.log", "other": "{home}-2/data"}}'
    assert disclosure.without_places(text) == f'{{"path": "~/data", "log": "./logs/x.log", "other": "{home}-2/data"}}'


def test_a_home_with_an_accent_gets_no_name_in_ascii_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(home := tmp_path / "jos\N{LATIN SMALL LETTER E WITH ACUTE}"))
    values = {"home": str(home), "data": f"{home}/data", "note": f"in\n{home}/data"}
    short = {"home": "~", "data": "~/data", "note": "in\n~/data"}
    assert disclosure.values_without_places(values) == short
    for text in (json.dumps(values), json.dumps(values, ensure_ascii=False)):
        assert json.loads(disclosure.without_places(text)) == short
