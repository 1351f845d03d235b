"""The loop that methods of gradient descent share: an optimizer, clipping, the history, resumption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from resalign.config.strict import Strict
from resalign.contracts import Run
from resalign.lazy import torch
from resalign.tensors.params import Params, add, detached, gradient
from resalign.tensors.steps import apply_gradients

Logged = Mapping[str, float]
# A step's loss, with what is logged of it, as a function of all weights; it draws its batches from the stream.
Loss = Callable[[Params, "torch.Generator"], tuple["torch.Tensor", Logged]]
# A step's direction of descent in the variables, given all weights and the variables, which are leaves among them.
Gradient = Callable[[Params, Params, "torch.Generator"], tuple[Params, Logged]]


class DescentConfig(Strict):
    """How the variables descend; a method's ``Config`` extends it and states its published defaults."""

    steps: int = Field(ge=0)
    lr: float = Field(gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float | None = Field(None, gt=0, description="larger gradients are scaled down to it; null for none")

    def optimizer_of(self, variables: Params) -> torch.optim.Optimizer:
        """A new optimizer of the variables."""
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        kind: Any = kinds[self.optimizer]
        optimizer: torch.optim.Optimizer = kind(list(variables.values()), lr=self.lr, weight_decay=self.weight_decay)
        return optimizer


@dataclass(frozen=True, kw_only=True)
class JointRun(Run):
    """A run whose descents follow a second direction too: a method composed with the one that is run.

    Attributes:
        second: Added to the method's own direction at every step.
        second_stream: Random numbers of it, so that the method's own batches stay the same.
    """

    second: Gradient
    second_stream: torch.Generator

    def steps(self, steps: range, *, phase: str = "steps", **held: Any) -> Iterator[int]:
        """See :meth:`resalign.contracts.Run.steps`."""
        return super().steps(steps, phase=phase, second_stream=self.second_stream, **held)


def of_loss(loss: Loss) -> Gradient:
    """The gradient of a loss."""

    def step_gradient(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
        value, logged = loss(weights, stream)
        return gradient(value, variables), logged

    return step_gradient


def descend(
    start: Params,
    names: Iterable[str],
    step_gradient: Gradient,
    config: DescentConfig,
    run: Run,
    *,
    method: str,
    stepped: Callable[[Params], None] | None = None,
    phase: str = "steps",
    **held: Any,
) -> dict[str, torch.Tensor]:
    """Descends from given weights, with batches from the run's stream of the method's name.

    Args:
        start: All weights of the network, detached; left untouched.
        names: Those that are trained.
        step_gradient: The direction of each step; see :func:`of_loss`.
        config: Optimizer and number of steps.
        run: Seed and records.
        method: The method's name, for its stream and messages.
        stepped: Called with the variables after each step, under no gradient: a moving average, a mask.
        phase: Name of the loop, where a method has several.
        held: What ``step_gradient`` and ``stepped`` change from step to step; see :meth:`resalign.contracts.Run.steps`.

    Returns:
        The trained weights, detached.

    Raises:
        DivergenceError: If a gradient is not finite.
    """
    variables = detached({name: start[name] for name in names}, requires_grad=True)
    optimizer = config.optimizer_of(variables)
    stream = run.generator(method)
    # A second loop of one run goes on with the steps of its history.
    first = {"step": run.history.rows[-1][0] + 1 if run.history.rows else 0}
    held |= {"variables": variables, "optimizer": optimizer, "stream": stream, "first": first}
    for step in run.steps(range(config.steps), phase=phase, **held):
        weights = {**start, **variables}
        direction, logged = step_gradient(weights, variables, stream)
        if isinstance(run, JointRun):
            second, more = run.second(weights, variables, run.second_stream)
            direction, logged = add(direction, second), {**logged, **more}
        for name, variable in variables.items():
            variable.grad = direction[name]
        grad_norm = apply_gradients(optimizer, config.max_grad_norm, what=f"{method} at step {step}")
        if stepped:
            with torch.no_grad():
                stepped(variables)
        run.history.record(first["step"] + step, **logged, grad_norm=grad_norm)
    return detached(variables)
