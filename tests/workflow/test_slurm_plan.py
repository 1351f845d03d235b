"""What the paper's experiment asks of a cluster, from the plan of `snakemake --profile slurm`."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from typing import NamedTuple

import pytest

from resalign.config.plan import load_plan

from .conftest import ROOT, Checkout, copy_repository

pytestmark = pytest.mark.slow

# A job as a plan prints it, indented in a group.
JOB = re.compile(r"^(?P<indent> *)rule (?P<rule>\w+):\n(?P<body>(?:(?P=indent)    .*\n)+)", re.MULTILINE)


class Asked(NamedTuple):
    """A job's request: its cores, and what else it names."""

    rule: str
    is_grouped: bool
    threads: int
    resources: dict[str, str]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = copy_repository(tmp_path_factory.mktemp("slurm") / "repository")
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    return Checkout(folder, "config/config.yaml")


def planned(checkout: Checkout, *options: str, target: str = "all") -> list[Asked]:
    """The jobs of a dry run under the profile."""
    command = checkout.command()
    # A plan is for one core unless it is told of more.
    plan = ["--profile", "slurm", "--dry-run", "--cores", "16"]
    command["args"] = [sys.executable, "-m", "snakemake", *plan, *options, "--", target]
    told = subprocess.run(capture_output=True, **command)
    assert told.returncode == 0, told.stderr
    return [
        Asked(
            job["rule"],
            bool(job["indent"]),
            int((re.search(r"threads: (\d+)", job["body"]) or [0, 1])[1]),
            dict(re.findall(r"(\w+)=([^\s,]+)", re.findall(r" resources: (.*)", job["body"])[0])),
        )
        for job in JOB.finditer(told.stdout)
    ]


def test_each_job_of_the_paper_asks_for_its_stages_resources(checkout: Checkout) -> None:
    plan = load_plan(checkout.folder / checkout.config)
    jobs = planned(checkout)
    stages = {stage: stage for stage in ("unlearn", "attack", "sample", "score")}
    stages |= {"generate": "sample", "score_reference": "score"}
    for job in jobs:
        if job.rule in stages:
            asked = plan.experiment.resources(stages[job.rule])
            wanted = {"gpu": 1, "mem_mb": asked.mem_mb, "runtime": asked.runtime_minutes}
            assert {name: int(job.resources[name]) for name in wanted} == wanted
            assert job.threads == asked.threads
        else:
            assert "gpu" not in job.resources
            assert job.threads == 1
        assert job.is_grouped == (job.rule in ("sample", "score"))
    counts = Counter(job.rule for job in jobs)
    runs = {"unlearn": plan.unlearn, "attack": plan.attack, "sample": plan.sample, "score": plan.score}
    assert {stage: counts[stage] for stage in runs} == {
        stage: sum(len(plan.seeds(run)) for run in of.values()) for stage, of in runs.items()
    }
    # FID and KID of each of the 70 states, at a minute.
    assert [job.resources["runtime"] for job in jobs if job.rule == "measure"] == ["170"]


def test_a_second_attempt_fits_a_partition_of_24_hours() -> None:
    of = load_plan(ROOT / "config/config.yaml").experiment.resources
    minutes = {stage: 2 * of(stage).runtime_minutes for stage in ("unlearn", "attack", "sample", "score")}
    # Sampling and scoring of a state are one job.
    assert max(minutes["unlearn"], minutes["attack"], minutes["sample"] + minutes["score"]) <= 24 * 60


def test_a_rule_has_a_partition_and_a_constraint_of_its_own(checkout: Checkout) -> None:
    own = {"slurm_partition": "gpu-long", "constraint": "a100"}
    rules = ("unlearn", "sample", "score")
    options = [f"{rule}:{name}={value}" for rule in rules for name, value in own.items()]
    for job in planned(checkout, "--set-resources", *options):
        found = {name: value for name, value in job.resources.items() if name in own}
        assert found == (own if job.rule in rules else {})


def test_the_images_of_an_ablation_are_sampled_and_scored_in_one_job(checkout: Checkout) -> None:
    jobs = planned(checkout, "--configfile", "config/demo.yaml", target="results/ablations/gamma")
    images = {"sample", "score", "ablated_sample", "ablated_score"}
    assert {job.rule for job in jobs if job.is_grouped} == images
    assert images.isdisjoint(job.rule for job in jobs if not job.is_grouped)
