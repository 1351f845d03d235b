"""A study was registered before its first result: what `registered.json` is worth."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from resalign.config.plan import load_plan
from resalign.config.strict import ConfigError, read_yaml
from resalign.jobs import study
from resalign.study import register

ROOT = Path(__file__).resolve().parents[2]
STUDY = "config/studies/resilience.yaml"
# Of a study, or a search, that was run.
RUN = [path.parent for path in sorted((ROOT / study.REGISTERED).glob("*/manifest.json"))]


def git(repository: Path, *arguments: str, when: int = 0) -> bytes:
    """What a command of git prints; a commit's date is ``when``, in seconds since 1970."""
    dates = {f"GIT_{who}_DATE": f"@{when} +0000" for who in ("AUTHOR", "COMMITTER")}
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *arguments]
    return subprocess.run(command, cwd=repository, env={**os.environ, **dates}, check=True, capture_output=True).stdout


def fault(repository: Path, folder: Path) -> str:
    """Why a study in a folder of a repository was not registered before its first result; '' if it was."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    registered = folder / study.REGISTRATION
    if not registered.is_file() or manifest["registered"] != json.loads(registered.read_bytes()):
        return "what was run is not what is registered"
    dates = git(repository, "log", "--format=%ct", "--", str(registered)).split()
    # What was amended after results was registered before them, and says so on its page.
    committed = int(dates[-1 if manifest["registered"].get("amended") else 0])
    began = manifest["first_result"]
    return "" if committed < began else f"registered at {committed}, and the first run began at {began}"


@pytest.mark.parametrize("folder", RUN, ids=lambda folder: folder.name)
def test_a_study_was_registered_before_it_was_run(folder: Path) -> None:
    if not (ROOT / ".git").exists() or git(ROOT, "rev-parse", "--is-shallow-repository").strip() == b"true":
        pytest.skip("a copy without its history has no dates of commits")
    assert fault(ROOT, folder) == ""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    write(tmp_path, study.REGISTRATION, {"config": "a", "code": "b"}, when=1000)
    return tmp_path


def write(repository: Path, name: str, values: dict[str, Any], *, when: int) -> None:
    (repository / name).write_text(json.dumps(values), encoding="utf-8")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "x", when=when)


@pytest.mark.parametrize(
    ("first_result", "said"), [(1500.25, ""), (1000.0, "registered at 1000"), (999.5, "registered")]
)
def test_the_registration_is_older_than_the_first_result(repository: Path, first_result: float, said: str) -> None:
    registered = {"config": "a", "code": "b"}
    write(repository, "manifest.json", {"registered": registered, "first_result": first_result}, when=2000)
    assert fault(repository, repository).startswith(said)
    assert bool(said) == bool(fault(repository, repository))


def test_what_was_run_is_what_was_registered(repository: Path) -> None:
    write(repository, "manifest.json", {"registered": None, "first_result": 1500.0}, when=2000)
    assert fault(repository, repository) == "what was run is not what is registered"
    # Whoever writes it down afterwards is told by the date.
    other = {"config": "c", "code": "b"}
    write(repository, study.REGISTRATION, other, when=3000)
    write(repository, "manifest.json", {"registered": other, "first_result": 1500.0}, when=3000)
    assert fault(repository, repository).startswith("registered at 3000")


def test_an_amendment_is_of_a_study_that_was_registered_before(repository: Path) -> None:
    amended = {"config": "c", "code": "b", "amended": [{"config": "a", "code": "b", "reason": "it raised"}]}
    write(repository, study.REGISTRATION, amended, when=2000)
    write(repository, "manifest.json", {"registered": amended, "first_result": 1500.0}, when=3000)
    assert fault(repository, repository) == ""
    write(repository, "manifest.json", {"registered": amended, "first_result": 500.0}, when=4000)
    assert fault(repository, repository).startswith("registered at 1000")


def test_a_run_is_held_to_what_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(study, "REGISTERED", tmp_path)
    monkeypatch.setattr(register, "REGISTERED", tmp_path)
    assert study.StudyJob.of(load_plan(STUDY)).registered is None
    register.main([STUDY])
    registered = json.loads((tmp_path / "resilience" / study.REGISTRATION).read_bytes())
    assert study.StudyJob.of(load_plan(STUDY)).registered == registered == study.registration(load_plan(STUDY))
    register.main([STUDY])  # again, equal
    elsewhere = load_plan(STUDY, {"resources": {"default": {"mem_mb": 9000}}})
    assert study.StudyJob.of(elsewhere).registered == registered
    lenient = load_plan(STUDY, {"study": {**read_yaml(STUDY)["study"], "utility_margin": 0.5}})
    assert study.registration(lenient)["code"] == registered["code"]
    with pytest.raises(ConfigError, match=r"is not what .*registered\.json registers"):
        study.StudyJob.of(lenient)
    with pytest.raises(ConfigError, match="registers"):
        study.StudyJob.of(load_plan(STUDY, {"tier": "smoke"}))
    file = tmp_path / "resilience" / study.REGISTRATION
    with pytest.raises(SystemExit, match="registers nothing else"):
        register.main([STUDY, "--amend", "no reason"])
    file.write_text('{"config": "a", "code": "b"}')
    with pytest.raises(SystemExit, match="error: .* registers something else"):
        register.main([STUDY])
    register.main([STUDY, "--amend", "it raised"])
    amended = {**registered, "amended": [{"config": "a", "code": "b", "reason": "it raised"}]}
    assert json.loads(file.read_bytes()) == study.StudyJob.of(load_plan(STUDY)).registered == amended
    register.main([STUDY])  # again, equal: what was amended stays there
    assert json.loads(file.read_bytes()) == amended
    with pytest.raises(SystemExit, match="error: .*give the key 'study'"):
        register.main(["config/demo.yaml"])
