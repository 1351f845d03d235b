"""Estimates with intervals: of one run, pooled over prompts and training seeds, and across training seeds.

Images of one prompt resemble each other, and so do images of one trained model, so a pooled interval must not count
images as independent draws. The number of images is `n` everywhere, and intervals are two-sided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.object_]
Bounded = Literal["holds", "not shown", "fails"]

FEWEST_SEEDS = 3  # of a claim about further training seeds: two leave Student's t one degree of freedom
_ROUNDING = 1e-9  # rates are fractions of images: rounding alone must not decide


class Interval(NamedTuple):
    """A two-sided interval; both ends are NaN where the data cannot give one (a single run of a set-level metric)."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A pooled value.

    Attributes:
        mean: Over all images (or runs, for a set-level metric).
        std: Sample standard deviation (ddof 1) across the training seeds' own means; NaN with one seed.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Images.
        seeds: Training seeds.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int
    seeds: int


@dataclass(frozen=True)
class IntervalMethod:
    """How pooled intervals are made; see :func:`pooled_interval`.

    Attributes:
        replicates: Of the bootstrap.
        confidence: Coverage, such as 0.95.
        rare_prompts: Fewer prompts with an event, or without, are counted exactly.
        kind: Student's t with both factors random, or percentiles of the two-way bootstrap.
    """

    replicates: int
    confidence: float
    rare_prompts: int
    kind: Literal["two_way_t", "bootstrap"] = "two_way_t"


@dataclass(frozen=True)
class Crossed:
    """Values of one state and metric, summed by training seed and prompt: ``sums``, ``counts`` (seeds, prompts)."""

    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Floats, seeds: Labels, prompts: Labels) -> Crossed:
        """Sums values by seed and prompt.

        Args:
            values: One value an image (n,).
            seeds: Training seed of each image (n,).
            prompts: Prompt of each image (n,).

        Raises:
            ValueError: If there are no values, one is not finite, or a seed lacks a prompt that another one has: the
                two-way bootstrap is defined for such designs too, but here it means that a run is incomplete.
        """
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(f"need finite values, got {len(values)} of which {int(np.isfinite(values).sum())} finite")
        seed_names, row = np.unique(seeds, return_inverse=True)
        prompt_names, column = np.unique(prompts, return_inverse=True)
        shape = len(seed_names), len(prompt_names)
        cell = row * shape[1] + column
        counts = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
        if (counts == 0).any():
            seed, prompt = np.argwhere(counts == 0)[0]
            raise ValueError(
                f"training seed {seed_names[seed]} has no image of prompt '{prompt_names[prompt]}' "
                f"({int((counts == 0).sum())} such pairs); a run is incomplete, generate its images or leave it out"
            )
        sums = np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
        return cls(sums=sums.astype(np.float64), counts=counts)

    @property
    def mean(self) -> float:
        """Mean over all images."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def seed_means(self) -> Floats:
        """Mean of each training seed (seeds,)."""
        return np.asarray(self.sums.sum(axis=1) / self.counts.sum(axis=1), dtype=np.float64)


def wilson(successes: int, n: int, confidence: float) -> Interval:
    """The interval of one run's rate, its images taken as independent.

    With p = k/n and z the normal quantile: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; as SciPy's
    ``binomtest(k, n).proportion_ci(method="wilson")``.
    """
    interval = stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def clopper_pearson(successes: float, n: float, confidence: float) -> Interval:
    """The exact binomial interval, continued to fractional counts by its beta quantiles.

    low = B(α/2; k, n-k+1), high = B(1-α/2; k+1, n-k); low is 0 for k = 0 and high is 1 for k = n.
    Source: Clopper and Pearson 1934; with k = p·n and an effective n, Korn and Graubard 1998 ("Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data").
    """
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes <= 0 else float(stats.beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes >= n else float(stats.beta.ppf(1.0 - tail, successes + 1, n - successes))
    return Interval(low, high)


def relapse_chance(relapsed: int, seeds: int, confidence: float) -> Interval:
    """The interval of a training seed's chance to relapse, of which ``relapsed`` of ``seeds`` did.

    Clopper and Pearson's, the seeds being the sample. With none of S its upper end is 1 − (α/2)^(1/S): 0.84,
    0.71 and 0.52 for 2, 3 and 5 seeds at 95 %, however many prompts there are.
    """
    return clopper_pearson(relapsed, seeds, confidence)


def bootstrap_means(data: Crossed, replicates: int, rng: np.random.Generator) -> Floats:
    """Replicates (replicates,) of the mean under two-way resampling of training seeds and prompts.

    Seeds and prompts are drawn with replacement, independently of one another; an image counts as often as its seed was
    drawn times as often as its prompt was: mean* = Σ w_s w_p x_sp / Σ w_s w_p with multinomial w_s and w_p. A factor
    with one level is not resampled.
    Source: Owen 2007, "The pigeonhole bootstrap", arXiv 0712.1111; product weights in any number of factors in
    Owen and Eckles 2012, arXiv 1106.2125. The variance is mildly overestimated, except that the part that stems from
    S training seeds is underestimated by the usual factor (S - 1)/S, which matters when S is 2 or 3.
    """
    seed_weights, prompt_weights = (multinomial(levels, replicates, rng) for levels in data.sums.shape)
    numerator = ((seed_weights @ data.sums) * prompt_weights).sum(axis=1)
    denominator = ((seed_weights @ data.counts) * prompt_weights).sum(axis=1)
    return np.asarray(numerator / denominator, dtype=np.float64)


def multinomial(levels: int, replicates: int, rng: np.random.Generator) -> Floats:
    """How often each level is drawn in as many draws as there are levels: (replicates, levels)."""
    draws = rng.integers(levels, size=(replicates, levels)) + levels * np.arange(replicates)[:, None]
    counts = np.bincount(draws.ravel(), minlength=replicates * levels)
    return counts.reshape(replicates, levels).astype(np.float64)


def bootstrap_interval(data: Crossed, method: IntervalMethod, rng: np.random.Generator) -> Interval:
    """The percentile interval of :func:`bootstrap_means`; NaN where one seed and one prompt leave nothing to draw."""
    if data.sums.size == 1:
        return Interval(float("nan"), float("nan"))
    tail = (1.0 - method.confidence) / 2.0
    low, high = np.quantile(bootstrap_means(data, method.replicates, rng), [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def standard_errors(data: Crossed) -> list[tuple[float, int]]:
    """Standard error of the mean over training seeds and over prompts, each with its degrees of freedom.

    With z_sp = (x_sp − m n_sp) / n̄ for the sums x and counts n of S seeds and P prompts and the mean m: the standard
    deviation of the seeds' means z̄_s over √S, and that of the prompts' means z̄_p over √P. Where seeds and prompts
    cancel, both may be below what remains of the z_sp; the prompts' is held to that. A factor of one level has none.
    """
    seeds, prompts = data.sums.shape
    z = (data.sums - data.mean * data.counts) / data.counts.mean()
    by_seed, by_prompt = z.mean(axis=1), z.mean(axis=0)
    means = [values for values in (by_seed, by_prompt) if len(values) > 1]
    errors = [(float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1) for values in means]
    if len(errors) == 2:
        residual = float(((z - by_seed[:, None] - by_prompt) ** 2).sum()) / ((seeds - 1) * (prompts - 1))
        errors[1] = max(errors[1][0], math.sqrt(residual / z.size)), prompts - 1
    return errors


def two_way_t(data: Crossed, confidence: float, *, rate: bool) -> Interval:
    """The interval of a mean with random training seeds and prompts; NaN if there is only one of each.

    m ± √((t_S e_S)² + (t_P e_P)²) with the :func:`standard_errors` e of the S seeds' and the P prompts' means and
    Student's quantiles t of S − 1 and P − 1 degrees of freedom. With one seed it is Student's interval over prompts.
    Where the effects of seeds, prompts and their interaction are normal, it covers at least as often as it says: e_S²
    and e_P² are independent, and together at least the mean's variance in expectation.
    Source: Banerjee 1960, "Approximate confidence interval for linear functions of means of k populations when the
    population variances are not equal", Sankhyā 22, 357–358. One t with Satterthwaite's degrees of freedom covers less:
    where few seeds agree by chance it takes those of the prompts.

    Args:
        data: Values by seed and prompt.
        confidence: Coverage, such as 0.95.
        rate: Whether the values are 0 or 1: a half width h becomes h/(m(1 − m)) on the logit's scale then.
    """
    mean = data.mean
    errors = standard_errors(data)
    if not errors:
        return Interval(float("nan"), float("nan"))
    half = math.hypot(*(float(stats.t.ppf(0.5 + confidence / 2.0, df)) * error for error, df in errors))
    if half == 0.0:
        return Interval(mean, mean)
    if not rate:
        return Interval(mean - half, mean + half)
    low, high = on_logits(mean, np.array([-half, half]))
    return Interval(float(low), float(high))


def on_logits(mean: float, deviations: Floats) -> Floats:
    """A rate's deviations, carried over to the logit's scale by its derivative, as rates in (0, 1)."""
    return np.asarray(special.expit(special.logit(mean) + deviations / (mean * (1.0 - mean))), dtype=np.float64)


def mean_interval(data: Crossed, method: IntervalMethod, rng: np.random.Generator, *, rate: bool = False) -> Interval:
    """The interval of a mean by the configured method, for events that are not rare.

    Args:
        data: Values by seed and prompt; differences of two models too.
        method: The method and its settings.
        rng: Where a bootstrap's draws come from.
        rate: Whether the values are 0 or 1.
    """
    if method.kind == "two_way_t":
        return two_way_t(data, method.confidence, rate=rate)
    return bootstrap_interval(data, method, rng)


def pooled_interval(data: Crossed, method: IntervalMethod, rng: np.random.Generator, *, rate: bool) -> Interval:
    """The interval of a mean over training seeds and prompts.

    That of :func:`mean_interval`, except for rare events. Where no image shows the event, nothing varies and [0, 0] is
    falsely certain; where one prompt in a hundred shows it, the upper end is still too low. So a rate whose event
    occurs (or fails to occur) in fewer than ``rare_prompts`` prompts gets the Clopper-Pearson interval with the prompts
    as the sample: n = prompts, k = rate · prompts. That is conservative when a prompt has several images or the model
    several seeds, and says nothing of seeds that relapse: see :func:`relapse_chance`.

    Args:
        data: Values by seed and prompt.
        method: How it is made.
        rng: Where the draws come from.
        rate: Whether the values are 0 or 1.
    """
    prompts = data.sums.shape[1]
    if rate:
        if is_rare(data.sums, data.counts, method):
            return clopper_pearson(data.mean * prompts, prompts, method.confidence)
    return mean_interval(data, method, rng, rate=rate)


def is_rare(events: Floats, of: Floats, method: IntervalMethod) -> bool:
    """Whether fewer than ``rare_prompts`` prompts show an event, or fail to: (seeds, prompts) events and cases."""
    flagged, all_cases = events.sum(axis=0), of.sum(axis=0)
    return min(int((flagged > 0).sum()), int((flagged < all_cases).sum())) < method.rare_prompts


def pooled(data: Crossed, method: IntervalMethod, rng: np.random.Generator, *, rate: bool) -> Estimate:
    """Mean, spread over seeds and interval of an image-level metric; see :func:`pooled_interval`."""
    low, high = pooled_interval(data, method, rng, rate=rate)
    seeds = data.sums.shape[0]
    std = float(np.std(data.seed_means, ddof=1)) if seeds > 1 else float("nan")
    return Estimate(mean=data.mean, std=std, low=low, high=high, n=int(data.counts.sum()), seeds=seeds)


def across_seeds(values: Floats, n: int, confidence: float) -> Estimate:
    """Mean, sample standard deviation and Student-t interval of one value a training seed.

    mean ± t(1-α/2, S-1) · std/√S, for S ≥ 2; with one seed std and interval are NaN.
    Source: Student 1908, "The probable error of a mean"; as SciPy's ``stats.t.interval``.

    Args:
        values: One value a seed (S,).
        n: Images or examples behind all of them.
        confidence: Coverage of the interval.

    Raises:
        ValueError: If there is no value or one is not finite.
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"need one finite value a training seed, got {values.tolist()}")
    mean, seeds = float(values.mean()), len(values)
    if seeds == 1:
        return Estimate(mean=mean, std=float("nan"), low=float("nan"), high=float("nan"), n=n, seeds=1)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2.0, seeds - 1)) * std / np.sqrt(seeds)
    return Estimate(mean=mean, std=std, low=mean - half, high=mean + half, n=n, seeds=seeds)


def bounded(estimate: float, end: float, bound: float, *, possible: bool = True) -> Bounded:
    """Whether a quantity is at least ``bound``: up to its interval's end, by its estimate only, or not."""
    if end >= bound - _ROUNDING and possible:
        return "holds"
    return "not shown" if estimate >= bound - _ROUNDING else "fails"
