"""The conda environment: in sync with the lock, and named by the rules."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVS = ROOT / "envs"


def test_the_environment_follows_the_lock() -> None:
    sha256 = hashlib.sha256((ENVS / "requirements.lock").read_bytes()).hexdigest()
    assert f"\nlock_sha256={sha256}\n" in (ENVS / "resalign.post-deploy.sh").read_text(), "run 'make lock'"


def test_every_rule_with_an_environment_names_the_one_that_there_is() -> None:
    workflow = ROOT / "workflow"
    named = {
        (path.parent / match).resolve()
        for path in (workflow / "Snakefile", *workflow.glob("rules/*.smk"))
        for match in re.findall(r"^\s*conda:\s*[\"']([^\"']+)[\"']", path.read_text(), flags=re.MULTILINE)
    }
    assert named == {ENVS / "resalign.yaml"} == set(ENVS.glob("*.yaml"))


def test_locks_name_no_index_and_hash_every_package() -> None:
    for lock in (ENVS / "requirements.lock", ENVS / "uv.txt"):
        text = lock.read_text()
        assert "://" not in text
        assert not re.search(r"^\s*--(index|extra|find)", text, flags=re.MULTILINE)
        requirements = re.findall(r"^[a-z0-9].*$", text, flags=re.MULTILINE)
        assert requirements
        assert all(re.match(r"^\S+==\S+ .*\\$", requirement) for requirement in requirements)


@pytest.mark.parametrize(
    ("files", "variables", "message"),
    [
        ({}, {}, "CONDA_PREFIX is not set"),
        ({}, {"CONDA_PREFIX": "."}, "run snakemake from the repository root"),
        ({"envs/requirements.lock": "other", "envs/uv.txt": ""}, {"CONDA_PREFIX": "."}, "run 'make lock'"),
    ],
)
def test_post_deploy_stops_before_it_installs(
    tmp_path: Path, files: dict[str, str], variables: dict[str, str], message: str
) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environment = {"PATH": os.environ["PATH"], **variables}
    script = ENVS / "resalign.post-deploy.sh"
    finished = subprocess.run(["bash", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 1
    assert message in finished.stderr
