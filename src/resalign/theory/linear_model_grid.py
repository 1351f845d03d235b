"""Proposition 5.1 of the resurgence paper, reading by reading, over overlap, curvature and timestep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from resalign.config.theory import LinearModelConfig
from resalign.lazy import torch
from resalign.tensors.seeds import generator
from resalign.theory import linear_model as linear
from resalign.theory.linear_model import Problem, Row

Readings = dict[tuple[str, str, str], tuple["torch.Tensor", "torch.Tensor"]]


def grid(config: LinearModelConfig) -> Iterator[Row]:
    """Every quantity and reading at every point of the grid."""
    stream = generator("linear model", "basis", config.seed)
    basis, _ = torch.linalg.qr(torch.randn((config.dimension,) * 2, generator=stream, dtype=torch.float64))
    shares = linear.signal_shares(config)
    points = itertools.product(config.subspaces, config.overlaps, config.curvatures, config.positions)
    for dimensions, overlap, curvature, position in points:
        alpha = float(shares[position])
        space = linear.geometry(config, dimensions, overlap, curvature, basis)
        drawn = generator("linear model", "examples", config.seed)
        problem = Problem(space, alpha, *linear.examples(space.covariance, alpha, config.samples, drawn))
        leakages = (space.leakage_whole, space.leakage)
        within = [
            linear.largest(space_basis.T @ space.covariance @ space_basis)
            for space_basis in (space.concept, space.supervision)
        ]
        for names, (simulated, closed) in readings(problem, config).items():
            forgotten = [float((space.forgets @ matrix).norm()) for matrix in (simulated, closed)]
            if names[0] == linear.GRADIENT:
                bounds = [linear.gradient_bound(alpha, leakage) for leakage in leakages]
                over_s = math.nan
            else:
                bounds = [linear.update_bound(alpha, leakage, within[0]) for leakage in leakages]
                over_s = linear.update_bound(alpha, leakages[1], within[1]) / 2
            ratio = forgotten[0] / bounds[1] if bounds[1] > 0 else math.nan
            point = (*dimensions, overlap, curvature, position, alpha)
            measured = (*forgotten, _difference(simulated, closed), *leakages, *bounds, ratio, over_s)
            values: tuple[Any, ...] = (*point, *names, *measured)
            yield Row(*values)


def readings(problem: Problem, config: LinearModelConfig) -> Readings:
    """(simulated, closed form) matrices (d, d) by quantity, reading and step; P_C is yet to be applied."""
    space = problem.space
    one, two = problem.simulated_gradient(problem.unlearned), problem.gradient()
    found: Readings = {
        (linear.GRADIENT, linear.FREE, linear.NO_STEP): (one, two),
        (linear.GRADIENT, linear.ROWS_IN_S, linear.NO_STEP): (one @ space.supervises, two @ space.supervises),
        (linear.GRADIENT, linear.COLUMNS_IN_S, linear.NO_STEP): (space.supervises @ one, space.supervises @ two),
    }
    whole = torch.eye(len(space.covariance), dtype=torch.float64)
    subspaces = {linear.FREE: whole, linear.ROWS_IN_S: space.supervision, linear.ROWS_IN_C: space.concept}
    for reading, subspace in subspaces.items():
        steps = (problem.simulated_newton(subspace), problem.newton(subspace))
        found[linear.UPDATE, reading, linear.NEWTON] = steps
        # By half the Hessian the step is twice as long.
        found[linear.UPDATE, reading, linear.PRINTED_HESSIAN] = (2 * steps[0], 2 * steps[1])
    rate = config.descent_share / (2 * linear.largest(problem.moment))
    found[linear.UPDATE, linear.FREE, linear.DESCENT] = (
        problem.simulated_descent(rate, config.descent_steps),
        problem.descent(rate, config.descent_steps),
    )
    return found


def _difference(simulated: torch.Tensor, closed: torch.Tensor) -> float:
    """‖A − B‖_F / ‖B‖_F, or ‖A − B‖_F where B is 0."""
    size = float(closed.norm())
    return float((simulated - closed).norm()) / (size if size > linear.ROUNDING else 1.0)
