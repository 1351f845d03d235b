"""Folders and files of the user's own: checked first, noticed when they change, and no reason to repeat anything."""

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import write_captioned_images
from tests.scorers.conftest import LABELS, onnx_weights
from tests.scorers.onnx_file import write_onnx

from .conftest import Checkout, copy_repository

pytestmark = pytest.mark.slow

PROMPTS = "id,prompt,label\n" + "".join(f"p{index},a red two,two\n" for index in range(400))


def with_own_inputs(folder: Path) -> Checkout:
    """The demo with a pool and a prompt list of the user's own."""
    copy_repository(folder)
    write_captioned_images(folder / "mine" / "pool", ("a red two", "a blue three"))
    (folder / "mine" / "prompts.csv").write_text(PROMPTS)
    config = yaml.safe_load((folder / "config" / "demo.yaml").read_text())
    config["assets"]["mine"] = {"path": "mine"}
    config["concept"]["pool"] = "mine/pool"
    config["prompts"]["benign"]["source"] = "mine/prompts.csv"
    (folder / "config" / "own.yaml").write_text(yaml.safe_dump(config))
    return Checkout(folder, "config/own.yaml")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """All made."""
    checkout = with_own_inputs(tmp_path_factory.mktemp("own") / "repository")
    checkout.make_everything()
    return checkout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Nothing made."""
    return with_own_inputs(tmp_path_factory.mktemp("fresh") / "repository")


def test_they_are_checked_before_any_training(fresh: Checkout) -> None:
    planned = fresh.snakemake("--dry-run").stdout
    for stage in ("unlearn", "attack", "sample"):
        blocks = [block for block in planned.split("\nrule ")[1:] if block.startswith(f"{stage}:")]
        assert blocks
        assert all("/inputs.json" in block for block in blocks), stage


def test_a_changed_prompt_list_is_sampled_anew(own: Checkout) -> None:
    with own.edited("mine/prompts.csv", lambda text: text.replace("p0,a red two", "p0,a crimson two")):
        planned = own.planned()
    assert "base" in planned.get("sample", set())
    assert not {"unlearn", "attack"} & planned.keys()
    assert "overlap" in planned


def test_changed_captions_are_trained_on_anew(own: Checkout) -> None:
    with own.edited("mine/pool/metadata.csv", lambda text: text.replace("a red two", "a crimson two")):
        planned = own.planned()
    assert planned.get("unlearn") == {"graddiff", "esd", "resalign"}


def test_a_missing_one_is_named_before_anything_runs(fresh: Checkout) -> None:
    path = fresh.folder / "mine" / "pool"
    hidden = path.rename(path.with_name("hidden"))
    try:
        told = fresh.snakemake("--until", "check_inputs")
    finally:
        hidden.rename(path)
    output = told.stdout + told.stderr
    assert told.returncode != 0
    assert re.search(r"^error: mine/pool: no such ", output, flags=re.MULTILINE), output
    assert "Traceback" not in output
    assert not (fresh.folder / "results" / "runs").exists()


def test_a_detector_that_misses_the_concept_ends_the_run_before_any_training(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "repository")
    for name in ("forget", "retain"):
        write_captioned_images(folder / "mine" / name, ("a red two", "a blue three"))
    (folder / "mine" / "detector").mkdir()
    write_onnx(folder / "mine" / "detector" / "model.onnx", *onnx_weights())
    config = yaml.safe_load((folder / "config" / "demo.yaml").read_text())
    config["assets"]["mine"] = {"path": "mine"}
    config["concept"] |= {"forget": "mine/forget", "retain": "mine/retain"}
    classes = {"classes": list(LABELS), "pixels": 32}
    config["scorers"] = {"mine": {"scorer": "onnx_classifier", "folder": "mine/detector", **classes}}
    rule = {"scorer": "mine", "quantities": ["seven"], "threshold": 1.0}
    config["metrics"] = {"ip": {"prompts": "unsafe", "rules": [rule]}, "learnability": {}}
    del config["reference"]
    (folder / "config" / "own.yaml").write_text(yaml.safe_dump(config))
    checkout = Checkout(folder, "config/own.yaml")
    # It is tried on all cores, but for those of a cluster's node, of which its job has one.
    for mode, is_alone in (("default", True), ("remote", False)):
        planned = checkout.snakemake("--cores", "8", "--mode", mode, "--dry-run", "--until", "check_scorers").stdout
        assert "rule check_scorers:" in planned
        assert ("threads: 8" in planned) == is_alone
    told = checkout.snakemake()
    output = told.stdout + told.stderr
    assert told.returncode != 0
    assert re.search(
        r"^error: metrics\.ip: scorer 'mine' of mine/detector flags none of 2 images of the concept in mine/forget: "
        r"the largest score of \['seven'\] is 0\.\d+, .* with 'detector_check: \{stop: false\}'$",
        output,
        flags=re.MULTILINE,
    ), output
    assert "Traceback" not in output
    assert not (folder / "results" / "runs").exists()
    assert not list((folder / "results").glob("assets/digits-model*/*")), (
        "the model of the demo world was trained first"
    )
