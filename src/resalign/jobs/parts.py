"""What the workflow's rules tell the scripts: for each stage its job as JSON, and the files that it reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from resalign.config import registry, scorer_check
from resalign.config.assets import WEIGHT_SUFFIXES
from resalign.config.captions import caption_tables
from resalign.config.closure import import_closure
from resalign.config.experiment import BASE
from resalign.config.plan import NOT_ATTACKED, Plan, Stage
from resalign.config.references import is_plain, plain_path
from resalign.jobs import overlap

# Module of each part of the demo world; every other part is a detector.
DIGITS_MODULES = {"data": "datasets", "autoencoder": "autoencoder", "model": "generator", "clip": "clip"}

# Of a folder of the user's own, what makes it: tables of captions, weights, settings. Images count by their table.
MAKES_A_FOLDER = (*WEIGHT_SUFFIXES, ".json", ".jsonl", ".csv", ".onnx", ".onnx_data", ".data")


def as_json(values: Any) -> str:
    """Plain values as one string that does not depend on the order of keys: Snakemake compares params as text."""
    return json.dumps(values, sort_keys=True)


def code(script: str, *modules: str) -> list[str]:
    """A stage's code inputs: its script and everything of the package that it or its members import."""
    return [str(path) for path in import_closure(f"scripts/{script}.py", *modules)]


def markers(plan: Plan, references: Iterable[str]) -> list[str]:
    """Files that say that assets are complete; of the user's own, which lie in place, those whose change is noticed."""
    found: set[str] = set()
    for reference in references:
        asset = plan.assets[plan.asset_of(reference)]
        if asset.origin != "path":
            found.add(f"{asset.folder}/run.json")
            continue
        own = Path(plain_path(plan.folder(reference)))
        is_pipeline = any((own / name).exists() for name in ("model_index.json", "unet", "transformer", "text_encoder"))
        inside = [own, *own.glob("*"), *(own.glob("*/*") if is_pipeline else ())]
        found |= {str(p) for p in inside if (p == own or p.suffix in MAKES_A_FOLDER) and p.is_file()}
        found |= set(caption_tables(str(own)))
    return sorted(filter(is_plain, found))


# --- the demo world -------------------------------------------------------------------------------------------------


def digits_parts(plan: Plan) -> dict[str, str]:
    """Part of the demo world by folder; the model's autoencoder is a part of its own, in a folder beside the model."""
    parts = {asset.folder: asset.resolved["digits"] for asset in plan.assets.values() if asset.origin == "digits"}
    return {**{autoencoder_of(folder): "autoencoder" for folder, part in parts.items() if part == "model"}, **parts}


def autoencoder_of(model_folder: str) -> str:
    """Folder of a demo model's autoencoder."""
    return f"{model_folder}-autoencoder"


def digits_code(part: str) -> list[str]:
    """The code that makes one part: its own module's closure, so that editing a detector retrains no generator."""
    module = DIGITS_MODULES.get(part, "detectors")
    return [
        "scripts/digits.py",
        *(str(path) for path in import_closure("resalign.running.stage", f"resalign.digits.{module}")),
    ]


def digits_job(plan: Plan, folder: str) -> str:
    """What scripts/digits.py needs to make the part that lies in a folder."""
    part = digits_parts(plan)[folder]
    # Only what determines the part: a setting of another part is no reason to make this one anew.
    return as_json(
        {"part": part, "digits": plan.world(part), "autoencoder": autoencoder_of(folder) if part == "model" else None}
    )


def bars_files(plan: Plan) -> dict[str, str]:
    """Scores of the untouched model and of the reference images."""
    base = next(stage for stage in plan.score.values() if stage.model == BASE and stage.attack is None)
    return {
        "scores": f"{base.folder(plan.seeds(base)[0])}/{plan.tier}/scores.parquet",
        "reference": f"{plan.reference_scores(str(plan.experiment.config.reference))}/scores.parquet",
    }


def bars_job(plan: Plan) -> str:
    """What scripts/digits_bars.py needs."""
    metrics = {
        name: plan.experiment.metrics[name].config.model_dump(mode="json") for name in ("ip", "retained_accuracy")
    }
    detectors = {part: folder for folder, part in digits_parts(plan).items() if part not in DIGITS_MODULES}
    return as_json({**bars_files(plan), **metrics, "detectors": detectors})


# --- unlearning, attacks, sampling, scoring --------------------------------------------------------------------------


def parent_weights(stage: Stage, seed: str) -> list[str]:
    """What a run starts from: unlearned weights, an attack's checkpoints; the base model has none of its own."""
    made = {"unlearn": "weights.safetensors", "attack": "checkpoints.json"}
    return [f"{stage.parent.folder(seed)}/{made[stage.parent.stage]}"] if stage.parent else []


def training_resources(plan: Plan, stage: str) -> dict[str, Any]:
    """Where a stage trains; what saves memory stands in a job where it is set: other jobs remain as they were."""
    resources = plan.experiment.resources(stage)
    saving = {name: getattr(resources, name) for name in ("micro_batch_size", "gradient_checkpointing")}
    return {"device": resources.device, **{name: value for name, value in saving.items() if value}}


def unlearn_assets(plan: Plan, run: str) -> list[str]:
    """Markers of the assets that an unlearning run reads."""
    config, member = plan.experiment.config, plan.experiment.unlearning[plan.unlearn[run].model]
    references = [config.model, config.concept.forget, config.concept.retain, config.concept.pool]
    return markers(plan, [*references, *([member.asset] if member.asset else [])])


def unlearn_job(plan: Plan, run: str) -> str:
    """What scripts/unlearn.py needs."""
    stage, config = plan.unlearn[run], plan.experiment.config
    member = plan.experiment.unlearning[stage.model]
    return as_json(
        {
            "label": stage.label,
            "method": member.resolved(),
            "prompts": config.concept.prompts,
            "pixels": config.pixels,
            "precision": config.precision,
            **training_resources(plan, "unlearn"),
            "checkpoint": plan.folder(member.asset) if member.asset else None,
            "model": plan.folder(config.model),
            **{name: plan.folder(getattr(config.concept, name)) for name in ("forget", "retain", "pool")},
        }
    )


def attack_assets(plan: Plan, run: str) -> list[str]:
    """Markers of the assets that an attack reads."""
    data = plan.experiment.attack_data[plan.attack[run].attack or ""]
    attacked = plan.attacked_prompts(plan.attack[run].attack)
    prompts = [plan.experiment.prompt_sources(attacked)[""]] if attacked else []
    return markers(plan, [plan.pipeline(plan.attack[run].model), *data.images.values(), *prompts])


def attack_job(plan: Plan, run: str, seed: str) -> str:
    """What scripts/attack.py needs."""
    stage, config = plan.attack[run], plan.experiment.config
    data, attacked = plan.experiment.attack_data[stage.attack or ""], plan.attacked_prompts(stage.attack)
    prompts = {}
    if attacked:
        source, count = plan.experiment.prompt_sources(attacked)[""], plan.most_prompts(attacked)
        prompts = {"prompts": {**prompt_list(plan, attacked, source), "prompts": count}}
    return as_json(
        {
            "label": stage.label,
            "attack": plan.experiment.attacks[stage.attack or ""].resolved(),
            "pixels": config.pixels,
            "precision": config.precision,
            **training_resources(plan, "attack"),
            "model": plan.folder(plan.pipeline(stage.model)),
            "weights": next(iter(parent_weights(stage, seed)), None),
            **{key: plan.folder(reference) for key, reference in data.images.items()},
            **prompts,
        }
    )


def prompt_list(plan: Plan, name: str, source: str) -> dict[str, Any]:
    """Where a prompt list lies and how it is read."""
    entry = plan.experiment.config.prompts[name]
    return {"path": plan.folder(source), "columns": entry.columns.model_dump(mode="json"), **entry.chosen}


def sample_assets(plan: Plan, run: str) -> list[str]:
    """Markers of the assets that sampling reads."""
    return markers(plan, [plan.pipeline(plan.sample[run].model), *prompt_sources(plan, run).values()])


def prompt_sources(plan: Plan, run: str) -> dict[str, str]:
    """The prompt lists that a run is sampled on, by name."""
    found = {n: p.source_after(plan.sample[run].attack) for n, p in plan.experiment.config.prompts.items()}
    return {name: source for name, source in found.items() if source is not None}


def sample_job(plan: Plan, run: str, seed: str, tier: str) -> str:
    """What scripts/sample.py needs."""
    stage, config = plan.sample[run], plan.experiment.config
    counts = {str(name): count for name, count in config.tiers.items()}[tier].prompts
    source = next(iter(parent_weights(stage, seed)), None)
    attacked = plan.attacked_prompts(stage.attack)
    return as_json(
        {
            "label": f"{stage.label} seed {seed}",
            "model": plan.folder(plan.pipeline(stage.model)),
            "weights": None if stage.attack else source,
            "checkpoints": source if stage.attack else None,
            "device": plan.experiment.resources("sample").device,
            "sampling": config.sampling.model_dump(mode="json"),
            "prompts": {
                name: {
                    **prompt_list(plan, name, source),
                    "along_the_way": config.prompts[name].along_the_way,
                    **counts[name].model_dump(),
                }
                for name, source in prompt_sources(plan, run).items()
            },
            **({"attacked_prompts": attacked} if attacked else {}),
        }
    )


def scorer_assets(plan: Plan) -> list[str]:
    """Markers of the scorers' networks."""
    return markers(plan, [asset for member in plan.experiment.scorers.values() for asset in member.assets.values()])


def score_images(plan: Plan, run: str, seed: str, tier: str) -> str:
    """The manifest of the images that a scoring run reads."""
    stage = plan.score[run]
    assert stage.parent is not None
    return f"{stage.parent.folder(seed)}/{tier}/images.csv"


def score_job(plan: Plan, label: str, images: str, pixels: int | None = None) -> str:
    """What scripts/score.py needs; ``pixels`` for real images, which have sizes of their own."""
    scorers = {
        name: {"settings": scorer.resolved(), "folder": scorer_check.scorer_folder(plan, scorer)}
        for name, scorer in plan.experiment.scorers.items()
    }
    return as_json(
        {
            "label": label,
            "images": images,
            "pixels": pixels,
            "device": plan.experiment.resources("score").device,
            "batch_size": plan.experiment.config.scoring_batch_size,
            "scorers": scorers,
        }
    )


def reference_job(plan: Plan, reference: str) -> str:
    """What scripts/score.py needs for a set of real images."""
    label = "reference" if reference == plan.experiment.config.reference else f"reference {reference}"
    return score_job(plan, label, plan.captions(reference), plan.experiment.config.pixels)


# --- the report -----------------------------------------------------------------------------------------------------


def report_rows(plan: Plan) -> list[dict[str, Any]]:
    """Every model, fine-tuned or not, with the folders of its stages; {seed} stands for a training seed."""
    rows = []
    for score in plan.score.values():
        folders: dict[str, str] = {}
        stage = score
        while stage:
            tier = f"/{plan.tier}" if stage.stage in ("sample", "score") else ""
            folders.setdefault(stage.stage, stage.folder("{seed}") + tier)  # of attacks in a chain, the last
            if stage.parent is None:
                break
            stage = stage.parent
        rows.append(
            {
                "model": score.model,
                "attack": score.attack or NOT_ATTACKED,
                "dataset": plan.experiment.attack_data[score.attack].dataset if score.attack else "",
                "seeds": plan.seeds(score),
                "folders": folders,
                **({"before": scores_before(plan, score)} if plan.attacked_prompts(score.attack) else {}),
            }
        )
    return rows


def scores_before(plan: Plan, score: Stage) -> dict[str, str]:
    """Folder of the scores of the state that an attack started from, by training seed."""
    after = plan.experiment.attack_data[score.attack or ""].after
    found = next(other for other in plan.score.values() if (other.model, other.attack) == (score.model, after))
    # What nothing has trained is scored with its first seed alone.
    own = {seed: seed if seed in plan.seeds(found) else plan.seeds(found)[0] for seed in plan.seeds(score)}
    return {str(seed): f"{found.folder(before)}/{plan.tier}" for seed, before in own.items()}


def report_timings(plan: Plan) -> list[tuple[str, str, int, str]]:
    """(stage, label, seed, folder) of every job behind the report, each once."""
    found = {}
    for row in report_rows(plan):
        for stage, folder in row["folders"].items():
            # An unlearning run stands behind several rows; its label is the model's alone.
            plain = stage == "unlearn" or row["attack"] == NOT_ATTACKED
            label = row["model"] if plain else f"{row['model']}/{row['attack']}"
            for seed in row["seeds"]:
                found[folder.format(seed=seed)] = (stage, label, seed)
    for asset in plan.assets.values():
        if asset.origin != "path":
            found[asset.folder] = ("assets", asset.name, 0)
    for folder, part in digits_parts(plan).items():
        found[folder] = ("assets", part, 0)
    found[scorer_check.folder(plan)] = ("inputs", "scorers", 0)
    compared = overlap.folder(plan)
    if compared:
        found[compared] = ("inputs", "overlap", 0)
    return [(*key, folder) for folder, key in found.items()]


def report_files(plan: Plan) -> list[str]:
    """Every file that the report reads: scores, the reference's, what attacks' data overlap with, all jobs' times."""
    scores = [
        f"{row['folders']['score'].format(seed=seed)}/scores.parquet"
        for row in report_rows(plan)
        for seed in row["seeds"]
    ]
    references = [f"{folder}/scores.parquet" for folder in plan.references]
    compared = [f"{overlap.folder(plan)}/overlap.json"] if plan.experiment.attacks else []
    detectors = f"{scorer_check.folder(plan)}/{scorer_check.FOUND}"
    return [
        *scores,
        *references,
        *compared,
        detectors,
        *(f"{folder}/timing.json" for *_, folder in report_timings(plan)),
    ]


def report_job(plan: Plan) -> str:
    """What scripts/report.py needs."""
    experiment, config = plan.experiment, plan.experiment.config
    attacked = experiment.attack_data
    return as_json(
        {
            "name": config.name,
            "command": plan.command("", tier=plan.tier),
            "title": config.title,
            "subtitle": config.subtitle,
            "concept": config.concept.name,
            "tier": plan.tier,
            "training_seeds": experiment.tier.training_seeds,
            "sampling_seed": config.sampling.seed,
            "config": experiment.resolved(),
            "models": experiment.models,
            "base": BASE,
            # Pairs: the order of rows, columns and values is the configuration's, and keys are sorted here.
            "attacks": [(label, data.dataset) for label, data in attacked.items()],
            "sweeps": [
                (
                    label,
                    {"title": sweep.title, "axis": sweep.axis, "note": sweep.note, "metrics": sweep.metrics}
                    | {"attacks": list(experiment.sweeps[label].items())},
                )
                for label, sweep in config.sweeps.items()
            ],
            "main_attacks": config.main or list(config.attacks),
            "heldout": {label: plan.captions(data.heldout) for label, data in attacked.items()},
            "metrics": [(label, metric.resolved()) for label, metric in experiment.metrics.items()],
            "gallery": config.gallery,
            "flags": config.flags,
            "report": config.report.model_dump(mode="json"),
            "references": {reference: f"{folder}/scores.parquet" for folder, reference in plan.references.items()},
            "compared": plan.compared,
            "overlap": overlap.folder(plan),
            "scorer_check": f"{scorer_check.folder(plan)}/{scorer_check.FOUND}",
            "rows": report_rows(plan),
            "timings": report_timings(plan),
        }
    )


# --- the second-order audit -----------------------------------------------------------------------------------------


def second_order_modules() -> tuple[str, ...]:
    """Modules that the audit finds by name."""
    return tuple(registry.member("bilevel", "audit").Config().modules)


def second_order_assets(plan: Plan) -> list[str]:
    """Markers of the model and the images that the audit reads."""
    config = plan.experiment.config
    return markers(plan, [config.model, config.concept.forget, config.concept.pool])


def second_order_job(plan: Plan) -> str:
    """What scripts/second_order.py needs; its grids are the audit's defaults."""
    config = plan.experiment.config
    return as_json(
        {
            "audit": registry.member("bilevel", "audit").Config().model_dump(mode="json"),
            "report": config.report.model_dump(mode="json"),
            "pixels": config.pixels,
            "device": plan.experiment.resources("unlearn").device,
            "model": plan.folder(config.model),
            "forget": plan.folder(config.concept.forget),
            "pool": plan.folder(config.concept.pool),
        }
    )
