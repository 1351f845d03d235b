"""bfloat16 in training and half precision in sampling: where it holds, and what stays in float32."""

from pathlib import Path

import pytest
import torch

from resalign.bilevel.hvp import hessian_vector_product
from resalign.contracts import Run, UnlearningData
from resalign.data.prompts import Prompt
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.precision import in_float32, training_precision
from resalign.diffusion.prediction import predict
from resalign.diffusion.sampling import sample_images
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import add, detached, gradient, norm
from resalign.unlearning import resalign
from tests.example_config import smallest
from tests.pipelines import KINDS, ONE_QUICKLY, WITH_T5

every_kind = pytest.mark.parametrize("pipeline_kind", KINDS, indirect=True, scope="session")


@every_kind
def test_networks_compute_in_bfloat16_and_all_else_does_not(
    loaded: LoadedPipeline, encoded_images: EncodedImages
) -> None:
    batch = encoded_images.draw_stratified(4, torch.Generator().manual_seed(0))
    weights = named_weights(loaded.denoiser)
    seen = []
    linear = next(module for module in loaded.denoiser.modules() if isinstance(module, torch.nn.Linear))
    hook = linear.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with training_precision("bfloat16"):
        low = predict(loaded.denoiser, weights, batch)
        leaves = detached(weights, requires_grad=True)
        slope = gradient(denoising_loss(loaded.denoiser, leaves, batch), leaves)
    with pytest.raises(KeyError), training_precision("bfloat16"):
        raise KeyError
    full = predict(loaded.denoiser, weights, batch)  # the precision holds only within its block
    hook.remove()
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert low.dtype == full.dtype == torch.float32
    assert {tensor.dtype for tensor in slope.values()} == {torch.float32}
    assert 0 < (low - full).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize("pipeline_kind", ONE_QUICKLY, indirect=True, scope="session")
def test_hypergradients_are_float32s_up_to_the_outer_gradients_rounding(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    """Curvature in bfloat16 would be off by half on a CPU, and noise in differences."""

    def step(precision: str, mode: str) -> dict[str, torch.Tensor]:
        plain = {"steps": 1, "optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0, "max_grad_norm": None}
        draw = {"steps": [2], "lr": [1e-3], "adaptation": ["full"], "loss": ["denoising"], "optimizer": ["sgd"]}
        hypergradient = {"beta": 1.0, "alpha": 0.0, "gamma": 1.0, "solver": "minres", "hessian_products": mode}
        config = smallest(resalign.Config, **plain, **hypergradient, simulation={**draw, "images": 4, "batch_size": 2})
        with training_precision(precision):  # type: ignore[arg-type]
            weights = resalign.unlearn(loaded, unlearning_data, config, Run(0))  # type: ignore[arg-type]
        base = trainable_tensors(loaded.pipeline)
        return {name: weights.get(name, base[name]) - base[name] for name in base if name in weights}

    for mode in ("exact", "finite_difference"):
        low, full = step("bfloat16", mode), step("float32", mode)
        names = low.keys() & full.keys()
        low, full = ({name: of[name] for name in names} for of in (low, full))
        assert norm(add(low, full, -1.0)) < 0.1 * norm(full), mode


def test_curvature_is_float32s_where_blocks_and_parts_are_computed_anew(
    pipeline_folder: Path, encoded_images: EncodedImages
) -> None:
    """What a backward pass recomputes is of the loss's precision, not of the one around that pass."""
    saving = load_pipeline(pipeline_folder, gradient_checkpointing=True)
    batch = encoded_images.draw_stratified(2, torch.Generator().manual_seed(0))
    weights = named_weights(saving.denoiser)
    stream = torch.Generator().manual_seed(1)
    vector = {name: torch.randn(tensor.shape, generator=stream) for name, tensor in weights.items()}

    def product() -> dict[str, torch.Tensor]:
        loss = in_float32(lambda own: denoising_loss(saving.denoiser, own, batch))
        return hessian_vector_product(loss, weights, vector)

    with training_precision("bfloat16"), micro_batches(1):
        low = product()
    full = product()
    assert norm(add(low, full, -1.0)) < 1e-4 * norm(full)


@every_kind
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_pipeline_samples_in_half_precision(pipeline_folder: Path, loaded: LoadedPipeline, precision: str) -> None:
    half = load_pipeline(pipeline_folder, precision=precision)  # type: ignore[arg-type]
    assert {t.dtype for t in half.denoiser.parameters()} == {getattr(torch, precision)}
    wanted = [(Prompt("a", "a red seven"), 0)]
    settings = {"sampling_seed": 3, "num_inference_steps": 3, "guidance_scale": 2.0}
    low, full = (sample_images(m, wanted, **settings).float() for m in (half, loaded))  # type: ignore[arg-type]
    assert 0 < (low - full).abs().mean() < 8  # of 255


@pytest.mark.parametrize("pipeline_kind", [WITH_T5], indirect=True, scope="session")
def test_what_transformers_keeps_in_float32_stays_there(pipeline_folder: Path) -> None:
    half = load_pipeline(pipeline_folder, precision="float16")
    kept = {n for n, p in half.pipeline.text_encoder_3.named_parameters() if p.dtype == torch.float32}
    assert kept == {"encoder.block.0.layer.1.DenseReluDense.wo.weight"}
    settings = {"sampling_seed": 3, "num_inference_steps": 2, "guidance_scale": 2.0}
    assert sample_images(half, [(Prompt("a", "a red seven"), 0)], **settings).shape[0] == 1  # type: ignore[arg-type]
