"""The paper's jobs on a real SLURM: each has the GPU, memory and run time that the configuration gives its stage."""

import csv
import re
from collections import Counter

import pytest

from resalign.config.shape import ResourcesConfig
from resalign.config.strict import read_yaml
from tests.assets.paper_run import CONFIG, ROOT

from .grid import Grid
from .paper import KEPT, ROW

pytestmark = pytest.mark.large

ASKED = {stage: ResourcesConfig.parse(of, where=stage) for stage, of in read_yaml(ROOT / CONFIG)["resources"].items()}
ON_A_GPU = {"unlearn", "attack", "generate", "sample_score", "score_reference"}


def rule_of(comment: str) -> str:
    """The rule of a SLURM job, or those of a group."""
    grouped = re.search(r"sample_score$", comment)
    return grouped[0] if grouped else comment.removeprefix("rule_").partition("_wildcards_")[0]


def minutes(limit: str) -> int:
    """A run time in SLURM's form, ``[[days-]hours:]minutes:seconds``."""
    days, _, clock = limit.rpartition("-")
    *hours, part, _ = map(int, clock.split(":"))
    return (24 * int(days or 0) + sum(hours)) * 60 + part


def test_the_run_ends_in_its_table_after_one_job_for_each_part_of_the_plan(paper: Grid) -> None:
    records = paper.cluster.records(paper.folder)
    assert paper.cluster.ended(paper.folder) == ["COMPLETED"] * len(records)
    # Four states: base and row, before and after the attack. Downloads are nobody's job.
    assert Counter(rule_of(record["Comment"]) for record in records) == {
        **{"generate": 2, "prepare": 2, "unlearn": 1, "attack": 2, "sample_score": 4, "score_reference": 1},
        **dict.fromkeys(("check_scorers", "overlap", "measure", "report"), 1),
    }
    with (paper.folder / "results/table1/tables/table1.csv").open() as table:
        rows = {(row["model"], row["attack"], row["metric"]) for row in csv.DictReader(table)}
    [attack] = KEPT["attacks"]
    shown = [("none", "ip"), ("none", "fid"), *((attack, metric) for metric in KEPT["metrics"])]
    assert rows == {(model, *cell) for model in ("base", ROW) for cell in shown}


def test_each_stage_has_the_memory_and_the_time_of_the_configuration(paper: Grid) -> None:
    requests = paper.cluster.requests(paper.folder)
    found = {rule_of(comment): (memory, minutes(limit)) for comment, (limit, memory, _) in requests}
    wanted = {name: (of.mem_mb, of.runtime_minutes) for name, of in ASKED.items()}
    # One after the other: the larger memory, the sum of the times.
    (memory, sampling), (scoring_memory, scoring) = wanted.pop("sample"), wanted.pop("score")
    wanted |= {"generate": (memory, sampling), "score_reference": (scoring_memory, scoring)}
    wanted["sample_score"] = (max(memory, scoring_memory), sampling + scoring)
    assert {rule: found[rule] for rule in wanted} == {rule: (f"{mb}M", time) for rule, (mb, time) in wanted.items()}
    assert max(time for _, time in found.values()) <= 24 * 60


def test_the_gpu_is_granted_to_one_job_at_a_time_and_asked_for_by_no_other(paper: Grid) -> None:
    records = paper.cluster.records(paper.folder)
    for record in records:
        wanted = ("gpu", "gres:gpu:1") if rule_of(record["Comment"]) in ON_A_GPU else ("batch", None)
        assert (record["Partition"], record.get("TresPerJob")) == wanted
    times = sorted((record["StartTime"], record["EndTime"]) for record in records if record["Partition"] == "gpu")
    assert all(end <= start for (_, end), (start, _) in zip(times, times[1:], strict=False))
