"""Gradient checkpointing: first derivatives and Hessian products as without it, from less memory."""

from functools import partial

import pytest
import torch

from resalign.bilevel.hvp import hessian_vector_product
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.precision import training_precision
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import Params, add, detached, gradient, norm
from tests.pipelines import KINDS

pytestmark = pytest.mark.parametrize("pipeline_kind", KINDS, indirect=True, scope="session")


@pytest.fixture(scope="module")
def checkpointing(pipeline_folder) -> LoadedPipeline:  # type: ignore[no-untyped-def]
    return load_pipeline(pipeline_folder, gradient_checkpointing=True)


def moved(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    """Weights that are not the module's own: a recomputation from the module's would show."""
    return {name: tensor + 0.02 for name, tensor in named_weights(loaded.denoiser).items()}


def loss_of(loaded: LoadedPipeline, images: EncodedImages, weights: Params) -> torch.Tensor:
    batch = images.draw_stratified(4, torch.Generator().manual_seed(0))
    return denoising_loss(loaded.denoiser, weights, batch)


def derivatives(
    loaded: LoadedPipeline, images: EncodedImages
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """∇L, and H∇L."""
    leaves = detached(moved(loaded), requires_grad=True)
    first = gradient(loss_of(loaded, images, leaves), leaves)
    return first, hessian_vector_product(partial(loss_of, loaded, images), moved(loaded), first)


def relative(found: Params, expected: Params) -> float:
    return norm(add(found, expected, -1.0)) / norm(expected)


@pytest.mark.parametrize("size", [None, 3])
def test_derivatives_are_the_same(
    loaded: LoadedPipeline, checkpointing: LoadedPipeline, encoded_images: EncodedImages, size: int | None
) -> None:
    expected = derivatives(loaded, encoded_images)
    with micro_batches(size):
        found = derivatives(checkpointing, encoded_images)
    assert relative(found[0], expected[0]) < 1e-5  # float32
    assert relative(found[1], expected[1]) < 1e-4


def kept_bytes(loaded: LoadedPipeline, images: EncodedImages) -> int:
    """What is kept for the backward pass besides the weights, each storage once."""
    leaves, storages = detached(moved(loaded), requires_grad=True), {}
    own = {tensor.untyped_storage().data_ptr() for tensor in leaves.values()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(loaded, images, leaves)
    assert loss.requires_grad
    return sum(size for pointer, size in storages.items() if pointer not in own)


def test_less_is_kept(loaded: LoadedPipeline, checkpointing: LoadedPipeline, encoded_images: EncodedImages) -> None:
    assert kept_bytes(checkpointing, encoded_images) < 0.6 * kept_bytes(loaded, encoded_images)


def test_blocks_are_recomputed_in_the_precision_of_the_forward_pass(
    loaded: LoadedPipeline, checkpointing: LoadedPipeline, encoded_images: EncodedImages
) -> None:
    def slope(of: LoadedPipeline) -> dict[str, torch.Tensor]:
        leaves = detached(moved(of), requires_grad=True)
        with training_precision("bfloat16"):
            loss = loss_of(of, encoded_images, leaves)
        return gradient(loss, leaves)  # outside: a backward pass may run in another thread

    expected = slope(loaded)
    leaves = detached(moved(loaded), requires_grad=True)
    of_float32 = gradient(loss_of(loaded, encoded_images, leaves), leaves)
    assert relative(slope(checkpointing), expected) < 0.3 * relative(of_float32, expected)
