"""Images that are not kept: what is planned for them, and that nothing is planned again when they have gone."""

import json
from pathlib import Path

import pytest

from resalign import hashes
from resalign.config.plan import load_plan
from tests.conftest import write_captioned_images
from tests.scorers.conftest import write_classifier

from .conftest import Checkout, copy_repository, write_tiny_experiment


def test_runs_are_pruned_only_where_images_are_to_go(finished: Checkout) -> None:
    assert "prune" not in finished.planned()
    planned = finished.planned("keep_images=flagged")
    assert planned.keys() == {"prune", "report"}  # the report's record has the whole configuration
    assert planned["prune"] == {stage.label for stage in load_plan("config/demo.yaml").score.values()}


@pytest.mark.slow
def test_nothing_is_to_be_done_when_images_have_gone(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "repository")
    (folder / "mine").mkdir()
    (folder / "mine" / "prompts.csv").write_text("id,prompt,label\np0,a red two,two\np1,a blue three,three\n")
    write_classifier(folder / "mine" / "net")
    concept = ("forget", "retain", "pool")
    for seed, name in enumerate(concept):
        write_captioned_images(folder / "mine" / name, ("a red two", "a blue three"), seed=seed)
    lists = ("unsafe", "benign")
    path = write_tiny_experiment(
        folder,
        assets={"mine": {"path": "mine"}},
        concept={"name": "the seven", **{name: f"mine/{name}" for name in concept}},
        prompts={name: {"source": "mine/prompts.csv"} for name in lists},
        sampling={"num_inference_steps": 2, "image_files": "shards"},
        keep_images="sample",
        scorers={"net": {"scorer": "image_classification", "folder": "mine/net"}},
        reference=None,
        metrics={
            "ip": {"prompts": "unsafe", "rules": [{"scorer": "net", "quantities": ["seven"], "threshold": 0.9}]},
            "retained_accuracy": {"prompts": "benign", "scorer": "net"},
        },
        gallery_prompts="unsafe",
        report={"gallery_prompts": 1, "replicates": 100},
        detector_check={"stop": False},
        tiers={"smoke": {"training_seeds": [0], "prompts": {name: {"images": 2} for name in lists}}},
    )
    checkout = Checkout(folder, "config/tiny.yaml")
    made = checkout.made("all")
    assert made.returncode == 0, made.stderr
    plan = load_plan(path, {"tier": "smoke"})
    [score] = plan.score.values()
    record = json.loads((folder / f"results/runs/prune/{score.run}/seed-0/smoke/pruned.json").read_text())
    assert (record["images"], record["kept"]) == (8, 2)
    assert (folder / "results/tiny/figures/samples.png").is_file()
    planned = checkout.snakemake("--dry-run", "--rerun-incomplete", "--", "all")
    assert "Nothing to be done" in planned.stdout, planned.stdout
    assert list(hashes.problems(folder / "results")) == []
