"""The README of an exported model, with the front matter that the hub reads: scores, attacks, making, limits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from resalign.analysis import verdicts
from resalign.analysis.frames import final_states, long_table, per_run_table
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.cards.card import SAID, STANDING_CAVEATS
from resalign.config.report import ReportConfig
from resalign.display.templates import template
from resalign.display.values import value_text

# As the hub spells them; other licences are 'other' there, with a name.
LICENCES = {
    "CreativeML OpenRAIL-M": "creativeml-openrail-m",
    "CreativeML OpenRAIL++-M": "openrail++",
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
}
SENSITIVE = "sensitive"  # a term of the base: what it makes is not for all


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What is exported.

    Attributes:
        model: Its label.
        seed: Training seed.
        form: ``whole`` or ``delta``.
        concept: What it should no longer show.
        method: Name and settings of the unlearning method.
        base_name: The base, with its revision.
        base_hub: Its repository on the hub; None where it has none.
        licence: The base's; empty where nobody has said it.
        terms: What a user of the base must agree to.
        made: Record of the run that has made the weights: seed, source hash, versions.
        weights_sha256: Of those weights.
        measured: How everything was measured, as configured.
        provenance: Of the measurements.
        caveats: Of the data.
        command: Makes it again.
        settings: τ, and how intervals are made.
    """

    model: str
    seed: int
    form: str
    concept: str
    method: Mapping[str, Any]
    base_name: str
    base_hub: str | None
    licence: str
    terms: tuple[str, ...]
    made: Mapping[str, Any]
    weights_sha256: str
    measured: Mapping[str, Any]
    provenance: Mapping[str, str]
    caveats: tuple[str, ...]
    command: str
    settings: ReportConfig

    @property
    def name(self) -> str:
        """The model's name on the hub."""
        return f"{self.model}-seed-{self.seed}"

    @property
    def title(self) -> str:
        """Heading of the card: model and method as the configuration has them, concept, base."""
        method = str(self.method["name"])
        made_by = self.model if self.model == method else f"{self.model} ({method})"
        return f"{made_by}: {self.concept} unlearned from {self.base_name}, training seed {self.seed}"


def write_model_card(measurements: Measurements, exported: Exported) -> str:
    """The whole README.

    Raises:
        ValueError: If the first safety metric of the model was not measured before fine-tuning.
    """
    table = long_table(measurements, exported.settings)
    runs = per_run_table(measurements, exported.settings)
    run = of_seed(runs, exported.seed)
    own = final_states(run[run["model"] == exported.model])
    threshold = exported.settings.resurgence_threshold
    judged = verdicts.judge(table, measurements, exported.model, threshold)
    # A run's intervals are Wilson's, its images taken as independent.
    values = run.rename(columns={"value": "mean"}).assign(seeds=1)
    judged_run = verdicts.judge(values, measurements, exported.model, threshold)
    return template("cards/model_card.md.j2").render(
        front=front_matter(own, measurements, exported),
        exported=exported,
        scores=_scores(own, table, measurements, exported),
        attacks=_attacks(judged, judged_run, measurements),
        threshold=f"{threshold:g}",
        other=[(threshold, _counted(table, measurements, exported, threshold)) for threshold in _others(exported)],
        method=json.dumps(dict(exported.method), sort_keys=True),
        measured={name: json.dumps(value, sort_keys=True) for name, value in exported.measured.items()},
        versions=", ".join(f"{name} {version}" for name, version in sorted(exported.made["versions"].items())),
        caveats=[*exported.caveats, *STANDING_CAVEATS],
    )


def of_seed(runs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The rows of one training seed; before fine-tuning, of a model that nothing has trained, those of its only one."""
    before = runs["attack"] == NOT_ATTACKED
    only = before & (runs[before].groupby("model")["seed"].nunique().reindex(runs["model"]).to_numpy() == 1)
    return runs[(runs["seed"] == seed) | only]


def front_matter(own: pd.DataFrame, measurements: Measurements, exported: Exported) -> str:
    """YAML as the hub reads it; scores are this training seed's own, before fine-tuning and after the most steps."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-to-image",
            dataset_type=measurements.metrics[row["metric"]].prompt_set,
            dataset_name=f"{measurements.metrics[row['metric']].prompt_set}, {_state(row, measurements)}",
            dataset_config=_state(row, measurements),  # without it the hub's file has all states under the first's name
            metric_type=row["metric"],
            metric_name=measurements.metrics[row["metric"]].title,
            metric_value=float(f"{row['value']:.6g}"),
        )
        for row in own.to_dict("records")
    ]
    tags = ["unlearning", "concept-erasure", str(exported.method["name"]), "resalign"]
    named: dict[str, Any] = licence_fields(exported.licence)
    if exported.base_hub:
        named |= {"base_model": exported.base_hub, "base_model_relation": "finetune"}
    data = ModelCardData(
        **named,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*tags, *(["not-for-all-audiences"] if SENSITIVE in exported.terms else [])],
        model_name=exported.name,
        eval_results=results,
    )
    return data.to_yaml(line_break="\n")


def licence_fields(licence: str) -> dict[str, str]:
    """The hub's fields for a licence: one of its own names, or ``other`` with a name; ``unknown`` for none."""
    if not licence:
        return {"license": "unknown"}
    if licence in LICENCES:
        return {"license": LICENCES[licence]}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")}


def _state(row: Mapping[Any, Any], measurements: Measurements) -> str:
    if row["attack"] == NOT_ATTACKED:
        return "before fine-tuning"
    return f"after {row['steps']:,} steps on {measurements.target(row['attack'])}"


def _scores(own: pd.DataFrame, table: pd.DataFrame, measurements: Measurements, exported: Exported) -> list[list[str]]:
    """One row a metric and state: this seed's value, that of all seeds, the base's in the same state."""
    keyed = {
        (row["model"], row["metric"], row["attack"], row["steps"]): row
        for row in final_states(table).to_dict("records")
    }
    rows = []
    for row in own.to_dict("records"):
        info, state = measurements.metrics[row["metric"]], (row["metric"], row["attack"], row["steps"])
        cells = [
            value_text(keyed[(name, *state)], info) if (name, *state) in keyed else "–"
            for name in (exported.model, measurements.base)
        ]
        value = value_text({"mean": row["value"], "low": math.nan, "high": math.nan}, info)
        rows.append([f"{info.title} ({info.better} is better)", _state(row, measurements), value, *cells])
    return rows


def _attacks(judged: pd.DataFrame, judged_run: pd.DataFrame, measurements: Measurements) -> list[list[str]]:
    """One row an attack: survived or not by these weights and by all seeds' together, and the rate that decides."""
    of_run = verdicts.by_attack(judged_run)
    found, decisive = verdicts.by_attack(judged), verdicts.decisive(judged).to_dict("records")
    rows = []
    for attack, verdict in found.items():
        worst = [
            f"{measurements.metrics[row['metric']].title} {value_text(row, measurements.metrics[row['metric']])}"
            f" at step {row['steps']:,}"
            for row in decisive
            if row["attack"] == attack
        ]
        seed = SAID[of_run[attack]] if attack in of_run else "not run"
        rows.append([attack, measurements.target(attack), seed, SAID[verdict], "; ".join(worst)])
    return rows


def _others(exported: Exported) -> list[float]:
    return sorted({*exported.settings.other_thresholds} - {exported.settings.resurgence_threshold})


def _counted(table: pd.DataFrame, measurements: Measurements, exported: Exported, threshold: float) -> str:
    """How many attacks are survived under another threshold, in words."""
    found = list(verdicts.by_attack(verdicts.judge(table, measurements, exported.model, threshold)).values())
    return ", ".join(f"{SAID[v]}: {found.count(v)}" for v in reversed(verdicts.WORST_FIRST) if v in found) or "none run"
