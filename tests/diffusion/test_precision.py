"""bfloat16 in training and half precision in sampling: where it holds, and what stays in float32."""

from pathlib import Path

import pytest
import torch

from resalign.data.prompts import Prompt
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.models import Models, load_models
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.precision import training_precision
from resalign.diffusion.prediction import predict
from resalign.diffusion.sampling import sample_images
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.named import detached, gradient
from tests.pipelines import KINDS

pytestmark = pytest.mark.parametrize("pipeline_kind", KINDS, indirect=True, scope="session")


def test_networks_compute_in_bfloat16_and_all_else_does_not(models: Models, encoded_images: EncodedImages) -> None:
    batch = encoded_images.draw_stratified(4, torch.Generator().manual_seed(0))
    weights = named_weights(models.denoiser)
    seen = []
    linear = next(module for module in models.denoiser.modules() if isinstance(module, torch.nn.Linear))
    hook = linear.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with training_precision("bfloat16"):
        low = predict(models.denoiser, weights, batch)
        leaves = detached(weights, requires_grad=True)
        slope = gradient(denoising_loss(models.denoiser, leaves, batch), leaves)
    full = predict(models.denoiser, weights, batch)
    hook.remove()
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert low.dtype == full.dtype == torch.float32
    assert {tensor.dtype for tensor in slope.values()} == {torch.float32}
    assert 0 < (low - full).abs().max() < 0.1 * full.abs().max()


def test_the_precision_holds_within_its_block_alone(models: Models, encoded_images: EncodedImages) -> None:
    batch = encoded_images.draw_stratified(2, torch.Generator().manual_seed(0))
    weights = named_weights(models.denoiser)
    before = predict(models.denoiser, weights, batch)
    with pytest.raises(KeyError), training_precision("bfloat16"):
        raise KeyError
    assert torch.equal(predict(models.denoiser, weights, batch), before)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_pipeline_samples_in_half_precision(pipeline_folder: Path, models: Models, precision: str) -> None:
    half = load_models(pipeline_folder, precision=precision)  # type: ignore[arg-type]
    assert {t.dtype for t in half.denoiser.parameters()} == {getattr(torch, precision)}
    wanted = [(Prompt("a", "a red seven"), 0)]
    settings = {"sampling_seed": 3, "num_inference_steps": 3, "guidance_scale": 2.0}
    low, full = (sample_images(m, wanted, **settings).float() for m in (half, models))  # type: ignore[arg-type]
    assert 0 < (low - full).abs().mean() < 8  # of 255
