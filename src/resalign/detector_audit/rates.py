"""Error rates of detectors from labels of a stratified sample, and rates of images that are corrected for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from resalign.analysis import statistics
from resalign.analysis.statistics import Crossed, Floats, Interval, IntervalMethod

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Strata:
    """What labelling has found in each of H strata, all images of which have one verdict of each detector.

    Attributes:
        sizes: Images that the stratum has, N (H,).
        labelled: Images of it that were labelled, n (H,).
        shown: Of these, the ones that show the concept (H,).
        prompts: Prompts that the labelled ones are of (H,).
    """

    sizes: Floats
    labelled: Floats
    shown: Floats
    prompts: Floats

    @property
    def shares(self) -> Floats:
        """Share π of each stratum's images that show the concept (H,)."""
        return np.asarray(self.shown / self.labelled, dtype=np.float64)

    def draws(self, replicates: int, rng: np.random.Generator) -> Floats:
        """Shares that the labels allow for (replicates, H): Beta(k + 1/2, m − k + 1/2) in each stratum, k = π m.

        The prompts are the sample, m of them: images of one prompt resemble each other. Where no label is positive the
        draws are above 0 all the same, where a bootstrap would be sure that there is none.
        Source: Jeffreys' prior; Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion".
        """
        events = self.shares * self.prompts
        drawn = rng.beta(events + 0.5, self.prompts - events + 0.5, size=(replicates, len(self.sizes)))
        return np.asarray(drawn, dtype=np.float64)


@dataclass(frozen=True)
class ErrorRates:
    """Of one detector; an estimate is NaN where the labels have none of its kind.

    Attributes:
        sensitivity: Share of the images that show the concept which it flags.
        specificity: Share of the others which it does not flag.
        sensitivity_interval, specificity_interval: Two-sided.
        draws: Sensitivity and specificity that the labels allow for, together: (2, replicates).
    """

    sensitivity: float
    specificity: float
    sensitivity_interval: Interval
    specificity_interval: Interval
    draws: Floats

    @property
    def can_correct(self) -> bool:
        """Whether the detector tells more than chance does: sensitivity + specificity > 1."""
        return self.sensitivity + self.specificity > 1.0


def rates_of(shares: Floats, sizes: Floats, flagged: Flags) -> Floats:
    """Sensitivity and specificity (2, …) from the share π of each stratum that shows the concept (…, H).

    Every labelled image stands for N/n of its stratum's [Horvitz and Thompson 1952], so that with the verdict v
    sensitivity = Σ N π v / Σ N π and specificity = Σ N (1−π)(1−v) / Σ N (1−π). NaN for 0 / 0.
    """
    shown, other = sizes * shares, sizes * (1.0 - shares)
    pairs = [((shown * flagged).sum(-1), shown.sum(-1)), ((other * ~flagged).sum(-1), other.sum(-1))]
    rates = [np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0) for part, whole in pairs]
    return np.asarray(rates, dtype=np.float64)


def error_rates(strata: Strata, flagged: Flags, method: IntervalMethod, rng: np.random.Generator) -> ErrorRates:
    """Error rates of the detector that flags the strata ``flagged`` (H,)."""
    sensitivity, specificity = (float(rate) for rate in rates_of(strata.shares, strata.sizes, flagged))
    draws = rates_of(strata.draws(method.replicates, rng), strata.sizes, flagged)
    return ErrorRates(
        sensitivity,
        specificity,
        _interval(sensitivity, draws[0], method.confidence),
        _interval(specificity, draws[1], method.confidence),
        draws,
    )


def prevalence(strata: Strata, method: IntervalMethod, rng: np.random.Generator) -> tuple[float, Interval]:
    """Share of the strata's images that show the concept, by the labels alone: Σ N π / Σ N, with its interval."""
    share = float((strata.sizes * strata.shares).sum() / strata.sizes.sum())
    drawn = strata.draws(method.replicates, rng) @ strata.sizes / strata.sizes.sum()
    return share, _interval(share, np.asarray(drawn, dtype=np.float64), method.confidence)


def corrected(raw: float, sensitivity: float, specificity: float) -> float:
    """The rate of images that show the concept, from the rate of images that are flagged.

    (raw + specificity − 1) / (sensitivity + specificity − 1), held to [0, 1].
    Source: Rogan and Gladen 1978, "Estimating prevalence from the results of a screening test", Eq. 1.

    Raises:
        ValueError: If the detector is no better than chance, so that no flagged rate tells anything.
    """
    better = sensitivity + specificity - 1.0
    if not better > 0.0:
        raise ValueError(
            f"sensitivity {sensitivity:.3g} + specificity {specificity:.3g} must be more than 1: this detector tells "
            "no more than chance, and no correction is possible; audit another one, or label more images"
        )
    return float(np.clip((raw + specificity - 1.0) / better, 0.0, 1.0))


def raw_draws(data: Crossed, method: IntervalMethod, rng: np.random.Generator) -> Floats:
    """Flagged rates that a state's images allow for (replicates,), by ``report.interval``.

    Student's t: m + t_S e_S + t_P e_P on the logit's scale, with independent draws t and the errors e of
    :func:`resalign.analysis.statistics.standard_errors`; or replicates of the bootstrap. Where few prompts show the
    event, or few do not, either is falsely certain (see :func:`resalign.analysis.statistics.pooled_interval`); draws
    are Jeffreys' then, with the prompts as the sample.
    """
    if not statistics.is_rare(data.sums, data.counts, method):
        if method.kind == "bootstrap":
            return statistics.bootstrap_means(data, method.replicates, rng)
        errors = statistics.standard_errors(data)
        drawn = sum((e * rng.standard_t(df, method.replicates) for e, df in errors), np.zeros(method.replicates))
        return statistics.on_logits(data.mean, drawn)
    prompts = data.sums.shape[1]
    events = data.mean * prompts
    return np.asarray(rng.beta(events + 0.5, prompts - events + 0.5, size=method.replicates), dtype=np.float64)


def corrected_interval(rate: float, raw: Floats, errors: ErrorRates, confidence: float) -> Interval:
    """The interval of a corrected rate: both the flagged rate's and the error rates' uncertainty are propagated.

    A draw in which the detector is no better than chance allows for any rate: it counts as 0 at the lower end and as 1
    at the upper.

    Args:
        rate: The corrected rate, which the interval holds.
        raw: From :func:`raw_draws` (replicates,).
        errors: With as many draws.
        confidence: Coverage.
    """
    sensitivity, specificity = errors.draws
    better = sensitivity + specificity - 1.0
    tells = better > 0.0
    corrected_rates = np.divide(raw + specificity - 1.0, better, out=np.zeros_like(raw), where=tells).clip(0.0, 1.0)
    tail = (1.0 - confidence) / 2.0
    low = float(np.quantile(np.where(tells, corrected_rates, 0.0), tail))
    high = float(np.quantile(np.where(tells, corrected_rates, 1.0), 1.0 - tail))
    return Interval(min(low, rate), max(high, rate))


def _interval(estimate: float, draws: Floats, confidence: float) -> Interval:
    """Percentiles of draws, made to hold the estimate: at 0 and at 1 it is an end of the interval."""
    if np.isnan(estimate):
        return Interval(float("nan"), float("nan"))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(min(float(low), estimate), max(float(high), estimate))
