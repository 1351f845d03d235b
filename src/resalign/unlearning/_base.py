"""The method that a composed one builds on: named in its configuration, run before it or descended together with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from resalign.config import registry
from resalign.config.concept import needs_of
from resalign.config.strict import ConfigError, Strict
from resalign.contracts import Run, UnlearningData, check_architecture
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.tensors.params import Params, detached
from resalign.unlearning._descent import DescentConfig


def _configured(base: Any) -> Any:
    """The settings of ``{method: esd, …}``, every default filled in."""
    if not isinstance(base, dict):
        return base
    settings = dict(base)
    name = settings.pop("method", None)
    if name is None:
        raise ValueError("method is required: the name of an unlearning method, its settings beside it")
    return registry.config_class("unlearning", name).parse(settings, where=name)


def _resolved(base: Strict) -> dict[str, Any]:
    """The inverse of :func:`_configured`; it enters the run's name."""
    return {"method": type(base).__module__.rpartition(".")[2], **base.model_dump(mode="json")}


Base = Annotated[Strict, BeforeValidator(_configured), PlainSerializer(_resolved), WithJsonSchema({"type": "object"})]


class ComposedConfig(Strict):
    """A method that builds on another one."""

    base: Base | None = Field(None, description="the method to start from, with its settings; null for the model")

    def needs(self) -> tuple[str, ...]:
        """The base's needs."""
        return needs_of(self.base) if self.base else ()

    @property
    def modules(self) -> tuple[str, ...]:
        """The base's module, with the modules that it loads by name."""
        return (type(self.base).__module__, *getattr(self.base, "modules", ())) if self.base else ()

    @property
    def checkpoint(self) -> str | None:
        """The asset of a released checkpoint that is the base."""
        return getattr(self.base, "checkpoint", None)

    @property
    def mosaic_tiles(self) -> int | None:
        """Of the mosaics that the base needs."""
        return getattr(self.base, "mosaic_tiles", None)

    @property
    def covers(self) -> str | None:
        """What that checkpoint covers."""
        return getattr(self.base, "covers", None)


def module_of(base: Strict) -> ModuleType:
    """The base's module."""
    return registry.member("unlearning", type(base).__module__.rpartition(".")[2])


def is_descended(base: Strict) -> bool:
    """Whether another method can be descended together with it.

    A module that has ``step_gradient`` says by it that the method is one loop over weights of the denoiser.
    """
    return isinstance(base, DescentConfig) and hasattr(module_of(base), "step_gradient")


def with_descent(base: Strict, settings: Mapping[str, Any]) -> Strict:
    """The base with the number of steps, the rate and the optimizer of the method that is descended together with it.

    Raises:
        ValueError: If the base was given another value for one of them.
    """
    own = {name: settings[name] for name in DescentConfig.model_fields if name in settings}
    apart = sorted(name for name in own if name in base.model_fields_set and getattr(base, name) != own[name])
    if apart:
        raise ValueError(f"the base is descended together with the method; give {apart} beside 'base' and not within")
    return base.model_copy(update=own)


def unlearned(
    loaded: LoadedPipeline, data: UnlearningData, base: Strict | None, run: Run
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The denoiser's weights after the base method.

    Returns:
        All weights by name; and what every later loop must hold (see :meth:`resalign.contracts.Run.steps`): a resumed
        run has the base's weights from there, and only from the loop's first step on.

    Raises:
        ConfigError: If the base does not support the pipeline, or changes more than the denoiser.
    """
    original, prefix = named_weights(loaded.denoiser), f"{loaded.architecture.denoiser}."
    if base is None:
        return original, {}
    module = module_of(base)
    check_architecture(module, loaded.architecture.name)
    changed = module.unlearn(loaded, data, base, replace(run, prefix=f"{run.prefix}base "))
    if others := sorted(name for name in changed if not name.startswith(prefix)):
        raise ConfigError(
            f"base '{_resolved(base)['method']}' changes {others[0]}; only a change of {prefix[:-1]} goes on"
        )
    weights = detached({**original, **{name.removeprefix(prefix): tensor for name, tensor in changed.items()}})
    return weights, {"base_weights": weights}


def changed_weights(loaded: LoadedPipeline, start: Params, trained: Params) -> dict[str, torch.Tensor]:
    """The trained weights, and those that the base has changed, by their names in a weight file."""
    original = named_weights(loaded.denoiser)
    weights = {**start, **trained}
    return loaded.named({n: t for n, t in weights.items() if n in trained or not torch.equal(t, original[n])})
