"""ResAlign's own promises: what each term of [ResAlign, Eq. 4] contributes, and what happens when a solve diverges."""

import logging
from typing import Any

import pytest
import torch

from resalign.bilevel.adaptation import adapt
from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights, select
from resalign.objectives.denoising import denoising_loss, harmful_loss
from resalign.objectives.distillation import distillation_loss
from resalign.tensors.named import Named, add, detached, gradient, norm
from resalign.tensors.steps import DivergenceError
from resalign.unlearning import resalign
from tests.nearness import differing
from tests.weight_names import of_denoiser

# One outer step of plain gradient descent: the update is −lr times the outer gradient, and nothing else.
PLAIN = {
    "steps": 1,
    "lr": 1.0,
    "optimizer": "sgd",
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "batch_size": 3,
    "draws": 1,
    "gamma": 0.01,
}
FULL_DRAW = {"lr": [1e-3], "steps": [2], "loss": ["denoising"], "adaptation": ["full"], "optimizer": ["sgd"]}
LORA_DRAW = {**FULL_DRAW, "lr": [0.5], "adaptation": ["lora"]}


def config_of(**settings: Any) -> resalign.Config:
    return resalign.Config.parse({"simulation": FULL_DRAW, **PLAIN, **settings}, where="test")


def unlearned(models: Models, data: UnlearningData, run: Run, **settings: Any) -> dict[str, torch.Tensor]:
    """The weights that a run changed."""
    return of_denoiser(models, resalign.unlearn(models, data, config_of(**settings), run))


def outer_gradient(models: Models, data: UnlearningData, **settings: Any) -> tuple[dict[str, torch.Tensor], Run]:
    """The gradient that one outer step descended."""
    run, original = Run(0), named_weights(models.denoiser)
    changed = unlearned(models, data, run, **settings)
    return {n: original[n] - changed.get(n, original[n]) for n in original}, run


def relative_error(found: Named, expected: Named) -> float:
    return norm(add(found, expected, -1.0)) / norm(expected)


def two_terms(models: Models, data: UnlearningData) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """∇L_harm(θ) and ∇R(θ) on the batches of the first outer step; R is taken a little off the original."""
    stream, original = Run(0).generator("resalign", "batches"), named_weights(models.denoiser)
    weights = detached(original, requires_grad=True)
    harmful = harmful_loss(models.denoiser, weights, data.forget.draw(3, stream))
    retain = distillation_loss(models.denoiser, weights, original, data.retain.draw(4, stream))
    return gradient(harmful, weights), gradient(retain, weights)


# --- the outer gradient [Eq. 4] ---------------------------------------------------------------------------------------


def test_without_beta_no_hypergradient_takes_part(models: Models, unlearning_data: UnlearningData) -> None:
    found, _ = outer_gradient(models, unlearning_data, beta=0.0)
    harmful, retain = two_terms(models, unlearning_data)
    assert norm(retain) == 0  # R and its gradient vanish at the original weights
    assert relative_error(found, harmful) < 1e-4
    other, _ = outer_gradient(models, unlearning_data, beta=0.0, draws=2, solver="identity", simulation=LORA_DRAW)
    assert not differing(other, found)


def test_two_steps_without_beta_are_two_steps_of_the_two_terms(models: Models, unlearning_data: UnlearningData) -> None:
    # The second step is taken away from the original weights, where R pulls back with weight α.
    original, lr, alpha = named_weights(models.denoiser), 0.05, 3.0
    stream, weights = Run(0).generator("resalign", "batches"), original
    for _ in range(2):
        leaves = detached(weights, requires_grad=True)
        harmful = harmful_loss(models.denoiser, leaves, unlearning_data.forget.draw(3, stream))
        retain = gradient(
            distillation_loss(models.denoiser, leaves, original, unlearning_data.retain.draw(4, stream)), leaves
        )
        weights = add(weights, add(gradient(harmful, leaves), retain, alpha), -lr)
    found, _ = outer_gradient(models, unlearning_data, beta=0.0, steps=2, lr=lr, alpha=alpha)
    assert relative_error(found, add(original, weights, -1.0)) < 1e-4
    assert norm(retain) > 0.01


@pytest.mark.parametrize("draws", [1, 3])
def test_draws_are_averaged_with_weight_beta(models: Models, unlearning_data: UnlearningData, draws: int) -> None:
    # A first-order hypergradient through a fine-tuning that moves nothing is ∇L_harm(θ): (1 − β) and β add to 1.
    still = {**FULL_DRAW, "lr": [1e-12]}
    found, _ = outer_gradient(models, unlearning_data, beta=0.7, draws=draws, solver="identity", simulation=still)
    harmful, _ = two_terms(models, unlearning_data)
    assert relative_error(found, harmful) < 1e-4


def test_affine_in_beta(models: Models, unlearning_data: UnlearningData) -> None:
    far = {"simulation": {**FULL_DRAW, "lr": [0.3]}, "gamma": 0.05}
    without, half, whole = (outer_gradient(models, unlearning_data, beta=b, **far)[0] for b in (0.0, 0.5, 1.0))
    assert relative_error(whole, without) > 0.05  # fine-tuning moved the harmful gradient
    assert relative_error(half, add(without, add(whole, without, -1.0), 0.5)) < 1e-4


def test_hypergradient_through_no_curvature_is_the_first_order_one(
    models: Models, unlearning_data: UnlearningData
) -> None:
    found, run = outer_gradient(models, unlearning_data, gamma=1e-7)
    first, _ = outer_gradient(models, unlearning_data, solver="identity")
    assert relative_error(found, first) < 1e-5
    assert run.history.last("hessian_products") == 1  # solved to rtol by x = g
    curved, run = outer_gradient(models, unlearning_data, gamma=0.05)
    assert relative_error(curved, first) > 1e-3
    assert run.history.last("hessian_products") == 5


def test_full_parameter_draws_need_no_mapping(models: Models, unlearning_data: UnlearningData) -> None:
    exact, merged = (outer_gradient(models, unlearning_data, mapping=m)[0] for m in ("exact", "merged"))
    assert not differing(merged, exact)


def test_low_rank_draws_do(models: Models, unlearning_data: UnlearningData) -> None:
    settings = {"simulation": LORA_DRAW, "gamma": 0.05}
    exact, merged = (outer_gradient(models, unlearning_data, mapping=m, **settings)[0] for m in ("exact", "merged"))
    assert relative_error(exact, merged) > 1e-3


@pytest.mark.parametrize("draw", [FULL_DRAW, LORA_DRAW], ids=["full", "lora"])
def test_hessian_products_agree(models: Models, unlearning_data: UnlearningData, draw: dict[str, Any]) -> None:
    # float32: a central difference of gradients is good to three digits (tests/bilevel/test_hvp.py).
    modes = ("exact", "finite_difference")
    settings = {"simulation": draw, "gamma": 0.05}
    exact, difference = (outer_gradient(models, unlearning_data, hessian_products=m, **settings)[0] for m in modes)
    assert relative_error(difference, exact) < 5e-3


@pytest.mark.slow
def test_makes_the_harmful_loss_hard_to_recover_by_fine_tuning(models: Models, unlearning_data: UnlearningData) -> None:
    # With β = 1 and α = 0 the harmful error AFTER fine-tuning is all that is trained; a wrong sign would lower it.
    original, pool = named_weights(models.denoiser), unlearning_data.pool
    settings = {"beta": 1.0, "alpha": 0.0, "steps": 6, "lr": 0.1, "max_grad_norm": 1.0}
    changed = unlearned(models, unlearning_data, Run(0), **settings)
    harmful = unlearning_data.forget.draw_stratified(32, Run(5).generator("test"))

    def error_after_fine_tuning(weights: Named) -> float:
        stream = Run(6).generator("test")
        tuned, _ = adapt(
            lambda step, w: denoising_loss(models.denoiser, w, pool.draw(4, stream)),
            weights,
            lr=1e-2,
            steps=5,
            optimizer="sgd",
        )
        return float(denoising_loss(models.denoiser, tuned, harmful))

    assert error_after_fine_tuning({**original, **changed}) > 1.1 * error_after_fine_tuning(original)


# --- which weights are trained ----------------------------------------------------------------------------------------


def test_attention_only(models: Models, unlearning_data: UnlearningData) -> None:
    changed = of_denoiser(
        models, resalign.unlearn(models, unlearning_data, config_of(trained="attention", lr=0.1), Run(0))
    )
    assert set(changed) <= set(select(named_weights(models.denoiser), "attention"))
    assert len(changed) > 10


def test_low_rank_changes(models: Models, unlearning_data: UnlearningData) -> None:
    original = named_weights(models.denoiser)
    changed = unlearned(models, unlearning_data, Run(0), trained="lora", lora_rank=2, lr=10.0)
    assert changed
    for name, tensor in changed.items():
        change = (tensor - original[name]).double()
        singular = torch.linalg.svdvals(change)
        assert singular[2:].max() < 1e-3 * singular[0], name  # float32 rounding of the weights


def test_outer_gradient_is_clipped(models: Models, unlearning_data: UnlearningData) -> None:
    found, run = outer_gradient(models, unlearning_data, max_grad_norm=0.01)
    assert run.history.last("grad_norm") > 0.01
    assert norm(found) == pytest.approx(0.01, rel=1e-3)


# --- divergence -------------------------------------------------------------------------------------------------------

# On this network γ = 0.3 leaves K = 2 steps with a residual of 1.73, and twice as many half steps with 1.24.
OUTSIDE = {"gamma": 0.3, "solver": {"steps": 2}, "max_residual": 1.5, "batch_size": 2}


def test_a_diverged_solve_raises(models: Models, unlearning_data: UnlearningData) -> None:
    with pytest.raises(DivergenceError, match=r"outer step 0, draw 0.*relative residual .*γ 10000; lower gamma"):
        outer_gradient(models, unlearning_data, gamma=1e4)


def test_or_is_damped_openly(models: Models, unlearning_data: UnlearningData, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DivergenceError):
        outer_gradient(models, unlearning_data, **OUTSIDE)
    with caplog.at_level(logging.WARNING, logger="resalign"):
        _, run = outer_gradient(models, unlearning_data, on_divergence="damp", **OUTSIDE)
    assert run.history.last("relaxation") == 0.5
    assert run.history.last("hessian_products") == 4  # K was raised with the damping
    assert run.history.last("relative_residual") < 1.5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "relative residual" in caplog.text
    assert "retrying at relaxation 0.5" in caplog.text


@pytest.mark.slow
def test_damping_gives_up_in_the_end(
    models: Models, unlearning_data: UnlearningData, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {**OUTSIDE, "gamma": 1e4, "on_divergence": "damp", "max_damping": 2}
    with (
        caplog.at_level(logging.WARNING, logger="resalign"),
        pytest.raises(DivergenceError, match=r"at relaxation 0\.25, γ 10000; lower gamma$"),
    ):
        outer_gradient(models, unlearning_data, **settings)
    retries = [record.getMessage() for record in caplog.records if "retrying" in record.getMessage()]
    assert len(retries) == 2, "a retry is announced only where one follows"


def test_nothing_is_damped_where_nothing_diverges(
    models: Models, unlearning_data: UnlearningData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="resalign"):
        raised, run = outer_gradient(models, unlearning_data)
        damped, _ = outer_gradient(models, unlearning_data, on_divergence="damp")
    assert not caplog.records
    assert run.history.last("relaxation") == 1
    assert not differing(damped, raised)


def test_a_simulation_that_diverges_raises(models: Models, unlearning_data: UnlearningData) -> None:
    wild = {**FULL_DRAW, "lr": [1e30], "steps": [5]}
    with pytest.raises(DivergenceError, match="simulated fine-tuning diverged"):
        outer_gradient(models, unlearning_data, simulation=wild)


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_draw_is_one_of_the_configured_ones(models: Models, unlearning_data: UnlearningData) -> None:
    choices = {"lr": [1e-4, 1e-5, 1e-6], "steps": [1, 2, 3], "adaptation": ["full", "lora"]}
    settings = {"draws": 24, "solver": "identity", "simulation": {**choices, "loss": ["denoising"]}, "batch_size": 1}
    _, run = outer_gradient(models, unlearning_data, **settings)
    for quantity, allowed in (("inner_lr", choices["lr"]), ("inner_steps", choices["steps"]), ("inner_lora", [0, 1])):
        # Each value is missed by 24 fair draws with probability (2/3)²⁴ < 1e-4; the seed is fixed.
        assert {value for _, name, value in run.history.rows if name == quantity} == set(allowed)


@pytest.mark.parametrize("key", ["lr", "steps", "loss", "adaptation", "optimizer"])
def test_a_simulation_without_a_choice_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"simulation.{key} needs at least one choice"):
        config_of(simulation={**FULL_DRAW, key: []})


@pytest.mark.parametrize(("key", "values"), [("lr", [1e-4, -1e-5]), ("steps", [5, 0])])
def test_choices_are_positive(key: str, values: list[float]) -> None:
    with pytest.raises(ConfigError, match=f"simulation.{key} must be positive"):
        config_of(simulation={**FULL_DRAW, key: values})


def test_published_defaults() -> None:
    defaults = resalign.Config()
    assert (defaults.steps, defaults.lr, defaults.alpha, defaults.beta, defaults.gamma) == (120, 2e-4, 1.0, 0.8, 1.0)
    assert defaults.solver.model_dump() == {"name": "richardson", "steps": 5, "relaxation": 1.0, "rtol": 1e-6}
    assert defaults.simulation.lr == (1e-4, 1e-5, 1e-6)
    assert defaults.simulation.steps == (5, 10, 20, 30)
    assert defaults.simulation.images == 50


# --- γ, data and solver -----------------------------------------------------------------------------------------------


def test_every_draw_logs_gamma_its_match_and_the_stationarity(models: Models, unlearning_data: UnlearningData) -> None:
    _, run = outer_gradient(models, unlearning_data, draws=2, steps=2, lr=1e-3)
    for quantity in ("gamma", "matched_gamma", "stationarity", "slope_norm", "smallest_curvature", "largest_curvature"):
        assert len([name for _, name, _ in run.history.rows if name == quantity]) == 4, quantity
    last = run.history.last
    # ‖s + Δ/γ‖ lies between what γ's term and the slope leave at best and at worst.
    assert last("stationarity") > 0
    assert last("gamma") == 0.01


def test_matched_gamma_of_gradient_descent_is_the_sum_of_its_steps(
    models: Models, unlearning_data: UnlearningData
) -> None:
    _, run = outer_gradient(models, unlearning_data, gamma="matched")
    assert run.history.last("gamma") == 1e-3 * 2
    adam = {**FULL_DRAW, "optimizer": ["adam"], "lr": [1e-4], "steps": [1]}
    _, run = outer_gradient(
        models, unlearning_data, gamma="matched", gamma_unmatched=0.02, solver="minres", simulation=adam
    )
    matched = run.history.last("matched_gamma")
    assert run.history.last("gamma") == (matched if matched > 0 else 0.02)


def test_fixed_data_changes_the_images_and_no_other_choice(models: Models, unlearning_data: UnlearningData) -> None:
    choices = {"lr": [1e-2, 1e-3], "steps": [1, 2, 3], "adaptation": ["full", "lora"], "images": 1}
    runs = {}
    for data in ("redrawn", "fixed"):
        settings = {"draws": 8, "solver": "identity", "simulation": {**FULL_DRAW, **choices, "data": data}}
        _, run = outer_gradient(models, unlearning_data, **settings)
        runs[data] = run.history.rows
    chosen = ("inner_lr", "inner_steps", "inner_lora")
    redrawn, fixed = ([row for row in runs[data] if row[1] in chosen] for data in ("redrawn", "fixed"))
    assert redrawn == fixed
    losses = [[row for row in runs[data] if row[1] == "inner_loss"] for data in ("redrawn", "fixed")]
    assert losses[0] != losses[1]


def test_a_draw_may_adapt_attention_alone(models: Models, unlearning_data: UnlearningData) -> None:
    settings = {"simulation": {**FULL_DRAW, "adaptation": ["attention"], "lr": [0.1]}, "gamma": 0.05}
    exact, merged = (outer_gradient(models, unlearning_data, mapping=m, **settings)[0] for m in ("exact", "merged"))
    assert relative_error(exact, merged) > 1e-4


@pytest.mark.parametrize("solver", registry.members("bilevel.solvers"))
def test_every_solver_can_be_named_and_is_part_of_the_stages_code(
    models: Models, unlearning_data: UnlearningData, solver: str
) -> None:
    # The printed iteration diverges at a small γ: 1/γ is the factor of its first step.
    found, _ = outer_gradient(models, unlearning_data, solver=solver, max_residual=1e30)
    assert norm(found) > 0
    assert config_of(solver=solver).modules == (f"resalign.bilevel.solvers.{solver}",)


def test_damping_needs_a_relaxation() -> None:
    with pytest.raises(ConfigError, match="on_divergence: damp lowers a relaxation, which .*minres has not"):
        config_of(solver="minres", on_divergence="damp")
    with pytest.raises(ConfigError, match="gamma_unmatched is for gamma: matched"):
        config_of(gamma_unmatched=0.1)
