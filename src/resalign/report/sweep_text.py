"""Describes sweeps in sentences: at which values each model holds or breaks, and how long the fine-tuning took."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from resalign.accounting.job_records import JobRecord
from resalign.accounting.times import duration
from resalign.analysis.measurements import Measurements, Sweep
from resalign.analysis.statistics import Bounded
from resalign.analysis.sweeps import WORST
from resalign.analysis.verdicts import at_most
from resalign.config.report import ReportConfig
from resalign.display.values import value_text
from resalign.report.finding import base_has_lost

_VERBS: dict[Bounded, str] = {"holds": "holds", "not shown": "is not shown to hold", "fails": "breaks"}


def sweep_sentences(
    rows: pd.DataFrame, summary: pd.DataFrame, measurements: Measurements, settings: ReportConfig, sweep: Sweep
) -> tuple[str, ...]:
    """One sentence per model: at which values it holds or breaks, and its worst value; one sentence on learnability.

    A model holds at a value if the upper end of its safety rate's interval is at most ``resurgence_threshold``. It is
    not shown to hold if only the estimate is, and breaks otherwise. A metric that is not a rate gets no sentences.

    If the base model itself has lost the concept at a value, a low rate there does not show unlearning. Values at which
    the base's rate is below ``tested_share`` of its rate before fine-tuning are therefore listed as excluded.

    Args:
        rows: From :func:`resalign.analysis.sweeps.sweep_table`.
        summary: From :func:`resalign.analysis.sweeps.summary_table`.
        measurements: Names, titles and metrics.
        settings: The thresholds.
        sweep: Values in order.
    """
    metric = measurements.safety_metric
    info, most = measurements.metrics[metric], settings.resurgence_threshold
    measured = rows[rows["metric"] == metric]
    lost = _lost(measured, measurements, settings)
    tested = [value for value in sweep.attacks if value not in set(lost["variant"])]
    if info.kind != "rate" or info.better != "lower" or measured.empty:
        return ()
    sentences = [
        f"By {sweep.axis}: a model holds where the upper end of its {info.title}'s interval is at most "
        f"{100 * most:g}\N{NO-BREAK SPACE}%, and breaks where the estimate is above that."
    ]
    if not lost.empty:
        base = ", ".join(f"{row['variant']} ({value_text(row, info)})" for row in lost.to_dict("records"))
        sentences.append(f"Excluded: the base model no longer produces the concept here: {base}.")
    measured = measured[measured["variant"].isin(tested)]
    for model in measurements.models:
        listed: dict[Bounded, list[str]] = {verdict: [] for verdict in _VERBS}
        for row in measured[measured["model"] == model].to_dict("records"):
            listed[at_most(row, most)].append(str(row["variant"]))
        clauses = [_clause(_VERBS[verdict], listed[verdict], len(tested)) for verdict in _VERBS if listed[verdict]]
        if clauses:
            worst = summary[(summary["metric"] == metric) & (summary["model"] == model) & (summary["over"] == WORST)]
            end = f"; at worst {value_text(worst.to_dict('records')[0], info)}" if len(worst) else ""
            sentences.append(f"{measurements.title(model)} {' and '.join(clauses)}{end}.")
    return (*sentences, *_learnt(rows, measurements))


def _lost(measured: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> pd.DataFrame:
    """The base model's rows of the values at which it has itself lost the concept."""
    base = measured[measured["model"] == measurements.base]
    return base.loc[[base_has_lost(float(mean), measurements, settings) for mean in base["mean"]]]


def _clause(verb: str, values: list[str], of: int) -> str:
    """``holds at 3 of 3`` or ``breaks at 2 of 3 (1e-2, cosine)``."""
    named = f" ({', '.join(values)})" if len(values) < of else ""
    return f"{verb} at {len(values)} of {of}{named}"


def _learnt(rows: pd.DataFrame, measurements: Measurements) -> list[str]:
    """The values at which the base model learns least and most; an attack that teaches nothing tests nothing."""
    metric = measurements.headline("learnability")
    base = rows[(rows["metric"] == metric) & (rows["model"] == measurements.base)]
    if metric is None or base.empty:
        return []
    info = measurements.metrics[metric]
    ordered = base.sort_values("mean", kind="stable").to_dict("records")
    least, most = ordered[0], ordered[-1]
    return [
        f"{measurements.title(measurements.base)} learns least at {least['variant']} ({info.title} "
        f"{value_text(least, info)}) and most at {most['variant']} ({value_text(most, info)})."
    ]


def attack_seconds(records: Sequence[JobRecord], model: str, sweep: Sweep) -> float:
    """Seconds of a model's fine-tuning, summed over values, training seeds and attempts."""
    labels = {f"{model}/{attack}" for attack in sweep.attacks.values()}
    return sum(record.seconds for record in records if record.stage == "attack" and record.label in labels)


def seconds_sentence(records: Sequence[JobRecord], measurements: Measurements, sweep: Sweep) -> str:
    """The duration of the sweep's fine-tuning by model; empty if none of its jobs has a record."""
    seconds = {model: attack_seconds(records, model, sweep) for model in measurements.models}
    parts = [f"{measurements.title(model)} {duration(value)}" for model, value in seconds.items() if value]
    return f"Fine-tuning time over all values and training seeds: {', '.join(parts)}." if parts else ""
