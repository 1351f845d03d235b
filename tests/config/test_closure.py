"""The code that a stage runs: its imports, wherever they stand."""

import functools
from pathlib import Path

import pytest

from resalign.config import closure

FILES = {
    "scripts/run.py": "from resalign.running.stage import main\n",
    "scripts/other.py": "import json\n",
    "src/resalign/__init__.py": "",
    "src/resalign/running/stage.py": "def main():\n    from resalign.deep.hidden import work\n    work()\n",
    "src/resalign/deep/__init__.py": '"""Deep."""\n',
    "src/resalign/deep/hidden.py": "import resalign.constants\nfrom resalign.deep import sibling, NAME\n",
    "src/resalign/deep/sibling.py": "try:\n    from resalign.cycle import a\nexcept ImportError:\n    pass\n",
    "src/resalign/constants.py": "import numpy\nimport torch\n",
    "src/resalign/cycle.py": "import resalign.deep.sibling\n",
    "src/resalign/unrelated.py": "from resalign import stage\n",
    "src/resalign/typed.py": "import typing\nif typing.TYPE_CHECKING:\n    from resalign import constants\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of its own, which the closure is taken of."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(closure, "ROOT", tmp_path)
    monkeypatch.setattr(closure, "PACKAGE", tmp_path / "src" / "resalign")
    for cached in ("_imported_files", "_files_on_the_way"):
        monkeypatch.setattr(closure, cached, functools.cache(getattr(closure, cached).__wrapped__))
    return tmp_path


def names(*starts: str) -> set[str]:
    found = closure.import_closure(*starts)
    assert found == sorted(found)
    return {path.as_posix() for path in found}


def test_follows_imports_into_function_bodies_and_packages(tree: Path) -> None:
    assert names("scripts/run.py") == {
        "scripts/run.py",
        "src/resalign/__init__.py",
        "src/resalign/running/stage.py",
        "src/resalign/deep/__init__.py",
        "src/resalign/deep/hidden.py",
        "src/resalign/deep/sibling.py",
        "src/resalign/constants.py",
        "src/resalign/cycle.py",
    }


def test_modules_join_scripts(tree: Path) -> None:
    assert names("scripts/other.py") == {"scripts/other.py"}
    expected = {"scripts/other.py", "src/resalign/constants.py", "src/resalign/__init__.py"}
    assert names("scripts/other.py", "resalign.constants") == expected
    # A module's packages run before it; imports for the type checker do not count.
    assert {"src/resalign/__init__.py", "src/resalign/deep/__init__.py"} <= names("resalign.deep.sibling")
    assert names("resalign.typed") == {"src/resalign/typed.py", "src/resalign/__init__.py"}
    with pytest.raises(FileNotFoundError, match=r"no module resalign\.nothing"):
        closure.import_closure("resalign.nothing")


def test_source_hash_sees_every_byte_and_name(tree: Path) -> None:
    files = closure.import_closure("scripts/run.py")
    before = closure.source_hash(files)
    assert closure.source_hash(reversed(files)) == before
    path = tree / "src/resalign/constants.py"
    path.write_text(path.read_text() + "# a comment\n")
    changed = closure.source_hash(files)
    assert changed != before
    assert closure.source_hash(files[1:]) != changed


# --- this package -----------------------------------------------------------------------------------------------------


def real(*starts: str) -> set[str]:
    return {path.as_posix().removeprefix("src/resalign/") for path in closure.import_closure(*starts)}


def test_a_methods_closure_holds_what_it_uses_and_no_other_method() -> None:
    esd, resalign = (real("scripts/unlearn.py", f"resalign.unlearning.{name}") for name in ("esd", "resalign"))
    assert {"unlearning/esd.py", "objectives/erasure.py", "diffusion/sampling.py", "scripts/unlearn.py"} <= esd
    assert {"unlearning/resalign.py", "bilevel/hvp.py", "bilevel/solving.py"} <= resalign
    assert not {name for name in esd if name.startswith("bilevel/")}
    assert "unlearning/resalign.py" not in esd
    assert "unlearning/esd.py" not in resalign


def test_no_stage_depends_on_the_demo_world_the_report_or_the_plan() -> None:
    for script in ("unlearn", "attack", "sample", "score"):
        found = real(f"scripts/{script}.py")
        assert not {name for name in found if name.split("/")[0] in ("digits", "report")}, script
        assert not {"config/experiment.py", "config/plan.py"} & found, script


def test_every_file_of_the_closure_is_in_the_repository() -> None:
    for path in closure.import_closure("scripts/report.py", "resalign.metrics.ip"):
        assert (closure.ROOT / path).is_file()
