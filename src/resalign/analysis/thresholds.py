"""Safety rates over their detectors' thresholds, from raw scores."""

from __future__ import annotations

from typing import Any

import pandas as pd

from resalign.analysis.collect import ScoredRun, states
from resalign.analysis.frames import held, pooled_estimate
from resalign.analysis.measurements import STATE
from resalign.config.report import ReportConfig

COLUMNS = [*STATE, "metric", "threshold", "mean", "low", "high", "n"]


def at_threshold(config: Any, threshold: float) -> Any:
    """A metric's settings with every rule's threshold replaced; None for a metric without rules."""
    if hasattr(config, "rules"):
        rules = tuple(rule.model_copy(update={"threshold": threshold}) for rule in config.rules)
        return config.model_copy(update={"rules": rules})
    if hasattr(config, "rule"):
        return config.model_copy(update={"rule": config.rule.model_copy(update={"threshold": threshold})})
    return None


def threshold_curves(
    runs: list[ScoredRun], metrics: dict[str, tuple[Any, Any, Any]], settings: ReportConfig
) -> pd.DataFrame:
    """Rates of every state at every threshold of the grid, all of a metric's rules at the same one.

    Returns:
        Columns model, attack, dataset, steps, metric, threshold, mean, low, high (as in values.csv), n (images).
    """
    rates: list[dict[str, object]] = []
    for label, (module, config, info) in metrics.items():
        if not hasattr(module, "per_image") or info.group != "safety" or at_threshold(config, 0.5) is None:
            continue
        # Without features: those of all runs would fill the memory.
        read = dict.fromkeys(f"{need.scorer}.{name}" for need in config.needs() for name in need.quantities)
        columns = ["prompt_id", *read]
        seen: dict[tuple[str, str, str, int], list[tuple[ScoredRun, pd.DataFrame]]] = {}
        for run in runs:
            for steps, prompts, scores in states(run):
                if prompts == getattr(config, "prompts", None):
                    seen.setdefault((run.model, run.attack, run.dataset, steps), []).append((run, scores[columns]))
        for state, scored in seen.items():
            for threshold in settings.swept_thresholds:
                replaced = at_threshold(config, threshold)
                images = pd.concat(
                    [s[["prompt_id"]].assign(value=module.per_image(s, replaced), seed=run.seed) for run, s in scored]
                )
                pooled = pooled_estimate(images, settings, *map(str, state), label, rate=info.kind == "rate")
                estimate = held(pooled, info)
                names = dict(zip(STATE, state, strict=True)) | {"metric": label, "threshold": threshold}
                rates.append(names | {key: getattr(estimate, key) for key in ("mean", "low", "high", "n")})
    return pd.DataFrame(rates, columns=COLUMNS)
