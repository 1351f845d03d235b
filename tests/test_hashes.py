"""The hashes of results: every bit counts, and a reader is told which file is damaged and what to do."""

import itertools
import json
import os
from pathlib import Path

import pytest

from resalign import hashes, shards
from resalign.hashes import DamagedError, Entry

RECORD = json.dumps({"source_sha256": "0"})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A job's folder, with a file below it, another job's folder, and what is hidden."""
    folder = tmp_path / "results" / "runs" / "attack" / "a" / "seed-0"
    for name, content in {
        "run.json": RECORD,
        "checkpoints.json": "{}",
        "lora/step-1.safetensors": "weights",
        "other/run.json": RECORD,
        "other/table.csv": "a,b",
        ".hidden": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    hashes.seal(folder)
    return folder


NANOSECONDS = itertools.count(10**18)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    time = next(NANOSECONDS)  # the clock of a file system may stand still between two flips
    os.utime(path, ns=(time, time))


def test_a_job_lists_its_own_files(made: Path) -> None:
    listed = hashes.read(made)
    assert listed is not None
    assert sorted(listed) == ["checkpoints.json", "lora/step-1.safetensors", "run.json"]
    assert listed["checkpoints.json"] == Entry(2, Entry.of(b"{}").sha256)


def test_parts_are_a_jobs_own_where_others_lie_beside_them(made: Path) -> None:
    hashes.seal(made, ["lora", "not-made"])
    assert sorted(hashes.read(made) or {}) == ["lora/step-1.safetensors", "run.json"]


@pytest.mark.parametrize("inside", ["", "lora", "lora/step-1.safetensors", "checkpoints.json"])
def test_what_is_as_it_was_written_is_read(made: Path, inside: str) -> None:
    assert hashes.verified(made / inside) == made / inside


def test_what_no_job_has_listed_is_the_users_own(made: Path, tmp_path: Path) -> None:
    (made / "notes.txt").write_text("mine")
    (tmp_path / "run.json").write_text("{}")  # of another program
    assert hashes.verified(made / "notes.txt").is_file()
    assert hashes.verified(tmp_path / "run.json").is_file()
    assert hashes.verified(tmp_path) == tmp_path


def test_every_byte_of_a_file_and_of_the_list_counts(made: Path) -> None:
    for name in ("checkpoints.json", "lora/step-1.safetensors", hashes.NAME):
        for place in range((made / name).stat().st_size):
            bit = 8 * place + place % 8
            flip(made / name, bit)
            where = made / ("lora" if name == hashes.NAME else name)
            with pytest.raises(DamagedError, match=name):
                hashes.verified(where)
            assert len([p for p in hashes.problems(made) if p.startswith(f"{made / name}: ")]) == 1
            flip(made / name, bit)
    assert not [problem for problem in hashes.problems(made) if "other" not in problem]


def test_a_missing_file_of_a_folder_is_damage(made: Path) -> None:
    (made / "lora/step-1.safetensors").unlink()
    with pytest.raises(DamagedError, match=r"step-1.safetensors: is missing.*the next run makes it again"):
        hashes.verified(made)
    with pytest.raises(DamagedError, match="is missing"):
        hashes.verified(made / "lora/step-1.safetensors")


def test_a_record_without_hashes_is_of_a_job_that_was_cut_short(made: Path) -> None:
    with pytest.raises(DamagedError, match=r"other: has a run.json and no hashes.json.*remove"):
        hashes.verified(made / "other/table.csv")
    assert [p for p in hashes.problems(made)] == [
        f"{made}/other: has no hashes.json; remove {made}/other/run.json, and the next run makes it again"
    ]


def test_missing_and_cut_files_are_seen_without_reading(made: Path) -> None:
    results = made.parents[3]
    assert list(hashes.incomplete(results)) == []
    flip(made / "checkpoints.json", 0)
    assert list(hashes.incomplete(results)) == []  # by size alone
    os.truncate(made / "checkpoints.json", 1)
    (made / "lora/step-1.safetensors").unlink()
    [(folder, problem)] = hashes.incomplete(results)
    assert (folder, problem) == (made, f"{made}/checkpoints.json: has 1 bytes, not 2, and 1 more")
    assert hashes.records_of(folder) == [made / "run.json"]
    (made / "run.json").unlink()  # by Snakemake, before the job runs again
    assert list(hashes.incomplete(results)) == []


def test_a_store_of_images_is_made_by_the_jobs_of_all_tiers(tmp_path: Path) -> None:
    run = tmp_path / "results/runs/sample/a/seed-0"
    store = run / "images/unsafe/step-2"
    store.mkdir(parents=True)
    hashes.write(store, {"p.0.png": Entry(1, "0" * 64)})
    for tier in ("small", "paper"):
        (run / tier).mkdir()
        (run / tier / "run.json").write_text(RECORD)
    assert hashes.records_of(store) == [run / "paper/run.json", run / "small/run.json"]
    [(folder, _)] = hashes.incomplete(tmp_path / "results")
    assert folder == store


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"members": {"a": 1}}', b"[" * 100_000, b"\xff", b'{"members": []}']
)
def test_a_list_that_is_none_is_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(DamagedError) as told:
        hashes.from_text(text, "here/hashes.json")
    assert str(told.value).startswith("here/hashes.json: ")
    assert "\n" not in str(told.value)


def test_the_state_of_jobs_is_no_result(made: Path) -> None:
    results = made.parents[3]
    kept = results / ".state/runs/a/finished"
    kept.mkdir(parents=True)
    hashes.write(kept, {"gone": Entry(1, "0" * 64)})
    assert kept not in hashes.sealed_folders(results)


def test_a_file_of_that_name_of_the_users_own_is_no_list(tmp_path: Path) -> None:
    (tmp_path / hashes.NAME).write_text('{"model/config.json": "abc"}')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert hashes.verified(tmp_path / "model" / "config.json").is_file()
    assert list(hashes.incomplete(tmp_path)) == []


def test_what_this_process_is_writing_is_not_held_against_an_earlier_list(made: Path) -> None:
    with hashes.being_written(made):
        (made / "checkpoints.json").write_text("another")
        assert hashes.verified(made / "checkpoints.json").is_file()
    with pytest.raises(DamagedError):
        hashes.verified(made / "checkpoints.json")


def test_linked_folders_are_looked_into(made: Path, tmp_path: Path) -> None:
    (made.parents[3] / "runs").rename(tmp_path / "scratch")
    (made.parents[3] / "runs").symlink_to(tmp_path / "scratch")
    (made / "checkpoints.json").unlink()
    assert len(list(hashes.incomplete(made.parents[3]))) == 1
    assert any("checkpoints.json: is missing" in problem for problem in hashes.problems(made.parents[3]))


def test_a_listed_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"0.png: is not the file that images.csv lists"):
        hashes.check_listed(tmp_path / "0.png", "0" * 64, "images.csv")


def test_an_image_that_was_not_kept_is_told_from_one_that_was_lost(tmp_path: Path) -> None:
    store = tmp_path / "seed-0/images/unsafe/step-0"
    (store / "0001.zip").parent.mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"a")
    shards.write(store / "0001.zip", [tmp_path / "a.png"])
    entry = Entry.of(store / "0001.zip/a.png")
    assert entry == Entry.of(b"a")
    hashes.write(store, {"0001.zip/a.png": entry, "0001.zip/b.png": entry, "c.png": entry})
    (tmp_path / "seed-0/small").mkdir()
    (tmp_path / "seed-0/small/run.json").write_text(RECORD)
    hashes.seal(tmp_path / "seed-0/small")
    assert hashes.verified(store / "0001.zip/a.png") == store / "0001.zip/a.png"
    for lost in ("0001.zip/b.png", "c.png"):
        with pytest.raises(DamagedError, match=f"{lost}: is missing, and hashes.json lists it"):
            hashes.check_listed(store / lost, entry.sha256, "images.csv")
    for gone in ("0001.zip/d.png", "0002.zip/a.png", "d.png"):
        with pytest.raises(DamagedError, match=f"{gone}: is no longer there: keep_images"):
            hashes.check_listed(store / gone, entry.sha256, "images.csv")
    hashes.write(store, {"0001.zip/a.png": entry})
    assert hashes.verified(store / "0001.zip") == store / "0001.zip"
    assert not list(hashes.problems(tmp_path))
    assert store / "0001.zip" not in hashes.unlisted(tmp_path)


def test_equal_paths_of_two_working_directories_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, content in (("one", "a"), ("other", "b")):
        (tmp_path / place / "job").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        Path("job/scores.csv").write_text(content)
        Path("job/run.json").write_text(RECORD)
        hashes.seal(Path("job"))
        for name in ("scores.csv", hashes.NAME):
            os.utime(f"job/{name}", ns=(10**18, 10**18))
        assert hashes.file_hash(Path("job/scores.csv")) == Entry.of(content.encode()).sha256
        assert hashes.verified("job/scores.csv").is_file()
