"""How often the reported 95 % intervals hold the true rate, where images cluster by prompt and by trained model.

    python bench/interval_coverage.py

Images are 0 or 1 with logit p = μ + a_prompt + b_seed, both normal; the truth is the mean of p over all prompts and
training seeds that there could be. Printed are the shares of trials whose interval holds it, of a pooled rate
(:func:`resalign.report.statistics.pooled_interval`) and, where it differs, of Clopper-Pearson over all images, which
takes them as independent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import product

import numpy as np
from scipy import optimize, special

from resalign.report import statistics
from resalign.report.settings import ReportConfig
from resalign.report.statistics import Bootstrap, Crossed

RATES = (0.02, 0.1, 0.5)
# Standard deviations on the logit's scale; at a rate of .5, b = 0.5 spreads the seeds' rates by about .12.
PROMPT_SPREAD = 1.5
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
    method = Bootstrap(arguments.replicates, settings.confidence, settings.rare_prompts)
    sys.stdout.write(
        "| seeds x prompts x images | rate | seeds' spread | pooled | images as independent |\n|---|---|---|---|---|\n"
    )
    for design, rate, spread in product(DESIGNS, RATES, SEED_SPREADS):
        rng = np.random.default_rng([arguments.seed, *design, round(1000 * rate), round(1000 * spread)])
        ours, plain = np.mean(list(trials(design, rate, spread, method, rng, arguments.trials)), axis=0)
        sys.stdout.write(f"| {' x '.join(map(str, design))} | {rate:g} | {spread:g} | {ours:.2f} | {plain:.2f} |\n")
        sys.stdout.flush()


def trials(
    design: tuple[int, int, int], rate: float, spread: float, method: Bootstrap, rng: np.random.Generator, number: int
) -> Iterator[tuple[bool, bool]]:
    """Whether the pooled interval, and that of independent images, hold the true rate."""
    seeds, prompts, images = design
    middle = logit_of(rate, np.hypot(PROMPT_SPREAD, spread))
    for _ in range(number):
        by_prompt, by_seed = rng.normal(0, PROMPT_SPREAD, (1, prompts)), rng.normal(0, spread, (seeds, 1))
        shown = rng.binomial(images, special.expit(middle + by_prompt + by_seed)).astype(np.float64)
        data = Crossed(sums=shown, counts=np.full_like(shown, images))
        pooled = statistics.pooled_interval(data, method, rng, rate=True)
        plain = statistics.clopper_pearson(shown.sum(), shown.size * images, method.confidence)
        yield pooled.low <= rate <= pooled.high, plain.low <= rate <= plain.high


def logit_of(rate: float, spread: float) -> float:
    """μ such that the mean of expit(μ + spread · z) over a standard normal z is the rate."""
    points, weights = special.roots_hermitenorm(80)
    weights = weights / weights.sum()
    return float(optimize.brentq(lambda m: float(weights @ special.expit(m + spread * points)) - rate, -30, 30))


if __name__ == "__main__":
    main()
