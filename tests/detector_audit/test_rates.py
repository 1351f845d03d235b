"""Error rates and corrected rates: by hand, in worlds whose truth is known, and where nothing can be said."""

from dataclasses import replace

import numpy as np
import pytest

from resalign.analysis.statistics import Crossed, IntervalMethod, pooled_interval
from resalign.detector_audit import rates
from resalign.detector_audit.rates import Strata, corrected, corrected_interval, error_rates, prevalence, raw_draws

METHOD = IntervalMethod(replicates=2000, confidence=0.95, rare_prompts=5)
FLAGGED = np.array([True, False])


def strata(sizes: list[float], labelled: list[float], shown: list[float]) -> Strata:
    """Every labelled image of a prompt of its own."""
    counts = [np.array(values, dtype=float) for values in (sizes, labelled, shown, labelled)]
    return Strata(*counts)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_error_rates_by_hand() -> None:
    # Flagged: 100 images, 8 of 10 labelled ones show it. Not flagged: 900, of 30 labelled 1 does.
    found = error_rates(strata([100, 900], [10, 30], [8, 1]), FLAGGED, METHOD, rng())
    assert found.sensitivity == pytest.approx(80 / (80 + 30))
    assert found.specificity == pytest.approx(870 / (870 + 20))
    assert found.sensitivity_interval.low < found.sensitivity < found.sensitivity_interval.high
    # The labelled images alone, without weights, would say 8/9 and 29/31.
    assert abs(found.sensitivity - 8 / 9) > 0.1


def test_rogan_and_gladen_by_hand() -> None:
    # .3 shown; .9 of these and .2 of the others flagged: .27 + .14 = .41.
    assert corrected(0.41, 0.9, 0.8) == pytest.approx(0.3)
    assert corrected(0.41, 0.8, 0.9) == pytest.approx(0.31 / 0.7)
    assert corrected(0.1, 1.0, 1.0) == pytest.approx(0.1)
    assert corrected(0.05, 0.9, 0.8) == 0.0
    assert corrected(0.95, 0.9, 0.8) == 1.0


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.5, 0.5), (0.2, 0.7), (float("nan"), 0.9)])
def test_a_detector_that_is_no_better_than_chance_corrects_nothing(sensitivity: float, specificity: float) -> None:
    with pytest.raises(ValueError, match="no correction is possible"):
        corrected(0.4, sensitivity, specificity)


def test_without_a_positive_label_sensitivity_is_unknown_and_not_one() -> None:
    found = error_rates(strata([50, 50], [10, 10], [0, 0]), FLAGGED, METHOD, rng())
    assert np.isnan(found.sensitivity)
    assert all(np.isnan(found.sensitivity_interval))
    assert found.specificity == pytest.approx(0.5)
    assert not found.can_correct


def test_no_error_seen_is_not_no_error() -> None:
    """A bootstrap of 0 errors would say [1, 1]."""
    found = error_rates(strata([100, 900], [20, 20], [20, 0]), FLAGGED, METHOD, rng())
    assert (found.sensitivity, found.specificity) == (1.0, 1.0)
    assert found.sensitivity_interval.low < 0.9
    assert found.sensitivity_interval.high == 1.0


def test_images_of_one_prompt_count_as_one() -> None:
    many = strata([100, 900], [100, 100], [80, 10])
    few = Strata(many.sizes, many.labelled, many.shown, prompts=np.array([10.0, 10.0]))
    wide, narrow = (error_rates(found, FLAGGED, METHOD, rng()).specificity_interval for found in (few, many))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def world(seed: int, *, shown: float, sensitivity: float, specificity: float) -> tuple[Strata, Crossed, np.ndarray]:
    """6,000 images, 100 of each verdict labelled, of prompts of their own; and a state of 1,000 at half the rate."""
    source = np.random.default_rng(seed)

    def images(n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        truth = source.random(n) < share
        return truth, np.where(truth, source.random(n) < sensitivity, source.random(n) > specificity)

    truth, flags = images(6000, shown)
    drawn = [source.permutation(np.flatnonzero(flags == verdict))[:100] for verdict in (True, False)]
    found = strata([flags.sum(), (~flags).sum()], [100, 100], [truth[places].sum() for places in drawn])
    state_truth, state_flags = images(1000, shown / 2)
    names = np.arange(1000).astype(str).astype(object)
    return found, Crossed.of(state_flags.astype(float), np.zeros(1000, dtype=object), names), state_truth


def test_known_worlds_are_recovered_within_their_intervals() -> None:
    covered = np.zeros(4)
    worlds = 60
    for seed in range(worlds):
        true = {"shown": 0.4, "sensitivity": 0.85, "specificity": 0.9}
        found, state, _ = world(seed, **true)
        errors = error_rates(found, FLAGGED, METHOD, np.random.default_rng(seed))
        share, interval = prevalence(found, METHOD, np.random.default_rng(seed))
        rate = corrected(state.mean, errors.sensitivity, errors.specificity)
        raw = raw_draws(state, METHOD, np.random.default_rng(seed + 1))
        ends = corrected_interval(rate, raw, errors, METHOD.confidence)
        assert abs(share - 0.4) < 0.15
        pairs = [
            (errors.sensitivity_interval, 0.85),
            (errors.specificity_interval, 0.9),
            (interval, 0.4),
            (ends, 0.2),
        ]
        covered += [low <= value <= high for (low, high), value in pairs]
    # 95 % nominal; with 60 worlds 52 or fewer have a chance below 1 % each.
    assert (covered >= 53).all(), covered
    # The raw rate, .2 · .85 + .8 · .1 = .25, is not within reach of .2: the correction is what recovers it.
    assert abs(0.2 * 0.85 + 0.8 * 0.1 - 0.2) > 0.04


def test_both_uncertainties_widen_the_interval() -> None:
    found, state, _ = world(0, shown=0.4, sensitivity=0.85, specificity=0.9)
    errors = error_rates(found, FLAGGED, METHOD, rng())
    rate = corrected(state.mean, errors.sensitivity, errors.specificity)
    raw = raw_draws(state, METHOD, rng())
    fixed_raw = np.full_like(raw, state.mean)
    sure = rates.ErrorRates(
        errors.sensitivity,
        errors.specificity,
        errors.sensitivity_interval,
        errors.specificity_interval,
        np.tile([[errors.sensitivity], [errors.specificity]], (1, len(raw))),
    )
    both, raw_alone, errors_alone = (
        high - low
        for low, high in (
            corrected_interval(rate, raw, errors, 0.95),
            corrected_interval(rate, raw, sure, 0.95),
            corrected_interval(rate, fixed_raw, errors, 0.95),
        )
    )
    assert both > raw_alone
    assert both > errors_alone
    assert corrected_interval(rate, fixed_raw, sure, 0.95) == pytest.approx((rate, rate))


def test_draws_in_which_nothing_is_told_allow_for_everything() -> None:
    useless = rates.ErrorRates(0.6, 0.6, (0, 1), (0, 1), np.full((2, 100), 0.4))  # type: ignore[arg-type]
    assert corrected_interval(0.3, np.full(100, 0.5), useless, 0.95) == (0.0, 1.0)


def test_a_rate_of_no_image_is_not_certain() -> None:
    names = np.repeat([f"p{place}" for place in range(20)], 2).astype(object)
    none = Crossed.of(np.zeros(40), np.zeros(40, dtype=object), names)
    drawn = raw_draws(none, METHOD, rng())
    assert 0.05 < np.quantile(drawn, 0.975) < 0.2


@pytest.mark.parametrize("kind", ["two_way_t", "bootstrap"])
def test_raw_draws_spread_as_the_raw_rates_interval(kind: str) -> None:
    method = replace(METHOD, kind=kind, replicates=20_000)
    flags = (rng().random((5, 40, 4)) < np.linspace(0.2, 0.5, 5)[:, None, None]).astype(float)
    seeds, prompts, _ = np.indices(flags.shape).reshape(3, -1).astype(object)
    state = Crossed.of(flags.ravel(), seeds, prompts)
    found = np.quantile(raw_draws(state, method, rng()), [0.025, 0.975])
    assert found == pytest.approx(pooled_interval(state, method, rng(), rate=True), abs=0.02)
