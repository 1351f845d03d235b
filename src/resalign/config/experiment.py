"""The experiment: a configuration's entries, each validated by its member's own class, and all of them together."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.config.assets import WEIGHT_SUFFIXES, AssetConfig, check_consent, read_catalogue
from resalign.config.attack_data import AttackDataConfig, check_chains
from resalign.config.concept import IMAGE_SETS, OPTIONAL_FOLDERS, check_methods
from resalign.config.detector_audit import StandInConfig
from resalign.config.extension import extended
from resalign.config.references import fault_of, split_reference
from resalign.config.scorer_needs import check_needs, needs_of
from resalign.config.shape import NOT_ATTACKED, TIERS, ExperimentConfig, ModelWords, ResourcesConfig, Tier, TierConfig
from resalign.config.strict import ConfigError, Strict, check_publishable, nearest, read_yaml, shortened
from resalign.config.study import check_study
from resalign.config.sweeps import expanded
from resalign.config.tuning import check_tuning

SETS = "data.sets"  # the family of prepared image sets
BASE = "base"  # the model before unlearning, as tables name it
TRAIN = "train"  # a metric's reference: the images that the attack was trained on
# What a person calls an entry is part of file names, which have 255 bytes, and of Snakemake's wildcards.
LABEL = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,179}")
MOST_CHARACTERS = 220  # of a model's label and an attack's: a run's folder has both, and a hash
# Keys by which a member names assets that it loads itself.
ASSET_KEYS = ("folder", "checkpoint", "head")


def _audited(config: ExperimentConfig, where: str) -> ExperimentConfig:
    """The models of ``audit`` as ordinary ones, in place of all others; a path becomes an asset."""
    known = {**read_catalogue(), **config.assets, **config.prepared}
    assets, pipelines, unlearning = dict(config.assets), {}, {}
    for label, entry in config.audit.items():
        source = entry if isinstance(entry, str) else entry.get("checkpoint")
        if isinstance(source, str) and split_reference(source)[0] not in known:
            assets[f"audited-{label}"] = AssetConfig.parse({"path": source}, where=f"{where}: audit.{label}")
            source = f"audited-{label}"
        if isinstance(entry, str):
            if Path(entry).suffix in WEIGHT_SUFFIXES:
                raise ConfigError(
                    f"{where}: audit.{label}: {entry!r} is a file of weights, not a pipeline folder; for weights of "
                    f"the base model write 'audit: {{{label}: {{checkpoint: {entry}}}}}'"
                )
            pipelines[label] = str(source)
        else:
            unlearning[label] = {"method": "imported", **entry, **({"checkpoint": source} if source else {})}
    changes = {"assets": assets, "pipelines": pipelines, "unlearning": unlearning, "study": None, "selection": None}
    return config.model_copy(update={**changes, "tuning": None} if config.audit else {})


class Member:
    """A family's member with its validated settings.

    Attributes:
        family: Name of the family.
        name: Name of the member: its file's.
        config: Its settings, every default filled in.
    """

    def __init__(self, family: str, name: str, config: Strict) -> None:
        """See the attributes."""
        self.family, self.name, self.config = family, name, config

    @property
    def assets(self) -> dict[str, str]:
        """The assets that the member itself loads, by the key that names each.

        A scorer's ``folder``, and a ``head`` on its network; an imported model's ``checkpoint``.
        """
        return {key: reference for key in ASSET_KEYS if (reference := getattr(self.config, key, None))}

    @property
    def asset(self) -> str | None:
        """The one asset of a member that loads no more than one."""
        return next(iter(self.assets.values()), None)

    def resolved(self) -> dict[str, Any]:
        """Name and every setting, as plain values."""
        return {"name": self.name, **self.config.model_dump(mode="json")}


class Experiment:
    """A validated experiment.

    Attributes:
        values: The file's plain values over those of the files that it extends.
        config: The file's own part.
        prepared, unlearning, attacks, scorers, metrics: Members by label.
        attack_data: What each attack fine-tunes on, by label.
        words: Configured display names and notes of unlearned models, by label.
        sweeps: Attack labels by sweep and value.
    """

    def __init__(self, values: dict[str, Any], *, where: str) -> None:
        """Validates plain values; ``where`` names their source in an error."""
        self.where = where
        whole = extended(values, where=where)
        check_publishable(whole, where=where)
        self.values = {key: value for key, value in whole.items() if key != "extends"}
        self.config = _audited(ExperimentConfig.parse(whole, where=where), where)
        self.prepared = self._members(SETS, "set", self.config.prepared)
        self.words, entries = {}, {}
        for label, entry in self.config.unlearning.items():
            said = {key: entry[key] for key in ModelWords.model_fields if key in entry}
            self.words[label] = ModelWords.parse(said, where=f"{where}: unlearning.{label}")
            entries[label] = {key: value for key, value in entry.items() if key not in said}
        self.unlearning = self._members("unlearning", "method", entries)
        self.attack_data = {}
        settings = {}
        attacks, self.sweeps = expanded(self.config.attacks, self.config.sweeps, where=where)
        for label, entry in attacks.items():
            own = {key: entry[key] for key in AttackDataConfig.model_fields if key in entry}
            self.attack_data[label] = AttackDataConfig.parse(
                {"dataset": label, **own}, where=f"{where}: attacks.{label}"
            )
            settings[label] = {"attack": "full", **{key: value for key, value in entry.items() if key not in own}}
        self.attacks = self._members("attacks", "attack", settings)
        self.scorers = self._members("scorers", "scorer", self.config.scorers)
        self._require("tier", self.config.tier, self.config.tiers, "tier")
        known = [*self.config.metrics, *registry.members("metrics")]  # one that a file leaves out which extends another
        for label in self.tier.without:
            self._require(f"tiers.{self.config.tier}.without", label, known, "metric")
        measured = {label: entry for label, entry in self.config.metrics.items() if label not in self.tier.without}
        self.metrics = self._members("metrics", "metric", measured)
        self._take_from_catalogue()
        self._check_references()
        self._check_nested()
        self._check_combinations()
        check_needs(self)
        check_study(self)
        check_tuning(self)

    @classmethod
    def read(cls, path: str | Path, overrides: dict[str, Any] | None = None) -> Experiment:
        """Reads and validates a configuration file."""
        return cls({**read_yaml(path), **(overrides or {})}, where=str(path))

    @property
    def tier(self) -> TierConfig:
        """The tier in force."""
        return self.config.tiers[self.config.tier]

    @property
    def tiers(self) -> list[Tier]:
        """The tiers that are described, the smallest first."""
        return [name for name in TIERS if name in self.config.tiers]

    @property
    def models(self) -> tuple[str, ...]:
        """Every model, in the order of the tables."""
        return (BASE, *self.config.pipelines, *self.unlearning)

    @property
    def titles(self) -> dict[str, str]:
        """Display names by label: the configured ones, and a method's own name, with which its docstring begins."""
        labels = [label for label, member in self.unlearning.items() if member.name == label]
        names = {label: registry.sentence("unlearning", label).partition(":")[0] for label in labels}
        own = {label: name for label, name in names.items() if name.lower().replace("-", "_") == label}
        model_titles = {label: words.title for label, words in self.words.items() if words.title}
        datasets = {data.dataset: data.title for data in self.attack_data.values() if data.title}
        prompts = {label: entry.title for label, entry in self.config.prompts.items() if entry.title}
        return {BASE: "Base model", **own, **model_titles, **datasets, **prompts}

    def resources(self, stage: str) -> ResourcesConfig:
        """Resources of a stage's job."""
        by_stage: dict[Any, ResourcesConfig] = self.config.resources
        return by_stage.get(stage, by_stage.get("default", ResourcesConfig()))

    def resolved(self) -> dict[str, Any]:
        """The whole experiment with every default filled in, as plain values."""
        values = self.config.model_dump(mode="json")
        if not any(asset.digits for asset in self.config.assets.values()):
            del values["digits"]  # the demo world's own numbers, of which this experiment uses none
        families = {name: getattr(self, name) for name in ("prepared", "unlearning", "scorers", "metrics")}
        for family, found in families.items():
            values[family] = {label: member.resolved() for label, member in found.items()}
        for label, words in self.words.items():
            values["unlearning"][label] |= words.model_dump(exclude_unset=True)
        values["attacks"] = {
            label: {**self.attack_data[label].resolved(), **member.resolved()} for label, member in self.attacks.items()
        }
        return values

    def _members(self, family: str, key: str, entries: dict[str, dict[str, Any]]) -> dict[str, Member]:
        """Validates each entry by its member's own ``Config``; the label is its name unless ``key`` gives it."""
        result = {}
        for label, entry in entries.items():
            where = f"{self.where}: {'prepared' if family == SETS else family}.{label}"
            settings = dict(entry)
            name = settings.pop(key, label)
            try:
                config = registry.config_class(family, name)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            result[label] = Member(family, name, config.parse(settings, where=where))
        return result

    def sources(self, label: str) -> dict[str, str]:
        """The asset references that a prepared set is made from, by the key that names each."""
        member = self.prepared[label]
        inputs: tuple[str, ...] = registry.member(SETS, member.name).INPUTS
        return {key: getattr(member.config, key) for key in inputs}

    def asset_references(self) -> dict[str, str]:
        """Every ``asset`` or ``asset/folder`` that an entry names, by its key."""
        config = self.config
        found = {
            "model": config.model,
            **{f"pipelines.{label}": reference for label, reference in config.pipelines.items()},
            **{f"concept.{k}": v for k in (*IMAGE_SETS, *OPTIONAL_FOLDERS) if (v := getattr(config.concept, k))},
            **{f"attacks.{k}.{key}": name for k, v in self.attack_data.items() for key, name in v.images.items()},
            **{f"prompts.{k}.source{of}": name for k in config.prompts for of, name in self.prompt_sources(k).items()},
            **{
                f"metrics.{k}.reference": name
                for k, name in self.references.items()
                if name not in (TRAIN, config.reference)
            },
            **{f"scorers.{k}.{key}": name for k, m in self.scorers.items() for key, name in m.assets.items()},
            **{f"unlearning.{k}.checkpoint": m.asset for k, m in self.unlearning.items() if m.asset},
            **{f"prepared.{k}.{key}": v for k in self.prepared for key, v in self.sources(k).items()},
        }
        return found if config.reference is None else {**found, "reference": config.reference}

    def prompt_sources(self, name: str) -> dict[str, str]:
        """A prompt list's files, by the attack that each belongs to (after a dot), or '' for all."""
        source = self.config.prompts[name].source
        return {"": source} if isinstance(source, str) else {f".{attack}": found for attack, found in source.items()}

    @property
    def references(self) -> dict[str, str]:
        """The real images of each metric that compares with some: its own, or the experiment's."""
        comparing = {k: m for k, m in self.metrics.items() if hasattr(registry.member("metrics", m.name), "of_set")}
        found = {k: getattr(m.config, "reference", None) or self.config.reference for k, m in comparing.items()}
        return {label: reference for label, reference in found.items() if reference is not None}

    def _take_from_catalogue(self) -> None:
        """Adds every asset that is named but not described here, and holds all to the consent that was given."""
        both = sorted(set(self.config.assets) & set(self.prepared))
        if both:
            raise ConfigError(f"{self.where}: {both} stand under both 'assets' and 'prepared'; rename one of each")
        known = {**read_catalogue(), **self.config.assets}
        named = {split_reference(reference)[0] for reference in self.asset_references().values()} - set(self.prepared)
        chosen = {name: known[name] for name in known if name in named or name in self.config.assets}
        for name, asset in chosen.items():
            check_consent(name, asset, self.config.consent, where=self.where)
        self.config = self.config.model_copy(update={"assets": chosen})

    def _check_references(self) -> None:
        """Every name that one entry uses must be another's key."""
        config = self.config
        known = {**read_catalogue(), **config.assets, **self.prepared}
        for key, reference in self.asset_references().items():
            if fault := fault_of(key, reference, known):
                raise ConfigError(f"{self.where}: key '{key}': {fault}")
        check_chains(self.attack_data, where=self.where)
        for label, member in self.attacks.items():
            where = f"{self.where}: attacks.{label}"
            self.attack_data[label].check_start(member.name, member.config, pipelines=config.pipelines, where=where)
            if (attacked := getattr(member.config, "prompts", None)) is not None:
                self._require(f"attacks.{label}.prompts", attacked, config.prompts, "prompt list")
                if "" not in self.prompt_sources(attacked):
                    raise ConfigError(
                        f"{self.where}: attacks.{label}.prompts: list '{attacked}' has a source by attack, and it is "
                        "sampled before this one, too; name one that is the same for all"
                    )
        self._require("gallery_prompts", config.gallery_prompts, config.prompts, "prompt list")
        self._require("flagging_metric", config.flagging_metric, self.metrics, "metric")
        self._check_detector_audit()
        for label, prompt_set in config.prompts.items():
            for attack in prompt_set.source if isinstance(prompt_set.source, dict) else ():
                self._require(f"prompts.{label}.source", attack, {NOT_ATTACKED, *self.attacks}, "attack")
        check_methods(config.concept, {k: m.config for k, m in self.unlearning.items()}, where=self.where)
        for label, metric in self.metrics.items():
            prompts = getattr(metric.config, "prompts", None)
            if prompts is not None:
                self._require(f"metrics.{label}.prompts", prompts, config.prompts, "prompt list")
            for need in needs_of(metric):
                self._require(f"metrics.{label}", need.scorer, self.scorers, "scorer")
        for name in config.main_table_attacks:
            self._require("main_table_attacks", name, self.attacks, "attack")
        for label, sweep in config.sweeps.items():
            for name in sweep.metrics:
                self._require(f"sweeps.{label}.metrics", name, self.metrics, "metric")
        for name, tier in config.tiers.items():
            for prompts in config.prompts:
                self._require(f"tiers.{name}.prompts", prompts, tier.prompts, "prompt count")
        for label, asset in config.assets.items():
            if asset.digits is not None:
                parts = {"data", "conjunction", "model", "clip", *config.digits.detectors}
                self._require(f"assets.{label}.digits", asset.digits, parts, "part of the demo world")

    def _require(self, key: str, name: str, known: Any, what: str) -> None:
        if name not in known:
            raise ConfigError(f"{self.where}: key '{key}': no {what} named '{name}'{nearest(name, known)}")

    def _check_nested(self) -> None:
        """A larger tier must extend a smaller one: its seeds, prompts and images begin with the smaller one's."""
        for small, large in itertools.pairwise(self.tiers):
            a, b = self.config.tiers[small], self.config.tiers[large]
            if b.training_seeds[: len(a.training_seeds)] != a.training_seeds:
                raise ConfigError(f"{self.where}: tiers.{large}.training_seeds must begin with tier {small}'s")
            for name in self.config.prompts:
                few, many = a.prompts[name], b.prompts[name]
                fewer = many.prompts is not None and (few.prompts is None or many.prompts < few.prompts)
                if fewer or many.images < few.images:
                    raise ConfigError(
                        f"{self.where}: tiers.{large}.prompts.{name} must not be smaller than tier {small}'s"
                    )

    def _check_combinations(self) -> None:
        """Refuses combinations that cannot give a table, before hours of work."""
        sources, entries = ("assets", "prepared", "pipelines", "prompts"), ("unlearning", "attacks", "sweeps")
        for key in (*sources, *entries, "metrics", "scorers"):
            for label in self.attacks if key == "attacks" else getattr(self.config, key):
                if (label == TRAIN and key in ("assets", "prepared")) or (label, key) == (NOT_ATTACKED, "attacks"):
                    meant = "an attack's training images" if label == TRAIN else "states before fine-tuning"
                    raise ConfigError(f"{self.where}: {key}.{label}: '{label}' is reserved for {meant}; rename it")
                if not LABEL.fullmatch(label):
                    raise ConfigError(
                        f"{self.where}: {key}.{shortened(label)}: use letters, digits, '_', '.', '-', at most 180 "
                        "characters, because the name becomes part of file names"
                    )
        names = max(self.models, key=len), max(self.attacks, key=len, default="")
        if (characters := sum(map(len, names))) > MOST_CHARACTERS:
            both = f"model '{shortened(names[0])}' and attack '{shortened(names[1])}' have {characters} characters"
            raise ConfigError(
                f"{self.where}: {both}, and a folder's name contains both: at most {MOST_CHARACTERS}; shorten one"
            )
        instead = {"sample": "sampling.batch_size", "score": "scoring_batch_size"}
        for stage, resources in self.config.resources.items():
            if resources.micro_batch_size and stage in instead:
                raise ConfigError(
                    f"{self.where}: resources.{stage}.micro_batch_size is for stages that train; set {instead[stage]}"
                )
        taken = {BASE: "the model before unlearning"}
        for key in ("pipelines", "unlearning"):
            for label in getattr(self.config, key):
                if label in taken:
                    raise ConfigError(
                        f"{self.where}: {key}.{label}: this name is already used by {taken[label]}; rename it"
                    )
                taken[label] = f"{key}.{label}"
        for label, attack in self.attacks.items():
            self.attack_data[label].check_images(attack.name, attack.config, where=f"{self.where}: attacks.{label}")
        modules = {label: registry.member("metrics", metric.name) for label, metric in self.metrics.items()}
        flags, keep = modules[metric := self.config.flagging_metric], self.config.keep_images
        if not hasattr(flags, "per_image") or flags.GROUP != "safety" or (keep == "flagged" and flags.KIND != "rate"):
            raise ConfigError(f"{self.where}: key 'flagging_metric': metric '{metric}' flags no single image; ip does")
        # The report cannot show a return of what was not measured before fine-tuning.
        first = next(label for label, module in modules.items() if module.GROUP == "safety")
        prompts = getattr(self.metrics[first].config, "prompts", None)
        if prompts is not None and isinstance(self.config.prompts[prompts].source, dict):
            raise ConfigError(
                f"{self.where}: prompts.{prompts}.source is by attack, and metrics.{first}, the first safety metric, "
                "must be measured before fine-tuning and after it; give one file for all states"
            )
        for label, module in modules.items():
            if hasattr(module, "of_set") and label not in self.references:
                raise ConfigError(f"{self.where}: metrics.{label} compares with real images; give the key 'reference'")
            self._check_train_reference(label)
            of_attacks = {getattr(attack.config, "prompts", None) for attack in self.attacks.values()}
            prompts = getattr(self.metrics[label].config, "prompts", None)
            if hasattr(module, "per_attacked_image") and prompts not in of_attacks:
                raise ConfigError(
                    f"{self.where}: metrics.{label} is of attacks on the prompts '{prompts}', and no attack attacks "
                    f"them; add one: {{attack: unlearndiffatk, prompts: {prompts}, …}}"
                )

    def _check_detector_audit(self) -> None:
        """The audited metric flags images, and no detector is audited by its own labels."""
        audit = self.config.detector_audit
        label = audit.metric or self.config.flagging_metric
        key = "detector_audit.metric" if audit.metric else "flagging_metric"
        self._require(key, label, self.metrics, "metric")
        metric = registry.member("metrics", self.metrics[label].name)
        if metric.KIND != "rate" or not hasattr(metric, "per_image"):
            raise ConfigError(f"{self.where}: {key}: '{label}' flags no single image; ip does")
        if isinstance(audit.labels, StandInConfig):
            scorer, audited = audit.labels.scorer, [need.scorer for need in needs_of(self.metrics[label])]
            self._require("detector_audit.labels.scorer", scorer, self.scorers, "scorer")
            if scorer in audited:
                raise ConfigError(
                    f"{self.where}: detector_audit.labels.scorer: '{scorer}' is audited itself; "
                    f"name one that '{label}' does not use: {sorted(set(self.scorers) - set(audited))}"
                )

    def _check_train_reference(self, label: str) -> None:
        """Only states after an attack can be compared with what it was trained on."""
        prompts = str(getattr(self.metrics[label].config, "prompts", ""))
        source = self.config.prompts[prompts].source if self.references.get(label) == TRAIN else {}
        if isinstance(source, str) or NOT_ATTACKED in source:
            raise ConfigError(
                f"{self.where}: metrics.{label}: reference 'train' is the images of an attack; give "
                f"prompts.{prompts}.source by attack: {{an-attack: asset/file}}"
            )
