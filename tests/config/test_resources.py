"""What a configuration says of devices and memory, and how it reaches the stages."""

from collections.abc import Callable
from typing import Any

from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.jobs.attack import AttackJob
from resalign.jobs.unlearn import UnlearnJob

Read = Callable[..., Experiment]


def training_jobs(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The job of one run of each stage that trains."""
    plan = Plan(experiment)
    unlearn, attack = (next(iter(runs.values())) for runs in (plan.unlearn, plan.attack))
    return {"unlearn": UnlearnJob.of(plan, unlearn).plain(), "attack": AttackJob.of(plan, attack, "0").plain()}


def test_micro_batches_reach_the_stage_that_they_are_set_for(read: Read) -> None:
    found = training_jobs(read({"resources": {"unlearn": {"micro_batch_size": 2}}}))
    assert found["unlearn"]["micro_batch_size"] == 2
    assert "micro_batch_size" not in found["attack"]


def test_jobs_without_micro_batches_are_what_they_were_before_there_were_any(read: Read) -> None:
    for stage, job in training_jobs(read()).items():
        assert job["device"] == "cpu"
        assert "micro_batch_size" not in job, stage


def test_micro_batches_rename_no_run(read: Read) -> None:
    before, after = (Plan(read(changes)) for changes in ({}, {"resources": {"default": {"micro_batch_size": 1}}}))
    assert list(before.unlearn) == list(after.unlearn)
    assert list(before.score) == list(after.score)
