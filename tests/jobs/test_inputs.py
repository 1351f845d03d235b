"""The code input of a job: one file that changes when a source file does."""

import hashlib
from pathlib import Path

import pytest

from resalign.config import closure
from resalign.jobs import inputs


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inputs, "ROOT", tmp_path)


def test_it_is_written_again_only_where_a_file_has_changed(tmp_path: Path) -> None:
    for name in ("b.py", "a.py"):
        (tmp_path / name).write_text(name)
    path = Path(inputs.watched(["b.py", Path("a.py")]))
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.py", "b.py")}
    assert path.read_text() == "".join(f"{value}  {name}\n" for name, value in hashes.items())
    assert path.stat().st_mtime_ns == (tmp_path / "a.py").stat().st_mtime_ns
    path.touch()
    before = path.stat().st_mtime_ns
    assert inputs.watched(["a.py", "b.py"]) == str(path)
    assert path.stat().st_mtime_ns == before
    (tmp_path / "a.py").write_text("changed")
    assert inputs.watched(["a.py", "b.py"]) == str(path)
    assert hashes["a.py"] not in path.read_text()
    assert inputs.watched(["a.py"]) != str(path)


def test_a_stages_code_is_its_closure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "ROOT", closure.ROOT)
    listed = [
        line.split("  ")[1]
        for line in Path(inputs.code("unlearn", "resalign.unlearning.esd")).read_text().split("\n")[:-1]
    ]
    assert listed == [str(path) for path in closure.import_closure("scripts/unlearn.py", "resalign.unlearning.esd")]
    assert "src/resalign/unlearning/esd.py" in listed
