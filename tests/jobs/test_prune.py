"""The job that removes scored images: whose it is, what it shows, and that names of runs know nothing of it."""

from resalign.config.plan import Plan, load_plan
from resalign.jobs import prune


def demo(**overrides: object) -> Plan:
    return load_plan("config/demo.yaml", {"tier": "small", **overrides})


def test_a_job_for_every_scored_run_and_seed_unless_all_images_stay() -> None:
    assert prune.files(demo()) == []
    plan = demo(keep_images="flagged")
    runs = {(stage.run, seed) for stage in plan.score.values() for seed in plan.seeds(stage)}
    assert set(prune.files(plan)) == {f"results/runs/prune/{run}/seed-{seed}/small/pruned.json" for run, seed in runs}


def test_samples_are_of_the_first_training_seed() -> None:
    plan = demo(keep_images="sample")
    first, other = plan.experiment.tier.training_seeds[:2]
    stage = next(stage for stage in plan.score.values() if len(plan.seeds(stage)) > 1)
    job, later = (prune.PruneJob.of(plan, stage, str(seed), "small") for seed in (first, other))
    assert {plan.experiment.config.gallery_prompts, "benign"} <= set(job.shown)
    assert later.shown == ()
    assert job.shown_prompts == plan.experiment.config.report.gallery_prompts
    assert stage.parent is not None
    folders = (stage.parent.folder(first), stage.folder(first))
    assert job.inputs() == [f"{folders[0]}/small/images.csv", f"{folders[1]}/small/scores.parquet"]


def test_names_of_runs_know_nothing_of_what_stays_and_of_files_only_where_they_are_shards() -> None:
    plain = demo()
    sampling = plain.experiment.config.sampling.model_dump()
    same = demo(keep_images="sample", sampling={**sampling, "image_files": "separate"})
    other = demo(sampling={**sampling, "image_files": "shards"})
    assert list(same.score) == list(plain.score)
    assert not set(other.sample) & set(plain.sample)
    # Neither has the record of an experiment that sets neither.
    assert not {"keep_images", "image_files"} & {*plain.experiment.resolved(), *plain.experiment.resolved()["sampling"]}
    assert same.experiment.resolved()["keep_images"] == "sample"
