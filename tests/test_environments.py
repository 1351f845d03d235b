"""The conda environments: generated, in sync with the lock, one for every stage that a rule names."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVS = ROOT / "envs"


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate", ENVS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    environments: Callable[[], dict[str, str]] = generate.render_environments
    return environments()


def test_written_files_are_what_the_generator_writes(rendered: dict[str, str]) -> None:
    written = {
        path.name: path.read_text()
        for pattern in ("*.yaml", "*.post-deploy.sh")
        for path in ENVS.glob(pattern)
        if not path.name.startswith("template.")
    }
    assert written == rendered, "envs/ does not follow its templates and lock; run 'make lock'"


def test_every_rule_names_a_generated_environment(rendered: dict[str, str]) -> None:
    workflow = ROOT / "workflow"
    named = {
        (path.parent / match).resolve()
        for path in (workflow / "Snakefile", *workflow.glob("rules/*.smk"))
        for match in re.findall(r"^\s*conda:\s*[\"']([^\"']+)[\"']", path.read_text(), flags=re.MULTILINE)
    }
    assert named == {ENVS / name for name in rendered if name.endswith(".yaml")}


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
    script = ENVS / "data.post-deploy.sh"
    finished = subprocess.run(["bash", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 1
    assert message in finished.stderr
