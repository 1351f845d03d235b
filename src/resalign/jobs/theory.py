"""The measured theory: the jobs that measure and show it, and the files that they read and write."""

from __future__ import annotations

from typing import Any

from resalign.config.plan import RESULTS, Plan, Stage
from resalign.config.report import ReportConfig
from resalign.config.theory import LinearModelConfig, TheoryConfig
from resalign.jobs import measure
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job

STATE_TABLES = ("sharpness", "displacement", "slices")
LINEAR_MODEL = "linear_model.csv"
FIGURES = (*STATE_TABLES, "linear_model")
SHOWN = (
    *(f"{table}.csv" for table in (*STATE_TABLES, "regained")),
    *("theory.md", LINEAR_MODEL, "linear_model.md"),
    *(f"{figure}.{suffix}" for figure in FIGURES for suffix in ("png", "svg")),
)


class StateJob(Job):
    """The measurement of one model and training seed.

    Attributes:
        label: The model's.
        theory: Settings of the measurement.
        pixels: Size of the images.
        device: Where it runs.
        model: Pipeline folder.
        weights: Unlearned weights; None for a model that nothing has trained.
        forget: Images of the concept.
        attacks: (label, training seed, file of kept states) of every attack on the model.
    """

    label: str
    theory: TheoryConfig
    pixels: int
    device: str
    model: Input
    weights: Input | None = None
    forget: Input
    attacks: tuple[tuple[str, int, Input], ...]

    @classmethod
    def of(cls, plan: Plan, run: str, seed: int) -> StateJob:
        """The job of one run of :func:`states` and one seed."""
        state, config = states(plan)[run], plan.experiment.config
        weights = f"{state.parent.folder(seed)}/weights.safetensors" if state.parent else None
        return cls(
            label=state.label,
            theory=TheoryConfig.parse(_state_config(plan), where="theory"),
            pixels=config.pixels,
            device=plan.experiment.resources("unlearn").device,
            model=Input.asset(plan, plan.pipeline(state.model)),
            weights=Input.file(weights) if weights else None,
            forget=Input.asset(plan, config.concept.forget),
            attacks=attacks(plan, state, seed),
        )


class LinearModelJob(Job):
    """The grid of the linear model."""

    linear_model: LinearModelConfig

    @classmethod
    def of(cls, plan: Plan) -> LinearModelJob:
        """The job of an experiment."""
        return cls(linear_model=plan.experiment.config.theory.linear_model)


class TheoryShownJob(Job):
    """The tables, texts and figures of the measured theory.

    Attributes:
        measured: Folder of the experiment's measured frames.
        tables: The measured files of every model and seed, by table, in the tables' order.
        linear_model: The linear model's table.
        samples: Examples behind each simulation of it.
        report: Settings of figures.
    """

    measured: Input
    tables: dict[str, tuple[Input, ...]]
    linear_model: Input
    samples: int
    report: ReportConfig

    @classmethod
    def of(cls, plan: Plan) -> TheoryShownJob:
        """The job of an experiment."""
        return cls(
            measured=Input(measure.folder(plan), measure.files(plan)),
            tables={
                table: tuple(Input.file(f"{state}/{table}.csv") for state in measured_states(plan))
                for table in STATE_TABLES
            },
            linear_model=Input.file(f"{linear_model_folder(plan)}/{LINEAR_MODEL}"),
            samples=plan.experiment.config.theory.linear_model.samples,
            report=plan.experiment.config.report,
        )


def folder(plan: Plan) -> str:
    """Folder of the experiment's tables."""
    return f"{RESULTS}/{plan.experiment.config.name}/theory"


def linear_model_folder(plan: Plan) -> str:
    """Folder of the linear model's measured table."""
    return f"{folder(plan)}/linear-model"


def files(plan: Plan) -> list[str]:
    """Everything that the target ``theory`` makes."""
    return [f"{folder(plan)}/{name}" for name in SHOWN]


def measured_files(plan: Plan) -> list[str]:
    """The linear model's table and the records of the target's jobs."""
    linear = linear_model_folder(plan)
    return [f"{folder(plan)}/run.json", f"{linear}/{LINEAR_MODEL}", f"{linear}/run.json"]


def states(plan: Plan) -> dict[str, Stage]:
    """One run for each model before fine-tuning, by folder name; its hash is of the attacks on it too.

    The linear model is left out of it: another grid is no reason to measure a network again.
    """
    by_run = {}
    for score in _unattacked(plan):
        resolved = {
            "theory": _state_config(plan),
            "forget": plan.folder(plan.experiment.config.concept.forget),
            "pixels": plan.experiment.config.pixels,
            # Of an unlearned model what made it, of another its pipeline: what its sampling is named by.
            "state": score.resolved["parent"]["parent"],
            "attacks": {str(stage.attack): stage.resolved for stage in _attacks(plan, score.model)},
        }
        unlearned = score.parent.parent if score.parent else None
        state = Stage("theory", score.model, score.model, None, resolved, (), unlearned)
        by_run[state.run] = state
    return by_run


def seeds(plan: Plan, state: Stage) -> tuple[int, ...]:
    """Training seeds of a model; one that nothing has trained here has the first only."""
    return plan.seeds(next(score for score in _unattacked(plan) if score.model == state.model))


def attacks(plan: Plan, state: Stage, seed: int) -> tuple[tuple[str, int, Input], ...]:
    """(label, training seed, file of kept states) of every attack on a model of one training seed.

    Attacks of every seed start from a model that nothing has trained.
    """
    untrained = len(seeds(plan, state)) < len(plan.experiment.tier.training_seeds)
    return tuple(
        (str(stage.attack), of, Input.file(f"{stage.folder(of)}/checkpoints.json"))
        for stage in _attacks(plan, state.model)
        for of in (plan.seeds(stage) if untrained else (seed,))
    )


def measured_states(plan: Plan) -> list[str]:
    """Folder of every measured model and training seed, in the tables' order."""
    return [state.folder(seed) for state in states(plan).values() for seed in seeds(plan, state)]


def _state_config(plan: Plan) -> dict[str, Any]:
    return plan.experiment.config.theory.model_dump(mode="json", exclude={"linear_model"})


def _unattacked(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.score.values() if stage.attack is None]


def _attacks(plan: Plan, model: str) -> list[Stage]:
    """The attacks on a model, those in a chain after another included."""
    return [stage for stage in plan.attack.values() if stage.model == model]
