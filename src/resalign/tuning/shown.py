"""Searches compared: the best validation loss over the budget, what was found, and how the searchers differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from resalign.analysis.statistics import across_seeds
from resalign.config.report import ReportConfig
from resalign.config.tuning import GUIDED, TuningConfig
from resalign.display import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from resalign.jobs.tune import TunedJob

POINTS = 40  # of a curve
# What each searcher is called; a searcher of a reader's own has its file's name.
TITLES = {
    "random": "random search",
    "tpe": "Optuna (TPE)",
    "pbt": "population-based training",
    "pbt_hypergradient": "population-based training along the hypergradient",
}
Trials = Mapping[tuple[str, int], pd.DataFrame]


def curves(trials: Trials, budget: float) -> pd.DataFrame:
    """The lowest validation loss of any model so far, at equal shares of the budget; a row a searcher, seed and share.

    Before a searcher's first model it is NaN; so is a mean in which a seed has none.
    """
    rows = []
    for (searcher, seed), table in trials.items():
        for evaluations in np.linspace(budget / POINTS, budget, POINTS):
            seen = table.loc[table["evaluations"] <= evaluations, "value"].replace(np.inf, np.nan)
            rows.append({"searcher": searcher, "seed": seed, "evaluations": evaluations, "value": seen.min()})
    return pd.DataFrame(rows)


def best(trials: Trials, fields: Iterable[str]) -> pd.DataFrame:
    """Of each search the whole training with the lowest validation loss; ``changes`` are segments after the first."""
    rows = []
    for (searcher, seed), table in trials.items():
        whole = table[table["steps"] == table["steps"].max()]
        row = whole.loc[whole["value"].idxmin()]
        found = {"searcher": searcher, "seed": seed, "trainings": table["member"].nunique()}
        found |= {name: row[name] for name in ("value", "harmful", "retained")}
        moved = table[table["steps"] > table["steps"].min()]
        derivatives = moved.filter(like="derivative.").notna().any(axis=1)
        found |= {"derivatives": int(derivatives.sum()), "changes": len(moved)}
        rows.append(found | {name: row[f"field.{name}"] for name in fields})
    return pd.DataFrame(rows)


def differences(found: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Every searcher's best loss minus the first one's, paired by seed, with Student's interval over seeds."""
    losses = found.pivot(index="seed", columns="searcher", values="value")
    first = found["searcher"].iloc[0]
    rows = []
    for searcher in found["searcher"].unique():
        for quantity, values in (("value", losses[searcher]), ("difference", losses[searcher] - losses[first])):
            if quantity == "difference" and searcher == first:
                continue
            estimate = across_seeds(values.to_numpy(float), len(values), confidence)
            ends = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
            rows.append({"searcher": searcher, "quantity": quantity, **ends})
    return pd.DataFrame(rows)


def text(found: pd.DataFrame, config: TuningConfig, confidence: float) -> str:
    """A page: the table of searchers, and one sentence about each difference."""
    table, first = differences(found, confidence), config.searchers[0]
    ranges = ", ".join(f"{name} in [{ends.low:g}, {ends.high:g}]" for name, ends in config.fields.items())
    lines = [
        f"# Tuning `{config.method}`",
        "",
        f"Searched: {ranges}. Each search has {config.budget:,} network evaluations (a gradient is three); there are "
        f"{len(config.seeds)} seeds. Validation loss: L_harm(θ*) + αR(θ) on held-out images; lower is better.",
        "",
        f"| searcher | trainings | best loss [{confidence:.0%} interval] | minus that of {title(first)} |",
        "|---|---|---|---|",
    ]
    sentences = []
    for searcher in config.searchers:
        rows = table[table["searcher"] == searcher].set_index("quantity").to_dict("index")
        trainings, apart = found.loc[found["searcher"] == searcher, "trainings"].iloc[0], ""
        if searcher != first:
            apart = _interval(rows["difference"])
            sentences.append(_sentence(searcher, first, rows["difference"]))
        lines.append(f"| {title(searcher)} | {trainings} | {_interval(rows['value'])} | {apart} |")
        if searcher == GUIDED:
            taken, asked = found.loc[found["searcher"] == searcher, ["derivatives", "changes"]].sum()
            sentences.append(f"- Derivatives were taken in {taken} of {asked} changes; elsewhere something diverged.")
    return "\n".join([*lines, "", *sentences, ""])


def _interval(row: Mapping[Any, float]) -> str:
    return f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


def _sentence(searcher: str, first: str, difference: Mapping[Any, float]) -> str:
    """What a difference shows."""
    name, other = title(searcher), title(first)
    if math.isnan(difference["low"]):
        return f"- With one seed {name} and {other} cannot be told apart."
    if difference["high"] < 0:
        return f"- At this budget {name} finds lower losses than {other}."
    if difference["low"] > 0:
        return f"- At this budget {name} finds higher losses than {other}."
    return f"- At this budget {name} and {other} are not told apart: the interval of their difference holds 0."


def title(searcher: str) -> str:
    """What a searcher is called."""
    return TITLES.get(searcher, searcher)


def configuration(found: pd.DataFrame, job: TunedJob) -> dict[str, Any]:
    """An experiment that extends the searched one, with the best settings of each searcher and seed.

    A population's are those at its end: what it had at first is no setting, but part of its way.
    """
    unlearning: dict[str, Any] = {}
    for row in found.to_dict("records"):
        values = {name: float(f"{row[name]:.6g}") for name in job.tuning.fields}
        words = {"title": f"{job.label}, {title(row['searcher'])}, search {row['seed']}"}
        settings = {key: value for key, value in job.method.items() if key != "name"}
        label = f"{job.label}-{row['searcher']}-{row['seed']}"
        unlearning[label] = {"method": job.method["name"], **words, **settings, **values}
    return {"extends": job.extends, "name": f"{job.name}-tuned", "unlearning": unlearning}


def figure(over: pd.DataFrame, settings: ReportConfig) -> Figure:
    """Curves: mean of the seeds with the band of Student's interval, where every seed has a model.

    Seeds have other trainings and draws, and differ in their losses more than searchers do. So a loss is shown above
    the lowest one of its seed, whichever searcher has found it.
    """
    over = over.assign(value=over["value"] - over.groupby("seed")["value"].transform("min"))
    searchers = list(over["searcher"].unique())
    styles = drawing.styles_of(searchers, "", settings)
    with drawing.theme(settings):
        drawn, (axis,) = drawing.panels(1, settings)
        for searcher in searchers:
            table = (
                over[over["searcher"] == searcher].pivot(index="evaluations", columns="seed", values="value").dropna()
            )
            estimates = [across_seeds(row, len(row), settings.confidence) for row in table.to_numpy(float)]
            colour = styles[searcher].colour
            axis.plot(table.index, [e.mean for e in estimates], color=colour, label=title(searcher))
            band = [e.low for e in estimates], [e.high for e in estimates]
            axis.fill_between(table.index, *band, color=colour, alpha=0.15, linewidth=0)
        axis.set_xlabel("network evaluations")
        axis.set_ylabel("lowest validation loss so far,\nabove the seed's lowest")
        axis.legend(frameon=False)
    return drawn
