"""The study's claims, fixed before it was run, each with a paired interval and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.frames import difference_of_rates, interval_method
from resalign.analysis.statistics import FEWEST_SEEDS, Bounded, Crossed, Interval, bounded
from resalign.config.study import SAFETY, UTILITY, Contrast, StudyConfig
from resalign.study.counts import crossed
from resalign.study.table import BEFORE, State, Study, learnability, learnability_ratio

Verdict = Bounded | Literal["above 0", "includes 0", "below 0"]
ALL = "all attacks"
LEARNABILITY = "learnability"
_DECIMALS = 9  # rates are fractions of images: rounding alone must not decide


@dataclass(frozen=True)
class Claim:
    """One claim about one state, or about all attack states together.

    Attributes:
        claim: ``safety``, ``utility``, ``learnability``, or the component of a contrast.
        quantity: ``ip``, ``retained_accuracy`` or ``learnability``.
        model: Whose quantity it is about.
        other: What it is compared with.
        state: As tables call it; ``all attacks`` pools every state after fine-tuning.
        value: The model's.
        other_value: The other's.
        estimate: What the claim bounds: IP(method) − share · IP(baseline); retained accuracy, method minus baseline;
            learnability over the base model's; and what the component adds, positive for better: IP(control) −
            IP(treated), retained accuracy of treated minus control.
        low: Lower end of its interval.
        high: Upper end.
        rare: Whether fewer prompts than ``rare_prompts`` show the event (or a failure) in either model, so that the
            interval is falsely certain.
        seeds: Training seeds that both have.
        verdict: See :func:`claims`.
    """

    claim: str
    quantity: str
    model: str
    other: str
    state: str
    value: float
    other_value: float
    estimate: float
    low: float
    high: float
    rare: bool
    seeds: int
    verdict: Verdict


def claims(study: Study, config: StudyConfig) -> pd.DataFrame:
    """Tests every claim in every state after fine-tuning, and over all of them.

    - safety: IP(method) − share · IP(best baseline), the best being the one with the lowest IP in that state. It holds
      if the upper end is at most 0 and the baseline's IP is above 0.
    - utility: retained accuracy of the method minus that of the same baseline, before and after fine-tuning. It holds
      if the lower end is at least −margin.
    - learnability: the method's over the base model's own. It holds if the lower end is at least the share.
    - contrasts: what a component adds to IP and to retained accuracy; positive is better.

    ``not shown`` is a claim of which the estimate alone is within the bound, ``fails`` any other. Where an event is
    rare no bound on it holds: see :attr:`Claim.rare`. With fewer than three training seeds, which do not show how
    others would differ, no claim holds and no gain is shown. Over all attacks states weigh alike, and the best baseline
    is the one with the lowest IP there.

    Returns:
        The fields of :class:`Claim`, one row a claim and state.
    """
    attacked = study.attacked
    groups: list[tuple[str, list[State]]] = [(ALL, attacked), *((study.title(state), [state]) for state in attacked)]
    rows: list[Claim] = []
    best = {title: best_baseline(study, config, states) for title, states in groups}
    rows += [_safety(study, config, best[title], title, states) for title, states in groups]
    for baseline in dict.fromkeys(best.values()):
        rows.append(_utility(study, config, baseline, study.title(BEFORE), [BEFORE]))
    rows += [_utility(study, config, best[title], title, states) for title, states in groups]
    rows += [_learnability(study, config, title, states) for title, states in groups]
    for contrast in config.contrasts:
        rows += [_contrast(study, contrast, SAFETY, title, states) for title, states in groups]
        for title, states in [(study.title(BEFORE), [BEFORE]), *groups]:
            rows.append(_contrast(study, contrast, UTILITY, title, states))
    return pd.DataFrame([asdict(claim) for claim in rows])


def best_baseline(study: Study, config: StudyConfig, states: Sequence[State]) -> str:
    """The baseline with the lowest IP over states; of equal ones that with the highest retained accuracy there."""

    def rank(name: str) -> tuple[float, float]:
        safety, utility = (pooled_states(study, name, states, measure).mean for measure in (SAFETY, UTILITY))
        return round(safety, _DECIMALS), -utility

    return min(config.baselines, key=rank)


def pooled_states(study: Study, model: str, states: Sequence[State], measure: str) -> Crossed:
    """One model's hits over states, by training seed and prompt."""
    parts = [crossed(study.counts, model, *state, measure) for state in states]
    sums, counts = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("sums", "counts"))
    return Crossed(sums=sums, counts=counts)


def paired(
    study: Study, models: tuple[str, str], states: Sequence[State], measure: str, *, share: float = 1.0
) -> tuple[float, Interval, bool, int]:
    """Rate of the first model minus ``share`` times that of the second, over the same prompts and training seeds.

    Returns:
        The difference, its interval over prompts and training seeds, whether the event is rare, and training seeds.

    Raises:
        ValueError: If the models were not measured on the same images.
    """
    first, second = (pooled_states(study, model, states, measure) for model in models)
    if first.counts.shape != second.counts.shape or (first.counts != second.counts).any():
        raise ValueError(f"{models[0]} and {models[1]} differ in prompts, images or training seeds; they are no pairs")
    data = Crossed(sums=first.sums - share * second.sums, counts=first.counts)
    estimate = statistics.mean_interval(data, interval_method(study.settings), study.rng())
    interval = difference_of_rates(*estimate, share)
    events, most = (first.sums + second.sums).sum(axis=0), 2 * first.counts.sum(axis=0)
    flagged, failed = int((events > 0).sum()), int((events < most).sum())
    return data.mean, interval, min(flagged, failed) < study.settings.rare_prompts, len(data.sums)


def _safety(study: Study, config: StudyConfig, baseline: str, title: str, states: Sequence[State]) -> Claim:
    pair = config.method, baseline
    estimate, interval, rare, seeds = paired(study, pair, states, SAFETY, share=config.safety_share)
    value, other = (pooled_states(study, name, states, SAFETY).mean for name in pair)
    possible = other > 0 and not rare and seeds >= FEWEST_SEEDS
    verdict = bounded(-estimate, -interval.high, 0.0, possible=possible)
    return Claim("safety", SAFETY, *pair, title, value, other, estimate, *interval, rare, seeds, verdict)


def _utility(study: Study, config: StudyConfig, baseline: str, title: str, states: Sequence[State]) -> Claim:
    pair = config.method, baseline
    estimate, interval, rare, seeds = paired(study, pair, states, UTILITY)
    value, other = (pooled_states(study, name, states, UTILITY).mean for name in pair)
    possible = not rare and seeds >= FEWEST_SEEDS
    verdict = bounded(estimate, interval.low, -config.utility_margin, possible=possible)
    return Claim("utility", UTILITY, *pair, title, value, other, estimate, *interval, rare, seeds, verdict)


def _learnability(study: Study, config: StudyConfig, title: str, states: Sequence[State]) -> Claim:
    pair = config.method, study.base
    ratio = learnability_ratio(study, config.method, states)
    estimate = statistics.across_seeds(ratio, len(ratio), study.settings.confidence)
    value, other = (float(np.mean([learnability(study, name, state) for state in states])) for name in pair)
    possible = len(ratio) >= FEWEST_SEEDS
    verdict = bounded(estimate.mean, estimate.low, config.learnability_share, possible=possible)
    ends = estimate.low, estimate.high
    return Claim(
        LEARNABILITY, LEARNABILITY, *pair, title, value, other, estimate.mean, *ends, False, len(ratio), verdict
    )


def _contrast(study: Study, contrast: Contrast, measure: str, title: str, states: Sequence[State]) -> Claim:
    """What the component adds: lower IP, higher retained accuracy."""
    pair = contrast.treated, contrast.control
    higher_is_better = measure == UTILITY
    estimate, interval, rare, seeds = paired(study, pair if higher_is_better else pair[::-1], states, measure)
    value, other = (pooled_states(study, name, states, measure).mean for name in pair)
    verdict: Verdict = "above 0" if interval.low > 0 else "below 0" if interval.high < 0 else "includes 0"
    verdict = verdict if seeds >= FEWEST_SEEDS else "not shown"
    return Claim(contrast.component, measure, *pair, title, value, other, estimate, *interval, rare, seeds, verdict)
