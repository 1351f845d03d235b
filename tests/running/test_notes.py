"""Snakemake's notes: a damaged result is noted as incomplete, and only while it is damaged."""

from pathlib import Path

import pytest

from resalign import hashes
from resalign.running.notes import INCOMPLETE, note_damage, note_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    found = Path("results/runs/unlearn/a/seed-0")
    found.mkdir(parents=True)
    (found / "run.json").write_text("{}")
    (found / "weights.safetensors").write_text("weights")
    hashes.seal(found)
    return found


def test_a_whole_result_has_no_note(folder: Path) -> None:
    assert list(note_damage(Path("results"))) == []
    assert not INCOMPLETE.exists()


def test_a_note_comes_and_goes_with_the_damage(folder: Path) -> None:
    killed = note_of("results/other.csv", INCOMPLETE)  # Snakemake's own
    killed.parent.mkdir(parents=True)
    killed.write_text('{"external_jobid": null}')
    (folder / "other-jobs.csv").touch()
    (folder / "weights.safetensors").write_text("weigh")
    assert list(note_damage(Path("results"))) == [f"{folder}/weights.safetensors: has 5 bytes, not 7"]
    # The job's own record, and nothing of other jobs that lies beside it.
    assert {p for p in INCOMPLETE.rglob("*") if p.is_file()} == {killed, note_of(folder / "run.json", INCOMPLETE)}
    (folder / "weights.safetensors").write_text("weights")  # from a copy
    assert list(note_damage(Path("results"))) == []
    assert [path for path in INCOMPLETE.rglob("*") if path.is_file()] == [killed]


def test_a_missing_file_is_damage_though_the_record_is_there(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    assert list(note_damage(Path("results"))) == [f"{folder}/weights.safetensors: is missing"]
    assert note_of(folder / "run.json", INCOMPLETE).is_file()
