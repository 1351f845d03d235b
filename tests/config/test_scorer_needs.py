"""What metrics ask of scorers: refused in the plan where the configuration tells that they cannot have it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resalign.config.digits import LABELS
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.scorer_needs import known_numbers
from resalign.config.strict import ConfigError, read_yaml
from resalign.jobs import check_scorers

ROOT = Path(__file__).resolve().parents[2]
Read = Callable[..., Experiment]
INCEPTION = {"scorers.inception": {"folder": "digits-clip"}, "metrics.fid.scorer": "inception"}


def test_what_is_known_before_anything_is_loaded(read: Read) -> None:
    experiment = read({"scorers.body": {"scorer": "nudenet"}, "scorers.inception": {"folder": "digits-clip"}})
    assert known_numbers(experiment, "resnet") == LABELS
    assert known_numbers(experiment, "clip") is None, "its features are as many as its network has"
    assert "FACE_FEMALE" in (known_numbers(experiment, "body") or ())
    assert len(known_numbers(experiment, "inception") or ()) == 2048


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"metrics.ip.rules": [{"scorer": "regnet", "quantities": ["seven", "sevn"]}]},
            "config/demo.yaml: metrics.ip: scorer 'regnet' gives no 'sevn'; did you mean 'seven'? allowed: ['eight'",
        ),
        (
            {"metrics.us.rule.quantities": ["8"]},
            "config/demo.yaml: metrics.us: scorer 'deep-resnet' gives no '8'; allowed: ['eight'",
        ),
        (
            {"scorers.clip.features": False},
            "metrics.fid: scorer 'clip' keeps no features, it gives ['similarity']; set 'features: true'",
        ),
        (
            {"detector_audit": {"labels": {"scorer": "deep-resnet", "quantities": ["sevn"]}}},
            "detector_audit.labels: scorer 'deep-resnet' gives no 'sevn'; did you mean 'seven'?",
        ),
        (
            {**INCEPTION, "tier": "smoke"},
            "metrics.fid: 162 images of tiers.smoke.prompts.benign are too few, 2048 features need 20480; give more",
        ),
        (
            {**INCEPTION, "metrics.fid.images_per_dimension": 1, "scorers.inception.features": 192},
            "metrics.fid: 180 images of tiers.small.prompts.benign are too few, 192 features need 192; give more",
        ),
    ],
)
def test_what_a_scorer_cannot_give_is_refused_in_the_plan(read: Read, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(changes)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_enough_images_are_planned(read: Read) -> None:
    read({**INCEPTION, "metrics.fid.images_per_dimension": 1, "scorers.inception.features": 64})


def test_the_check_is_one_for_equal_experiments_and_renames_no_run(read: Read) -> None:
    before, renamed, stricter = (
        Plan(read(changes)) for changes in ({}, {"name": "other"}, {"metrics.us.rule.threshold": 0.9})
    )
    assert check_scorers.folder(before) == check_scorers.folder(renamed) != check_scorers.folder(stricter)
    for stage in ("unlearn", "attack", "sample", "score"):
        assert set(getattr(before, stage)) == set(getattr(stricter, stage))
    assert not any(scorer.own for scorer in check_scorers.CheckScorersJob.of(before).scorers.values())


def test_a_tier_leaves_out_what_its_images_are_too_few_for() -> None:
    """FID of 1,000 images, too few for 2,048 features, ended the paper's small tier after all of its work."""
    paper = {name: Experiment.read(ROOT / "config" / "config.yaml", {"tier": name}) for name in ("small", "paper")}
    assert set(paper["paper"].metrics) - set(paper["small"].metrics) == {"fid", "kid"}
    own = {"extends": str(ROOT / "config" / "config.yaml"), "name": "own", "tier": "small", "metrics": {"fid": None}}
    assert "fid" not in Experiment(own, where="own.yaml").metrics
    tiers = read_yaml(ROOT / "config" / "config.yaml")["tiers"]
    tiers["small"]["without"] = ["fidd"]
    with pytest.raises(ConfigError, match=r"'tiers\.small\.without': no metric named 'fidd'; did you mean 'fid'\?"):
        Experiment.read(ROOT / "config" / "config.yaml", {"tier": "small", "tiers": tiers})
