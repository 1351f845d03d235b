"""What the workflow's rules tell the scripts: for each stage its job as JSON, and the files that it reads."""

from __future__ import annotations

from typing import Any

from resalign.config import registry, scorer_check
from resalign.config.closure import import_closure
from resalign.config.experiment import BASE
from resalign.config.plan import Plan, Stage
from resalign.jobs.inputs import completion_files
from resalign.jobs.job import as_json

# Module of each part of the demo world; every other part is a detector.
DIGITS_MODULES = {"data": "datasets", "autoencoder": "autoencoder", "model": "generator", "clip": "clip"}


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
    """Completion files of the assets that an unlearning run reads."""
    config, member = plan.experiment.config, plan.experiment.unlearning[plan.unlearn[run].model]
    references = [config.model, config.concept.forget, config.concept.retain, config.concept.pool]
    return completion_files(plan, [*references, *([member.asset] if member.asset else [])])


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
    """Completion files of the assets that an attack reads."""
    data = plan.experiment.attack_data[plan.attack[run].attack or ""]
    attacked = plan.attacked_prompts(plan.attack[run].attack)
    prompts = [plan.experiment.prompt_sources(attacked)[""]] if attacked else []
    return completion_files(plan, [plan.pipeline(plan.attack[run].model), *data.images.values(), *prompts])


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
    """Completion files of the assets that sampling reads."""
    return completion_files(plan, [plan.pipeline(plan.sample[run].model), *prompt_sources(plan, run).values()])


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
    """Completion files of the scorers' networks."""
    return completion_files(
        plan, [asset for member in plan.experiment.scorers.values() for asset in member.assets.values()]
    )


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


# --- the second-order audit -----------------------------------------------------------------------------------------


def second_order_modules() -> tuple[str, ...]:
    """Modules that the audit finds by name."""
    return tuple(registry.member("theory", "second_order").Config().modules)


def second_order_assets(plan: Plan) -> list[str]:
    """Completion files of the model and the images that the audit reads."""
    config = plan.experiment.config
    return completion_files(plan, [config.model, config.concept.forget, config.concept.pool])


def second_order_job(plan: Plan) -> str:
    """What scripts/second_order.py needs; its grids are the audit's defaults."""
    config = plan.experiment.config
    return as_json(
        {
            "audit": registry.member("theory", "second_order").Config().model_dump(mode="json"),
            "report": config.report.model_dump(mode="json"),
            "pixels": config.pixels,
            "device": plan.experiment.resources("unlearn").device,
            "model": plan.folder(config.model),
            "forget": plan.folder(config.concept.forget),
            "pool": plan.folder(config.concept.pool),
        }
    )
