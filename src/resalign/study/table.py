"""A study's numbers, each with its interval: one row a model and state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.frames import held, interval_method
from resalign.analysis.measurements import NOT_ATTACKED, MetricInfo
from resalign.analysis.statistics import Estimate, Floats
from resalign.config import registry
from resalign.config.report import ReportConfig
from resalign.config.study import SAFETY, UTILITY
from resalign.study.counts import attack_states, crossed
from resalign.tensors.seeds import derive_seed

BEFORE = (NOT_ATTACKED, 0)
BEFORE_TITLE = "before"
State = tuple[str, int]


@dataclass(frozen=True)
class Study:
    """What every table, claim and figure of a study is made from.

    Attributes:
        counts: From :func:`resalign.study.counts.count_hits`.
        losses: From :func:`resalign.study.counts.heldout_losses`.
        models: Labels in the table's order, the base model among them.
        attacks: Labels in the table's order.
        base: The model before unlearning.
        settings: How intervals are made.
    """

    counts: pd.DataFrame
    losses: pd.DataFrame
    models: tuple[str, ...]
    attacks: tuple[str, ...]
    base: str
    settings: ReportConfig

    @property
    def attacked(self) -> list[State]:
        """Every state after fine-tuning."""
        return attack_states(self.counts, self.attacks)

    def title(self, state: State) -> str:
        """``before``, ``pages`` or, where an attack was measured along the way, ``pages, 50 steps``."""
        attack, steps = state
        if state == BEFORE:
            return BEFORE_TITLE
        several = len([other for other in self.attacked if other[0] == attack]) > 1
        return f"{attack}, {steps} steps" if several else attack

    def rng(self) -> np.random.Generator:
        """The same draws of prompts and training seeds each time, so that equal designs are resampled alike."""
        return np.random.default_rng(derive_seed("study", self.settings.bootstrap_seed))

    def rate(self, model: str, state: State, measure: str) -> Estimate:
        """A measure in one state, with its interval over prompts and training seeds."""
        return statistics.pooled(
            crossed(self.counts, model, *state, measure), interval_method(self.settings), self.rng(), rate=True
        )


def learnability(study: Study, model: str, state: State) -> Floats:
    """1 − held-out loss / the base model's before the attack, one value a training seed (seeds,).

    It is the metric ``learnability``, at any checkpoint.

    Raises:
        ValueError: If a loss is missing.
    """
    attack, steps = state
    after, before = _losses(study, model, attack, steps), _losses(study, study.base, attack, 0)
    if not after.index.equals(before.index):
        raise ValueError(f"{model}, {attack}: losses of seeds {list(after.index)}, the base's of {list(before.index)}")
    return np.asarray(1.0 - after / before, dtype=np.float64)


def learnability_ratio(study: Study, model: str, states: Sequence[State]) -> Floats:
    """Learnability over the base model's own, averaged over states; one value a training seed (seeds,).

    A seed's attack draws the same examples for every model, so that seeds are pairs.
    """
    ratios = [learnability(study, model, state) / learnability(study, study.base, state) for state in states]
    return np.asarray(np.mean(ratios, axis=0), dtype=np.float64)


def _losses(study: Study, model: str, attack: str, steps: int) -> pd.Series:
    losses = study.losses
    rows = losses[(losses["model"] == model) & (losses["attack"] == attack) & (losses["steps"] == steps)]
    if rows.empty:
        raise ValueError(f"no held-out loss of {model} at step {steps} of {attack}; the attack records one there")
    return rows.set_index("seed")["heldout_loss"].sort_index()


def study_table(study: Study) -> pd.DataFrame:
    """Every model before fine-tuning and in each state after it.

    Returns:
        Columns model, attack, steps, seeds; ip and retained_accuracy, each with ``_low``, ``_high`` and ``_images``;
        learnability and learnability_ratio (to the base model's own), each with ``_low`` and ``_high``, NaN before
        fine-tuning. Intervals of rates are over prompts and training seeds, those of losses over training seeds.
    """
    rows = []
    for model in study.models:
        for state in (BEFORE, *study.attacked):
            row: dict[str, object] = {"model": model, "attack": state[0], "steps": state[1]}
            for measure in (SAFETY, UTILITY):
                rate = study.rate(model, state, measure)
                row |= {"seeds": rate.seeds, measure: rate.mean}
                row |= {
                    f"{measure}_low": rate.low,
                    f"{measure}_high": rate.high,
                    f"{measure}_images": rate.n,
                }
            if state != BEFORE:
                row |= _with_ends("learnability", study, learnability(study, model, state))
                row |= _with_ends("learnability_ratio", study, learnability_ratio(study, model, [state]))
            rows.append(row)
    return pd.DataFrame(rows)


def _with_ends(name: str, study: Study, values: Floats) -> dict[str, object]:
    mean = statistics.across_seeds(values, len(values), study.settings.confidence)
    if name == "learnability":  # its share of the base's has no such bound
        mean = held(mean, MetricInfo.of(registry.member("metrics", name), name, "held-out images of the attack"))
    return {name: mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high}
