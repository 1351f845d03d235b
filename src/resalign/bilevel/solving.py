"""The solver that a configuration names, found by its file's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field

from resalign.bilevel.solution import Solution, System
from resalign.config import registry

FAMILY = "bilevel.solvers"
DEFAULT = "richardson"


def _named(value: Any) -> Any:
    """``minres`` for ``{name: minres}``; settings without a name are the default solver's."""
    if isinstance(value, str):
        return {"name": value}
    return {"name": DEFAULT, **value} if isinstance(value, dict) else value


if TYPE_CHECKING:
    from resalign.config.strict import Strict

    SolverConfig = Strict
else:
    _NAMES = tuple(registry.members(FAMILY))
    _CONFIGS = tuple(registry.config_class(FAMILY, name) for name in _NAMES)
    _GIVEN = Union[(*_CONFIGS, Literal[_NAMES])]  # the schema's: settings, or a name alone
    _READ = BeforeValidator(_named, json_schema_input_type=_GIVEN)
    SolverConfig = Annotated[Union[_CONFIGS], Field(discriminator="name"), _READ]  # noqa: UP007


def default_solver() -> SolverConfig:
    """The published solver at the published K."""
    return registry.config_class(FAMILY, DEFAULT)()


def solver_module(config: SolverConfig) -> str:
    """Dotted name of the solver's module: code that a stage runs without importing it by name."""
    return f"resalign.{FAMILY}.{config.model_dump()['name']}"


def gradient_passes(config: SolverConfig, a_product: int) -> int:
    """Gradients of each example that a solve takes that does not stop early; a Hessian product counts for several."""
    settings: Any = config
    return int(a_product * settings.products + getattr(settings, "gradients", 0))


def solve(system: System, config: SolverConfig) -> Solution:
    """Solves by the solver whose ``Config`` this is."""
    found: Solution = registry.member(FAMILY, config.model_dump()["name"]).solve(system, config)
    return found
