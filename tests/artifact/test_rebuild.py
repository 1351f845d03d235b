import json
from pathlib import Path

from resalign.artifact import rebuild
from resalign.config.closure import ROOT

LONGEST_ARGUMENT_BYTES = 32 * 4096  # MAX_ARG_STRLEN, execve(2)
NOTHING = {"files": {}, "report": {}, "another_world": "", "series": {}, "metric_modules": {}}


def test_a_job_longer_than_an_argument_may_be_reaches_an_exhibit(tmp_path: Path) -> None:
    entry = {"exhibit": "table1", "title": "x" * LONGEST_ARGUMENT_BYTES, "files": "table1.csv", "left_out": ""}
    job = {**NOTHING, "plan": [entry]}
    made = rebuild.exhibit_rebuild("contents", "results/tiny/paper/contents.csv", job)
    assert len(json.dumps(made.job)) > LONGEST_ARGUMENT_BYTES
    assert rebuild.run(made, ROOT, tmp_path) is None
    assert entry["title"] in (tmp_path / "contents.csv").read_text()


def test_an_exhibits_job_may_be_an_argument(tmp_path: Path) -> None:
    job = json.dumps({**NOTHING, "plan": []})
    entry = rebuild.Rebuild("scripts/exhibit.py", {}, ["--exhibit", "contents", "--job", job], "paper", "contents.csv")
    assert rebuild.run(entry, ROOT, tmp_path) is None


def test_held_out_tables_of_one_label_are_kept_apart() -> None:
    jobs = [{"heldout": {"mine": "a/m.csv", "other": "b/m.csv"}}, {"heldout": {"mine": "a/m.csv"}}]
    jobs += [{"heldout": {"mine": "c/m.csv"}}, {"heldout": {"mine": "d/m.csv", "other": "b/m.csv"}}]
    folder = rebuild.HELD_OUT
    assert rebuild.held_out_names(jobs) == {
        "a/m.csv": f"{folder}/mine.csv",
        "b/m.csv": f"{folder}/other.csv",
        "c/m.csv": f"{folder}/mine.2.csv",
        "d/m.csv": f"{folder}/mine.3.csv",
    }
