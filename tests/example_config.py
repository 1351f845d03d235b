"""The smallest configuration that any ``Config`` accepts, made from its own fields: what contract suites run on."""

import types
import typing
from typing import Any

import pydantic
from annotated_types import Ge, Gt

from resalign.config.strict import Strict

# Wherever a member has these fields: few steps, a word of the captions of `attack_data`, and a γ within which the tiny
# UNet's curvature lets a solve converge.
SMALL = {"steps": 2, "num_inference_steps": 2, "batch_size": 2, "draws": 1, "gamma": 0.01, "token": "two"}
# One that is run first and one that is descended together with the method have the same number of steps.
SMALL |= {"base": {"method": "graddiff", "steps": 2, "batch_size": 2}}
SMALL |= {"heldout_batch_size": 8, "harmful_batch_size": 8, "hessian_batch_size": 2}


def smallest(config_class: type[Strict], **settings: Any) -> Strict:
    """Required fields filled by their type, :data:`SMALL` in place of large defaults, then ``settings``."""
    return config_class.parse({**_values(config_class), **settings}, where="example")


def _values(config_class: type[pydantic.BaseModel]) -> dict[str, Any]:
    values = {}
    for name, field in config_class.model_fields.items():
        if isinstance(field.default, Strict):
            values[name] = _values(type(field.default))
        elif name in SMALL:
            values[name] = [SMALL[name]] if isinstance(field.default, tuple) else SMALL[name]
        elif field.is_required():
            values[name] = _value(field.annotation, field.metadata)
    return values


def _value(annotation: Any, metadata: list[Any]) -> Any:
    """A value of a type that obeys its lower bound."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return _values(annotation)
    if origin is tuple:
        return [_value(arguments[0], [])]
    if origin is dict:
        return {"example": _value(arguments[1], [])}
    if origin is typing.Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return None if type(None) in arguments else _value(arguments[0], metadata)
    if annotation in (int, float):
        return next((bound for m in metadata for bound in _lower_bound(m)), 1)
    if annotation is bool:
        return False
    if annotation is str:
        return "example"
    raise TypeError(f"no example of type {annotation}; extend tests/example_config.py")


def _lower_bound(constraint: Any) -> list[Any]:
    if isinstance(constraint, Gt):
        return [constraint.gt + 1]
    return [constraint.ge] if isinstance(constraint, Ge) else []
