"""The published configuration, and the released code's: the defaults, the rows of Table 1, and one override away."""

from collections import Counter
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
    "trained": "full",
    "truncation": None,
}
# Eq. 7 and the use of Eq. 6, as printed.
PRINTED = {"solver.name": "richardson_printed", "mapping": "merged"}
# AntigoneRandy/ResAlign@14775d3.
RELEASED = {
    "steps": 160,
    "lr": 2e-4,
    "alpha": resalign.Ramp(start=1.6, end=2.0),
    "beta": 0.8,
    "trained": "lora",
    "lora_rank": 4,
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "meta_rate": 0.3,
    "draws": 3,
    "batches": "redrawn",
    "batch_size": 1,
    "retain_batch_size": 4,
    "prior": "prior",
    "gamma": 1.0,
    "solver.name": "fixed_point",
    "solver.steps": 5,
    "solver.relaxation": 1.0,
    "solver.max_amplification": 1.0,
    "hessian_batch_size": 1,
    "on_divergence": "reject",
    "max_draw_norm": 0.2,
    "max_damping": 5,
    "max_grad_norm": None,
    "simulation.adam_state": "kept",
    "simulation.batch_size": 1,
    "simulation.instance_prompt": "a photo of *s person",
}
# Where the row of the paper's text is not the paper's: its rate is of a LoRA, it does not say what becomes of a solve
# that diverges, which this solver tells, and it takes Eq. 6 at a LoRA's merged weights.
NOT_PUBLISHED = {"lr": 5e-5, "solver.name": "fixed_point", "mapping": "exact"}


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


def test_table_1_has_a_row_of_either() -> None:
    rows = Experiment.read(PAPER).unlearning
    assert {key: at(rows["resalign"].config, key) for key in RELEASED} == RELEASED
    full_row = PUBLISHED | NOT_PUBLISHED
    assert {key: at(rows["resalign-full"].config, key) for key in full_row} == full_row


def test_the_released_configurations() -> None:
    """Their kinds, as the released files count them."""
    config = Experiment.read(PAPER).unlearning["resalign"].config
    assert isinstance(config, resalign.Config)
    listed = config.simulation.configurations
    assert len(listed) == 15
    assert Counter(c.optimizer for c in listed) == {"sgd": 10, "adam_twice_corrected": 4, "adamw": 1}
    assert [(c.optimizer, c.lr, c.steps) for c in listed if c.adaptation == "projected"] == [("adamw", 1e-6, 5)]
    assert [(c.optimizer, c.lr, c.steps) for c in listed if c.loss == "prior_preserving"] == [("sgd", 1e-4, 5)]
    assert Counter(c.lr for c in listed) == {1e-4: 7, 1e-5: 6, 1e-6: 2}
    assert Counter(c.steps for c in listed) == {5: 5, 10: 4, 20: 2, 30: 4}


@pytest.mark.parametrize(("key", "value"), [*PUBLISHED.items(), *PRINTED.items()])
def test_each_is_one_override_away(key: str, value: Any) -> None:
    # As ``--config "unlearning={resalign: {...}}"`` lays it over another configuration, merged key by key.
    entry = read_yaml(PAPER)["unlearning"]["resalign-full"]
    other = {"steps": 7, "lr": 0.5, "alpha": 3.0, "beta": 0.1, "gamma": 0.3, "solver": {"steps": 2}, "mapping": "exact"}
    other |= {"trained": "attention", "lora_rank": 2, "optimizer": "sgd", "weight_decay": 0.5, "max_grad_norm": 9.0}
    other |= {"draws": 1, "batch_size": 6, "retain_batch_size": 6, "on_divergence": "raise"}
    override = nested(key, value)
    changed = {name: value for name, value in {**entry, **other}.items() if name not in ("method", "title")}
    for name, part in override.items():
        changed[name] = {**changed[name], **part} if isinstance(part, dict) else part
    assert at(resalign.Config.parse(changed, where="test"), key) == value


def test_the_published_attack() -> None:
    """200 steps of batch 1 at lr 1e-5 on every weight [ResAlign, Section 4.1]."""
    for config in (full.Config(), *(member.config for member in Experiment.read(PAPER).attacks.values())):
        assert isinstance(config, full.Config)
        assert (config.steps, config.batch_size, config.lr) == (200, 1, 1e-5)
