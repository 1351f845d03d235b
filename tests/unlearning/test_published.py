"""The published configuration and the released code's deviations: every default is one named override away."""

from pathlib import Path
from typing import Any

import pytest

from resalign.attacks import full
from resalign.config.experiment import Experiment
from resalign.config.strict import read_yaml
from resalign.unlearning import resalign

PAPER = Path(__file__).resolve().parents[2] / "config" / "config.yaml"

# [ResAlign, Section 4.1 and Algorithm 1]: dotted key of an entry of ``unlearning``, published value.
PUBLISHED = {
    "steps": 120,
    "lr": 2e-4,
    "alpha": 1.0,
    "beta": 0.8,
    "gamma": 1.0,
    "solver.name": "richardson",
    "solver.steps": 5,
    "simulation.lr": (1e-4, 1e-5, 1e-6),
    "simulation.steps": (5, 10, 20, 30),
    "simulation.loss": ("denoising", "prior_preserving"),
    "simulation.adaptation": ("full", "lora"),
    "simulation.optimizer": ("sgd", "adam"),
    "simulation.images": 50,
    "simulation.data": "redrawn",
}
# The released code, where it differs or says what the paper does not; Eq. 7 and its use of Eq. 6 as printed.
RELEASED = {
    "steps": 160,
    "trained": "lora",
    "lora_rank": 4,
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "max_grad_norm": 0.2,
    "draws": 3,
    "batch_size": 1,
    "retain_batch_size": 4,
    "solver.name": "richardson_printed",
    "mapping": "merged",
}


def at(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def nested(key: str, value: Any) -> dict[str, Any]:
    """``{a: {b: value}}`` for ``a.b``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def test_defaults_are_the_published_ones() -> None:
    assert {key: at(resalign.Config(), key) for key in PUBLISHED} == PUBLISHED


def test_the_papers_configuration_has_them() -> None:
    config = Experiment.read(PAPER).unlearning["resalign"].config
    assert {key: at(config, key) for key in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize(("key", "value"), [*PUBLISHED.items(), *RELEASED.items()])
def test_each_is_one_override_away(key: str, value: Any) -> None:
    # As ``--config "unlearning={resalign: {...}}"`` lays it over another configuration, merged key by key.
    entry = read_yaml(PAPER)["unlearning"]["resalign"]
    other = {"steps": 7, "lr": 0.5, "alpha": 3.0, "beta": 0.1, "gamma": 0.3, "solver": {"steps": 2}, "mapping": "exact"}
    other |= {"trained": "attention", "lora_rank": 2, "optimizer": "sgd", "weight_decay": 0.5, "max_grad_norm": 9.0}
    other |= {"draws": 1, "batch_size": 6, "retain_batch_size": 6}
    override = nested(key, value)
    changed = {**entry, **other}
    for name, part in override.items():
        changed[name] = {**changed[name], **part} if isinstance(part, dict) else part
    assert at(resalign.Config.parse(changed, where="test"), key) == value


def test_the_published_attack() -> None:
    """200 steps of batch 1 at lr 1e-5 on every weight [ResAlign, Section 4.1]."""
    for config in (full.Config(), *(member.config for member in Experiment.read(PAPER).attacks.values())):
        assert isinstance(config, full.Config)
        assert (config.steps, config.batch_size, config.lr) == (200, 1, 1e-5)
