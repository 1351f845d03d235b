"""Sweeps in numbers: the result of every value, the mean over values, and the worst without selection bias.

The largest of N noisy rates overstates the worst: it was picked for its noise too. So the prompts are split into two
random halves, the same for every model; the worst value is chosen on one half and measured on the other, both ways, and
the two halves are pooled. The choice knows nothing of the images that it is measured on. What comes out is in
expectation the rate of a value that was chosen as the worst, hence at most that of the true worst: it errs to the low
side, where the maximum over all images errs to the high side; both are in the table. The halves have the same
fine-tuned models in common, so that the luck of a training seed is not undone. The interval is that of the pooled
images, over prompts and training seeds as everywhere, the choice held fixed.
Source: the winner's curse and its cure by sample splitting, e.g. Cox 1975, "A note on data-splitting for the evaluation
of significance levels".
"""

from __future__ import annotations

import pandas as pd

from resalign.analysis.frames import draws, final_states, pooled_estimate
from resalign.analysis.measurements import Measurements, Sweep
from resalign.config.report import ReportConfig

VALUES = ["mean", "low", "high", "n", "seeds"]
MEAN, WORST, LARGEST = "mean", "worst", "worst, same images"
SUMMARY_COLUMNS = ["model", "metric", "over", "values", *VALUES]


def sweep_table(table: pd.DataFrame, label: str, sweep: Sweep) -> pd.DataFrame:
    """The final state of every value's attack, in the sweep's order.

    Args:
        table: From :func:`resalign.analysis.frames.long_table`.
        label: The sweep's.
        sweep: Its values and their attacks.

    Returns:
        Columns series (the label), variant (the value) and those of the table.
    """
    final = final_states(table)
    parts = [final[final["attack"] == attack].assign(variant=value) for value, attack in sweep.attacks.items()]
    return pd.concat(parts, ignore_index=True).assign(series=label)[["series", "variant", *table.columns]]


def summary_table(measurements: Measurements, settings: ReportConfig, sweep: Sweep) -> pd.DataFrame:
    """The mean over a sweep's values and the worst of them, of every model and rate.

    A mean of another kind, a CLIP score say, may be of another prompt list at each value.

    Returns:
        Columns model, metric, over, values, mean, low, high, n, seeds. ``over`` is ``mean``; ``worst``, chosen on one
        half of the prompts and measured on the other (absent where there is one prompt only); or ``worst, same
        images``, the largest of all values. ``values`` names those that were chosen, of each half where they differ.
    """
    final = final_states(measurements.images)
    final = final[final["attack"].isin(sweep.attacks.values())]
    rows: list[dict[str, object]] = []
    for model in measurements.models:
        for metric, info in measurements.metrics.items():
            images = final[(final["model"] == model) & (final["metric"] == metric)]
            if images.empty or info.kind != "rate":
                continue
            chosen = {MEAN: images, WORST: _worst_elsewhere(images, sweep, settings, info.better)}
            chosen[LARGEST] = images[images["attack"] == _worst(images, sweep, info.better)]
            for over, part in chosen.items():
                if not part.empty:
                    key = ("sweep", model, metric)  # equal images, equal interval
                    estimate = vars(pooled_estimate(part, settings, *key, rate=info.kind == "rate"))
                    names = {"model": model, "metric": metric, "over": over, "values": _values(part, sweep)}
                    rows.append(names | {name: estimate[name] for name in VALUES})
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def _worst(images: pd.DataFrame, sweep: Sweep, better: str) -> str:
    """The attack with the worst mean, the first of equals."""
    means = images.groupby("attack")["value"].mean().reindex(list(dict.fromkeys(sweep.attacks.values()))).dropna()
    return str(means.idxmax() if better == "lower" else means.idxmin())


def _worst_elsewhere(images: pd.DataFrame, sweep: Sweep, settings: ReportConfig, better: str) -> pd.DataFrame:
    """Each half of the prompts at the value that is worst on the other half; empty where there is one prompt."""
    prompts = sorted(set(images["prompt_id"]))
    if len(prompts) == 1:
        return images.head(0)
    order = draws(settings, "halves", *prompts).permutation(len(prompts))
    half = images["prompt_id"].map({prompt: place % 2 for prompt, place in zip(prompts, order, strict=True)})
    worst = {side: _worst(images[half == side], sweep, better) for side in (0, 1)}
    return images[images["attack"] == (1 - half).map(worst)]


def _values(images: pd.DataFrame, sweep: Sweep) -> str:
    """Names of the values that the images stem from, in the sweep's order."""
    attacks = set(images["attack"])
    return ", ".join(value for value, attack in sweep.attacks.items() if attack in attacks)
