"""ResAlign's own promises: what each term of [ResAlign, Eq. 4] contributes, and what happens when a solve diverges."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.bilevel.adaptation import adapt
from resalign.bilevel.hypergradient import exact_hypergradient, merged_hypergradient
from resalign.bilevel.solution import Solution, System
from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import FullRank, Trained, named_weights, select
from resalign.objectives.denoising import denoising_loss, harmful_loss
from resalign.objectives.distillation import distillation_loss
from resalign.objectives.simulation import Simulation
from resalign.running.attempt import Attempt
from resalign.tensors.params import Params, add, detached, gradient, norm, scaled, unstacked
from resalign.tensors.steps import DivergenceError
from resalign.unlearning import resalign
from tests.nearness import differing
from tests.stopping import stopped_after_a_step
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
LISTED = {"lr": 1e-3, "steps": 2, "adaptation": "outer", "optimizer": "adam"}


def config_of(**settings: Any) -> resalign.Config:
    return resalign.Config.parse({"simulation": FULL_DRAW, **PLAIN, **settings}, where="test")


@dataclass(frozen=True)
class Step:
    """One or a few outer steps: the gradient that was descended, the changed weights, and the run."""

    gradient: dict[str, torch.Tensor]
    changed: dict[str, torch.Tensor]
    run: Run

    def last(self, quantity: str) -> float:
        return self.run.history.last(quantity)

    def values(self, quantity: str) -> list[float]:
        return [value for _, name, value in self.run.history.rows if name == quantity]


@pytest.fixture(scope="module")
def descend(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> Callable[..., Step]:
    def outer(**settings: Any) -> Step:
        run, original = Run(0), named_weights(loaded.denoiser)
        changed = of_denoiser(loaded, resalign.unlearn(loaded, unlearning_data, config_of(**settings), run))
        return Step({n: original[n] - changed.get(n, original[n]) for n in original}, changed, run)

    return outer


def relative_error(found: Params | Step, expected: Params | Step) -> float:
    found, expected = (of.gradient if isinstance(of, Step) else of for of in (found, expected))
    return norm(add(found, expected, -1.0)) / norm(expected)


def two_terms(loaded: LoadedPipeline, data: UnlearningData) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """∇L_harm(θ) and ∇R(θ) on the batches of the first outer step; R is taken a little off the original."""
    stream, original = Run(0).generator("resalign", "batches"), named_weights(loaded.denoiser)
    weights = detached(original, requires_grad=True)
    harmful = harmful_loss(loaded.denoiser, weights, data.forget.draw(3, stream))
    retain = distillation_loss(loaded.denoiser, weights, original, data.retain.draw(4, stream))
    return gradient(harmful, weights), gradient(retain, weights)


# --- the outer gradient [Eq. 4] ---------------------------------------------------------------------------------------


def test_without_beta_no_hypergradient_takes_part(
    descend: Callable[..., Step], loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    found = descend(beta=0.0)
    harmful, retain = two_terms(loaded, unlearning_data)
    assert norm(retain) == 0  # R and its gradient vanish at the original weights
    assert relative_error(found, harmful) < 1e-4
    other = descend(beta=0.0, draws=2, solver="identity", simulation=LORA_DRAW)
    assert not differing(other.gradient, found.gradient)


def test_two_steps_without_beta_are_two_steps_of_the_two_terms(
    descend: Callable[..., Step], loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    # The second step is taken away from the original weights, where R pulls back with weight α.
    original, lr, alpha = named_weights(loaded.denoiser), 0.05, 3.0
    stream, weights = Run(0).generator("resalign", "batches"), original
    for _ in range(2):
        leaves = detached(weights, requires_grad=True)
        harmful = harmful_loss(loaded.denoiser, leaves, unlearning_data.forget.draw(3, stream))
        retain = gradient(
            distillation_loss(loaded.denoiser, leaves, original, unlearning_data.retain.draw(4, stream)), leaves
        )
        weights = add(weights, add(gradient(harmful, leaves), retain, alpha), -lr)
    found = descend(beta=0.0, steps=2, lr=lr, alpha=alpha)
    assert relative_error(found, add(original, weights, -1.0)) < 1e-4
    assert norm(retain) > 0.01
    assert found.last("neg_harmful_denoising_loss") == pytest.approx(harmful.item(), rel=1e-4)
    assert harmful < 0


@pytest.mark.parametrize("draws", [1, 3])
def test_draws_are_averaged_with_weight_beta(
    descend: Callable[..., Step], loaded: LoadedPipeline, unlearning_data: UnlearningData, draws: int
) -> None:
    # A first-order hypergradient through a fine-tuning that moves nothing is ∇L_harm(θ): (1 − β) and β add to 1.
    found = descend(beta=0.7, draws=draws, solver="identity", simulation={**FULL_DRAW, "lr": [1e-12]})
    assert relative_error(found, two_terms(loaded, unlearning_data)[0]) < 1e-4


def test_affine_in_beta(descend: Callable[..., Step]) -> None:
    far = {"simulation": {**FULL_DRAW, "lr": [0.3]}, "gamma": 0.05}
    without, half, whole = (descend(beta=beta, **far).gradient for beta in (0.0, 0.5, 1.0))
    assert relative_error(whole, without) > 0.05  # fine-tuning moved the harmful gradient
    assert relative_error(half, add(without, add(whole, without, -1.0), 0.5)) < 1e-4


def test_hypergradient_through_no_curvature_is_the_first_order_one(descend: Callable[..., Step]) -> None:
    found, first, curved = descend(gamma=1e-7), descend(solver="identity"), descend(gamma=0.05)
    assert relative_error(found, first) < 1e-5
    assert found.last("hessian_products") == 1  # solved to rtol by x = g
    assert relative_error(curved, first) > 1e-3
    assert curved.last("hessian_products") == 5


@pytest.mark.parametrize(
    ("simulation", "least"),
    [(FULL_DRAW, 0.0), (LORA_DRAW, 1e-3), ({**FULL_DRAW, "adaptation": ["attention"], "lr": [0.1]}, 1e-4)],
    ids=["full", "lora", "attention"],
)
def test_all_but_full_parameter_draws_need_the_exact_mapping(
    descend: Callable[..., Step], simulation: dict[str, Any], least: float
) -> None:
    exact, merged = (descend(mapping=mapping, simulation=simulation, gamma=0.05) for mapping in ("exact", "merged"))
    assert relative_error(exact, merged) > least if least else not differing(merged.gradient, exact.gradient)


@pytest.mark.parametrize("simulation", [FULL_DRAW, LORA_DRAW], ids=["full", "lora"])
def test_hessian_products_agree(descend: Callable[..., Step], simulation: dict[str, Any]) -> None:
    # float32: a central difference of gradients is good to three digits (tests/bilevel/test_hvp.py).
    modes = ("exact", "finite_difference")
    exact, difference = (descend(hessian_products=mode, simulation=simulation, gamma=0.05) for mode in modes)
    assert relative_error(difference, exact) < 5e-3


@pytest.mark.slow
def test_makes_the_harmful_loss_hard_to_recover_by_fine_tuning(
    descend: Callable[..., Step], loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    # With β = 1 and α = 0 the harmful error AFTER fine-tuning is all that is trained; a wrong sign would lower it.
    original, pool = named_weights(loaded.denoiser), unlearning_data.pool
    changed = descend(beta=1.0, alpha=0.0, steps=6, lr=0.1, max_grad_norm=1.0).changed
    harmful = unlearning_data.forget.draw_stratified(32, Run(5).generator("test"))

    def error_after_fine_tuning(weights: Params) -> float:
        stream = Run(6).generator("test")
        tuned, _ = adapt(
            lambda _: partial(denoising_loss, loaded.denoiser, batch=pool.draw(4, stream)),
            weights,
            lr=1e-2,
            steps=5,
            optimizer="sgd",
        )
        return float(denoising_loss(loaded.denoiser, tuned, harmful))

    assert error_after_fine_tuning({**original, **changed}) > 1.1 * error_after_fine_tuning(original)


# --- which weights are trained ----------------------------------------------------------------------------------------


def test_attention_only(descend: Callable[..., Step], loaded: LoadedPipeline) -> None:
    changed = descend(trained="attention", lr=0.1).changed
    assert set(changed) <= set(select(named_weights(loaded.denoiser), "attention"))
    assert len(changed) > 10


def test_low_rank_changes(descend: Callable[..., Step], loaded: LoadedPipeline) -> None:
    original, changed = named_weights(loaded.denoiser), descend(trained="lora", lora_rank=2, lr=10.0).changed
    assert changed
    for name, tensor in changed.items():
        singular = torch.linalg.svdvals((tensor - original[name]).double())
        assert singular[2:].max() < 1e-3 * singular[0], name  # float32 rounding of the weights


def test_outer_gradient_is_clipped(descend: Callable[..., Step]) -> None:
    found = descend(max_grad_norm=0.01)
    assert found.last("grad_norm") > 0.01
    assert norm(found.gradient) == pytest.approx(0.01, rel=1e-3)


# --- divergence -------------------------------------------------------------------------------------------------------

# On this network γ = 0.3 leaves K = 2 steps with a residual of 1.73, and twice as many half steps with 1.24.
OUTSIDE = {"gamma": 0.3, "solver": {"steps": 2}, "max_residual": 1.5, "batch_size": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 1e4}, r"outer step 0, draw 0.*relative residual .*γ 10000; lower gamma"),
        (OUTSIDE, "relative residual 1.73 at relaxation 1, γ 0.3; lower gamma, or set on_divergence: damp"),
        ({"simulation": {**FULL_DRAW, "lr": [1e30], "steps": [5]}}, "simulated fine-tuning diverged"),
    ],
)
def test_divergence_raises(descend: Callable[..., Step], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DivergenceError, match=message):
        descend(**settings)


def test_or_is_damped_openly(descend: Callable[..., Step], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="resalign"):
        found = descend(on_divergence="damp", **OUTSIDE)
    assert found.last("relaxation") == 0.5
    assert found.last("hessian_products") == 4  # K was raised with the damping
    assert found.last("relative_residual") < 1.5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "relative residual" in caplog.text
    assert "retrying at relaxation 0.5" in caplog.text


@pytest.mark.slow
def test_damping_gives_up_in_the_end(descend: Callable[..., Step], caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING, logger="resalign"),
        pytest.raises(DivergenceError, match=r"at relaxation 0\.25, γ 10000; lower gamma$"),
    ):
        descend(**{**OUTSIDE, "gamma": 1e4, "on_divergence": "damp", "max_damping": 2})
    retries = [record.getMessage() for record in caplog.records if "retrying" in record.getMessage()]
    assert len(retries) == 2, "a retry is announced only where one follows"


def test_nothing_is_damped_where_nothing_diverges(
    descend: Callable[..., Step], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="resalign"):
        raised, damped = descend(), descend(on_divergence="damp")
    assert not caplog.records
    assert raised.last("relaxation") == 1
    assert not differing(damped.gradient, raised.gradient)


# --- the released form, whose formulas test_released.py has -----------------------------------------------------------


@pytest.mark.parametrize("adaptation", ["outer", "projected"])
def test_with_all_weights_the_outer_variables_are_those_of_full_fine_tuning(
    descend: Callable[..., Step], adaptation: str
) -> None:
    found = descend(simulation={**FULL_DRAW, "adaptation": [adaptation], "lr": [0.1]}, gamma=0.05)
    assert relative_error(found, descend(simulation={**FULL_DRAW, "lr": [0.1]}, gamma=0.05)) < 1e-4


def test_a_draw_that_is_too_long_is_halved_and_in_the_end_leaves_its_direct_gradient(
    descend: Callable[..., Step], loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    settings = {"on_divergence": "reject", "max_damping": 2, "solver": "fixed_point", "beta": 0.6, "draws": 2}
    found = descend(max_draw_norm=1e-9, **settings)
    assert relative_error(found, scaled(two_terms(loaded, unlearning_data)[0], 0.4)) < 1e-4
    assert found.values("relaxation") == [0.0, 0.0]
    assert (found.last("halved_draws"), found.last("replaced_draws")) == (0, 2)
    whole = descend(**settings)
    assert (whole.last("halved_draws"), whole.last("replaced_draws")) == (0, 0)
    assert relative_error(whole, descend(solver={"rtol": 0}, beta=0.6, draws=2)) < 1e-6, "Richardson's iterates"


def test_a_run_that_keeps_its_inner_optimizers_goes_on_with_equal_bits(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path
) -> None:
    def trained(attempt: Attempt, state: str = "kept") -> dict[str, torch.Tensor]:
        simulation = {"configurations": [LISTED, {**LISTED, "steps": 1}], "adam_state": state, "images": 2}
        config = config_of(
            simulation=simulation, steps=3, lr=1e-3, trained="lora", solver="identity", batches="redrawn"
        )
        return resalign.unlearn(loaded, unlearning_data, config, Run(0, attempt=attempt))

    whole = trained(Attempt())
    assert not differing(stopped_after_a_step(tmp_path, trained), whole)
    assert differing(trained(Attempt(), "new"), whole), "the moments go from one outer step to the next"


def test_alpha_rises_in_the_second_half() -> None:
    ramp = resalign.Ramp(start=1.6, end=2.0)
    values = [ramp.at(step, 160) for step in range(1, 161)]
    assert values[:79] == [1.6] * 79
    assert values == sorted(values)
    assert values[79] == pytest.approx(1.6 + 0.4 / (1 + math.exp(5)))
    assert values[119] == pytest.approx(1.8)
    assert values[-1] == pytest.approx(2.0 - 0.4 / (1 + math.exp(5)))


def test_meta_rate_scales_the_gradient(descend: Callable[..., Step]) -> None:
    assert relative_error(descend(meta_rate=0.25, beta=0.0), scaled(descend(beta=0.0).gradient, 0.25)) < 1e-4


def test_prior_images_and_the_instances_caption_enter_the_prior_preserving_draws_alone(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    def trained(loss: str, prior: str = "retain", caption: str | None = None) -> dict[str, torch.Tensor]:
        simulation = {**FULL_DRAW, "lr": [0.1], "loss": [loss], "instance_prompt": caption}
        data = replace(unlearning_data, prior=unlearning_data.forget)
        return resalign.unlearn(loaded, data, config_of(simulation=simulation, prior=prior, beta=1.0), Run(0))

    for settings in ({"prior": "prior"}, {"caption": "a red two"}):
        assert differing(trained("prior_preserving", **settings), trained("prior_preserving"))
        assert not differing(trained("denoising", **settings), trained("denoising"))


def test_the_pool_may_be_retained_too(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    def trained(data: UnlearningData, **settings: Any) -> dict[str, torch.Tensor]:
        return resalign.unlearn(loaded, data, config_of(beta=0.0, steps=2, alpha=3.0, **settings), Run(0))

    data = replace(unlearning_data, pool=unlearning_data.forget)  # the fixture's pool is its retain set
    found = trained(data, retain_images="retain_and_pool")
    assert not differing(found, trained(replace(data, retain=data.retain.joined(data.pool))))
    assert differing(found, trained(data))


# --- draws, γ and solver ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_draw_is_one_of_the_configured_ones(descend: Callable[..., Step]) -> None:
    choices = {"lr": [1e-4, 1e-5, 1e-6], "steps": [1, 2, 3], "adaptation": ["full", "lora"]}
    found = descend(draws=24, solver="identity", simulation={**choices, "loss": ["denoising"]}, batch_size=1)
    for quantity, allowed in (("inner_lr", choices["lr"]), ("inner_steps", choices["steps"]), ("inner_lora", [0, 1])):
        # Each value is missed by 24 fair draws with probability (2/3)²⁴ < 1e-4; the seed is fixed.
        assert set(found.values(quantity)) == set(allowed)


def test_every_draw_logs_gamma_its_match_and_the_stationarity(descend: Callable[..., Step]) -> None:
    found, curvature = descend(draws=2, steps=2, lr=1e-3), ("smallest_curvature", "largest_curvature")
    for quantity in ("gamma", "matched_gamma", "stationarity", "inner_gradient_norm", *curvature):
        assert len(found.values(quantity)) == 4, quantity
    assert found.last("stationarity") > 0
    assert found.last("gamma") == 0.01


def test_matched_gamma_of_gradient_descent_is_the_sum_of_its_steps(descend: Callable[..., Step]) -> None:
    assert descend(gamma="matched").last("gamma") == 1e-3 * 2
    adam = {**FULL_DRAW, "optimizer": ["adam"], "lr": [1e-4], "steps": [1]}
    found = descend(gamma="matched", gamma_unmatched=0.02, solver="minres", simulation=adam)
    matched = found.last("matched_gamma")
    assert found.last("gamma") == (matched if matched > 0 else 0.02)


def test_fixed_data_changes_the_images_and_no_other_choice(descend: Callable[..., Step]) -> None:
    choices = {"lr": [1e-2, 1e-3], "steps": [1, 2, 3], "adaptation": ["full", "lora"], "images": 1}
    redrawn, fixed = (
        descend(draws=8, solver="identity", simulation={**FULL_DRAW, **choices, "data": data})
        for data in ("redrawn", "fixed")
    )
    for quantity in ("inner_lr", "inner_steps", "inner_lora"):
        assert redrawn.values(quantity) == fixed.values(quantity)
    assert redrawn.values("inner_loss") != fixed.values("inner_loss")


@pytest.mark.parametrize("solver", registry.members("bilevel.solvers"))
def test_every_solver_can_be_named_and_is_part_of_the_stages_code(descend: Callable[..., Step], solver: str) -> None:
    # The printed iteration diverges at a small γ: 1/γ is the factor of its first step.
    assert norm(descend(solver=solver, max_residual=1e30).gradient) > 0
    assert config_of(solver=solver).modules == (f"resalign.bilevel.solvers.{solver}",)


def test_what_a_solver_costs_is_counted() -> None:
    without = config_of(solver="identity").denoiser_passes.gradient
    passes = {"fisher": 2 + 1, "minres": 2 * 5, "nystrom": 2 * 5, "neumann": 2 * 5}
    for solver, count in passes.items():
        assert config_of(solver=solver).denoiser_passes.gradient - without == 8 * count
    slower = {"name": "richardson", "steps": 5, "relaxation": 0.5}
    assert config_of(solver=slower).denoiser_passes.gradient - without == 8 * 2 * 10


@pytest.mark.parametrize("loss", ["denoising", "prior_preserving"])
@pytest.mark.parametrize("adaptation", ["full", "lora", "outer"])
def test_the_examples_of_a_simulated_fine_tuning_make_up_its_loss(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, loss: str, adaptation: str
) -> None:
    draw = {**FULL_DRAW, "loss": [loss], "adaptation": [adaptation], "prior_weight": 0.3}
    config, run = config_of(simulation=draw).simulation, Run(0)
    data, streams = unlearning_data, (run.generator("a"), run.generator("b"))
    theta = named_weights(loaded.denoiser)
    parametrisation = FullRank(tuple(theta))
    outer = Trained(parametrisation, theta, parametrisation.initial(theta, run.generator("c")))
    simulation = Simulation(loaded, data.pool, data.retain, config, *streams)
    tuned = simulation.run(theta, hessian_batch_size=3, outer=outer)
    weights = tuned.weights(tuned.theta, tuned.adapted)
    examples = [example.share * example.loss(weights) for example in tuned.examples]
    assert len(examples) == (3 if loss == "denoising" else 6)
    assert {example.elements for example in tuned.examples} == {data.pool.latents[0].numel()}
    assert float(sum(examples)) == pytest.approx(float(tuned.loss(weights)), rel=1e-5)
    # Through the variables of the draw, the gradients that a solver is given make up the loss's.
    seen: list[dict[str, torch.Tensor]] = []

    def observed(system: System) -> Solution:
        assert system.examples is not None
        parts = [scaled(example.gradient, example.share) for example in system.examples()]
        assert system.parts is not None
        ((name, _),) = system.rhs.items()
        seen.append(unstacked(sum((part[name] for part in parts), torch.zeros(())), system.parts))
        return Solution(dict(system.rhs), 0.0, 0, "first_order")

    function, point, at = merged_hypergradient, weights, dict
    if adaptation == "lora":
        function, point, at = exact_hypergradient, tuned.adapted, partial(tuned.weights, tuned.theta)
    function(lambda w: torch.stack([t.square().sum() for t in w.values()]).sum(), tuned, gamma=0.1, solve=observed)
    leaves = detached(point, requires_grad=True)
    whole = gradient(tuned.loss(at(leaves)), leaves)
    assert norm(add(seen[0], whole, -1.0)) < 1e-4 * norm(whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ({"simulation": {**FULL_DRAW, key: []}}, f"simulation.{key} needs at least one choice")
            for key in ("lr", "steps", "loss", "adaptation", "optimizer")
        ),
        ({"simulation": {**FULL_DRAW, "lr": [1e-4, -1e-5]}}, "simulation.lr must be positive"),
        ({"simulation": {**FULL_DRAW, "steps": [5, 0]}}, "simulation.steps must be positive"),
        (
            {"solver": "minres", "on_divergence": "damp"},
            "on_divergence: damp lowers a relaxation, which .*minres has not",
        ),
        ({"gamma_unmatched": 0.1}, "gamma_unmatched is for gamma: matched"),
        ({"solver": "identity", "on_divergence": "reject"}, "on_divergence: reject lowers a relaxation"),
        ({"max_draw_norm": 0.2}, "max_draw_norm is for on_divergence: reject, got raise"),
        ({"simulation": {"configurations": [LISTED], "steps": [5]}}, r"take the place of \['steps'\]"),
        ({"simulation": {"configurations": [LISTED]}, "draws": 2}, "draws is 2, of 1 simulation.configurations"),
        ({"simulation": {"adam_state": "kept"}}, "adam_state: kept is for simulation.configurations"),
        ({"batches": "redrawn", "harmful": "relabelling"}, "batches: redrawn is for the denoising loss"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(**settings)
