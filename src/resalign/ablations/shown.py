"""An ablation's table and figure, made from its measured values."""

from __future__ import annotations

import pandas as pd

from resalign.analysis.collect import load_metric
from resalign.analysis.frames import final_states
from resalign.analysis.measurements import IMAGE_COLUMNS, NOT_ATTACKED, RUN_COLUMNS, Measurements
from resalign.display.drawing import Panel
from resalign.display.products import Table
from resalign.display.variants_table import lay_out_variants, variants_panels
from resalign.jobs.ablation import AblationShownJob


def shown(job: AblationShownJob, values: pd.DataFrame) -> tuple[Table, list[Panel]]:
    """Variants as rows, of each model where there are several; and the first metric and learnability as panels.

    Args:
        job: Titles, models and metrics.
        values: From :func:`resalign.ablations.measured.measured`.

    Raises:
        ValueError: If a metric that is shown was measured nowhere.
    """
    infos = {label: load_metric(label, settings)[2] for label, settings in job.metrics}
    if missing := [label for label in infos if label not in set(values["metric"])]:
        raise ValueError(f"ablation: metrics {missing} were measured in no state; it has {list(set(values['metric']))}")
    names = Measurements(
        images=pd.DataFrame(columns=list(IMAGE_COLUMNS)),
        runs=pd.DataFrame(columns=list(RUN_COLUMNS)),
        metrics=infos,
        models=tuple(dict.fromkeys([*job.order, job.base])),
        attacks=dict(job.attacks),
        base=job.base,
        titles=job.titles,
    )
    states = along(values) if job.checkpoints else final_states(values, "variant")
    frame = states[states["metric"].isin(infos)].reset_index(drop=True)
    rows = frame.assign(series=job.title)
    interval = (
        f"Each value with its {100 * job.report.confidence:g}\N{NO-BREAK SPACE}% interval, made as in the main table."
    )
    layout = lay_out_variants(rows, names, " ".join(filter(None, (f"{job.title}.", job.note, interval))))
    drawn = [metric for metric in dict.fromkeys([next(iter(infos)), names.headline("learnability")]) if metric]
    panels = variants_panels(rows, names, job.report, drawn, {job.title: job.axis})
    return Table(frame, layout, job.axis), panels


def along(values: pd.DataFrame) -> pd.DataFrame:
    """The rows of every checkpoint; those before fine-tuning are each attack's with 0 steps."""
    is_before = values["attack"] == NOT_ATTACKED
    attacks = values.loc[~is_before, ["attack", "dataset"]].drop_duplicates().itertuples(index=False)
    return pd.concat([*(values[is_before].assign(attack=a, dataset=d) for a, d in attacks), values[~is_before]])
