"""What a forge and a container builder read: the files parse, and name only what is there."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "ENTRYPOINT", "CMD"}
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Containerfile, lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, arguments) for name, _, arguments in (line.partition(" ") for line in lines)]


def test_the_containerfile_installs_by_make_and_copies_what_is_there() -> None:
    found = instructions()
    assert found[0][0] == "FROM"
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert ("RUN", "make .venv/.installed") in found
    for name, arguments in found:
        if name == "COPY":
            *sources, _ = arguments.split()
            assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "--from" not in str(found)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".venv", "results", "resources"} <= set(ignored)


def test_the_installation_before_the_code_has_all_that_it_reads() -> None:
    # What make's rule for .venv/.installed reads, and what the build of the package does.
    copied = {source for name, arguments in instructions() if name == "COPY" for source in arguments.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"Makefile", "pyproject.toml", "envs", "src", project["readme"], *project["license-files"]} <= copied
    assert project["scripts"] == {"resalign": "resalign.cli:main"}


def test_the_forges_ci_runs_what_ci_runs_anywhere() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert workflow["permissions"] == {"contents": "read"}
