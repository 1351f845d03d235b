"""What an experiment's key ``tuning`` searches; imported without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from resalign.config import registry
from resalign.config.concept import check_methods
from resalign.config.strict import ConfigError, Strict, nearest, typed

if TYPE_CHECKING:
    from resalign.config.experiment import Experiment

SEARCHERS = "tuning.searchers"  # the family of searchers
GUIDED = "pbt_hypergradient"


class Range(Strict):
    """Values of one field, uniform in their logarithm."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)

    @model_validator(mode="after")
    def _low_is_lower(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self

    def at(self, share: float) -> float:
        """The value at a share of the logarithm's range."""
        return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))

    def clipped(self, value: float) -> float:
        """The nearest value that is within."""
        return min(max(value, self.low), self.high)


class TuningConfig(Strict):
    """Which fields of a method are searched, by what, and for how long."""

    method: str = Field(description="label of the model whose settings are the start; other fields keep theirs")
    fields: dict[str, Range] = Field(min_length=1, description="numbers among its settings")
    differentiable: tuple[str, ...] = Field(
        (), description="fields that pbt_hypergradient moves along their hypergradient; it mutates others at random"
    )
    searchers: tuple[str, ...] = Field(
        ("random", "tpe", "pbt"), min_length=1, description="the first is what the others are compared with"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="of searches, and of their trainings")
    budget: int = Field(gt=0, description="network evaluations of one search, of one example each; a gradient is three")
    segments: int = Field(4, gt=1, description="of population-based training; after each, members may change")
    window: int = Field(5, gt=0, description="steps through which pbt_hypergradient takes a derivative")
    held_out: float = Field(0.25, gt=0, lt=1, description="share of forget, retain and pool that only validation sees")
    validation: dict[str, Any] = Field({}, description="settings of resalign.tuning.validation.Config")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name in self.differentiable:
            if name not in self.fields:
                raise ValueError(f"differentiable: no field named '{name}'{nearest(name, self.fields)}")
        for name in self.searchers:
            registry.member(SEARCHERS, name)
        for key in ("searchers", "seeds"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} {list(getattr(self, key))} must differ")
        if GUIDED in self.searchers and not self.differentiable:
            raise ValueError(f"searchers: {GUIDED} needs one of {sorted(self.fields)} in differentiable")
        return self

    def ends(self, steps: int) -> list[int]:
        """The steps after which population-based training's segments end.

        Raises:
            ConfigError: If a training has fewer steps than segments.
        """
        if steps < self.segments:
            raise ConfigError(f"tuning.segments: {self.segments} are more than the {steps} steps of a training")
        return [round(steps * (segment + 1) / self.segments) for segment in range(self.segments)]


def options_of(
    method: str | None, fields: Sequence[str], differentiable: Sequence[str], budget: int | None
) -> dict[str, Any]:
    """Settings of :class:`TuningConfig` by the options of a command line; fields replace a file's, of another method.

    >>> options_of("esd", ["lr=1e-5:1e-3"], [], None)["fields"]
    {'lr': {'low': 1e-05, 'high': 0.001}}

    Raises:
        ConfigError: If a field is not of the form NAME=LOW:HIGH, or there is none for ``differentiable``.
    """
    changed: dict[str, Any] = {key: value for key, value in (("method", method), ("budget", budget)) if value}
    for pair in fields:
        name, _, ends = pair.partition("=")
        low, colon, high = ends.partition(":")
        if not colon:
            raise ConfigError(f"--field {pair}: expected NAME=LOW:HIGH")
        changed.setdefault("fields", {})[name] = {"low": typed(low), "high": typed(high)}
    if fields:
        changed |= {"differentiable": [*differentiable], "searchers": ["random", "tpe", "pbt"]}
        changed["searchers"] += [GUIDED] if differentiable else []
    elif differentiable:
        raise ConfigError("--differentiable is for fields that --field names")
    return changed


class Costs(NamedTuple):
    """Network evaluations of a step of training, of a validation loss, and of its gradient; steps of a training."""

    step: float
    value: float
    slope: float
    steps: int


def costs_of(method: Any, validation: Any) -> Costs:
    """What each part of a search takes, by the settings of the method and of the validation."""
    passes = (method.denoiser_passes, validation.value_passes, validation.slope_passes)
    step, value, slope = (part.evaluations for part in passes)
    return Costs(step, value, slope, method.steps)


def check_tuning(experiment: Experiment) -> None:
    """The method, every field at both ends of its range, the validation and the budget must be valid.

    Raises:
        ConfigError: Naming the key and the nearest known name.
    """
    config: TuningConfig | None = experiment.config.tuning
    if config is None:
        return
    where = f"{experiment.where}: tuning"
    if config.method not in experiment.unlearning:
        known = experiment.unlearning
        raise ConfigError(f"{where}.method: no model named '{config.method}'{nearest(config.method, known)}")
    member = experiment.unlearning[config.method]
    own: Any = member.config
    if getattr(own, "denoiser_passes", None) is None or not getattr(own, "steps", 0):
        raise ConfigError(
            f"{where}.method: '{member.name}' does not say how often a step runs the denoiser, or takes no steps, so "
            "that no budget can be kept; take a method that is trained step by step"
        )
    for name, ends in config.fields.items():
        if not isinstance(getattr(own, name, None), float):
            numbers = [key for key in type(own).model_fields if isinstance(getattr(own, key), float)]
            raise ConfigError(f"{where}.fields: no number named '{name}' in '{config.method}'{nearest(name, numbers)}")
        for value in (ends.low, ends.high):
            changed_settings(member.resolved(), {name: value}, where=f"{where}.fields.{name}")
    validation = registry.member("tuning", "validation").Config.parse(config.validation, where=f"{where}.validation")
    check_methods(experiment.config.concept, {"tuning.validation": validation}, where=experiment.where)
    for name in config.searchers:
        registry.member(SEARCHERS, name).rounds(config, costs_of(own, validation))


def changed_settings(settings: dict[str, Any], values: dict[str, float], *, where: str) -> Any:
    """A method's settings with other values of some fields.

    Raises:
        ConfigError: If the method does not allow one.
    """
    return registry.configured("unlearning", {**settings, **values}, where=where)[1]
