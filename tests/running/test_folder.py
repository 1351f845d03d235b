"""A job's saved state: whole or absent, of this computation or none, owned by one process."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from resalign.running.folder import StateError, StateFolder, state_folder

FINGERPRINT = {"job": {"lr": 0.1}, "seed": 0}


def saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pt"))


def test_the_last_of_several_states_is_loaded_and_alone_is_kept(tmp_path: Path) -> None:
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        assert folder.load() is None
        for position in range(3):
            folder.save({"position": position, "weights": torch.ones(2)})
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        state = folder.load()
        assert folder.attempts == 2
    assert state is not None
    assert state["position"] == 2
    assert len(saved(tmp_path)) == 1


@pytest.mark.parametrize("other", [{"job": {"lr": 0.2}, "seed": 0}, {"job": {"lr": 0.1}, "seed": 0, "source": "new"}])
def test_another_computation_starts_afresh_and_says_so(
    other: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        folder.save({"position": 1})
    with StateFolder(tmp_path, other) as folder:
        assert folder.load() is None
        assert folder.attempts == 1
    changed = "source" if "source" in other else "job"
    assert f"what was saved is of another {changed}; starting afresh" in caplog.text
    assert not saved(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:40] + b"?" + data[41:], lambda data: b""]
)
def test_a_damaged_state_is_refused_and_left_where_it_is(damage: object, tmp_path: Path) -> None:
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        folder.save({"position": 1, "weights": torch.ones(20)})
    [path] = saved(tmp_path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with StateFolder(tmp_path, FINGERPRINT) as folder, pytest.raises(StateError, match="damaged .* delete"):
        folder.load()
    assert saved(tmp_path) == [path]


def test_a_state_that_was_being_written_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        folder.save({"position": 1})
        (tmp_path / "state.part").write_bytes(b"half")
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        state = folder.load()
    assert state == {"position": 1}


def test_two_processes_cannot_be_at_one_job(tmp_path: Path) -> None:
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        folder.save({"position": 1})
        with pytest.raises(StateError, match=f"process {os.getpid()} on .* is at this very job; wait for it or end it"):
            StateFolder(tmp_path, FINGERPRINT)
        assert folder.load() == {"position": 1}
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        assert folder.load() == {"position": 1}


def test_a_disk_that_is_full_keeps_the_state_before(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        folder.save({"position": 1})
        (tmp_path / "state.part").symlink_to("/dev/full")
        with pytest.raises(StateError, match="No space left on device.*the one before is kept; free some space"):
            folder.save({"position": 2, "weights": torch.ones(100_000)})
        assert folder.load() == {"position": 1}
        folder.save({"position": 2})
        assert folder.load() == {"position": 2}


def test_of_an_ended_job_only_the_lock_is_left(tmp_path: Path) -> None:
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        folder.save({"position": 1})
        folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        assert (folder.load(), folder.attempts) == (None, 1)


def test_a_folder_that_has_gone_is_one_clear_error(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "state", FINGERPRINT) as folder:
        shutil.rmtree(folder.path)
        with pytest.raises(StateError, match=r"cannot be saved \(No such file or directory\)"):
            folder.save({"position": 1})


def test_the_state_lies_where_no_rule_declares_it() -> None:
    assert state_folder(Path("results/runs/attack/a-0/seed-1")) == Path("results/.state/runs/attack/a-0/seed-1")


BROKEN = pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"fingerprint": 1, "attempts": 1}', "[" * 10_000, "\udcff"], ids=range(6)
)


@BROKEN
def test_a_state_of_which_nobody_knows_the_job_is_left_where_it_is(tmp_path: Path, content: str) -> None:
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        folder.save({"position": 1})
    (tmp_path / "about.json").write_text(content, errors="surrogateescape")
    with pytest.raises(StateError, match=f"about.json: cannot be read .*delete {tmp_path} to begin") as caught:
        StateFolder(tmp_path, FINGERPRINT)
    assert "\n" not in str(caught.value)
    assert len(saved(tmp_path)) == 1
    print(caught.value)  # noqa: T201


@BROKEN
def test_a_folder_of_which_nobody_knows_the_job_begins_afresh_where_nothing_is_lost(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "about.json").write_text(content, errors="surrogateescape")
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        assert folder.attempts == 1
    assert "about.json: cannot be read" in caplog.text


def test_what_a_killed_attempt_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        folder.save({"position": 1})
    for name in ("state.part", ".about.json.99999999.part"):
        (tmp_path / name).write_bytes(b"half")
    with StateFolder(tmp_path, FINGERPRINT) as folder:
        assert folder.load() == {"position": 1}
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith("part")) == []
