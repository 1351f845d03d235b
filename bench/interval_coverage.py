"""How often the reported 95 % intervals hold the true value, where images cluster by prompt and by trained model.

    python bench/interval_coverage.py

Images are 0 or 1 with logit p = μ + a_prompt + b_seed, both normal; or a share of the seeds relapses, to a rate of 0.5
from 0.002. The truth is the mean of p over all prompts and training seeds that there could be, or the difference of two
such means. Two models have the same prompts, so the same a. Their training seeds have the same numbers, too, but a seed
does not do the same to two methods: each model has its own b. Where seeds relapse, it is the first model's.

Printed are the shares of trials whose interval holds the truth, the lowest over the rates, and the intervals' median
widths at the last rate: by either method, and for rates by Clopper-Pearson over all images, taken as independent.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, special

from resalign.analysis import statistics
from resalign.analysis.frames import difference_of_rates, interval_method
from resalign.analysis.statistics import Crossed, Floats, Interval, IntervalMethod
from resalign.config.report import ReportConfig

# Training seeds, prompts, images of a prompt: one seed; the demo's IP; nearly the registered study's, then with more
# prompts; the paper's US and IP.
DESIGNS = ((1, 24, 5), (2, 24, 5), (5, 16, 8), (5, 24, 8), (3, 200, 3), (3, 931, 3))
RATES = (0.02, 0.1, 0.5)
PAIRS = ((0.02, 0.02), (0.1, 0.02), (0.4, 0.1))
# Standard deviations on the logit's scale; at a rate of .5, 1 spreads the seeds' rates by .16 and 2 by .27.
PROMPT_SPREAD = 1.5
SEED_SPREADS = (0.0, 1.0, 2.0)
RELAPSES = (0.1, 0.3, 0.5)
RELAPSED, SAFE = 0.5, 0.002
KINDS: tuple[Literal["two_way_t", "bootstrap"], ...] = ("two_way_t", "bootstrap")
WANTED = 0.9


@dataclass(frozen=True)
class Model:
    """How often a model's images are flagged.

    Attributes:
        rate: Over all prompts, and all seeds that do not relapse.
        spread: Standard deviation of the seeds on the logit's scale.
        relapse: Share of seeds that relapse.
    """

    rate: float
    spread: float = 0.0
    relapse: float = 0.0

    @property
    def truth(self) -> float:
        """The mean over seeds and prompts."""
        return self.relapse * RELAPSED + (1.0 - self.relapse) * self.rate

    def flagged(self, by_prompt: Floats, design: tuple[int, int, int], rng: np.random.Generator) -> Floats:
        """Flagged images (seeds, prompts), given the prompts' effects (1, prompts)."""
        seeds, _, images = design
        middle = logit_of(self.rate, float(np.hypot(PROMPT_SPREAD, self.spread)))
        by_seed = middle + rng.normal(0, self.spread, (seeds, 1))
        by_seed[rng.random(seeds) < self.relapse] = logit_of(RELAPSED, PROMPT_SPREAD)
        return rng.binomial(images, special.expit(by_seed + by_prompt)).astype(np.float64)


def columns(models: int) -> dict[str, list[tuple[Model, ...]]]:
    """What is compared in each column, at every rate: one model alone, or two."""
    rates = [(rate,) for rate in RATES] if models == 1 else PAIRS
    spread = {f"spread {s:g}": [tuple(Model(rate, spread=s) for rate in row) for row in rates] for s in SEED_SPREADS}
    others = (Model(SAFE),) * (models - 1)
    return spread | {f"{100 * q:g} % relapse": [(Model(SAFE, relapse=q), *others)] for q in RELAPSES}


def main() -> None:
    """Simulates and prints two tables each of rates and of differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400, help="simulated experiments of each kind")
    parser.add_argument("--replicates", type=int, default=400, help="of each bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    arguments = parser.parse_args()
    settings = ReportConfig(replicates=arguments.replicates)
    methods = [interval_method(settings.model_copy(update={"interval": kind})) for kind in KINDS]
    for models, title, kinds in ((1, "rate", [*KINDS, "images as independent"]), (2, "difference", KINDS)):
        shares, widths, below = [], [], []
        for design in DESIGNS:
            name, held, wide = " × ".join(map(str, design)), [], []
            for column, cells in columns(models).items():
                found = [measured(design, cell, methods, arguments.trials, arguments.seed) for cell in cells]
                held.append(np.min([share for share, _ in found], axis=0))
                wide.append(found[-1][1])
                of_cells = zip(cells, found, strict=True)
                short = [f"{_rates(cell)}: {share[0]:.2f}" for cell, (share, _) in of_cells if share[0] < WANTED]
                below += [f"{name}, {column}, {'; '.join(short)}"] if short else []
            shares.append(_line(name, held))
            widths.append(_line(name, wide))
        head = f"| seeds × prompts × images | {' | '.join(columns(models))} |\n{'|---' * (1 + len(columns(models)))}|"
        for what, lines in (("Shares that hold the", shares), ("Median widths of the", widths)):
            sys.stdout.write("\n".join([f"{what} {title}: {' / '.join(kinds)}", "", head, *lines, "", ""]))
        sys.stdout.write("\n".join([f"{KINDS[0]} below {WANTED:g}, by rate:", *below, "", ""]))


def measured(
    design: tuple[int, int, int], models: tuple[Model, ...], methods: Sequence[IntervalMethod], trials: int, seed: int
) -> tuple[Floats, Floats]:
    """Share of the trials in which each kind of interval holds the truth, and the intervals' median width."""
    numbers = [round(1000 * number) for model in models for number in (model.rate, model.spread, model.relapse)]
    rng = np.random.default_rng([seed, *design, *numbers])
    made = np.array([intervals(design, models, methods, rng) for _ in range(trials)])
    truth = models[0].truth - sum(model.truth for model in models[1:])
    held = ((made[..., 0] <= truth) & (truth <= made[..., 1])).mean(axis=0)
    return held, np.median(made[..., 1] - made[..., 0], axis=0)


def intervals(
    design: tuple[int, int, int],
    models: tuple[Model, ...],
    methods: Sequence[IntervalMethod],
    rng: np.random.Generator,
) -> list[Interval]:
    """Of one simulated experiment the interval by each method; of a rate that of independent images, too."""
    seeds, prompts, images = design
    by_prompt = rng.normal(0, PROMPT_SPREAD, (1, prompts))
    first, *others = (model.flagged(by_prompt, design, rng) for model in models)
    data = Crossed(sums=first - sum(others), counts=np.full((seeds, prompts), float(images)))
    if others:
        return [difference_of_rates(*statistics.mean_interval(data, method, rng)) for method in methods]
    pooled = [statistics.pooled_interval(data, method, rng, rate=True) for method in methods]
    return [*pooled, statistics.clopper_pearson(first.sum(), first.size * images, methods[0].confidence)]


@functools.cache
def logit_of(rate: float, spread: float) -> float:
    """μ such that the mean of expit(μ + spread · z) over a standard normal z is the rate."""
    points, weights = special.roots_hermitenorm(80)
    weights = weights / weights.sum()
    return float(optimize.brentq(lambda m: float(weights @ special.expit(m + spread * points)) - rate, -30, 30))


def _line(name: str, cells: Sequence[Floats]) -> str:
    return f"| {name} | {' | '.join(' / '.join(f'{value:.2f}' for value in cell) for cell in cells)} |"


def _rates(models: tuple[Model, ...]) -> str:
    return " and ".join(f"{model.truth:.3g}" for model in models)


if __name__ == "__main__":
    main()
