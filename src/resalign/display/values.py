"""A measured value and its interval as text."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from resalign.analysis.frames import interval_text, number, percentage
from resalign.analysis.measurements import MetricInfo


def value_text(row: Mapping[Hashable, Any], info: MetricInfo) -> str:
    """Formats a value, such as ``31.2 % [25.0, 38.1]`` for a rate and ``0.88 [0.85, 0.91]`` otherwise."""
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    is_rate = info.kind == "rate"
    text = f"{percentage(mean)}\N{NO-BREAK SPACE}%" if is_rate else number(mean, info)
    return f"{text} {interval_text(low, high, info, per_cent=is_rate)}".strip()
