"""The real workflow, the real profile, a real SLURM: whatever happens, the results are those of an undisturbed run."""

import csv
import re
from concurrent.futures import Future

from .grid import Grid

Disturbed = dict[str, "Future[Grid]"]


def same_results(grid: Grid, whole: Grid) -> None:
    """The command ended well, and every file is the undisturbed run's to the byte."""
    assert grid.runs[-1].returncode == 0, grid.log.read_text()[-5000:]
    found, expected = grid.results(), whole.results()
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def test_a_grid_completes(whole: Grid) -> None:
    assert set(whole.cluster.ended(whole.folder)) == {"COMPLETED"}
    with (whole.folder / "results/grid/tables/table1.csv").open() as table:
        assert {row["model"] for row in csv.DictReader(table)} == {"base", "graddiff"}


def test_short_jobs_share_a_slurm_job_that_may_take_as_long_as_all_of_them(whole: Grid) -> None:
    comments = list(whole.cluster.jobs(whole.folder).values())
    assert sum("sample_score" in comment for comment in comments) == 4
    assert not [comment for comment in comments if comment.startswith(("rule_sample", "rule_score"))]
    limits = whole.cluster.requests(whole.folder)
    # Ten minutes and 3000 MB each: one after the other.
    assert {request for comment, request in limits if "sample_score" in comment} == {("20:00", "3000M", "1")}


def test_a_cancelled_job_goes_on_from_its_state(disturbed: Disturbed, whole: Grid) -> None:
    grid = disturbed["scancelled"].result()
    assert grid.cluster.ended(grid.folder)[:2] == ["CANCELLED", "COMPLETED"]
    assert grid.attempts("attack/graddiff*") == [2]
    same_results(grid, whole)


def test_a_job_stops_itself_before_its_time_limit_and_goes_on_with_more(disturbed: Disturbed, whole: Grid) -> None:
    grid = disturbed["time_limit"].result()
    # SLURM's own state would be TIMEOUT. The node may die under a later attempt: see `node_crash`.
    assert grid.cluster.ended(grid.folder)[0] == "FAILED"
    assert "the time limit is near" in grid.log.read_text()
    assert grid.attempts("attack/graddiff*")[0] >= 2
    same_results(grid, whole)


def test_a_job_that_needs_more_memory_gets_it(disturbed: Disturbed, whole: Grid) -> None:
    grid = disturbed["too_little_memory"].result()
    # The one that was killed, the next attempt, the measured frames, the report.
    assert grid.cluster.ended(grid.folder) == ["FAILED", "COMPLETED", "COMPLETED", "COMPLETED"]
    assert "exceeded memory limit" in grid.log.read_text()
    # The next attempt has twice as much of both, and each member of the group its own hour, at first, of the two.
    first, second = (asked for comment, asked in grid.cluster.requests(grid.folder) if "sample_score" in comment)
    assert (first[0], second[0]) == ("2:00:00", "4:00:00")
    assert int(second[1].rstrip("M")) == 2 * int(first[1].rstrip("M"))
    assert set(re.findall(r"--limit-minutes (\d+)", grid.log.read_text())) == {"60"}
    same_results(grid, whole)


def test_a_killed_workflow_is_recovered_and_goes_on(disturbed: Disturbed, whole: Grid) -> None:
    grid = disturbed["killed_master"].result()
    while_alive, after = grid.recovered
    assert while_alive.returncode == 1
    assert "Snakemake is running here" in while_alive.stderr
    assert after.returncode == 0, after.stderr
    assert "ended by itself" in after.stdout
    assert "unlocked" in after.stdout
    assert grid.left == {}
    assert grid.attempts("attack/graddiff*") == [2]
    same_results(grid, whole)


def test_an_impossible_request_ends_at_once_with_slurms_reason(disturbed: Disturbed, whole: Grid) -> None:
    grid = disturbed["impossible_request"].result()
    assert grid.runs[-1].returncode == 1
    assert "Memory specification can not be satisfied" in grid.log.read_text()
    # The first attempt and the three more that the profile grants; none waits.
    assert set(grid.cluster.ended(grid.folder)) == {"FAILED"}
    assert grid.cluster.jobs(grid.folder, "PD,R,CG") == {}


def test_a_job_whose_node_dies_is_queued_again(disturbed: Disturbed, whole: Grid) -> None:
    grid = disturbed["node_crash"].result()
    assert grid.cluster.ended(grid.folder)[:2] == ["NODE_FAIL", "COMPLETED"]
    assert grid.attempts("attack/graddiff*") == [2]
    same_results(grid, whole)
