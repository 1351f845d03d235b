"""The study's claims, fixed before it was run, each with a paired interval and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.frames import difference_of_rates, interval_method
from resalign.analysis.statistics import FEWEST_SEEDS, Bounded, Crossed
from resalign.config.study import Contrast
from resalign.study.fronts import front_areas
from resalign.study.table import BEFORE, State, Study

Verdict = Bounded | Literal["not testable", "above 0", "includes 0", "below 0"]
PRIMARY, SECONDARY, TESTABLE, FRONT = "primary", "secondary", "testable", "front"
ALL, INSIDE, OUTSIDE = "all attacks", "inside the simulated range", "outside the simulated range"
AREA = "area"
_ROUNDING = 1e-9  # rates are fractions of images: rounding alone must not decide


class Difference(NamedTuple):
    """What one model has more than another.

    Attributes:
        value: The model's.
        other_value: The other's; NaN where there is none.
        estimate: value − other_value.
        low: Lower end of its interval.
        high: Upper end.
        rare: Whether fewer prompts than ``rare_prompts`` show the event (or a failure) in either model, so that the
            interval is falsely certain.
        seeds: Training seeds that both have.
    """

    value: float
    other_value: float
    estimate: float
    low: float
    high: float
    rare: bool
    seeds: int


Row = dict[str, Any]  # of :func:`claims`


def claims(study: Study) -> pd.DataFrame:
    """Tests every claim over all attack states, over those inside and outside the simulated range, and in each.

    - testable: the base model's IP is at least ``least_base``; the registered baseline's at least ``least_baseline``.
    - primary, against the registered baseline, and secondary, against each other one. A utility's row holds if the
      whole interval of its difference before fine-tuning is at least −margin, and fails if the whole interval is below.
      IP's row has the whole claim's verdict: ``not testable`` unless base and baseline have enough IP there; it holds
      if the whole interval of IP's difference is below 0 and every utility's row holds; it ``fails`` if that interval
      is above 0, or a utility's row fails; else it is ``not shown``.
    - contrasts: treated − control; of IP, below 0 is better; of a utility, which is compared before fine-tuning, above.
    - front: area of the method's family − that of each other one.

    Where an event is rare nothing is shown: see :class:`Difference`. Nor is it with fewer than three training seeds,
    which do not show how others would differ. States weigh alike.

    Returns:
        One row a claim, quantity and state: claim (``testable``, ``primary``, ``secondary``, ``front`` or the component
        of a contrast), quantity (a metric's label, or ``area``), model and other (of a front, families; other is empty
        for ``testable``), state (as tables call it; ``all attacks`` pools every state after fine-tuning), the fields of
        :class:`Difference`, verdict.
    """
    config, groups = study.config, _groups(study)
    rows = _testable(study, groups)
    for baseline in (config.baseline, *(name for name in config.baselines if name != config.baseline)):
        rows += _against(study, baseline, groups)
    for contrast in config.contrasts:
        rows += _contrast(study, contrast, groups)
    rows += [_front(study, family) for family in config.fronts if family != config.front]
    return pd.DataFrame(rows)


def _row(found: Difference, claim: str, quantity: str, models: tuple[str, str], state: str, verdict: Verdict) -> Row:
    names = dict(zip(("claim", "quantity", "model", "other", "state"), (claim, quantity, *models, state), strict=True))
    return {**names, **found._asdict(), "verdict": verdict}


def _groups(study: Study) -> dict[str, list[State]]:
    """States by title: all, those inside and outside the simulated range, and each alone."""
    attacked, simulated = study.attacked, study.config.inside
    inside = [(attack, steps) for attack, steps in attacked if steps <= simulated.get(attack, 0)]
    groups = {ALL: attacked}
    if inside:
        groups |= {INSIDE: inside, OUTSIDE: [state for state in attacked if state not in inside]}
    groups |= {study.title(state): [state] for state in attacked}
    return {title: states for title, states in groups.items() if states}


def paired(study: Study, models: tuple[str, str], states: Sequence[State], measure: str) -> Difference:
    """Rate of the first model minus that of the second, over the same prompts and training seeds.

    Raises:
        ValueError: If the models were not measured on the same images.
    """
    first, second = (study.hits(model, states, measure) for model in models)
    if first.counts.shape != second.counts.shape or (first.counts != second.counts).any():
        raise ValueError(f"{models[0]} and {models[1]} differ in prompts, images or training seeds; they are no pairs")
    method = interval_method(study.settings)
    data = Crossed(sums=first.sums - second.sums, counts=first.counts)
    interval = difference_of_rates(*statistics.mean_interval(data, method, study.rng()))
    rare = statistics.is_rare(first.sums + second.sums, first.counts + second.counts, method)
    return Difference(first.mean, second.mean, data.mean, *interval, rare, len(data.sums))


def _testable(study: Study, groups: dict[str, list[State]]) -> list[Row]:
    config, rows, nan = study.config, [], float("nan")
    for model, least in ((study.base, config.least_base), (config.baseline, config.least_baseline)):
        for title, states in groups.items():
            hits = study.hits(model, states, config.safety)
            verdict: Verdict = "holds" if hits.mean >= least - _ROUNDING else "fails"
            found = Difference(hits.mean, nan, hits.mean, nan, nan, False, len(hits.sums))
            rows.append(_row(found, TESTABLE, config.safety, (model, ""), title, verdict))
    return rows


def _against(study: Study, baseline: str, groups: dict[str, list[State]]) -> list[Row]:
    """The claim against one baseline: its utilities' rows, then IP's, which have the whole claim's verdict."""
    config = study.config
    name, pair = PRIMARY if baseline == config.baseline else SECONDARY, (config.method, baseline)
    rows = []
    for utility in config.utilities:
        found = paired(study, pair, [BEFORE], utility)
        least = -config.utility_margin - _ROUNDING
        verdict: Verdict = _bounded(found, found.low >= least, found.high < least)
        rows.append(_row(found, name, utility, pair, study.title(BEFORE), verdict))
    kept = [row["verdict"] for row in rows]
    for title, states in groups.items():
        found = paired(study, pair, states, config.safety)
        base = study.hits(study.base, states, config.safety).mean
        testable = base >= config.least_base - _ROUNDING and found.other_value >= config.least_baseline - _ROUNDING
        safety = _bounded(found, found.high < -_ROUNDING, found.low > _ROUNDING)
        verdict = _weakest([safety, *kept]) if testable else "not testable"
        rows.append(_row(found, name, config.safety, pair, title, verdict))
    return rows


def _bounded(found: Difference, within: bool, beyond: bool) -> Bounded:
    """The verdict on a bound within or beyond which the whole interval is; by few seeds or events nothing is shown."""
    if found.rare or found.seeds < FEWEST_SEEDS:
        return "not shown"
    return "holds" if within else "fails" if beyond else "not shown"


def _weakest(verdicts: Sequence[Verdict]) -> Verdict:
    return "fails" if "fails" in verdicts else "not shown" if "not shown" in verdicts else "holds"


def _contrast(study: Study, contrast: Contrast, groups: dict[str, list[State]]) -> list[Row]:
    """What the component changes."""
    config, pair = study.config, (contrast.treated, contrast.control)
    cells = [(config.safety, title, states) for title, states in groups.items()]
    cells += [(utility, study.title(BEFORE), [BEFORE]) for utility in config.utilities]
    rows = []
    for measure, title, states in cells:
        found = paired(study, pair, states, measure)
        rows.append(_row(found, contrast.component, measure, pair, title, _sign(found)))
    return rows


def _sign(found: Difference) -> Verdict:
    """On which side of 0 the interval is; nothing is shown of rare events or by few seeds."""
    if found.rare or found.seeds < FEWEST_SEEDS:
        return "not shown"
    return "above 0" if found.low > 0 else "below 0" if found.high < 0 else "includes 0"


def _front(study: Study, family: str) -> Row:
    """The area of the method's family minus that of another, paired by training seed."""
    own = study.config.front
    first, second = front_areas(study, own), front_areas(study, family)
    estimate = statistics.across_seeds(first - second, len(first), study.settings.confidence)
    means, ends = (float(first.mean()), float(second.mean())), (estimate.low, estimate.high)
    found = Difference(*means, estimate.mean, *ends, False, estimate.seeds)
    return _row(found, FRONT, AREA, (own, family), ALL, _sign(found))
