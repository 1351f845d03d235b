import contextlib
import os
from pathlib import Path

import pytest

from resalign.analysis.collect import images_of
from resalign.artifact import makers, pack, rebuild, records
from resalign.config.strict import ConfigError

LONGEST_ARGUMENT_BYTES = 32 * 4096  # MAX_ARG_STRLEN, execve(2)
NOTHING = {"another_world": "", "series": {}, "metric_modules": {}}


def contents(plan: object) -> rebuild.Rebuild:
    job = {"exhibit": "contents", "files": {}, "report": {}, "words": {**NOTHING, "plan": plan}}
    return rebuild.Rebuild("exhibit", job, "paper", ("contents.csv",))


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exhibit needs few of the libraries that a server loads."""
    monkeypatch.setattr(makers, "stage_server", lambda: contextlib.nullcontext(dict(os.environ)))


def test_a_job_longer_than_an_argument_may_be_reaches_an_exhibit(tmp_path: Path) -> None:
    entry = {"exhibit": "table1", "title": "x" * LONGEST_ARGUMENT_BYTES, "files": "table1.csv", "left_out": ""}
    made = contents([entry])
    with makers.own_code(tmp_path / "unpacked", tmp_path) as maker:
        assert maker(made, tmp_path / "made") is None
    assert entry["title"] in (tmp_path / "made" / "contents.csv").read_text()


def test_a_script_that_fails_says_so_in_a_line(tmp_path: Path) -> None:
    made = contents(3)
    with makers.own_code(tmp_path / "unpacked", tmp_path) as maker:
        said = maker(made, tmp_path / "made")
    assert said is not None
    assert said.startswith("error: --job: ")
    assert "\n" not in said


def test_held_out_tables_of_one_label_are_kept_apart() -> None:
    jobs = [{"heldout": {"mine": "a/m.csv", "other": "b/m.csv"}}, {"heldout": {"mine": "a/m.csv"}}]
    jobs += [{"heldout": {"mine": "c/m.csv"}}, {"heldout": {"mine": "d/m.csv", "other": "b/m.csv"}}]
    folder = records.HELD_OUT
    assert records.held_out_names(jobs) == {
        "a/m.csv": f"{folder}/mine/m.csv",
        "b/m.csv": f"{folder}/other/m.csv",
        "c/m.csv": f"{folder}/mine.2/m.csv",
        "d/m.csv": f"{folder}/mine.3/m.csv",
    }


def test_two_sets_never_share_a_folder() -> None:
    jobs = [
        {"heldout": {"mine": "a/metadata.csv", "mine.2": "b/metadata.jsonl"}},
        {"heldout": {"mine": "c/metadata.csv"}},
    ]
    folders = [Path(name).parent.name for name in records.held_out_names(jobs).values()]
    assert folders == ["mine", "mine.2", "mine.3"]


@pytest.mark.parametrize("at_the_top", [False, True])
def test_held_out_images_are_counted_in_the_archive_by_all_tables(tmp_path: Path, at_the_top: bool) -> None:
    mine, unpacked = tmp_path / "mine", tmp_path / "unpacked"
    texts = {"cats/metadata.csv": "file_name,text\na.png,a\nb.png,b\n", "dogs/old/metadata.jsonl": "{}\n"}
    texts |= {"metadata.csv": "file_name,text\ntop.png,top\n"} if at_the_top else {}
    for name, text in {**texts, "cats/a.png": "x", ".hidden/metadata.csv": "file_name\na.png\n"}.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)
    [(table, name)] = records.held_out_names([{"heldout": {"mine": str(mine / "metadata.csv")}}]).items()
    members = pack._caption_tables(Path(table), name)
    assert set(members) == {f"{records.HELD_OUT}/mine/{inner}" for inner in texts}
    for member, content in members.items():
        (unpacked / member).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(content, Path)
        (unpacked / member).write_bytes(content.read_bytes())
    assert images_of(unpacked / name) == images_of(Path(table)) == 3 + at_the_top


def test_a_held_out_set_without_any_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine/metadata.csv: no such file, and the archive must have it"):
        pack._caption_tables(tmp_path / "mine" / "metadata.csv", "inputs/held-out/mine/metadata.csv")
