"""Second-order accuracy: each hypergradient estimator against derivatives through a finite fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from resalign.bilevel.envelope import envelope_of, matched
from resalign.bilevel.hvp import Hessian
from resalign.bilevel.krylov import krylov_space
from resalign.bilevel.solution import Solution
from resalign.bilevel.solving import FAMILY, SolverConfig, solve
from resalign.bilevel.unrolled import directional_differences, unrolled_hypergradient
from resalign.config import registry
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.losses import Loss, gradient_at
from resalign.tensors.params import Params, add, norm, stacked
from resalign.tensors.seeds import generator
from resalign.tensors.steps import DivergenceError

UNROLLED, FIRST_ORDER = "unrolled", "identity"
# How γ was chosen: T·η, which a draw by SGD takes for `gamma: matched`; what one by Adam takes for it; a fixed number.
MATCHED, MATCHED_DISPLACEMENT, FIXED, NO_RULE = "matched", "matched_displacement", "fixed", "none"


class Config(Strict):
    """The simulated fine-tunings, the estimators tried on them, and the sweep of γ."""

    draws: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds; each draws its batches and directions")
    batch_size: int = Field(8, gt=0, description="examples of L_FT and of L_harm, frozen")
    lr: float = Field(5e-3, gt=0, description="η of the simulated gradient descent")
    simulated_steps: tuple[int, ...] = Field((1, 3, 10, 30), min_length=1, description="T")
    gammas: tuple[float, ...] = Field((0.001, 0.01, 0.1, 1.0), description="γ besides the matched ones")
    solvers: tuple[str, ...] = ("richardson", "richardson_printed", "conjugate_gradient", "minres")
    solver_steps: tuple[int, ...] = Field((2, 5, 20), min_length=1, description="K")
    directions: int = Field(8, gt=0, description="random directions of the central differences")
    difference_length: float = Field(
        0.03,
        gt=0,
        description="norm of their displacement; where a part of the network computes in float32 whatever its weights'"
        " dtype, rounding drowns a shorter one",
    )
    sweep_simulated_steps: int = Field(10, description="T at which γ is swept; one of simulated_steps")
    sweep_solver_steps: int = Field(5, gt=0, description="K of the sweep")
    sweep_from: float = Field(1e-3, gt=0)
    sweep_to: float = Field(100.0, gt=0)
    sweep_points: int = Field(21, ge=2, description="values of γ, equally spaced in log γ")
    reference_steps: int = Field(100, gt=0, description="MINRES steps of the solution that the sweep compares with")
    reference_rtol: float = Field(1e-10, ge=0, description="relative residual at which that solution is good enough")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.sweep_simulated_steps not in self.simulated_steps:
            raise ValueError(
                f"sweep_simulated_steps {self.sweep_simulated_steps} must be one of simulated_steps"
                f" {self.simulated_steps}"
            )
        for name in self.solvers:
            solver_config(name, 1)
        return self

    @property
    def modules(self) -> tuple[str, ...]:
        """Solver modules, which are loaded by name."""
        return tuple(f"resalign.{FAMILY}.{name}" for name in dict.fromkeys((FIRST_ORDER, "minres", *self.solvers)))

    @property
    def sweep_gammas(self) -> tuple[float, ...]:
        """γ values of the sweep, rounded to 12 digits, so that 1.0 is exact."""
        ratio = math.log10(self.sweep_to / self.sweep_from) / (self.sweep_points - 1)
        return tuple(float(f"{self.sweep_from * 10 ** (i * ratio):.12g}") for i in range(self.sweep_points))


@dataclass(frozen=True)
class Row:
    """One estimate of dL_harm(θ_T(θ))/dθ.

    Attributes:
        draw: Seed of batches and directions.
        simulated_steps: T, steps of gradient descent on L_FT.
        lr: η.
        estimator: Solver of (I + γH)x = g, or ``unrolled``, the reference itself.
        gamma_rule: ``matched`` is γ = Tη, ``matched_displacement`` is γ̂ = −‖Δ‖²/⟨∇L_FT(θ_T), Δ⟩, ``fixed`` a number.
        gamma: γ; NaN for an estimate without one, and where the rule finds none.
        solver_steps: K; 0 for an estimate without a solve.
        cosine: Of the angle to the unrolled hypergradient h.
        relative_error: ‖x − h‖ / ‖h‖.
        difference_error: ‖Vx − s‖ / ‖s‖, V the random directions and s the central differences along them: a sketch of
            the relative error that owes nothing to second derivatives. For ``unrolled`` it says how far the two
            references agree.
        relative_residual: ‖g − (I + γH)x‖ / ‖g‖, of Eq. 6 whatever the solver iterates.
        state: The solver's, or ``raised`` if it gave up: then every result is NaN. ``reference`` for ``unrolled``.
        smallest_curvature, largest_curvature: γλ_min and γλ_max of H at θ_T, by its extreme Ritz values.
    """

    draw: int
    simulated_steps: int
    lr: float
    estimator: str
    gamma_rule: str
    gamma: float
    solver_steps: int
    cosine: float
    relative_error: float
    difference_error: float
    relative_residual: float
    state: str
    smallest_curvature: float
    largest_curvature: float


@dataclass(frozen=True)
class SweepRow(Row):
    """One estimate of the γ sweep.

    Attributes:
        converged_error: ‖x − x̄‖ / ‖x̄‖ to x̄, MINRES' x after ``reference_steps``.
        converged_residual: The relative residual of x̄: where it is not small, x̄ is no solution.
        printed_residual: ‖g − (γI + H)x‖ / ‖g‖, the residual of the equation that Eq. 7 as printed iterates on.
    """

    converged_error: float
    converged_residual: float
    printed_residual: float


def solver_config(name: str, steps: int) -> SolverConfig:
    """A solver at K steps, everything else at its default.

    Raises:
        ConfigError: If no solver has this name, or it is not told by ``steps`` when to stop.
    """
    settings = {} if name == FIRST_ORDER else {"steps": steps}
    return registry.config_class(FAMILY, name).parse(settings, where=f"solver {name}")


def audit_draw(
    outer_loss: Loss, inner_loss: Loss, start: Params, config: Config, draw: int
) -> tuple[list[Row], list[SweepRow]]:
    """Every estimator at every T, γ and K, and the sweep of γ at one T.

    L_FT is one frozen batch throughout: what is measured is what envelope and solver lose, not how H changes from one
    batch to the next.

    Args:
        outer_loss: L_harm as a function of the weights.
        inner_loss: L_FT as a function of the weights.
        start: The weights θ.
        config: The grids.
        draw: The seed that the losses were drawn by; the directions of the central differences are drawn by it too.

    Raises:
        DivergenceError: If a simulated fine-tuning diverges: no estimate can be held against it.
    """
    stream = generator("second order", "directions", draw)
    directions = [
        {name: torch.randn(tensor.shape, generator=stream).to(tensor) for name, tensor in start.items()}
        for _ in range(config.directions)
    ]
    rows: list[Row] = []
    sweep: list[SweepRow] = []
    for steps in config.simulated_steps:
        tuned = _FineTuning(outer_loss, inner_loss, start, directions, config, steps, draw)
        rows += [tuned.reference_row(), tuned.row(FIRST_ORDER, 0, NO_RULE, math.nan)]
        rules = [(MATCHED, math.nan), (MATCHED_DISPLACEMENT, math.nan), *((FIXED, gamma) for gamma in config.gammas)]
        rows += [
            tuned.row(name, k, rule, gamma)
            for rule, gamma in rules
            for name in config.solvers
            for k in config.solver_steps
        ]
        if steps == config.sweep_simulated_steps:
            sweep = [row for gamma in config.sweep_gammas for row in tuned.sweep_rows(gamma, config)]
    return rows, sweep


class _FineTuning:
    """One simulated fine-tuning, with both references and H on the Krylov space of g, all at θ_T."""

    def __init__(
        self,
        outer_loss: Loss,
        inner_loss: Loss,
        start: Params,
        directions: Sequence[Params],
        config: Config,
        steps: int,
        draw: int,
    ) -> None:
        """Fine-tunes, differentiates through it in both ways, and spans one Krylov dimension more than products."""
        self.draw, self.steps, self.lr = draw, steps, config.lr
        adapted, value = unrolled_hypergradient(outer_loss, inner_loss, start, lr=config.lr, steps=steps)
        differences = directional_differences(
            outer_loss, inner_loss, start, directions, lr=config.lr, steps=steps, length=config.difference_length
        )
        self.unrolled = stacked(value)  # h, (N,)
        self.directions = torch.stack([stacked(direction) for direction in directions])  # V, (D, N)
        self.differences = torch.tensor(differences, dtype=self.unrolled.dtype, device=self.unrolled.device)  # s, (D,)
        hessian = Hessian(inner_loss, adapted, adapted)
        self.envelope = envelope_of(hessian.gradient(), add(adapted, start, -1.0))
        g = gradient_at(outer_loss, adapted)
        swept = steps == config.sweep_simulated_steps
        products = [*config.solver_steps, *((config.sweep_solver_steps, config.reference_steps) if swept else ())]
        self.krylov = krylov_space(hessian.product, g, max(products) + 1)

    def reference_row(self) -> Row:
        """The unrolled hypergradient held against the central differences."""
        return Row(**self._record(UNROLLED, 0, NO_RULE, math.nan, self.unrolled, math.nan, "reference"))

    def row(self, name: str, k: int, rule: str, gamma: float) -> Row:
        """One estimate; a solver or a rule of γ that gives up gives a row, too."""
        return Row(**self._estimate(name, k, rule, gamma)[0])

    def sweep_rows(self, gamma: float, config: Config) -> list[SweepRow]:
        """First order and every solver at one γ, against the solution that MINRES converges to."""
        settings = {"name": "minres", "steps": config.reference_steps, "rtol": config.reference_rtol}
        reference = registry.config_class(FAMILY, "minres").parse(settings, where="reference of the γ sweep")
        converged = solve(self.krylov.system(gamma), reference)
        goal = self.krylov.lifted(converged.x)
        rows = []
        for name in (FIRST_ORDER, *config.solvers):
            record, solution = self._estimate(name, config.sweep_solver_steps, FIXED, gamma)
            error = printed = math.nan
            if solution is not None:
                error = float((self.krylov.lifted(solution.x) - goal).norm() / goal.norm())
                # g − (γI + H)x = g − γ(I + H/γ)x
                printed_system = self.krylov.system(1 / gamma)
                left = add(printed_system.rhs, printed_system.matvec(solution.x), -gamma)
                printed = norm(left) / self.krylov.rhs_norm
            reference_errors: dict[str, Any] = {
                "converged_error": error,
                "converged_residual": converged.relative_residual,
            }
            rows.append(SweepRow(**record, **reference_errors, printed_residual=printed))
        return rows

    def _estimate(self, name: str, k: int, rule: str, gamma: float) -> tuple[dict[str, Any], Solution | None]:
        try:
            gamma = self._gamma(rule, gamma)
            # A first-order estimate uses no γ, but a system needs a value.
            system = self.krylov.system(1.0 if rule == NO_RULE else gamma)
            solution = solve(system, solver_config(name, k))
        except DivergenceError:
            return self._record(name, k, rule, gamma, None, math.nan, "raised"), None
        x = self.krylov.lifted(solution.x)
        return self._record(name, k, rule, gamma, x, solution.relative_residual, solution.state), solution

    def _gamma(self, rule: str, gamma: float) -> float:
        """γ by its rule."""
        if rule == MATCHED:
            return self.steps * self.lr
        return matched(self.envelope) if rule == MATCHED_DISPLACEMENT else gamma

    def _record(
        self, name: str, k: int, rule: str, gamma: float, x: torch.Tensor | None, residual: float, state: str
    ) -> dict[str, Any]:
        h, low, high = self.unrolled, *self.krylov.extremes
        cosine = error = difference_error = math.nan
        if x is not None:
            cosine = float(x @ h / (x.norm() * h.norm()))
            error = float((x - h).norm() / h.norm())
            difference_error = float((self.directions @ x - self.differences).norm() / self.differences.norm())
        return {
            "draw": self.draw,
            "simulated_steps": self.steps,
            "lr": self.lr,
            "estimator": name,
            "gamma_rule": rule,
            "gamma": gamma,
            "solver_steps": k,
            "cosine": cosine,
            "relative_error": error,
            "difference_error": difference_error,
            "relative_residual": residual,
            "state": state,
            "smallest_curvature": gamma * low,
            "largest_curvature": gamma * high,
        }
