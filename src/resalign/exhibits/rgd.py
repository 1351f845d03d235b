"""RGD's Table 1: how much of the concept is forgotten, what of the rest is kept, and image quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resalign.display.products import Table
    from resalign.exhibits._inputs import ExhibitInputs

TITLE, KIND = "Forgetting, retained accuracy and image quality (RGD, Table 1)", "table"
READS = ("values",)
KEPT = ("retained_accuracy", "fid", "kid", "clip_score")


def make(inputs: ExhibitInputs) -> Table:
    """UA, RA and FID of every model before fine-tuning.

    UA = 1 - accuracy on the forgotten class: of the metric ``concept_accuracy``, or else of the first safety metric,
    whose detectors then take the classifier's place.
    """
    from dataclasses import replace

    from resalign.analysis.measurements import NOT_ATTACKED
    from resalign.display.products import Table
    from resalign.exhibits._layouts import models_layout

    names, values = inputs.measurements.main(), inputs.main
    shown = "concept_accuracy" if "concept_accuracy" in names.metrics else names.safety_metric
    kept = [metric for metric in KEPT if metric in names.metrics]
    frame = values[(values["attack"] == NOT_ATTACKED) & values["metric"].isin([shown, *kept])]
    is_shown = frame["metric"] == shown
    low, high = frame["low"], frame["high"]
    frame = frame.assign(
        metric=frame["metric"].where(~is_shown, "ua"),
        mean=frame["mean"].where(~is_shown, 1 - frame["mean"]),
        low=low.where(~is_shown, 1 - high),
        high=high.where(~is_shown, 1 - low),
    )
    ua = replace(names.metrics[shown], title="UA", better="higher", group="utility")
    metrics = {"ua": ua, **{metric: names.metrics[metric] for metric in kept}}
    said = f"{TITLE}. UA is 1 - {names.metrics[shown].title}. The paper's numbers are of CIFAR-10 models."
    frame = frame.reset_index(drop=True)
    return Table(frame, models_layout(frame, replace(names, metrics=metrics, sweeps={}), said))
