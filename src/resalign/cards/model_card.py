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
from resalign.analysis.frames import final_states
from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.cards.card import SAID, STANDING_CAVEATS, CardContext
from resalign.display.templates import template
from resalign.display.values import value_text
from resalign.jobs.export import ExportJob

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
    """An exported model.

    Attributes:
        job: Model, seed, form, method, base and its licence.
        made: Record of the run that has made the weights: seed, source hash, versions.
        weights_sha256: Of those weights.
        context: Of the model's resilience card.
    """

    job: ExportJob
    made: Mapping[str, Any]
    weights_sha256: str
    context: CardContext

    @property
    def name(self) -> str:
        """The model's name on the hub."""
        return f"{self.job.model}-seed-{self.job.seed}"

    @property
    def title(self) -> str:
        """Heading of the card: model and method as the configuration has them, concept, base."""
        job, method = self.job, str(self.job.method["name"])
        made_by = job.model if job.model == method else f"{job.model} ({method})"
        return f"{made_by}: {job.concept} unlearned from {job.base_name}, training seed {job.seed}"


def write_model_card(values: pd.DataFrame, runs: pd.DataFrame, measurements: Measurements, exported: Exported) -> str:
    """The whole README.

    Args:
        values: From :func:`resalign.analysis.frames.long_table`.
        runs: From :func:`resalign.analysis.frames.per_run_table`.
        measurements: Names and metrics.
        exported: Everything else.

    Raises:
        ValueError: If the first safety metric of the model was not measured before fine-tuning.
    """
    job, settings = exported.job, exported.job.report
    run = of_seed(runs, job.seed)
    final = final_states(run[run["model"] == job.model])
    threshold = settings.resurgence_threshold
    judged = verdicts.judge(values, measurements, job.model, threshold)
    # A run's intervals are Wilson's, its images taken as independent.
    of_run = run.rename(columns={"value": "mean"}).assign(seeds=1, least=run["value"], most=run["value"])
    judged_run = verdicts.judge(of_run, measurements, job.model, threshold)
    others = sorted({*settings.other_thresholds} - {threshold})
    return template("cards/model_card.md.j2").render(
        front=front_matter(final, measurements, exported),
        exported=exported,
        job=job,
        scores=_scores(final, values, measurements, job),
        attacks=_attacks(judged, judged_run, measurements),
        threshold=f"{threshold:g}",
        other=[(other, _counted(verdicts.judge(values, measurements, job.model, other))) for other in others],
        method=json.dumps(dict(job.method), sort_keys=True),
        measured={name: json.dumps(value, sort_keys=True) for name, value in job.how.items()},
        versions=", ".join(f"{name} {version}" for name, version in sorted(exported.made["versions"].items())),
        caveats=[*exported.context.caveats, *STANDING_CAVEATS],
    )


def of_seed(runs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The rows of one training seed; before fine-tuning, of a model that nothing has trained, those of its only one."""
    before = runs["attack"] == NOT_ATTACKED
    only = before & (runs[before].groupby("model")["seed"].nunique().reindex(runs["model"]).to_numpy() == 1)
    return runs[(runs["seed"] == seed) | only]


def front_matter(final: pd.DataFrame, measurements: Measurements, exported: Exported) -> str:
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
        for row in final.to_dict("records")
    ]
    job = exported.job
    tags = ["unlearning", "concept-erasure", str(job.method["name"]), "resalign"]
    named: dict[str, Any] = licence_fields(job.licence)
    if job.base_hub:
        named |= {"base_model": job.base_hub, "base_model_relation": "finetune"}
    data = ModelCardData(
        **named,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*tags, *(["not-for-all-audiences"] if SENSITIVE in job.terms else [])],
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


def _scores(final: pd.DataFrame, table: pd.DataFrame, measurements: Measurements, job: ExportJob) -> list[list[str]]:
    """One row a metric and state: this seed's value, that of all seeds, the base's in the same state."""
    keyed = {
        (row["model"], row["metric"], row["attack"], row["steps"]): row
        for row in final_states(table).to_dict("records")
    }
    rows = []
    for row in final.to_dict("records"):
        info, state = measurements.metrics[row["metric"]], (row["metric"], row["attack"], row["steps"])
        cells = [
            value_text(keyed[(name, *state)], info) if (name, *state) in keyed else "–"
            for name in (job.model, measurements.base)
        ]
        value = value_text({"mean": row["value"], "low": math.nan, "high": math.nan}, info)
        rows.append([info.directed, _state(row, measurements), value, *cells])
    return rows


def _attacks(judged: pd.DataFrame, judged_run: pd.DataFrame, measurements: Measurements) -> list[list[str]]:
    """One row an attack: survived or not by these weights and by all seeds' together, and the rate that decides."""
    of_run = verdicts.by_attack(judged_run)
    by_attack, decisive = verdicts.by_attack(judged), verdicts.decisive(judged).to_dict("records")
    rows = []
    for attack, verdict in by_attack.items():
        worst = [
            f"{measurements.metrics[row['metric']].title} {value_text(row, measurements.metrics[row['metric']])}"
            f" at step {row['steps']:,}"
            for row in decisive
            if row["attack"] == attack
        ]
        seed = SAID[of_run[attack]] if attack in of_run else "not run"
        rows.append([attack, measurements.target(attack), seed, SAID[verdict], "; ".join(worst)])
    return rows


def _counted(judged: pd.DataFrame) -> str:
    """How many attacks are survived, in words."""
    each = list(verdicts.by_attack(judged).values())
    return ", ".join(f"{SAID[v]}: {each.count(v)}" for v in reversed(verdicts.WORST_FIRST) if v in each) or "none run"
