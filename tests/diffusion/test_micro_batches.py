"""Micro-batches: the same numbers as the whole batch, from less memory.

Tolerances, relative to the norm of what is compared: 1e-12 in float64, 1e-5 in float32, for gradients and Hessian
products. (Measured: 2e-15 and 1.3e-6.)
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

import pytest
import torch

from resalign.bilevel.hvp import hessian_vector_product
from resalign.bilevel.unrolled import unrolled_hypergradient
from resalign.contracts import Run, UnlearningData
from resalign.data.images import read_captioned_images
from resalign.diffusion.batches import EncodedImages, NoisyBatch, encode
from resalign.diffusion.gradient_checkpointing import checkpointed
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.micro_batches import in_parts, micro_batches
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import denoising_loss, harmful_loss
from resalign.tensors.losses import Loss
from resalign.tensors.params import Params, add, detached, gradient, norm
from tests.conftest import PIXELS
from tests.nearness import assert_near

BATCH = 5
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
Weights = dict[str, torch.Tensor]
Derivative = Callable[[Loss, Loss, Params], Weights]


class Kept:
    """Bytes that autograd keeps for backward passes within a block, each storage counted once; ``peak`` is the most."""

    def __init__(self) -> None:
        self.peak = 0
        self.bytes: dict[int, int] = {}
        self.users: Counter[int] = Counter()
        self.hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: _Kept(self, x), lambda kept: kept.tensor)

    def __enter__(self) -> "Kept":
        self.hooks.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hooks.__exit__(kind, error, trace)


class _Kept:
    def __init__(self, counter: Kept, tensor: torch.Tensor) -> None:
        self.counter, self.tensor = counter, tensor.detach()
        storage = tensor.untyped_storage()
        self.key = storage.data_ptr()
        counter.bytes[self.key] = storage.nbytes()
        counter.users[self.key] += 1
        counter.peak = max(counter.peak, sum(counter.bytes.values()))

    def __del__(self) -> None:
        self.counter.users[self.key] -= 1
        if not self.counter.users[self.key]:
            del self.counter.bytes[self.key]


@pytest.fixture(scope="module")
def double(pipeline_folder: Path) -> LoadedPipeline:
    """The tiny pipeline in float64."""
    loaded = load_pipeline(pipeline_folder)
    loaded.pipeline.to(torch.float64)
    return loaded


@pytest.fixture(scope="module")
def images(double: LoadedPipeline, image_folder: Path) -> EncodedImages:
    return encode(double, read_captioned_images(image_folder, pixels=PIXELS), Run(0).generator("encode"))


@pytest.fixture
def of_dtype(loaded: LoadedPipeline, double: LoadedPipeline) -> Callable[[torch.dtype], LoadedPipeline]:
    return lambda dtype: double if dtype == torch.float64 else loaded


def batch_of(images: EncodedImages, dtype: torch.dtype) -> NoisyBatch:
    batch = images.draw_stratified(BATCH, Run(0).generator("batch"))
    return NoisyBatch(
        batch.noisy_latents.to(dtype), batch.timesteps, batch.conditioning.to(dtype), batch.target.to(dtype)
    )


def first(loss: Loss, other: Loss, weights: Params) -> Weights:
    """∇L."""
    leaves = detached(weights, requires_grad=True)
    return gradient(loss(leaves), leaves)


def second(loss: Loss, other: Loss, weights: Params) -> Weights:
    """Hv."""
    generator = torch.Generator().manual_seed(0)
    vector = {n: torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in weights.items()}
    return hessian_vector_product(loss, weights, vector)


def mixed(loss: Loss, other: Loss, weights: Params) -> Weights:
    """A block of H off its diagonal."""
    vector = {n: t for n, t in weights.items() if ".attn2." in n}
    rows = {n: t for n, t in weights.items() if ".attn1." in n}
    return hessian_vector_product(loss, weights, vector, wrt=rows)


def unrolled(loss: Loss, other: Loss, weights: Params) -> Weights:
    """A gradient through two steps of gradient descent."""
    return unrolled_hypergradient(other, loss, weights, lr=1e-2, steps=2)[1]


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float64, 1), (torch.float64, 2), (torch.float64, 64), (torch.float32, 2)]
)
@pytest.mark.parametrize("derivative", [first, second, mixed, unrolled])
def test_derivatives_are_those_of_the_whole_batch(
    of_dtype: Callable[[torch.dtype], LoadedPipeline],
    images: EncodedImages,
    derivative: Derivative,
    dtype: torch.dtype,
    size: int,
) -> None:
    unet = of_dtype(dtype).denoiser
    batch = batch_of(images, dtype)
    losses = partial(denoising_loss, unet, batch=batch), partial(harmful_loss, unet, batch=batch, truncation=1.5)
    whole = derivative(*losses, named_weights(unet))
    assert norm(whole) > 0
    with micro_batches(size):
        parts = derivative(*losses, named_weights(unet))
    assert norm(add(parts, whole, -1.0)) <= TOLERANCE[dtype] * norm(whole)


@pytest.mark.parametrize("derivative", [first, second])
def test_what_is_kept_for_backward_passes_falls_with_the_size(
    double: LoadedPipeline, images: EncodedImages, derivative: Derivative
) -> None:
    losses = (partial(denoising_loss, double.denoiser, batch=batch_of(images, torch.float64)),) * 2

    def peak(size: int | None, do: Derivative) -> int:
        with micro_batches(size), Kept() as kept:
            do(*losses, named_weights(double.denoiser))
        assert not kept.bytes
        return kept.peak

    def nothing(loss: Loss, other: Loss, weights: Params) -> Weights:
        leaves = detached(weights, requires_grad=True)
        sum((t * t).sum() for t in leaves.values()).backward()
        return {}

    weights_alone = peak(None, nothing)
    whole, one = (peak(size, derivative) - weights_alone for size in (None, 1))
    assert one < whole / 3


def test_no_network_sees_more_examples_at_once(double: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    # Where no gradient is asked for, too: held-out losses, targets of distillation, latents of images.
    seen: list[int] = []
    hook = double.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    encoder = double.pipeline.vae.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    batch = in_double(unlearning_data.retain).draw(4, Run(0).generator("x"))
    with micro_batches(3):
        double.encode_images(torch.zeros(7, 3, PIXELS, PIXELS), Run(0).generator("y"))
        with torch.no_grad():
            denoising_loss(double.denoiser, named_weights(double.denoiser), batch)
        denoising_loss(double.denoiser, detached(named_weights(double.denoiser), requires_grad=True), batch).backward()
    hook.remove()
    encoder.remove()
    assert seen == [3, 3, 1] + [3, 1] + [3, 1] + [1, 3]  # the last: computed again, from the last part to the first


def test_latents_are_those_of_the_whole_batch(
    double: LoadedPipeline, image_folder: Path, images: EncodedImages
) -> None:
    with micro_batches(3):
        again = encode(double, read_captioned_images(image_folder, pixels=PIXELS), Run(0).generator("encode"))
    assert_near(again.latents, images.latents, 1e-12)


def in_double(images: EncodedImages) -> EncodedImages:
    return replace(images, latents=images.latents.double(), conditioning=images.conditioning.to(torch.float64))


def test_a_function_that_is_affine_has_no_second_derivative() -> None:
    x, w = torch.ones(4, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    with micro_batches(3):
        product = hessian_vector_product(lambda p: in_parts(torch.mul, (x,), (p["w"],)).sum(), {"w": w}, {"w": w})
    assert torch.equal(product["w"], torch.zeros(2, dtype=torch.float64))


def test_the_size_holds_within_its_block_alone() -> None:
    seen: list[int] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x

    def failing(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        raise KeyError

    x = torch.zeros(4)
    with pytest.raises(KeyError), micro_batches(2):
        in_parts(failing, (x,))
    in_parts(function, (x,))
    assert seen == [2, 4]


def test_a_block_may_return_nothing_beside_a_tensor() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(3.0))

        def forward(self, x: torch.Tensor, option: str) -> tuple[None, torch.Tensor]:
            assert option == "text"
            return None, self.weight * x**2

    x = torch.tensor(2.0, requires_grad=True)
    nothing, value = checkpointed(Block(), x, "text")
    assert nothing is None
    (slope,) = torch.autograd.grad(value, x, create_graph=True)
    assert slope == 12
    assert torch.autograd.grad(slope, x)[0] == 6
