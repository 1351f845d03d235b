"""The job of a study, and the files that it reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resalign.config.closure import import_closure
from resalign.config.strict import ConfigError
from resalign.config.study import Compared, SelectionConfig, StudyConfig
from resalign.hashes import file_hash
from resalign.jobs import measure, report
from resalign.jobs.inputs import Input, watched
from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan

Key = Literal["study", "selection"]
REGISTERED, REGISTRATION = Path("docs/studies"), "registered.json"
EXAMPLES = "as in config/studies/resilience.yaml and resilience-search.yaml"


class StudyJob(Job):
    """A job of scripts/study.py."""

    name: str
    command: str  # makes the study again
    config: dict[str, Any]  # the experiment with every default filled in
    tier: str
    seeds: tuple[int, ...]
    base: str  # the model before unlearning
    models: tuple[str, ...]
    attacks: tuple[str, ...]
    measured: Input  # folder of the measured frames
    timings: tuple[tuple[str, str, int, str], ...]  # (stage, label, seed, folder) of every job behind the study
    # What :func:`registration` was before any run, with what it was before amendments; None if nobody wrote it down.
    registered: dict[str, Any] | None
    study: StudyConfig | None = None
    selection: SelectionConfig | None = None

    @property
    def compared(self) -> Compared:
        """What is counted."""
        return [key for key in (self.study, self.selection) if key][0]  # `of` makes no job with neither

    def inputs(self) -> list[str]:
        """The measured frames, and the times of all jobs."""
        return [*super().inputs(), *(f"{folder}/timing.json" for *_, folder in self.timings)]

    @classmethod
    def of(cls, plan: Plan) -> StudyJob:
        """The job of an experiment.

        Raises:
            ConfigError: If it has neither ``study`` nor ``selection``, or is not what was registered.
        """
        experiment = plan.experiment
        study, selection = experiment.config.study, experiment.config.selection
        planned, found = registration(plan), None
        registered = REGISTERED / experiment.config.name / REGISTRATION
        if registered.is_file():
            found = json.loads(registered.read_text(encoding="utf-8"))
            if not is_registered(found, planned):
                raise ConfigError(
                    f"{experiment.where}: the configuration, the tier or the code of the claims is not what "
                    f"{registered} registers; check out the commit that registered it, or give another experiment "
                    "another name"
                )
        return cls(
            name=experiment.config.name,
            command=plan.command("study" if study else "selection"),
            config=experiment.resolved(),
            tier=plan.tier,
            seeds=experiment.tier.training_seeds,
            base=experiment.models[0],
            models=experiment.models,
            attacks=tuple(experiment.attacks),
            measured=Input(measure.folder(plan), measure.files(plan)),
            timings=tuple(report.report_timings(plan)),
            registered=found,
            study=study,
            selection=selection,
        )


def registration(plan: Plan) -> dict[str, str]:
    """sha256 of what a study, or a search, fixes before it is run.

    Returns:
        ``config``: of the experiment with every default filled in, and its tier, without what changes no number
        (``resources``, ``keep_images``); ``code``: of the claims and verdicts, or of the choice, with all that they
        import.

    Raises:
        ConfigError: If it is neither.
    """
    experiment = plan.experiment
    if not (experiment.config.study or experiment.config.selection):
        raise ConfigError(f"{experiment.where}: give the key 'study', or 'selection' for a search; {EXAMPLES}")
    module = "resalign.study.claims" if experiment.config.study else "resalign.study.selection"
    settings = {key: value for key, value in experiment.resolved().items() if key not in ("resources", "keep_images")}
    config = json.dumps([settings, plan.tier], sort_keys=True)
    code = "".join(f"{path.name} {file_hash(path)}\n" for path in import_closure(module))
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in (("config", config), ("code", code))}


def is_registered(found: dict[str, Any], planned: dict[str, str]) -> bool:
    """Whether a file of registration has this one, be it amended or not."""
    return {key: value for key, value in found.items() if key != "amended"} == planned


def module_code(module: str) -> str:
    """The code input of a rule that runs a module of the package."""
    return watched(import_closure(module))


def folder(plan: Plan, key: Key) -> str:
    """The folder of an experiment's study, or search.

    Raises:
        ConfigError: If it has no such key.
    """
    if getattr(plan.experiment.config, key) is None:
        raise ConfigError(f"{plan.experiment.where}: the key '{key}' is required here; {EXAMPLES}")
    return f"results/{plan.experiment.config.name}/study"
