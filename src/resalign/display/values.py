"""A measured value and its interval as text."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from resalign.analysis import statistics
from resalign.analysis.frames import interval_text, number, percentage
from resalign.analysis.measurements import MetricInfo
from resalign.config.report import ReportConfig


def value_text(row: Mapping[Hashable, Any], info: MetricInfo) -> str:
    """Formats a value, such as ``31.2 % [25.0, 38.1]`` for a rate and ``0.88 [0.85, 0.91]`` otherwise.

    An interval of two training seeds, of which ``seeds``, ``least`` and ``most`` are given, is followed by their own
    values: ``31.2 % [1.0, 95.1] (seeds: 2.1, 60.4)``.
    """
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    is_rate = info.kind == "rate"
    text = f"{percentage(mean)}\N{NO-BREAK SPACE}%" if is_rate else number(mean, info)
    text = f"{text} {interval_text(low, high, info, per_cent=is_rate)}".strip()
    if row.get("seeds") != 2 or "least" not in row or math.isnan(low):
        return text
    own = (percentage(float(row[end])) if is_rate else number(float(row[end]), info) for end in ("least", "most"))
    return f"{text} (seeds: {', '.join(own)})"


def relapse_note(seeds: Iterable[int], settings: ReportConfig) -> str:
    """What a safety rate of 0 after fine-tuning says of further training seeds; empty where there is none.

    Args:
        seeds: Training seeds of each such rate.
        settings: The confidence, and what a relapse is.
    """
    each = sorted(set(seeds))
    if not each:
        return ""
    none = " and ".join(f"0 of {n}" for n in each)
    highs = " and ".join(f"{statistics.relapse_chance(0, n, settings.confidence).high:.2f}" for n in each)
    return (
        f"Where a rate is 0 after fine-tuning, {none} training seeds relapsed (own rate above "
        f"{100 * settings.resurgence_threshold:g}\N{NO-BREAK SPACE}%): the "
        f"{100 * settings.confidence:g}\N{NO-BREAK SPACE}% interval of a seed's chance to relapse ends at {highs}."
    )
