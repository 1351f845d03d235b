"""On a GPU: equal bits twice, images of the CPU, and memory-saving modes at an equal result. Skipped where none is."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from resalign.bilevel.hvp import hessian_vector_product
from resalign.config.concept import ConceptPrompts
from resalign.contracts import Run, UnlearningData
from resalign.data.images import read_captioned_images
from resalign.data.prompts import Prompt
from resalign.diffusion.batches import EncodedImages, encode
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.precision import training_precision
from resalign.diffusion.sampling import sample_images
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.cuda_graphs import cuda_graph
from resalign.tensors.params import Params, add, detached, gradient, norm
from resalign.tensors.tracing import Traces
from resalign.unlearning import resalign
from tests.example_config import smallest
from tests.nearness import differing
from tests.objectives.test_recorded_hypergradient import assert_same, hypergradients
from tests.pipelines import KINDS, PIXELS

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    pytest.mark.parametrize("pipeline_kind", KINDS, indirect=True, scope="session"),
]


@pytest.fixture(autouse=True)
def deterministic() -> None:
    """As every stage has it."""
    torch.use_deterministic_algorithms(True)


def on_gpu(folder: Path, *, gradient_checkpointing: bool = False) -> LoadedPipeline:
    return load_pipeline(folder, device="cuda", gradient_checkpointing=gradient_checkpointing)


def encoded(loaded: LoadedPipeline, folder: Path) -> EncodedImages:
    return encode(loaded, read_captioned_images(folder, pixels=PIXELS), Run(seed=0).generator("encode"))


def loss_of(loaded: LoadedPipeline, images: EncodedImages, weights: Params) -> torch.Tensor:
    return denoising_loss(loaded.denoiser, weights, images.draw_stratified(4, torch.Generator().manual_seed(0)))


def derivatives(loaded: LoadedPipeline, images: EncodedImages) -> dict[str, torch.Tensor]:
    """∇L and H∇L as one vector."""
    weights = named_weights(loaded.denoiser)
    leaves = detached(weights, requires_grad=True)
    first = gradient(loss_of(loaded, images, leaves), leaves)
    second = hessian_vector_product(partial(loss_of, loaded, images), weights, first)
    return {**first, **{f"second {name}": tensor for name, tensor in second.items()}}


def relative(found: Params, expected: Params) -> float:
    found = {name: tensor.to(expected[name]) for name, tensor in found.items()}
    return norm(add(found, expected, -1.0)) / norm(expected)


def test_images_are_the_cpus(pipeline_folder: Path, loaded: LoadedPipeline) -> None:
    wanted = [(Prompt("a", "a red seven"), index) for index in range(4)]
    settings = {"sampling_seed": 3, "num_inference_steps": 4, "guidance_scale": 2.0}
    cpu, gpu = (sample_images(m, wanted, **settings).int() for m in (loaded, on_gpu(pipeline_folder)))  # type: ignore[arg-type]
    assert (cpu - gpu).abs().max() <= 1


def test_derivatives_are_the_cpus(pipeline_folder: Path, image_folder: Path, loaded: LoadedPipeline) -> None:
    expected = derivatives(loaded, encoded(loaded, image_folder))
    gpu = on_gpu(pipeline_folder)
    assert relative(derivatives(gpu, encoded(gpu, image_folder)), expected) < 5e-3  # convolutions in TF32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_unlearning_repeats_its_bits(pipeline_folder: Path, image_folder: Path, precision: str) -> None:
    def run() -> dict[str, torch.Tensor]:
        gpu = on_gpu(pipeline_folder)
        images = encoded(gpu, image_folder)
        data = UnlearningData(images, images, images, (ConceptPrompts(prompts=("a red seven",)),))
        with training_precision(precision):  # type: ignore[arg-type]
            return resalign.unlearn(gpu, data, smallest(resalign.Config), Run(0))  # type: ignore[arg-type]

    first, second = run(), run()
    assert first.keys() == second.keys()
    assert not differing(second, first)


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_cuda_graphs_change_no_bit(pipeline_folder: Path, image_folder: Path, adaptation: str) -> None:
    gpu = on_gpu(pipeline_folder)
    images = encoded(gpu, image_folder)
    graphs = replace(gpu, traces=Traces(after=0, capture=cuda_graph))
    found, expected = (hypergradients(model, images, adaptation=[adaptation]) for model in (graphs, gpu))
    assert_same(found, expected)


@pytest.mark.parametrize(("size", "checkpointing"), [(1, False), (None, True), (2, True)])
def test_what_saves_memory_changes_nothing(
    pipeline_folder: Path, image_folder: Path, size: int | None, checkpointing: bool
) -> None:
    gpu = on_gpu(pipeline_folder)
    images = encoded(gpu, image_folder)
    expected = derivatives(gpu, images)
    with micro_batches(size):
        found = derivatives(on_gpu(pipeline_folder, gradient_checkpointing=checkpointing), images)
    assert relative(found, expected) < 1e-3
