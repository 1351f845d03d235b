"""ResAlign over each harmful loss: the base method where nothing is simulated, and its hypergradient by differences."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.bilevel.hypergradient import FineTuned, exact_hypergradient
from resalign.bilevel.solving import solve
from resalign.bilevel.unrolled import directional_differences, forward_sensitivities, unrolled_hypergradient
from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.data.images import read_captioned_images
from resalign.diffusion.batches import encode
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.parametrisation import FullRank, named_weights
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.simulation import Simulation
from resalign.tensors.params import Params, add, detached, dot, norm
from resalign.unlearning import esd, resalign
from resalign.unlearning._harmful import harmful_draws
from tests.nearness import assert_near
from tests.pipelines import PIXELS
from tests.weight_names import of_denoiser

KINDS: dict[str, Any] = {
    "denoising": "denoising",
    "erasure": {"name": "erasure", "num_inference_steps": 4},
    "relabelling": "relabelling",
}
PLAIN = {"steps": 1, "lr": 1.0, "optimizer": "sgd", "weight_decay": 0.0, "max_grad_norm": None, "batch_size": 2}
DRAW = {"lr": [1e-3], "steps": [2], "loss": ["denoising"], "adaptation": ["full"], "optimizer": ["sgd"]}
every_kind = pytest.mark.parametrize("kind", KINDS)


def config_of(kind: str, **settings: Any) -> resalign.Config:
    values = {"simulation": DRAW, "gamma": 0.01, "draws": 1, **PLAIN, "harmful": KINDS[kind], **settings}
    return resalign.Config.parse(values, where="test")


def trained(
    loaded: LoadedPipeline, data: UnlearningData, kind: str, **settings: Any
) -> tuple[dict[str, torch.Tensor], Run]:
    run, original = Run(0), named_weights(loaded.denoiser)
    changed = resalign.unlearn(loaded, data, config_of(kind, **settings), run)
    return {**original, **of_denoiser(loaded, changed)}, run


SEVERAL = (ConceptPrompts(prompts=("a red seven",)), ConceptPrompts(prompts=("a blue two", "a dog", "nothing")))


@pytest.mark.parametrize("concepts", [SEVERAL[:1], SEVERAL], ids=["one", "several"])
def test_without_simulation_and_distillation_it_is_esd(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, concepts: tuple[ConceptPrompts, ...]
) -> None:
    unlearning_data = replace(unlearning_data, concepts=concepts)
    found, run = trained(loaded, unlearning_data, "erasure", beta=0.0, alpha=0.0, steps=3, lr=5.0)
    # ESD's own gradient under the same plain descent, on the stream from which ResAlign also draws retained images.
    config = esd.Config.parse({"variant": "all", "batch_size": 2, "num_inference_steps": 4}, where="test")
    step_gradient = esd.step_gradient(loaded, unlearning_data, config)
    stream = Run(0).generator("resalign", "batches")
    original = named_weights(loaded.denoiser)
    weights: dict[str, torch.Tensor] = original
    for _ in range(3):
        leaves = detached(weights, requires_grad=True)
        direction, logged = step_gradient(leaves, leaves, stream)
        unlearning_data.retain.draw(4, stream)
        weights = add(weights, direction, -5.0)
    # θ₀ + ψ of ResAlign and θ of ESD round apart.
    assert_near(add(found, original, -1.0), add(weights, original, -1.0), 1e-3)
    assert run.history.last("erasure_loss") == pytest.approx(logged["erasure_loss"], rel=1e-4)


@every_kind
def test_a_simulation_that_moves_nothing_leaves_the_two_terms(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, kind: str
) -> None:
    still = {"solver": "identity", "simulation": {**DRAW, "lr": [1e-12]}, "alpha": 0.3}
    (with_it, run), (without, _) = (trained(loaded, unlearning_data, kind, beta=b, **still) for b in (0.8, 0.0))
    original = named_weights(loaded.denoiser)
    found, expected = (add(original, weights, -1.0) for weights in (with_it, without))
    assert norm(add(found, expected, -1.0)) < 1e-4 * norm(expected)
    assert norm(expected) > 0
    quantity = "neg_harmful_denoising_loss" if kind == "denoising" else f"{kind}_loss"
    assert (run.history.last(quantity) > 0) == (kind != "denoising")


@pytest.fixture(scope="module")
def exact(pipeline_folder: Path, image_folder: Path, unlearning_data: UnlearningData) -> tuple[Any, UnlearningData]:
    """The tiny pipeline and its data in float64."""
    loaded = load_pipeline(pipeline_folder)
    loaded.pipeline.to(dtype=torch.float64)
    images = encode(loaded, read_captioned_images(image_folder, pixels=PIXELS), Run(seed=0).generator("encode"))
    forget, retain = images.subset(torch.tensor([0, 1, 4, 5])), images.subset(torch.tensor([2, 3, 6, 7]))
    return loaded, replace(unlearning_data, forget=forget, retain=retain, pool=retain, mosaic=None, masks=None)


@every_kind
def test_the_hypergradient_is_the_central_difference_through_the_inner_loop(
    exact: tuple[LoadedPipeline, UnlearningData], kind: str
) -> None:
    loaded, data = exact
    config, stream = config_of(kind), Run(0).generator("test")
    # Away from θ₀, where no loss is at a minimum of its own.
    theta = {n: t + 0.02 * torch.randn(t.shape, generator=stream).double() for n, t in exact_weights(loaded).items()}
    outer = harmful_draws(loaded, data, config, 2)(theta, stream)
    batch = data.pool.draw(2, stream)

    def inner(weights: Params) -> torch.Tensor:
        return denoising_loss(loaded.denoiser, weights, batch)

    lr, steps = 3e-3, 3
    tuned, unrolled = unrolled_hypergradient(outer, inner, theta, lr=lr, steps=steps)
    random = {n: torch.randn(t.shape, generator=stream).double() for n, t in theta.items()}
    loop: dict[str, Any] = {"lr": lr, "steps": steps}
    for direction, length in ((unrolled, 1e-3), (random, 1e-3)):
        (difference,) = directional_differences(outer, inner, theta, [direction], length=length, **loop)
        assert difference == pytest.approx(float(dot(unrolled, direction)), rel=1e-3)
        forward = forward_sensitivities(outer, {"fine-tuning": (1.0, inner)}, theta, directions=[direction], **loop)
        assert forward.directions == pytest.approx([float(dot(unrolled, direction))], rel=1e-10)
    # The implicit estimate, γ = Tη, is nearer to it than the first-order one.
    full = FullRank(tuple(theta))
    start = full.initial(theta, stream)
    psi = {f"delta.{n}": tuned[n] - theta[n] for n in theta}
    solver = config_of(kind, solver={"name": "richardson", "steps": 30}).solver
    estimate = exact_hypergradient(
        outer, FineTuned(theta, start, psi, full.weights, inner), gamma=lr * steps, solve=of(solver)
    )
    leaves = detached(tuned, requires_grad=True)
    first = dict(zip(leaves, torch.autograd.grad(outer(leaves), list(leaves.values())), strict=True))
    errors = [norm(add(found, unrolled, -1.0)) / norm(unrolled) for found in (estimate.value, first)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_through_every_step_it_is_the_central_difference_of_the_simulated_fine_tuning(
    exact: tuple[LoadedPipeline, UnlearningData], optimizer: str
) -> None:
    loaded, data = exact
    draw = {**DRAW, "steps": [4], "loss": ["prior_preserving"], "optimizer": [optimizer], "batch_size": 2}
    config = config_of("denoising", through="steps", simulation=draw)
    theta, stream = exact_weights(loaded), Run(0).generator("test")
    outer = harmful_draws(loaded, data, config, 2)(theta, stream)

    def drawn() -> Simulation:  # the same images, noise and timesteps each time
        streams = Run(0).generator("draw"), Run(0).generator("fixed data")
        return Simulation(loaded, data.pool, data.retain, config.simulation, *streams)

    def fine_tuned(start: Params) -> Params:
        tuned = drawn().run(start, hessian_batch_size=2)
        return tuned.weights(start, tuned.adapted)

    adapted, value = drawn().differentiated(outer, theta, "exact")
    assert_near(adapted, fine_tuned(theta), 1e-12)
    random = {name: torch.randn(tensor.shape, generator=stream).double() for name, tensor in theta.items()}
    for direction in (value, random):
        # Over 1e-6 it is off by half through Adam, whose direction turns where a gradient is as small as its change.
        step = 1e-9 / norm(direction)
        ends = (outer(fine_tuned(add(theta, direction, sign * step))).item() for sign in (1, -1))
        assert (next(ends) - next(ends)) / (2 * step) == pytest.approx(float(dot(value, direction)), rel=1e-3)
    # An outer step descends along it.
    settings: dict[str, Any] = {"beta": 1.0, "alpha": 0.0, "through": "steps", "simulation": draw}
    moved, run = trained(loaded, data, "denoising", **settings)
    assert run.history.last("hypergradient_norm") == pytest.approx(norm(add(moved, theta, -1.0)), rel=1e-6)


def test_only_whole_fine_tunings_by_sgd_or_adam_are_differentiated_step_by_step() -> None:
    for wrong in ({"adaptation": ["full", "lora"]}, {"optimizer": ["adamw"]}):
        with pytest.raises(ConfigError, match="through: steps is for draws that train all weights by sgd or adam"):
            config_of("denoising", through="steps", simulation={**DRAW, **wrong})
    with pytest.raises(ConfigError, match="through: steps has no solve for on_divergence: damp"):
        config_of("denoising", through="steps", on_divergence="damp")


def of(solver: Any) -> Callable[..., Any]:
    return lambda system: solve(system, solver)


def exact_weights(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    weights = named_weights(loaded.denoiser)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float64}
    return weights


def test_the_target_is_the_original_models_whatever_the_weights(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    # Were it the present model's, the loss of a substitute that equals the prompt would be 0 at every θ.
    concept = unlearning_data.concepts[0].model_copy(update={"substitute": "a red seven", "prompts": ("a red seven",)})
    red = unlearning_data.forget.subset(torch.tensor([0, 2]))
    data = replace(unlearning_data, concepts=(concept,), forget=red)
    original = named_weights(loaded.denoiser)
    loss = harmful_draws(loaded, data, config_of("relabelling"), 3)(original, Run(0).generator("test"))
    moved = {name: tensor + 0.02 for name, tensor in original.items()}
    with torch.no_grad():
        assert loss(original).item() == 0
        assert loss(moved).item() > 1e-4


def test_only_the_unbounded_loss_takes_a_truncation() -> None:
    assert config_of("denoising", truncation=1.0).truncation == 1.0
    with pytest.raises(ConfigError, match="truncation caps the denoising error, and harmful is erasure; leave it out"):
        config_of("erasure", truncation=1.0)
    with pytest.raises(ConfigError, match="no harmful named 'erasur'; did you mean 'erasure'"):
        config_of("denoising", harmful="erasur")


def test_a_loss_that_relabels_needs_a_substitute() -> None:
    assert {kind: config_of(kind).needs() for kind in KINDS} == {
        "denoising": (),
        "erasure": (),
        "relabelling": ("substitute",),
    }
