"""EraseDiff: λ against BOME's bound and against problems with known solutions; a fixed λ is a weighted sum."""

from typing import Any, Literal

import pytest
import torch

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.relabelling import relabelling_loss
from resalign.tensors.params import Params, add, detached, dot, gradient, norm, without_conflict
from resalign.tensors.steps import DivergenceError
from resalign.unlearning import erasediff
from resalign.unlearning._descent import Logged, descend, of_loss
from tests.nearness import assert_near, differing
from tests.weight_names import of_denoiser

SMALL = {"batch_size": 2, "retain_batch_size": 2, "steps": 3, "lr": 1e-3}
Adaptive = Literal["gradient", "gap", "cosine"]


def trained(loaded: LoadedPipeline, data: UnlearningData, **settings: Any) -> tuple[dict[str, torch.Tensor], Run]:
    """All weights after a run, and the run."""
    run, config = Run(0), erasediff.Config.parse({**SMALL, **settings}, where="test")
    changed = erasediff.unlearn(loaded, data, config, run)
    return {**named_weights(loaded.denoiser), **of_denoiser(loaded, changed)}, run


def slopes(loaded: LoadedPipeline, data: UnlearningData, **settings: Any) -> tuple[Params, Params, Params, Logged]:
    """A step's direction at moved weights, ∇L_r and ∇L_f of its batches, and what it logs."""
    leaves = detached({n: t * 1.1 for n, t in named_weights(loaded.denoiser).items()}, requires_grad=True)
    config = erasediff.Config.parse({**SMALL, **settings}, where="test")
    direction, logged = erasediff.step_gradient(loaded, data, config)(leaves, leaves, Run(0).generator("test"))
    stream = Run(0).generator("test")
    forget, retain = data.forget.draw(2, stream), data.retain.draw(2, stream)
    substitute = loaded.encode_prompts(["a one"]).expand(2)
    relabelling = relabelling_loss(loaded.denoiser, leaves, leaves, forget, substitute)
    return (
        direction,
        gradient(denoising_loss(loaded.denoiser, leaves, retain), leaves),
        gradient(relabelling, leaves),
        logged,
    )


# --- on the tiny model ------------------------------------------------------------------------------------------------


def test_a_fixed_lambda_is_the_weighted_sum(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    settings = {**SMALL, "weighting": "fixed", "fixed_weight": 0.3}
    substitute = loaded.encode_prompts(["a one"]).expand(2)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        batch, kept = unlearning_data.forget.draw(2, stream), unlearning_data.retain.draw(2, stream)
        relabelling = relabelling_loss(loaded.denoiser, weights, weights, batch, substitute)
        return denoising_loss(loaded.denoiser, weights, kept) + 0.3 * relabelling, {}

    original, config = named_weights(loaded.denoiser), erasediff.Config.parse(settings, where="test")
    expected = descend(original, original, of_loss(loss), config, Run(0), method="erasediff")
    assert not differing(trained(loaded, unlearning_data, **settings)[0], expected)


@pytest.mark.parametrize("eta", [0.0, 0.1, 3.0])
def test_a_step_lowers_the_forget_loss_by_bomes_bound_and_goes_no_further_than_it_must(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, eta: float
) -> None:
    direction, retain, forget, logged = slopes(loaded, unlearning_data, eta=eta)
    bound = eta * dot(forget, forget)
    assert norm(forget) > 0
    assert dot(direction, forget) >= bound - 1e-5 * norm(retain) * norm(forget)
    if dot(retain, forget) < bound:
        assert_near(dot(direction, forget), bound, 1e-4, scale=norm(retain) * norm(forget))
        # What is added is along ∇L_f alone.
        assert_near(direction, add(retain, forget, logged["lambda"]), 1e-4)
    else:
        assert_near(direction, retain, 1e-6)
    if eta == 0.0:
        assert_near(direction, without_conflict(retain, forget), 1e-5)


def test_the_gap_is_what_the_inner_steps_gain_and_leaves_the_weights(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    found = {}
    for steps, rate in ((0, 1e-3), (1, 1e-6), (8, 1e-4)):
        direction, retain, forget, logged = slopes(
            loaded, unlearning_data, weighting="gap", inner_steps=steps, inner_lr=rate, eta=50.0
        )
        assert_near(direction, add(retain, forget, logged["lambda"]), 1e-4)
        found[steps] = logged["gap"]
    assert found[0] == 0
    # Adam's first step is the rate times the gradient's sign: to first order it gains rate · ‖∇L_f‖₁. The target
    # moves too, of which ∇L_f knows nothing, so that only the size is the same.
    assert 0 < found[1] < 10 * 1e-6 * sum(float(slope.abs().sum()) for slope in forget.values())
    assert found[8] > found[1]


def test_inner_steps_that_diverge_are_no_gap_of_zero(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    with pytest.raises(DivergenceError, match="after the inner steps; lower inner_lr"):
        slopes(loaded, unlearning_data, weighting="gap", inner_steps=1, inner_lr=1e30)


@pytest.mark.parametrize("weighting", ["gradient", "gap", "cosine"])
def test_the_concept_moves_towards_its_substitute(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, weighting: str
) -> None:
    original = named_weights(loaded.denoiser)
    batch = unlearning_data.forget.draw_stratified(32, Run(7).generator("test"))
    substitute = loaded.encode_prompts(["a one"]).expand(32)
    settings = {"steps": 15, "batch_size": 4, "weighting": weighting, "eta": 10.0}
    weights, run = trained(loaded, unlearning_data, **settings)
    with torch.no_grad():
        before, after = (relabelling_loss(loaded.denoiser, w, w, batch, substitute).item() for w in (original, weights))
    assert after < 0.9 * before
    assert max(value for _, name, value in run.history.rows if name == "lambda") > 0


def test_no_steps_change_nothing(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    weights, _ = trained(loaded, unlearning_data, steps=0)
    assert not differing(weights, named_weights(loaded.denoiser))


# --- λ on two quadratics ----------------------------------------------------------------------------------------------

# L_r = ‖θ − a‖² / 2 and L_f = ‖P(θ − b)‖² / 2.
A, B = torch.tensor([3.0, 1.0], dtype=torch.float64), torch.tensor([0.0, -1.0], dtype=torch.float64)


def solved(weighting: Adaptive | None, seen: torch.Tensor, *, eta: float = 0.5) -> torch.Tensor:
    """θ after many steps; P = diag(seen). Without a weighting λ is 0.25."""
    theta = torch.tensor([5.0, 5.0], dtype=torch.float64)
    for _ in range(4000):
        retain, forget = {"θ": theta - A}, {"θ": seen * (theta - B)}
        gap = float((seen * (theta - B)).square().sum() / 2)
        weight = erasediff.weight_of(retain, forget, weighting, eta=eta, gap=gap) if weighting else 0.25
        step = add(retain, forget, weight)
        if weighting in ("gradient", "gap"):
            phi = eta * (dot(forget, forget) if weighting == "gradient" else gap)
            assert dot(step, forget) >= phi - 1e-9
        theta = theta - 0.02 * step["θ"]
    return theta


@pytest.mark.parametrize("weighting", ["gradient", "gap"])
def test_adaptive_lambda_solves_the_inner_problem_first(weighting: Adaptive) -> None:
    """Of the minimisers of L_f the one of least L_r: θ₁ = b₁, which L_f alone decides, and θ₂ = a₂, which it leaves."""
    solution = solved(weighting, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert_near(solution, torch.stack([B[0], A[1]]), 0.02 * 3)


def test_fixed_lambda_ends_at_a_point_of_the_pareto_set() -> None:
    """Between a and b, which are the Pareto set of two equally round quadratics, at (a + λb) / (1 + λ)."""
    ones = torch.ones(2, dtype=torch.float64)
    assert_near(solved(None, ones), (A + 0.25 * B) / 1.25, 1e-9)
    # The bound is met all the way to b, whatever L_r wants; there the step is still 0.02 · ‖∇L_r‖ long.
    assert_near(solved("gradient", ones), B, 0.02 * 3.7)


def test_the_released_codes_lambda() -> None:
    one, other = {"θ": torch.tensor([2.0, 0.0])}, {"θ": torch.tensor([-3.0, 4.0])}
    assert erasediff.weight_of(one, other, "cosine", eta=0.1, gap=0.0) == pytest.approx(0.1 + 0.6)
    assert erasediff.weight_of(one, one, "cosine", eta=0.1, gap=0.0) == 0
    zero = {"θ": torch.zeros(2)}
    assert erasediff.weight_of(zero, one, "cosine", eta=0.1, gap=0.0) == 0.1
    assert erasediff.weight_of(one, zero, "gradient", eta=0.1, gap=0.0) == 0
