"""docs/extending.md: its members are found as new files, its tests pass, and the contract suites hold them."""

import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from resalign.config.experiment import Experiment
from resalign.config.plan import Plan

from .blocks import ROOT, blocks

PAGE = "docs/extending.md"
FILES = dict(blocks(PAGE, "python"))
MEMBERS = {title: text for title, text in FILES.items() if title.startswith("src/resalign/")}
TESTS = {title: text for title, text in FILES.items() if title.startswith("tests/")}
# Lets a family's package find further members in the folder of its name below the one of this module.
PLUGIN = """
import importlib
from pathlib import Path

for folder in (Path(__file__).parent / "src" / "resalign").iterdir():
    importlib.import_module(f"resalign.{folder.name}").__path__.append(str(folder))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The members as files, with the plugin beside them."""
    folder = tmp_path_factory.mktemp("extended")
    for title, text in MEMBERS.items():
        (folder / title).parent.mkdir(parents=True, exist_ok=True)
        (folder / title).write_text(text, encoding="utf-8")
    (folder / "extended.py").write_text(PLUGIN, encoding="utf-8")
    return folder


@pytest.fixture
def members(tree: Path) -> Iterator[None]:
    """The members in their families' packages, for one test."""
    folders = sorted((tree / "src" / "resalign").iterdir())
    packages = [importlib.import_module(f"resalign.{folder.name}") for folder in folders]
    for package, folder in zip(packages, folders, strict=True):
        package.__path__.append(str(folder))
    importlib.invalidate_caches()
    yield
    for package, folder in zip(packages, folders, strict=True):
        package.__path__.remove(str(folder))
        for path in folder.glob("*.py"):
            sys.modules.pop(f"{package.__name__}.{path.stem}", None)
            if hasattr(package, path.stem):
                delattr(package, path.stem)


def test_each_member_is_followed_by_its_test() -> None:
    kinds = [title.split("/")[-2] for title in FILES]
    assert kinds[::2] == kinds[1::2] == ["unlearning", "attacks", "scorers", "metrics"]


@pytest.mark.parametrize("title", TESTS)
def test_the_pages_tests_pass(title: str, members: None, request: pytest.FixtureRequest) -> None:
    found: dict[str, object] = {}
    exec(compile(TESTS[title], title, "exec"), found)
    functions = [value for name, value in found.items() if name.startswith("test_") and inspect.isfunction(value)]
    assert functions
    for function in functions:
        function(**{name: request.getfixturevalue(name) for name in inspect.signature(function).parameters})


def test_the_experiment_of_all_four_is_planned(members: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (text,) = [text for title, text in blocks(PAGE, "yaml") if title == "my.yaml"]
    plan = Plan(Experiment(yaml.safe_load(text), where=PAGE))
    assert any(run.startswith("ascent") for run in plan.unlearn)
    assert plan.experiment.metrics["colourfulness"].name == "colourfulness"
    (attack,) = [label for label, member in plan.experiment.attacks.items() if member.name == "attention_only"]
    assert attack == "attention"


@pytest.mark.slow
def test_the_contract_suites_hold_the_members(tree: Path) -> None:
    suites = [f"tests/{family}/test_contract.py" for family in ("unlearning", "attacks", "scorers", "metrics")]
    names = " or ".join({Path(title).stem for title in MEMBERS})
    command = [sys.executable, "-m", "pytest", "-p", "extended", "-p", "no:cacheprovider", "-n", "0"]
    paths = os.pathsep.join([str(tree), str(ROOT / "src")])
    done = subprocess.run(
        [*command, "-m", "not slow", "-k", names, *suites, "--tb=short"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in done.stdout or "[100%]" in done.stdout
