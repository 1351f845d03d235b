"""The jobs of a search over a method's own fields."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

from resalign.config import registry
from resalign.config.report import ReportConfig
from resalign.config.strict import ConfigError
from resalign.config.tuning import SEARCHERS, TuningConfig, costs_of
from resalign.jobs.inputs import Input
from resalign.jobs.job import Job
from resalign.jobs.unlearn import UnlearnJob

if TYPE_CHECKING:
    from resalign.config.plan import Plan, Stage

SHOWN = ("curves.csv", "best.csv", "tuning.md", "tuned.yaml", "curves.png", "curves.svg")


class TuneJob(UnlearnJob):
    """A job of scripts/tune.py: what unlearning is given, and what is searched."""

    tuning: TuningConfig
    searcher: str

    @classmethod
    def search(cls, plan: Plan, searcher: str) -> Self:
        """The job of one searcher, the same for every seed.

        Raises:
            ConfigError: If the experiment has no key ``tuning``.
        """
        unlearned, config = UnlearnJob.of(plan, _stage(plan)), searched(plan)
        given = {name: getattr(unlearned, name) for name in unlearned.model_fields_set}
        # Without what other searches have: one more seed must not make them again.
        own = {"validation": _validation(config).model_dump(mode="json"), "searchers": (searcher,), "seeds": (0,)}
        return cls(**given, tuning=config.model_copy(update=own), searcher=searcher)


class TunedJob(Job):
    """A job of scripts/tuned.py.

    Attributes:
        name, extends: The experiment's, and its file.
        label: The model whose settings were searched.
        method: Those settings.
        tuning: What was searched.
        report: Confidence, and a figure's size and colours.
        searches: (searcher, seed, folder) of each.
    """

    name: str
    extends: str
    label: str
    method: dict[str, Any]
    tuning: TuningConfig
    report: ReportConfig
    searches: tuple[tuple[str, int, Input], ...]

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """The job of an experiment.

        Raises:
            ConfigError: If it searches nothing, or is of several files.
        """
        config, experiment = searched(plan), plan.experiment
        if ", " in experiment.where:
            raise ConfigError(f"{experiment.where}: give one --configfile, which the settings found will extend")
        folders = [(name, seed, folder(plan, name, seed)) for name in config.searchers for seed in config.seeds]
        return cls(
            name=experiment.config.name,
            extends=plan.config_file,
            label=config.method,
            method=experiment.unlearning[config.method].resolved(),
            tuning=config,
            report=experiment.config.report,
            searches=tuple((name, seed, Input(where, [f"{where}/trials.csv"])) for name, seed, where in folders),
        )


def searched(plan: Plan) -> TuningConfig:
    """What an experiment searches.

    Raises:
        ConfigError: If it searches nothing.
    """
    config = plan.experiment.config.tuning
    if config is None:
        raise ConfigError(
            f"{plan.experiment.where}: the key 'tuning' is required here; an example is config/studies/tuning.yaml"
        )
    return config


def folder(plan: Plan, searcher: str, seed: int | str) -> str:
    """Where a search's results go."""
    return f"results/{plan.experiment.config.name}/tuning/{searcher}/seed-{seed}"


def modules(plan: Plan, searcher: str) -> tuple[str, ...]:
    """Modules that are found by name."""
    return (*_stage(plan).modules, *_validation(searched(plan)).modules, f"resalign.{SEARCHERS}.{searcher}")


def trainings(plan: Plan) -> int:
    """About how many trainings a search takes as long as, rounded up."""
    config = searched(plan)
    costs = costs_of(plan.experiment.unlearning[config.method].config, _validation(config))
    return math.ceil(config.budget / (costs.steps * costs.step))


def _validation(config: TuningConfig) -> Any:
    return registry.member("tuning", "validation").Config.parse(config.validation, where="tuning.validation")


def _stage(plan: Plan) -> Stage:
    label = searched(plan).method
    return next(stage for stage in plan.unlearn.values() if stage.model == label)
