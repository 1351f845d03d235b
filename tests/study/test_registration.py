"""A study's configuration stood in git before its first result: what the registration is worth."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
REGISTERED = [
    folder
    for folder in sorted((ROOT / "docs" / "studies").iterdir())
    if (folder / "manifest.json").is_file() and "registered" in json.loads((folder / "manifest.json").read_bytes())
]


def git(repository: Path, *arguments: str, when: int = 0) -> bytes:
    """What a command of git prints; a commit's date is ``when``, in seconds since 1970."""
    dates = {f"GIT_{who}_DATE": f"@{when} +0000" for who in ("AUTHOR", "COMMITTER")}
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *arguments]
    return subprocess.run(command, cwd=repository, env={**os.environ, **dates}, check=True, capture_output=True).stdout


def faults(repository: Path, manifest: dict[str, Any]) -> list[str]:
    """Registered files that are others than the committed ones, or that were committed after the first result began."""
    found = []
    for path, sha256 in manifest["registered"].items():
        if hashlib.sha256(git(repository, "show", f"HEAD:{path}")).hexdigest() != sha256:
            found.append(f"{path}: not the file that was run")
        committed = git(repository, "log", "-1", "--format=%ct", "--", path)
        if int(committed) >= manifest["first_result"]:
            found.append(f"{path}: committed at {int(committed)}, the first run began at {manifest['first_result']}")
    return found


@pytest.mark.parametrize("folder", REGISTERED, ids=lambda folder: folder.name)
def test_a_study_was_registered_before_it_was_run(folder: Path) -> None:
    if not (ROOT / ".git").exists() or git(ROOT, "rev-parse", "--is-shallow-repository").strip() == b"true":
        pytest.skip("a copy without its history has no dates of commits")
    assert faults(ROOT, json.loads((folder / "manifest.json").read_bytes())) == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, {"base.yaml": "a: 1\n", "study.yaml": "extends: base.yaml\n"}, when=1000)
    return tmp_path


def commit(repository: Path, files: dict[str, str], *, when: int) -> None:
    for name, text in files.items():
        (repository / name).write_text(text, encoding="utf-8")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "x", when=when)


def manifest_of(repository: Path, first_result: float) -> dict[str, Any]:
    registered = {
        name: hashlib.sha256((repository / name).read_bytes()).hexdigest() for name in ("study.yaml", "base.yaml")
    }
    return {"registered": registered, "first_result": first_result}


def test_a_configuration_that_is_older_than_the_first_result_passes(repository: Path) -> None:
    manifest = manifest_of(repository, first_result=1500.25)
    assert faults(repository, manifest) == []
    commit(repository, {"result.csv": "1\n"}, when=2000)
    assert faults(repository, manifest) == []


@pytest.mark.parametrize("first_result", [1000.0, 999.5])
def test_a_configuration_that_is_no_older_fails(repository: Path, first_result: float) -> None:
    (base, study) = sorted(faults(repository, manifest_of(repository, first_result)))
    assert base.startswith("base.yaml: committed at 1000")
    assert study.startswith("study.yaml: committed at 1000")


def test_a_file_that_is_changed_afterwards_fails(repository: Path) -> None:
    manifest = manifest_of(repository, first_result=1500.0)
    commit(repository, {"base.yaml": "a: 2\n"}, when=2000)
    said = faults(repository, manifest)
    assert said == [
        "base.yaml: not the file that was run",
        "base.yaml: committed at 2000, the first run began at 1500.0",
    ]
    # Whoever writes the new hash into the manifest is told by the date.
    assert len(faults(repository, manifest_of(repository, first_result=1500.0))) == 1
