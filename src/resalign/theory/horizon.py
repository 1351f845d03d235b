"""Hypergradient estimators over horizons, from one simulated step to hundreds, by gradient descent and by Adam."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from resalign.bilevel.envelope import Envelope, matched
from resalign.bilevel.hypergradient import ExampleLoss, FineTuned, Hypergradient, merged_hypergradient
from resalign.bilevel.solving import SolverConfig, solve, solver_module
from resalign.bilevel.unrolled import Descent, forward_sensitivities, unrolled_hypergradient
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.losses import Loss
from resalign.tensors.params import Params, stacked
from resalign.tensors.steps import DivergenceError
from resalign.theory.second_order import FIRST_ORDER, FIXED, MATCHED, MATCHED_DISPLACEMENT, UNROLLED

FORWARD = "forward, one direction"
# L_FT on a batch of so many examples, whole and by example; each call draws another one.
Inner = Callable[[int], tuple[Loss, tuple[ExampleLoss, ...]]]


class Config(Strict):
    """The simulated fine-tunings and the estimators."""

    batch_size: int = Field(2, gt=0, description="examples of L_FT")
    simulated_steps: tuple[int, ...] = Field((1, 3, 10, 30, 100, 300), min_length=1, description="T")
    rates: dict[Descent, float] = Field({"sgd": 5e-3, "adam": 1e-3}, min_length=1, description="η by optimizer")
    solvers: tuple[SolverConfig, ...] = Field(
        default=(
            "identity",
            "richardson",
            "conjugate_gradient",
            "minres",
            {"name": "minres", "steps": 20},
            "nystrom",
            {"name": "nystrom", "sketch": 9},
            "fisher",
        ),
        validate_default=True,
    )
    gammas: tuple[float, ...] = Field((0.01, 0.1), description="γ tried with Adam besides the matched one")
    at: int = Field(10, gt=0, description="T, by gradient descent, at which other batches and costs are measured")
    batch_sizes: tuple[int, ...] = Field(
        (1, 4, 16), description="examples of another batch than was fine-tuned on, over which H is taken"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if "sgd" not in self.rates or self.at not in self.simulated_steps:
            raise ValueError(f"rates must have sgd, and at, {self.at}, be in simulated_steps {self.simulated_steps}")
        titles = [title(solver) for solver in self.solvers]
        if len(set(titles)) < len(titles):
            raise ValueError(f"solvers {titles} must differ in name or products")
        return self

    @property
    def modules(self) -> tuple[str, ...]:
        """Solver modules, which are loaded by name."""
        return tuple(dict.fromkeys(map(solver_module, self.solvers)))


@dataclass(frozen=True)
class HorizonRow:
    """One estimate of dL_harm(θ_T(θ))/dθ, held against the derivative through every step.

    Attributes:
        draw: Seed of the batches.
        optimizer: Of the simulated fine-tuning.
        lr: η.
        simulated_steps: T.
        solver: Its name and the products that it takes, such as ``minres 5``.
        batch: Examples of another batch over which H is taken; 0 for the batch that was fine-tuned on.
        gamma_rule: ``matched`` is γ = Tη, of gradient descent alone; ``matched_displacement`` is −‖Δ‖²/⟨∇L_FT(θ_T), Δ⟩;
            ``fixed`` a number, with Adam alone.
        gamma: γ; NaN where the rule finds none; a first-order estimate does not use it.
        cosine: Of the angle to the derivative h.
        relative_error: ‖x − h‖ / ‖h‖.
        relative_residual: ‖g − (I + γH)x‖ / ‖g‖.
        state: The solver's, or ``raised`` if it, or the rule of γ, gave up: then every result is NaN.
    """

    draw: int
    optimizer: str
    lr: float
    simulated_steps: int
    solver: str
    batch: int
    gamma_rule: str
    gamma: float
    cosine: float
    relative_error: float
    relative_residual: float
    state: str


@dataclass(frozen=True)
class CostRow:
    """What one estimate takes.

    Attributes:
        draw: Seed of the batches.
        solver: As in :class:`HorizonRow`; ``unrolled`` is the derivative through every step, ``forward, one direction``
            its product with one vector.
        products: Hessian products, at most; what goes through every step has as many gradients besides.
        seconds: Wall clock; NaN where it was not measured.
        peak_megabytes: Memory above what was held before; NaN likewise.
    """

    draw: int
    solver: str
    products: int
    seconds: float
    peak_megabytes: float


def title(config: SolverConfig) -> str:
    """``minres 5``; the name alone where a solver cannot be told to take more products."""
    settings: Any = config
    return f"{settings.name} {settings.products}" if settings.products > 1 else str(settings.name)


def horizon_draw(
    outer_loss: Loss, inner: Inner, start: Params, config: Config, draw: int
) -> tuple[list[HorizonRow], list[CostRow]]:
    """Every estimator at every T by both optimizers; at one T over other batches, too, and what each costs.

    Args:
        outer_loss: L_harm as a function of the weights.
        inner: Draws L_FT.
        start: The weights θ.
        config: The grids.
        draw: The seed that the losses were drawn by.

    Raises:
        DivergenceError: If a simulated fine-tuning diverges: no estimate can be held against it.
    """
    rows: list[HorizonRow] = []
    costs: list[CostRow] = []
    own = inner(config.batch_size)
    others = {size: inner(size) for size in config.batch_sizes}
    for (optimizer, lr), steps in itertools.product(config.rates.items(), config.simulated_steps):
        exact = partial(unrolled_hypergradient, outer_loss, own[0], start, lr=lr, steps=steps, optimizer=optimizer)
        adapted, h = exact()
        tuned = FineTuned(start, start, adapted, lambda _, psi: psi, own[0], examples=own[1])
        is_measured = optimizer == "sgd" and steps == config.at
        rules: list[tuple[str, float | None]] = [(MATCHED, steps * lr), (MATCHED_DISPLACEMENT, None)]
        if optimizer == "adam":  # its steps are no proximal step of Tη
            rules = [(MATCHED_DISPLACEMENT, None), *((FIXED, gamma) for gamma in config.gammas)]
        settings = list(itertools.product(rules, config.solvers, [0]))
        settings += itertools.product(rules[:1], config.solvers, others) if is_measured else ()
        for (rule, given), solver, size in settings:
            at = replace(tuned, loss=others[size][0], examples=others[size][1]) if size else tuned
            gamma, found = _estimate(outer_loss, at, solver, given)
            setting = (draw, optimizer, lr, steps, title(solver), size, rule, gamma)
            rows.append(HorizonRow(*setting, *_results(found, h)))
        if is_measured:
            terms = {"fine-tuning": (1.0, own[0])}
            along = partial(forward_sensitivities, outer_loss, terms, start, lr=lr, steps=steps, directions=[start])
            costs = [CostRow(draw, UNROLLED, steps, *_apart(exact)), CostRow(draw, FORWARD, steps, *_apart(along))]
            for solver in config.solvers:
                estimate = partial(_estimate, outer_loss, tuned, solver, steps * lr)
                costs.append(CostRow(draw, title(solver), getattr(solver, "products", 0), *_apart(estimate)))
    return rows, costs


def _estimate(
    outer_loss: Loss, tuned: FineTuned, solver: SolverConfig, gamma: float | None
) -> tuple[float, Hypergradient | None]:
    """An estimate at a given γ, or at the one that matches the displacement; None where something gave up."""
    used = [math.nan]
    if title(solver) == FIRST_ORDER:  # by which γ does nothing
        gamma = gamma or 1.0

    def rule(envelope: Envelope) -> float:
        used[0] = gamma if gamma is not None else matched(envelope)
        return used[0]

    try:
        found = merged_hypergradient(outer_loss, tuned, gamma=rule, solve=partial(solve, config=solver))
    except DivergenceError:
        return used[0], None
    return used[0], found


def _results(found: Hypergradient | None, h: Params) -> tuple[float, float, float, str]:
    if found is None:
        return math.nan, math.nan, math.nan, "raised"
    x, exact, solution = stacked(found.value), stacked(h), found.solution
    cosine = float(x @ exact / (x.norm() * exact.norm()))
    return cosine, float((x - exact).norm() / exact.norm()), solution.relative_residual, solution.state


def _apart(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call, and megabytes above what was held before, in a process forked for it.

    NaN where that cannot be done: on a GPU, off Linux, and with several threads, which a forked process would wait for.
    """
    nothing = math.nan, math.nan
    if torch.cuda.is_available() or torch.get_num_threads() > 1 or not Path("/proc/self/clear_refs").is_file():
        return nothing
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            work()  # a forked process has the libraries' pages to fetch first
            before, begun = _resident(reset=True), time.monotonic()
            work()
            os.write(writing, f"{time.monotonic() - begun} {_resident() - before}".encode())
        finally:
            if sys.exc_info()[0]:
                traceback.print_exc()  # the parent reads nothing, and its numbers are NaN
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        found = said.read().split()
    os.waitpid(child, 0)
    return (float(found[0]), float(found[1])) if found else nothing


def _resident(*, reset: bool = False) -> float:
    """The largest resident memory since the last reset, in megabytes; at a reset, what is held."""
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back, or it would be used again unseen
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) / 1024
