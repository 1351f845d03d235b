"""The plan: every run of an experiment, named by the hash of its own and its parents' resolved configuration."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resalign.config import apart
from resalign.config.assets import WEIGHT_SUFFIXES
from resalign.config.captions import CAPTION_TABLES, caption_tables
from resalign.config.concept import IMAGE_SETS, OPTIONAL_FOLDERS, needs_of
from resalign.config.digits import DigitsConfig
from resalign.config.experiment import TRAIN, Experiment
from resalign.config.references import is_plain, plain_path, split_reference
from resalign.config.shape import NOT_ATTACKED
from resalign.config.strict import ConfigError

RESULTS = "results"
# Files that make up a user's own folder: tables of captions, weights, settings. Images count by their table.
MAKES_A_FOLDER = (*WEIGHT_SUFFIXES, ".json", ".jsonl", ".csv", ".onnx", ".onnx_data", ".data")


def digest(values: Any) -> str:
    """Ten hexadecimal digits of the sha256 of plain values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Asset:
    """An asset's folder and what it is made from."""

    name: str
    origin: str
    resolved: dict[str, Any] = field(hash=False)

    @property
    def folder(self) -> str:
        """Where the asset lies: a folder of the user's own stays in place."""
        if self.origin == "path":
            return str(self.resolved["path"])
        return f"{RESULTS}/assets/{self.name}-{digest(self.resolved)}"


@dataclass(frozen=True)
class Stage:
    """One run of a stage, apart from its training seed.

    Attributes:
        stage: ``unlearn``, ``attack``, ``sample`` or ``score``.
        label: What a person calls it.
        model: Row of the tables.
        attack: Label of the attack, or None.
        resolved: Everything that determines its result but the seed, parents' hashes included.
        module: The member's module, whose import closure are the stage's code inputs.
        parent: The run whose output it reads.
    """

    stage: str
    label: str
    model: str
    attack: str | None
    resolved: dict[str, Any] = field(hash=False)
    modules: tuple[str, ...] = ()
    parent: Stage | None = None

    @property
    def run(self) -> str:
        """Folder name: label and hash."""
        return f"{self.label}-{digest(self.resolved)}"

    def folder(self, seed: int | str) -> str:
        """Folder of one training seed."""
        return f"{RESULTS}/runs/{self.stage}/{self.run}/seed-{seed}"


class Plan:
    """All runs of one experiment.

    Attributes:
        assets: By name.
        unlearn, attack, sample, score: Runs by folder name.
    """

    def __init__(self, experiment: Experiment) -> None:
        """Plans every run of the experiment's models and attacks."""
        self.experiment = experiment
        self.assets = self._assets()
        apart.check_sets_apart(self)
        apart.check_runs_differ(self)
        self.unlearn: dict[str, Stage] = {}
        self.attack: dict[str, Stage] = {}
        self.sample: dict[str, Stage] = {}
        self.score: dict[str, Stage] = {}
        for model in experiment.models:
            unlearned = self._unlearn(model) if model in experiment.unlearning else None
            self._evaluate(model, None, unlearned)
            for attack in experiment.attacks:
                self._evaluate(model, attack, self._attack(model, attack, unlearned))

    def folder(self, reference: str) -> str:
        """Path of ``asset`` or ``asset/folder``."""
        name, rest = split_reference(reference)
        return "/".join(filter(None, [self.assets[name].folder, rest]))

    def completion_files(self, reference: str) -> list[str]:
        """Files whose presence marks an asset as complete; for a user's own: the files that are watched for changes.

        Args:
            reference: ``asset`` or ``asset/folder``.
        """
        asset = self.assets[self.asset_of(reference)]
        if asset.origin != "path":
            return [f"{asset.folder}/run.json"]
        own = Path(plain_path(self.folder(reference)))
        is_pipeline = any((own / name).exists() for name in ("model_index.json", "unet", "transformer", "text_encoder"))
        inside = [own, *own.glob("*"), *(own.glob("*/*") if is_pipeline else ())]
        found = {str(path) for path in inside if (path == own or path.suffix in MAKES_A_FOLDER) and path.is_file()}
        return sorted(filter(is_plain, found | set(caption_tables(str(own)))))

    def captions(self, reference: str) -> str:
        """The table by which a job is told a folder of images.

        In a folder of the user's own it may be of another kind than CSV, or tables may lie in folders inside it alone:
        then no file has the name that is returned.
        """
        tables = [f"{self.folder(reference)}/{name}" for name in CAPTION_TABLES]
        is_own = self.assets[self.asset_of(reference)].origin == "path"
        return next((table for table in tables if is_own and Path(table).is_file()), tables[0])

    def pipeline(self, model: str) -> str:
        """The asset of a model's pipeline; an unlearned model is the base's with other weights."""
        config = self.experiment.config
        return config.pipelines.get(model, config.model)

    @property
    def tier(self) -> str:
        """Name of the tier in force."""
        return self.experiment.config.tier

    @property
    def config_file(self) -> str:
        """The experiment's file, from the repository's root."""
        where = self.experiment.where
        return os.path.relpath(where) if Path(where).is_absolute() else where

    def command(self, target: str, **overrides: str) -> str:
        """What a person types to make a target of this experiment, from the repository's root."""
        config = "".join(f" {key}={value}" for key, value in overrides.items())
        return f"snakemake --cores 2 --configfile {self.config_file}{' --config' if config else ''}{config} -- {target}"

    def asset_of(self, reference: str) -> str:
        """The asset's name in ``asset/folder``."""
        return split_reference(reference)[0]

    def seeds(self, stage: Stage) -> tuple[int, ...]:
        """Training seeds of a run; what nothing has trained here is the same for all, and has the first only."""
        seeds = self.experiment.tier.training_seeds
        member = self.experiment.unlearning.get(stage.model)
        is_trained = stage.attack is not None or (member is not None and hasattr(member.config, "steps"))
        # An attack on a checkpoint that is taken as it is starts from the unlearning run of its own seed.
        return seeds if is_trained or stage.stage == "unlearn" else seeds[:1]

    def _assets(self) -> dict[str, Asset]:
        config = self.experiment.config
        assets = {}
        for name, asset in config.assets.items():
            resolved = asset.identity
            if asset.origin == "digits":
                resolved["world"] = self.world(str(asset.digits))
            assets[name] = Asset(name, asset.origin, resolved)
        for name in self.experiment.prepared:
            self._prepare(name, assets, ())
        return assets

    def _prepare(self, name: str, assets: dict[str, Asset], above: tuple[str, ...]) -> None:
        """Adds a prepared set behind the assets that it is made from, which may be prepared sets themselves."""
        if name in above:
            raise ConfigError(f"{self.experiment.where}: prepared.{name} is made from itself: {' <- '.join(above)}")
        sources = {key: split_reference(source) for key, source in self.experiment.sources(name).items()}
        for source, _ in sources.values():
            if source not in assets:
                self._prepare(source, assets, (*above, name))
        settings = self.experiment.prepared[name].resolved()
        # A source counts by what it is, not by what it is called here.
        identities = {key: [assets[source].resolved, rest] for key, (source, rest) in sources.items()}
        assets[name] = Asset(name, "prepared", {**settings, **identities})

    def world(self, part: str) -> dict[str, Any]:
        """The part of the demo world's configuration that determines one of its parts, readable as a whole one."""
        world = self.experiment.config.digits.model_dump(mode="json")
        if part != "data":  # the networks learn all ten digits, whichever are unsafe
            world["unsafe"] = DigitsConfig().unsafe
        detectors = world.pop("detectors")
        if part != "conjunction":
            del world["conjunction"]
        own = {"data": (), "autoencoder": ("autoencoder",), "model": ("autoencoder", "generator"), "clip": ("clip",)}
        keep = own.get(part, ())
        common = {key: value for key, value in world.items() if key not in ("autoencoder", "generator", "clip")}
        detector = {"detectors": {part: detectors[part]}} if part in detectors else {}
        return {**common, **{key: world[key] for key in keep}, **detector}

    def identity(self, reference: str) -> list[Any]:
        """What an asset reference contributes to a hash."""
        name, rest = split_reference(reference)
        return [self.assets[name].resolved, rest]

    def _unlearn(self, model: str) -> Stage:
        config, member = self.experiment.config, self.experiment.unlearning[model]
        concept = config.concept
        resolved = {
            "method": member.resolved(),
            "pixels": config.pixels,
            "precision": config.precision,
            "concepts": [words.model_dump() for words in concept.concepts],
            **{key: self.identity(getattr(concept, key)) for key in IMAGE_SETS},
            "model": self.identity(config.model),
        }
        if "retain_prompts" in needs_of(member.config):
            resolved["retain_prompts"] = list(concept.retain_prompts)
        for key in [key for key in OPTIONAL_FOLDERS if key in needs_of(member.config)]:
            resolved[key] = self.identity(getattr(concept, key))
        if member.asset:
            resolved["checkpoint"] = self.identity(member.asset)
        modules = (f"resalign.unlearning.{member.name}", *getattr(member.config, "modules", ()))
        stage = Stage("unlearn", model, model, None, resolved, modules)
        self.unlearn[stage.run] = stage
        return stage

    def attacked_prompts(self, attack: str | None) -> str | None:
        """Label of the prompt list that an attack attacks, of one that attacks prompts."""
        return getattr(self.experiment.attacks[attack].config, "prompts", None) if attack else None

    def most_prompts(self, name: str) -> int | None:
        """How many prompts the largest tier asks of a list; tiers are nested."""
        return self.experiment.config.tiers[self.experiment.tiers[-1]].prompts[name].prompts

    def _attack(self, model: str, attack: str, unlearned: Stage | None) -> Stage:
        config, member, data = (
            self.experiment.config,
            self.experiment.attacks[attack],
            self.experiment.attack_data[attack],
        )
        parent = self._attack(model, data.after, unlearned) if data.after else unlearned
        resolved: dict[str, Any] = {
            "attack": member.resolved(),
            "pixels": config.pixels,
            "precision": config.precision,
            **{key: self.identity(reference) for key, reference in data.images.items()},
            "parent": parent.resolved if parent else {"model": self.identity(self.pipeline(model))},
        }
        if data.starts_from == "base" and parent:
            resolved["starts_from"] = "base"
        if (attacked := self.attacked_prompts(attack)) is not None:
            columns = config.prompts[attacked].columns.model_dump()
            source = self.identity(self.experiment.prompt_sources(attacked)[""])
            chosen = config.prompts[attacked].chosen.values()
            resolved["prompts"] = [source, columns, self.most_prompts(attacked), *chosen]
        modules = (f"resalign.attacks.{member.name}", *getattr(member.config, "modules", ()))
        stage = Stage("attack", f"{model}.{attack}", model, attack, resolved, modules, parent)
        self.attack[stage.run] = stage
        return stage

    def _evaluate(self, model: str, attack: str | None, parent: Stage | None) -> None:
        """Adds sampling and scoring of one state, or of all checkpoints of an attack."""
        config = self.experiment.config
        sampling = {
            "sampling": config.sampling.model_dump(mode="json"),
            "prompts": {
                name: [
                    self.identity(source),
                    prompts.columns.model_dump(),
                    prompts.along_the_way,
                    *prompts.chosen.values(),
                ]
                for name, prompts in config.prompts.items()
                if (source := prompts.source_after(attack)) is not None
            },
            "parent": parent.resolved if parent else {"model": self.identity(self.pipeline(model))},
        }
        label = model if attack is None else f"{model}.{attack}"
        sample = Stage("sample", label, model, attack, sampling, (), parent)
        scoring = {"scorers": self._scorers(), "parent": sampling}
        score = Stage("score", label, model, attack, scoring, self.scorer_modules, sample)
        self.sample[sample.run] = sample
        self.score[score.run] = score

    @property
    def scorer_modules(self) -> tuple[str, ...]:
        """Modules of the scorers in use."""
        return tuple(sorted({f"resalign.scorers.{member.name}" for member in self.experiment.scorers.values()}))

    @property
    def compared(self) -> dict[str, dict[str, str]]:
        """The real images that a metric compares a state with: by the metric's label and the state's attack."""
        experiment = self.experiment
        found: dict[str, dict[str, str]] = {}
        for label, reference in experiment.references.items():
            prompts = experiment.config.prompts[str(getattr(experiment.metrics[label].config, "prompts", ""))]
            sampled = [attack for attack in (None, *experiment.attacks) if prompts.source_after(attack) is not None]
            found[label] = {
                attack or NOT_ATTACKED: experiment.attack_data[attack].train
                if attack and reference == TRAIN
                else reference
                for attack in sampled
            }
        return found

    @property
    def real_images(self) -> list[str]:
        """Asset references of the real images that metrics compare with, but for an attack's own training images."""
        compared = [self.experiment.config.reference, *self.experiment.references.values()]
        return [reference for reference in dict.fromkeys(compared) if reference not in (None, TRAIN)]

    @property
    def references(self) -> dict[str, str]:
        """Those sets of real images by the folder of their raw scores, the experiment's own first."""
        own = [self.experiment.config.reference] if self.experiment.config.reference else []
        named = (reference for of in self.compared.values() for reference in of.values())
        return {self.reference_scores(reference): reference for reference in dict.fromkeys([*own, *named])}

    def reference_scores(self, reference: str) -> str:
        """Folder of the raw scores of a set of real images."""
        found = [self._scorers(), self.identity(reference), self.experiment.config.pixels]
        return f"{RESULTS}/runs/score/reference-{digest(found)}"

    def _scorers(self) -> dict[str, Any]:
        """What determines raw scores, given the images."""
        return {
            # A scorer without assets has None there.
            name: [member.resolved(), *map(self.identity, member.assets.values()), *([] if member.assets else [None])]
            for name, member in self.experiment.scorers.items()
        }


def load_plan(config_file: str | Path, overrides: dict[str, Any] | None = None) -> Plan:
    """Validates a configuration file and plans its runs."""
    return Plan(Experiment.read(config_file, overrides))
