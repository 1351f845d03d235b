"""The export of an unlearned model: its weights, its base, and the content of its model card."""

from __future__ import annotations

from typing import Any

from resalign.config.plan import RESULTS, Plan, Stage
from resalign.config.strict import ConfigError, nearest
from resalign.jobs.cards import Described
from resalign.jobs.inputs import Input

FORMS = ("whole", "delta")


class ExportJob(Described):
    """One exported model.

    Attributes:
        model, seed: Whose weights.
        form: ``whole`` for a pipeline folder, ``delta`` for a difference on the base.
        weights: The unlearned weights.
        made: Record of the run that has made them.
        method: Name and settings of the unlearning method.
        base_name: The base, with its revision.
        base_hub: Its repository on the hub, if it has one.
        licence: The base's; empty where it is not stated.
        terms: What a user of the base must agree to.
    """

    model: str
    seed: int
    form: str
    weights: Input
    made: Input
    method: dict[str, Any]
    base_name: str
    base_hub: str | None = None
    licence: str = ""
    terms: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan, model: str, seed: str, form: str) -> ExportJob:
        """The job of one model, training seed and form.

        Raises:
            ConfigError: If nothing here has made such weights.
        """
        run = _run(plan, model)
        if int(seed) not in plan.seeds(run):
            raise ConfigError(
                f"{plan.experiment.where}: '{model}' has no training seed {seed} in tier {plan.tier}; it has "
                f"{list(plan.seeds(run))}"
            )
        base = plan.experiment.config.assets.get(plan.asset_of(plan.experiment.config.model))
        revision = f", revision {base.revision}" if base and base.revision else ""
        # What an asset is called here, and a path of the user's own, is no name for others.
        name = (base and (base.hub or base.url)) or f"the base model of “{plan.experiment.config.title}”"
        return cls(
            **cls.fields_of(plan, [model]),
            command=plan.command(f"{folder(plan)}/{model}/seed-{seed}/{form}/model", tier=plan.tier),
            model=model,
            seed=int(seed),
            form=form,
            weights=Input.file(f"{run.folder(seed)}/weights.safetensors"),
            made=Input.file(f"{run.folder(seed)}/run.json"),
            method=plan.experiment.unlearning[model].resolved(),
            base_name=f"{name}{revision}",
            base_hub=base.hub if base else None,
            licence=(base.licence if base else None) or "",
            terms=tuple(base.terms) if base else (),
        )


def folder(plan: Plan) -> str:
    """Folder of the exported models."""
    return f"{RESULTS}/{plan.experiment.config.name}/export"


def deltas(plan: Plan) -> list[str]:
    """The delta of every unlearned model at the first training seed."""
    runs = plan.unlearn.values()
    return [f"{folder(plan)}/{stage.model}/seed-{plan.seeds(stage)[0]}/delta/model" for stage in runs]


def _run(plan: Plan, model: str) -> Stage:
    run = next((stage for stage in plan.unlearn.values() if stage.model == model), None)
    if run is None:
        unlearned = [stage.model for stage in plan.unlearn.values()]
        raise ConfigError(
            f"{plan.experiment.where}: no unlearned model named '{model}'{nearest(model, unlearned)} (a model of "
            "'pipelines' is a whole folder already)"
        )
    return run
