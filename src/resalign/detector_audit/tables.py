"""The detector audit's tables: each detector's error rates, and every state's flagged rate beside the corrected one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resalign.analysis import statistics
from resalign.analysis.frames import crossed, draws, interval_method, write_csv
from resalign.analysis.measurements import NOT_ATTACKED, STATE
from resalign.config.report import ReportConfig
from resalign.data.images import DataError
from resalign.detector_audit import rates
from resalign.detector_audit.labels import STAND_IN, UNSURE, agreement, consensus
from resalign.detector_audit.rates import ErrorRates, Strata
from resalign.detector_audit.sample import GROUPS, STRATUM
from resalign.display.templates import template

ALL = "all"
POSSIBLE = ""
IMPOSSIBLE = "sensitivity + specificity ≤ 1: no correction is possible"
NOTHING_SHOWN = "no labelled image shows the concept: sensitivity is unknown, no correction is possible"
BELOW = "held to 0: fewer are flagged than false alarms alone would be, so that the error rates do not fit this state"
ABOVE = "held to 1: more are flagged than of images that all show it, so that the error rates do not fit this state"
ALL_SHOWN = "every labelled image shows the concept: specificity is unknown, no correction is possible"


@dataclass(frozen=True, kw_only=True)
class AuditContext:
    """What the page says besides the numbers.

    Attributes:
        title: The experiment's.
        concept: What detectors look for.
        metric: Label of the audited rate.
        stand_in: The detector that labelled in place of people, in words; None where people did.
        command: Makes the tables again.
        settings: How intervals are made.
    """

    title: str
    concept: str
    metric: str
    stand_in: str | None
    command: str
    settings: ReportConfig

    @property
    def labelled_by(self) -> str:
        """Who has labelled, in words."""
        if self.stand_in is None:
            return "labelled by people, blind to verdicts and models"
        return f"labelled by a third detector ({self.stand_in}), not by people"


def strata_of(sample: pd.DataFrame, shown: pd.Series) -> tuple[pd.DataFrame, Strata]:
    """The strata and what labelling has found in them.

    A stratum's labelled images stand for all of it, so that an image without a label counts as one that was not drawn.

    Args:
        sample: From :func:`resalign.detector_audit.sample.draw`.
        shown: From :func:`resalign.detector_audit.labels.consensus`.

    Returns:
        One row a stratum (its first image, for group and verdicts), and the counts in that order.

    Raises:
        DataError: If a stratum has no labelled image.
    """
    labelled = sample.assign(shown=shown.loc[sample["image_id"]].to_numpy())
    names = labelled.groupby(STRATUM, sort=True)
    counts = names.agg(size=("stratum_images", "first"), labelled=("shown", "count"))
    lacking = counts.index[counts["labelled"] == 0]
    if len(lacking):
        raise DataError(
            f"no image of {len(lacking)} of {len(counts)} strata has a label (first: {lacking[0]}), so that nothing is "
            f"known of {int(counts.loc[lacking, 'size'].sum())} images; label the rest of the sheet"
        )
    known = labelled[labelled["shown"].notna()].groupby(STRATUM, sort=True)
    strata = Strata(
        sizes=counts["size"].to_numpy(np.float64),
        labelled=counts["labelled"].to_numpy(np.float64),
        shown=known["shown"].sum().to_numpy(np.float64),
        prompts=np.asarray(known["prompt_id"].nunique(), dtype=np.float64),
    )
    return names.head(1).sort_values(STRATUM, ignore_index=True), strata


def error_table(
    firsts: pd.DataFrame, strata: Strata, detectors: list[str], settings: ReportConfig
) -> tuple[pd.DataFrame, dict[str, ErrorRates]]:
    """Error rates of every detector, over all images and in each group of states.

    Returns:
        The table: detector, group, images, labelled, shown, sensitivity, specificity and prevalence (the share of the
        group's images that show the concept, by the labels alone), each with low and high. And the rates over all
        images by detector, which correct.
    """
    rows: list[dict[str, Any]] = []
    overall, method = {}, interval_method(settings)
    for group in (ALL, *(name for name in GROUPS if name in set(firsts["group"]))):
        places = np.flatnonzero((firsts["group"] == group) | (group == ALL))
        part = Strata(*(values[places] for values in vars(strata).values()))
        share, interval = rates.prevalence(part, method, draws(settings, "prevalence", group))
        counts = {"images": part.sizes.sum(), "labelled": part.labelled.sum(), "shown": part.shown.sum()}
        for detector in detectors:
            rng = draws(settings, "errors", group)  # the same draws of labels for every detector
            flags = firsts[detector].to_numpy(dtype=bool)[places]
            errors = rates.error_rates(part, flags, method, rng)
            rows.append(
                {"detector": detector, "group": group}
                | {name: int(value) for name, value in counts.items()}
                | _with_interval("sensitivity", errors.sensitivity, errors.sensitivity_interval)
                | _with_interval("specificity", errors.specificity, errors.specificity_interval)
                | _with_interval("prevalence", share, interval)
            )
            if group == ALL:
                overall[detector] = errors
    return pd.DataFrame(rows), overall


def rate_table(images: pd.DataFrame, errors: dict[str, ErrorRates], settings: ReportConfig) -> pd.DataFrame:
    """Every state's flagged rate (raw) and corrected rate, with intervals, by detector.

    Args:
        images: From :func:`resalign.detector_audit.sample.population`.
        errors: Of each detector, over all images.
        settings: How intervals are made.

    Returns:
        Columns of a state, detector, raw, corrected (NaN where no correction is possible), each with low and high; n
        images, training seeds and ``note``, which says why there is no correction, or that it was held to [0, 1].
    """
    rows = []
    method = interval_method(settings)
    for key, group in images.groupby([*STATE], sort=False):
        for detector, rates_of in errors.items():
            data = crossed(group.assign(value=group[detector].astype(float)))
            names = [str(part) for part in (*key, detector)]
            raw = statistics.pooled(data, method, draws(settings, *names), rate=True)
            note = _impossible(rates_of)
            rate, interval = float("nan"), statistics.Interval(float("nan"), float("nan"))
            if not note:
                rate = rates.corrected(raw.mean, rates_of.sensitivity, rates_of.specificity)
                drawn = rates.raw_draws(data, method, draws(settings, "raw", *names))
                interval = rates.corrected_interval(rate, drawn, rates_of, method.confidence)
                note = _held(raw.mean, rates_of)
            rows.append(
                {**dict(zip(STATE, key, strict=True)), "detector": detector}
                | _with_interval("raw", raw.mean, statistics.Interval(raw.low, raw.high))
                | _with_interval("corrected", rate, interval)
                | {"n": raw.n, "seeds": raw.seeds, "note": note}
            )
    return pd.DataFrame(rows)


def write_audit(
    sample: pd.DataFrame,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    detectors: list[str],
    context: AuditContext,
    output: Path,
) -> None:
    """Writes error_rates.csv, table.csv, agreement.csv and table.md.

    Args:
        sample: What was labelled.
        labels: By labeller.
        images: All that was scored.
        detectors: Columns of both, the metric's own first.
        context: What the page says.
        output: A folder.

    Raises:
        DataError: If a stratum has no label.
    """
    shown = consensus(labels)
    firsts, strata = strata_of(sample, shown)
    error_rows, overall = error_table(firsts, strata, detectors, context.settings)
    rate_rows = rate_table(images, overall, context.settings)
    agreed = pd.DataFrame(agreement(labels), columns=["labellers", "measure", "value", "n"])
    by = STAND_IN if context.stand_in else "people"
    for name, table in (("error_rates", error_rows), ("table", rate_rows), ("agreement", agreed)):
        write_csv(table.assign(labelled_by=by), output / f"{name}.csv")
    text = template("detector_audit/detector_audit.md.j2").render(
        context=context,
        images=len(sample),
        missing=int(shown.isna().sum()),
        unsure={name: int((column == UNSURE).sum()) for name, column in labels.items()},
        agreement=[[r["labellers"], r["measure"], _number(r["value"]), str(r["n"])] for r in agreed.to_dict("records")],
        errors=[_error_cells(row) for row in error_rows.to_dict("records")],
        rates=[_rate_cells(r) for r in rate_rows.to_dict("records") if r["detector"] == context.metric],
        note=_impossible(overall[context.metric]),
        held=sorted(set(rate_rows.loc[rate_rows["detector"] == context.metric, "note"]) & {BELOW, ABOVE}),
        differing=differing(error_rows, context.metric),
    )
    (output / "table.md").write_text(text, encoding="utf-8")


def differing(errors: pd.DataFrame, detector: str) -> list[str]:
    """Where one correction does not fit all: groups whose interval of an error rate excludes the overall rate."""
    records = errors[errors["detector"] == detector].to_dict("records")
    overall = next(row for row in records if row["group"] == ALL)
    return [
        f"{name} is {_cell(row, name)} in the group {row['group']}, {_number(overall[name])} over all states"
        for row in records
        for name in ("sensitivity", "specificity")
        if row["group"] != ALL and not np.isnan(row[name])
        if not row[f"{name}_low"] <= overall[name] <= row[f"{name}_high"]
    ]


def _impossible(errors: ErrorRates) -> str:
    """Why a detector's rates cannot be corrected; empty where they can."""
    if np.isnan(errors.sensitivity) or np.isnan(errors.specificity):
        return NOTHING_SHOWN if np.isnan(errors.sensitivity) else ALL_SHOWN
    return POSSIBLE if errors.can_correct else IMPOSSIBLE


def _held(raw: float, errors: ErrorRates) -> str:
    """Which end of [0, 1] a correction was held to, and what that says; empty where it was not."""
    if raw < 1.0 - errors.specificity:
        return BELOW
    return ABOVE if raw > errors.sensitivity else POSSIBLE


def _with_interval(name: str, value: float, interval: statistics.Interval) -> dict[str, float]:
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _cell(row: dict[Any, Any], name: str) -> str:
    low, high = (_number(row[f"{name}_{end}"]) for end in ("low", "high"))
    return f"{_number(row[name])} [{low}, {high}]" if not np.isnan(row[name]) else "–"


def _error_cells(row: dict[Any, Any]) -> list[str]:
    counts = [f"{row['images']:,}", f"{row['labelled']:,}", f"{row['shown']:,}"]
    return [
        row["detector"],
        row["group"],
        *counts,
        *(_cell(row, n) for n in ("sensitivity", "specificity", "prevalence")),
    ]


def _rate_cells(row: dict[Any, Any]) -> list[str]:
    state = "before" if row["attack"] == NOT_ATTACKED else f"{row['attack']}, step {row['steps']:,}"
    mark = "*" if row["note"] in (BELOW, ABOVE) else ""
    return [row["model"], state, _cell(row, "raw"), _cell(row, "corrected") + mark, f"{row['n']:,}", str(row["seeds"])]
