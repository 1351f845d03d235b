"""PGU: what every linear layer gives for retained inputs stays, and the unlearning loss still falls."""

from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.diffusion.prediction import predict
from resalign.running.attempt import Attempt
from resalign.tensors.params import Params
from resalign.unlearning import pgu
from tests.nearness import assert_near, differing
from tests.stopping import stopped_after_a_step
from tests.weight_names import of_denoiser

from .linear_model import NAME, linear_data, linear_pipeline

# Only one batch of one image is retained: fewer rows than most layers have inputs.
SMALL = {"steps": 6, "lr": 1e-2, "batch_size": 2, "harmful": "denoising", "input_batches": 1, "input_batch_size": 1}
IMPORTED = {"method": "imported", "checkpoint": "x"}


def trained(
    loaded: LoadedPipeline, data: UnlearningData, attempt: Attempt | None = None, **settings: Any
) -> tuple[dict[str, torch.Tensor], Run]:
    run = Run(0, attempt=attempt or Attempt())
    config = pgu.Config.parse({**SMALL, "base": IMPORTED, **settings}, where="test")
    return of_denoiser(loaded, pgu.unlearn(loaded, data, config, run)), run


def subspaces(loaded: LoadedPipeline, data: UnlearningData, weights: Params, energy: float) -> dict[str, torch.Tensor]:
    return pgu.retained_subspaces(
        loaded.denoiser,
        weights,
        data.retain,
        energy=energy,
        batches=1,
        batch_size=1,
        generator=Run(0).generator("pgu", "inputs"),
    )


@pytest.fixture(scope="module")
def base(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    """The weights of the fixture's checkpoint."""
    return {name: tensor + 0.01 for name, tensor in named_weights(loaded.denoiser).items()}


def test_the_network_stays_the_same_on_what_is_retained_and_only_there(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, base: dict[str, torch.Tensor]
) -> None:
    found, run = trained(loaded, unlearning_data, energy=1.0)
    retained = unlearning_data.retain.draw_stratified(1, Run(0).generator("pgu", "inputs"))
    other = unlearning_data.forget.draw_stratified(4, Run(3).generator("test"))
    with torch.no_grad():
        (kept, still), (before, after) = (
            [predict(loaded.denoiser, weights, batch) for weights in (base, {**base, **found})]
            for batch in (retained, other)
        )
    assert_near(still, kept, 1e-5)
    assert (after - before).abs().max() > 1e-3 * before.abs().max()
    losses = [value for _, name, value in run.history.rows if name == "neg_harmful_denoising_loss"]
    assert len(losses) == 6
    moved = set(differing(found, base))
    assert moved
    assert moved <= set(pgu.linear_layers(loaded.denoiser))


@pytest.mark.parametrize("energy", [0.6, 0.95])
def test_a_subspace_is_the_leading_left_singular_vectors_of_a_layers_inputs(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, energy: float
) -> None:
    weights = named_weights(loaded.denoiser)
    found = subspaces(loaded, unlearning_data, weights, energy)
    inputs: dict[str, torch.Tensor] = {}
    layers = pgu.linear_layers(loaded.denoiser)
    handles = [
        layer.register_forward_hook(lambda _, given, __, name=name: inputs.update({name: given[0]}))
        for name, layer in layers.items()
    ]
    batch = unlearning_data.retain.draw_stratified(1, Run(0).generator("pgu", "inputs"))
    with torch.no_grad():
        loaded.denoiser(batch.noisy_latents, batch.timesteps, batch.conditioning.encoder_hidden_states)
    for handle in handles:
        handle.remove()
    assert found.keys() == inputs.keys() == layers.keys()
    for name, given in inputs.items():
        x = given.reshape(-1, given.shape[-1]).double().T
        left, singular, _ = torch.linalg.svd(x, full_matrices=False)
        share = singular.square().cumsum(0) / singular.square().sum()
        rank = int((share < energy).sum()) + 1
        assert found[name].shape == (x.shape[0], rank), name
        projector = found[name].double() @ found[name].double().T
        assert_near(projector, left[:, :rank] @ left[:, :rank].T, 1e-4)
    assert {basis.shape[1] for basis in found.values()} != {1}


def test_a_share_of_one_gives_the_rank_of_the_inputs_and_no_rounding_error() -> None:
    stream = Run(0).generator("test")
    for rank in range(1, 12):
        left, right = (torch.randn(shape, generator=stream).double() for shape in ((16, rank), (rank, 500)))
        x = left @ right
        basis = pgu.leading(x @ x.T, 1.0)
        assert basis.shape == (16, rank)
        assert_near(basis @ (basis.T @ x), x, 1e-9)


def test_a_full_subspace_leaves_nothing_to_move() -> None:
    linear, data = linear_pipeline(), linear_data()
    settings = {**SMALL, "base": {"method": "graddiff", "steps": 0}, "steps": 3, "lr": 0.1, "input_batches": 8}
    start = named_weights(linear.denoiser)[NAME]
    for energy, is_moved in ((1.0, False), (0.5, True)):
        config = pgu.Config.parse({**settings, "energy": energy}, where="test")
        found = of_denoiser(linear, pgu.unlearn(linear, data, config, Run(0)))[NAME]
        assert (float((found - start).norm()) > 0.05) == is_moved
        if not is_moved:
            assert_near(found, start, 1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_whole_steps_are_projected_whatever_the_optimizer(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, base: dict[str, torch.Tensor], optimizer: str
) -> None:
    # Adam's scaling and AdamW's decay would lead out of the subspace if the gradient alone were projected.
    decay: dict[str, Any] = {"weight_decay": 0.1} if optimizer == "adamw" else {}
    found, _ = trained(loaded, unlearning_data, optimizer=optimizer, energy=0.9, lr=0.1, steps=2, **decay)
    bases = subspaces(loaded, unlearning_data, base, 0.9)
    moved = [name for name in differing(found, base) if (found[name] - base[name]).abs().max() > 1e-3]
    assert moved
    for name in moved:
        change = found[name] - base[name]
        assert_near(change @ bases[name], torch.zeros(len(change), bases[name].shape[1]), 1e-5, scale=found[name])


def test_only_its_scope_moves_and_zero_steps_are_the_base(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, base: dict[str, torch.Tensor]
) -> None:
    none, _ = trained(loaded, unlearning_data, steps=0)
    assert not differing(none, base)
    found, _ = trained(loaded, unlearning_data, scope="cross_attention", energy=0.6)
    assert set(differing(found, base)) <= set(select(base, "cross_attention"))
    assert differing(found, base)


@pytest.mark.parametrize("harmful", ["erasure", "relabelling"])
def test_the_unlearning_loss_falls(loaded: LoadedPipeline, unlearning_data: UnlearningData, harmful: str) -> None:
    kind = {"name": harmful, **({"num_inference_steps": 2} if harmful == "erasure" else {})}
    settings: dict[str, Any] = {
        "harmful": kind,
        "base": {"method": "graddiff", "steps": 0},
        "energy": 0.5,
        "batch_size": 8,
    }
    _, run = trained(loaded, unlearning_data, **{**settings, "steps": 20, "lr": 3e-3})
    losses = [value for _, name, value in run.history.rows if name == f"{harmful}_loss"]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_run_that_stopped_after_its_base_goes_on_to_equal_bits(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "base": {"method": "graddiff", "steps": 1, "batch_size": 2, "lr": 1e-2},
        "steps": 2,
        "energy": 0.9,
    }
    whole, _ = trained(loaded, unlearning_data, **settings)
    resumed, _ = stopped_after_a_step(
        tmp_path, lambda attempt: trained(loaded, unlearning_data, attempt=attempt, **settings)
    )
    assert not differing(resumed, whole)
