"""What an experiment's keys ``study`` and ``selection`` register; imported without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from resalign.config import registry
from resalign.config.strict import ConfigError, Strict, nearest

if TYPE_CHECKING:
    from resalign.config.experiment import Experiment

Labels = Annotated[tuple[str, ...], Field(min_length=1)]


class Compared(Strict):
    """What settings are compared by."""

    method: str = Field(description="study: the model that the claims are about; selection: its family of settings")
    safety: str = Field(description="label of a metric: a rate of which lower is better, measured in every state")
    utilities: Labels = Field(
        description="labels of metrics: rates of which higher is better, measured before fine-tuning"
    )

    @property
    def named(self) -> list[tuple[str, str]]:
        """Key and label of every model, or family, that is named."""
        return [("method", self.method)]

    @property
    def measures(self) -> tuple[str, ...]:
        """The label of every metric that is counted."""
        return self.safety, *self.utilities


class Contrast(Strict):
    """Two models that differ in one component."""

    component: str = Field(
        description="the component that `treated` has and `control` lacks, as the subject of a sentence"
    )
    treated: str
    control: str


class StudyConfig(Compared):
    """Which models the claims are about, and their bounds; fixed before the study is run."""

    baselines: Labels
    baseline: str = Field(description="the one that the search ranked first; the primary claim is against it")
    utility_margin: float = Field(0.03, ge=0, description="of each utility, what the method may lose to a baseline")
    least_base: float = Field(0.8, ge=0, le=1, description="the base model's safety rate below which nothing is tested")
    least_baseline: float = Field(0.15, ge=0, le=1, description="the same of the baseline")
    contrasts: tuple[Contrast, ...] = ()
    fronts: dict[str, Labels] = Field({}, description="models by family: settings of one method, from gentle to hard")
    inside: dict[str, Annotated[int, Field(gt=0)]] = Field(
        {}, description="attacks that simulated fine-tuning has seen the like of, and up to how many steps"
    )

    @property
    def front(self) -> str:
        """The method's own family of ``fronts``; empty where there are none."""
        return next((family for family, models in self.fronts.items() if self.method in models), "")

    @property
    def named(self) -> list[tuple[str, str]]:
        """Key and label of every model that is named."""
        pairs = [(f"contrasts.{c.component}", model) for c in self.contrasts for model in (c.treated, c.control)]
        fronts = [(f"fronts.{family}", model) for family, models in self.fronts.items() for model in models]
        return [*super().named, *(("baselines", model) for model in self.baselines), *pairs, *fronts]

    @model_validator(mode="after")
    def _models_differ(self) -> Self:
        if self.method in self.baselines:
            raise ValueError(f"method '{self.method}' is one of the baselines {list(self.baselines)}")
        if self.baseline not in self.baselines:
            raise ValueError(f"baseline: no baseline named '{self.baseline}'{nearest(self.baseline, self.baselines)}")
        components = [contrast.component for contrast in self.contrasts]
        if len(set(components)) < len(components) or len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"components {components} and baselines {list(self.baselines)} must differ")
        if same := [contrast.component for contrast in self.contrasts if contrast.treated == contrast.control]:
            raise ValueError(f"contrasts {same} compare a model with itself")
        if self.fronts and not self.front:
            raise ValueError(f"fronts: method '{self.method}' is in none of {sorted(self.fronts)}; add it to its own")
        sizes = {family: len(models) for family, models in self.fronts.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"fronts {sizes}: more settings cover a larger area by chance; give each as many")
        return self


class SelectionConfig(Compared):
    """The rule that chooses each family's setting; see :mod:`resalign.study.selection`."""

    variants: tuple[str, ...] = Field(
        (), description="families that are no baselines: the method's idea in other forms, and methods of ours"
    )
    most_ip_before: float = Field(0.05, ge=0, le=1, description="safety rate before fine-tuning of a setting")
    utility_floor: float = Field(
        0.25, ge=0, le=1, description="what a setting may lose of the base model's mean utility before fine-tuning"
    )
    tie: float = Field(0.02, ge=0, description="difference of the rates after fine-tuning within which utility decides")
    utility_tie: float = Field(
        0.02, ge=0, le=1, description="what a setting of the method may lack of each utility of the first baseline"
    )

    @property
    def named(self) -> list[tuple[str, str]]:
        """Also the variants."""
        return [*super().named, *(("variants", family) for family in self.variants)]


def check_study(experiment: Experiment) -> None:
    """Every label that the keys ``study`` and ``selection`` have must be the experiment's, and every metric a rate.

    Raises:
        ConfigError: Naming the key, the label and the nearest known one.
    """
    models, metrics = experiment.models[1:], experiment.metrics
    for key, known in (("study", {*models}), ("selection", {family(label) for label in models})):
        config: Compared | None = getattr(experiment.config, key)
        if config is None:
            continue
        where = f"{experiment.where}: {key}"
        for part, label in config.named:
            if label not in known:
                raise ConfigError(f"{where}.{part}: no model named '{label}'{nearest(label, known)}")
        for label, most in getattr(config, "inside", {}).items():
            if label not in experiment.attacks:
                raise ConfigError(f"{where}.inside: no attack named '{label}'{nearest(label, experiment.attacks)}")
            attack: Any = experiment.attacks[label].config
            steps = (*getattr(attack, "checkpoints", ()), getattr(attack, "steps", None))
            if not any(step is not None and step <= most for step in steps):
                raise ConfigError(
                    f"{where}.inside: attack '{label}' has no state up to {most} steps; give a checkpoint"
                )
        utilities = [("utilities", label, "higher") for label in config.utilities]
        for part, label, better in (("safety", config.safety, "lower"), *utilities):
            if label not in metrics:
                raise ConfigError(f"{where}.{part}: no metric named '{label}'{nearest(label, metrics)}")
            module = registry.member("metrics", metrics[label].name)
            if (module.KIND, module.BETTER) != ("rate", better):
                raise ConfigError(f"{where}.{part}: '{label}' is no rate of which {better} is better")


def family(label: str) -> str:
    """The method that a label such as ``meta_unlearning_lr3e-4`` is a setting of: all before its last ``_``, if any."""
    return label.rpartition("_")[0] or label
