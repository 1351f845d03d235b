"""How often the reported 95 % intervals hold the true rate, where images cluster by prompt and by trained model.

    python bench/interval_coverage.py

Images are 0 or 1 with logit p = μ + a_prompt + b_seed, both normal; the truth is the mean of p over all prompts and
training seeds that there could be. Printed are the shares of trials whose interval holds it, and the intervals' median
widths: of a pooled rate by either method (:func:`resalign.analysis.statistics.pooled_interval`), and of Clopper-Pearson
over all images, which takes them as independent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal

import numpy as np
from scipy import optimize, special

from resalign.analysis import statistics
from resalign.analysis.statistics import Crossed, Floats, IntervalMethod
from resalign.config.report import ReportConfig

RATES = (0.02, 0.1, 0.5)
# Standard deviations on the logit's scale; at a rate of .5, b = 0.5 spreads the seeds' rates by .09, b = 1 by .16.
PROMPT_SPREAD = 1.5
KINDS: tuple[Literal["bootstrap", "two_way_t"], ...] = ("bootstrap", "two_way_t")
SEED_SPREADS = (0.0, 0.5, 1.0)
# Training seeds, prompts, images of a prompt: the IP of the demo and of the resilience study, the paper's US and IP.
DESIGNS = ((2, 24, 5), (5, 16, 8), (3, 200, 3), (3, 931, 3))


def main() -> None:
    """Simulates and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400, help="simulated experiments of each kind")
    parser.add_argument("--replicates", type=int, default=400, help="of each bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    arguments = parser.parse_args()
    settings = ReportConfig()
    methods = [IntervalMethod(arguments.replicates, settings.confidence, settings.rare_prompts, kind) for kind in KINDS]
    shares, widths = [], []
    for design, spread in product(DESIGNS, SEED_SPREADS):
        name = f"| {' × '.join(map(str, design))} | {spread:g} |"
        held, wide = zip(*(measured(design, rate, spread, methods, arguments) for rate in RATES), strict=True)
        shares.append(f"{name} {' | '.join(' / '.join(f'{share:.2f}' for share in row) for row in held)} |")
        widths.append(f"{name} {' | '.join(' / '.join(f'{width:.2f}' for width in row) for row in wide)} |")
    head = f"| seeds × prompts × images | spread of the seeds | {' | '.join(f'rate {rate:g}' for rate in RATES)} |"
    for title, lines in (("Shares that hold the rate", shares), ("Median widths", widths)):
        of = " / ".join([*KINDS, "images as independent"])
        sys.stdout.write("\n".join([f"{title}: {of}", "", head, "|---" * (2 + len(RATES)) + "|", *lines, "", ""]))


def measured(
    design: tuple[int, int, int],
    rate: float,
    spread: float,
    methods: Sequence[IntervalMethod],
    arguments: argparse.Namespace,
) -> tuple[Floats, Floats]:
    """Share of the trials in which each kind of interval holds the rate, and the intervals' median width."""
    rng = np.random.default_rng([arguments.seed, *design, round(1000 * rate), round(1000 * spread)])
    made = np.array(list(trials(design, rate, spread, methods, rng, arguments.trials)))
    held = ((made[..., 0] <= rate) & (rate <= made[..., 1])).mean(axis=0)
    return held, np.median(made[..., 1] - made[..., 0], axis=0)


def trials(
    design: tuple[int, int, int],
    rate: float,
    spread: float,
    methods: Sequence[IntervalMethod],
    rng: np.random.Generator,
    number: int,
) -> Iterator[list[tuple[float, float]]]:
    """Of each simulated experiment the interval by each method, then that of independent images."""
    seeds, prompts, images = design
    middle = logit_of(rate, np.hypot(PROMPT_SPREAD, spread))
    for _ in range(number):
        by_prompt, by_seed = rng.normal(0, PROMPT_SPREAD, (1, prompts)), rng.normal(0, spread, (seeds, 1))
        shown = rng.binomial(images, special.expit(middle + by_prompt + by_seed)).astype(np.float64)
        data = Crossed(sums=shown, counts=np.full_like(shown, images))
        pooled = [statistics.pooled_interval(data, method, rng, rate=True) for method in methods]
        yield [*pooled, statistics.clopper_pearson(shown.sum(), shown.size * images, methods[0].confidence)]


def logit_of(rate: float, spread: float) -> float:
    """μ such that the mean of expit(μ + spread · z) over a standard normal z is the rate."""
    points, weights = special.roots_hermitenorm(80)
    weights = weights / weights.sum()
    return float(optimize.brentq(lambda m: float(weights @ special.expit(m + spread * points)) - rate, -30, 30))


if __name__ == "__main__":
    main()
