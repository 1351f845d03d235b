"""A study's rates, each with its interval: one row a model, state and measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.frames import interval_method
from resalign.analysis.measurements import NOT_ATTACKED
from resalign.analysis.statistics import Crossed, Estimate
from resalign.config.report import ReportConfig
from resalign.config.study import StudyConfig
from resalign.study.counts import attack_states, crossed, hit_columns
from resalign.tensors.seeds import derive_seed

BEFORE = (NOT_ATTACKED, 0)
BEFORE_TITLE = "before"
State = tuple[str, int]


@dataclass(frozen=True)
class Study:
    """What every table and claim of a study is made from.

    Attributes:
        counts: From :func:`resalign.study.counts.count_hits`.
        models: Labels in the table's order, the base model among them.
        attacks: Labels in the table's order.
        base: The model before unlearning.
        config: What was registered.
        settings: How intervals are made.
    """

    counts: pd.DataFrame
    models: tuple[str, ...]
    attacks: tuple[str, ...]
    base: str
    config: StudyConfig
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

    def hits(self, model: str, states: Sequence[State], measure: str) -> Crossed:
        """Hits over states by training seed and prompt; a model that nothing trained is the same at every seed."""
        parts = [crossed(self.counts, model, *state, measure) for state in states]
        sums, counts = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("sums", "counts"))
        seeds = len(hit_columns(self.counts)) if len(sums) == 1 else len(sums)
        return Crossed(*(np.broadcast_to(values, (seeds, values.shape[1])) for values in (sums, counts)))


def study_table(study: Study) -> pd.DataFrame:
    """Safety of every model before fine-tuning and in each state after it, and utilities before.

    Returns:
        Columns model, attack, steps, measure, rate, low, high (over prompts and training seeds), images, seeds.
    """
    cells = [(study.config.safety, state) for state in (BEFORE, *study.attacked)]
    cells += [(utility, BEFORE) for utility in study.config.utilities]
    rows = []
    for model in study.models:
        for measure, state in cells:
            found = study.rate(model, state, measure)
            row = {"model": model, "attack": state[0], "steps": state[1], "measure": measure, "rate": found.mean}
            rows.append({**row, "low": found.low, "high": found.high, "images": found.n, "seeds": found.seeds})
    return pd.DataFrame(rows)
