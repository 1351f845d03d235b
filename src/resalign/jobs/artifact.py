"""The job that packs a finished experiment, and the place of the archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from resalign.config.ablations import Ablations
from resalign.config.plan import RESULTS, Plan
from resalign.config.shape import ArtifactConfig
from resalign.config.strict import ConfigError, read_yaml
from resalign.jobs import ablation as ablation_jobs
from resalign.jobs import exhibit, measure, report, theory
from resalign.jobs.job import Job, Part

# Where things lie in the archive.
TARGET = "TARGET"  # stands in a command for what is to be made
CONFIGURATIONS = "inputs/configuration"  # as they were written, in the order in which they lead to one another
PROMPTS = "inputs/prompts"  # lists of the user's own


class PackedAblation(Part):
    """A measured ablation."""

    folder: str
    runs: tuple[str, ...]  # folders of the runs behind it


class ArtifactJob(Job):
    """A job of scripts/artifact.py; the jobs of the report and of others are in their own records."""

    name: str
    title: str
    tier: str
    command: str  # makes TARGET
    result: str  # folder of the result
    jobs: tuple[report.Timing, ...]
    references: tuple[str, ...]  # folders of scores
    assets: dict[str, dict[str, Any]]
    files: tuple[str, ...]
    own_inputs: dict[str, str]  # file of the user's own, by the archive's member
    words: dict[str, dict[str, Any]]  # of each exhibit
    ablations: tuple[PackedAblation, ...]
    theory: tuple[str, ...]  # folders of measured states
    artifact: ArtifactConfig

    @classmethod
    def of(cls, plan: Plan, ablations: Ablations) -> ArtifactJob:
        """The job of an experiment."""
        config = plan.experiment.config
        return cls(
            name=config.name,
            title=config.title,
            tier=plan.tier,
            command=plan.command(TARGET, tier=plan.tier),
            result=f"{RESULTS}/{config.name}",
            jobs=tuple(report.report_timings(plan)),
            references=tuple(plan.references),
            assets=_assets(plan, ablations),
            files=tuple(result_files(plan)),
            own_inputs=_own_inputs(plan),
            words={name: exhibit.words(plan, name).plain() for name in _exhibits(plan)},
            ablations=tuple(_ablation(plan, ablations, name) for name in _ablations(plan)),
            theory=tuple(theory.measured_states(plan)) if _has_theory(plan) else (),
            artifact=config.artifact,
        )


def folder(plan: Plan) -> str:
    """Folder of the archive."""
    return f"{RESULTS}/{plan.experiment.config.name}/artifact"


def archive(plan: Plan) -> str:
    """The archive: a zip, of which every member is compressed on its own, so that damage is found where it is."""
    return f"{folder(plan)}/{plan.experiment.config.name}.zip"


def result_files(plan: Plan) -> list[str]:
    """Every file of the result that is packed, and the report's folder of figures; all are outputs of rules.

    What else lies there is of targets that the archive leaves out, or of an earlier configuration.
    """
    result = f"{RESULTS}/{plan.experiment.config.name}"
    reported = report.files(plan.experiment.sweeps)
    ablations = [f"{_ablation_folder(plan, name)}/{file}" for name in _ablations(plan) for file in ablation_jobs.COPIED]
    return [
        *(f"{result}/{file}" for file in (*reported, "figures", "run.json")),
        *(f"{measure.folder(plan)}/{file}" for file in (*measure.FILES, "run.json")),
        *(f"{result}/paper/{file}" for name in _exhibits(plan) for file in exhibit.files_of(name)),
        *ablations,
        *([*theory.files(plan), *theory.measured_files(plan)] if _has_theory(plan) else ()),
    ]


def _own_inputs(plan: Plan) -> dict[str, str]:
    """Files that the user wrote, by member: configurations and prompt lists, wherever they lie."""
    files = _files_in(plan.experiment.where)
    for path in files:  # which grows by what each extends
        other = read_yaml(path).get("extends")
        files += [Path(os.path.expanduser(str(other)))] if other else []
    places = {f"{CONFIGURATIONS}/{place}-{path.name}": str(path) for place, path in enumerate(files, 1)}
    for name in plan.experiment.config.prompts:
        for attack, source in plan.experiment.prompt_sources(name).items():
            if plan.assets[plan.asset_of(source)].origin == "path":
                file = plan.folder(source)
                places[f"{PROMPTS}/{name}{attack}{Path(file).suffix}"] = file
    return places


def _files_in(where: str) -> list[Path]:
    """The configuration files that a text names, a comma between two; none of a text that names no file.

    Raises:
        ConfigError: If one part is a file, and another one is not.
    """
    if Path(where).is_file():  # its own name may have a comma
        return [Path(where)]
    paths = [Path(part) for part in where.split(", ")]
    lost = [path for path in paths if not path.is_file()]
    if len(lost) == len(paths):
        return []
    if lost:
        raise ConfigError(f"{where}: no file '{lost[0]}'; the archive packs every configuration")
    return paths


def _exhibits(plan: Plan) -> list[str]:
    """The paper's exhibits, pictures of generated images only where images are asked for."""
    with_images = plan.experiment.config.artifact.images
    planned = exhibit.planned(plan)
    return [name for name in planned if with_images or "samples" not in exhibit.frames_of(plan, name)]


def _ablations(plan: Plan) -> list[str]:
    """Names of the ablations that the packed exhibits read."""
    frames = [exhibit.frames_of(plan, name) for name in _exhibits(plan)]
    return list(dict.fromkeys(Path(frame["ablation"]).parent.name for frame in frames if "ablation" in frame))


def _ablation_folder(plan: Plan, name: str) -> str:
    return f"{RESULTS}/{plan.experiment.config.name}/ablations/{name}"


def _ablation(plan: Plan, ablations: Ablations, name: str) -> PackedAblation:
    """A measured ablation, and the folders of the runs behind it."""
    job = ablation_jobs.AblationJob.of(ablations, name)
    rows = [row for variant in job.variants for row in variant.measured.rows]
    runs = [folder.format(seed=seed) for row in rows for folder in row.folders.values() for seed in row.seeds]
    # Not what marks data sets as complete.
    read = [str(Path(file).parent) for file in job.inputs() if file.startswith(f"{RESULTS}/runs/")]
    return PackedAblation(folder=_ablation_folder(plan, name), runs=tuple(dict.fromkeys([*runs, *read])))


def _has_theory(plan: Plan) -> bool:
    return bool(exhibit.declared_theory(plan))


def _assets(plan: Plan, ablations: Ablations) -> dict[str, Any]:
    """The experiment's assets, then those that only a variant has, under its name."""
    assets = {name: _described(plan, name) for name in plan.assets}
    known = {asset["folder"] for asset in assets.values()}
    for ablation in _ablations(plan):
        for label, variant in ablations.variants(ablation).items():
            for name, asset in variant.plan.assets.items():
                if asset.folder not in known:
                    known.add(asset.folder)
                    assets[f"{name} ({ablation}: {label})"] = _described(variant.plan, name)
    return assets


def _described(plan: Plan, name: str) -> dict[str, Any]:
    """An asset: where it comes from, under which licence and terms, what its content is determined by."""
    asset = plan.assets[name]
    origin = {"name": name, "origin": asset.origin, "folder": asset.folder, "identity": asset.resolved}
    described = plan.experiment.config.assets.get(name)  # a prepared set has the licences of what it is made from
    if described is None or asset.origin == "digits":
        return {**origin, "licence": "made by this workflow"}
    terms = {"terms": list(described.terms), "note": described.note}
    return {
        **origin,
        "licence": described.licence or "not stated",
        **{key: value for key, value in terms.items() if value},
    }
