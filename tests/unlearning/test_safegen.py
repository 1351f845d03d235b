"""SafeGen: what its target says of the image, which weights it trains, and the average that it returns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel

from resalign.contracts import Run, UnlearningData
from resalign.data.images import read_captioned_images
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.forward_process import noised
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.prediction import predict
from resalign.library.training import unlearned_weights
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import Params, detached, gradient
from resalign.unlearning import pgu, safegen
from resalign.unlearning._descent import descend
from tests.nearness import assert_near, differing
from tests.weight_names import of_denoiser

SMALL = {"batch_size": 4, "steps": 5, "lr": 1e-3}


def parsed(**settings: Any) -> safegen.Config:
    return safegen.Config.parse({**SMALL, **settings}, where="test")


def trained(loaded: LoadedPipeline, data: UnlearningData, **settings: Any) -> dict[str, torch.Tensor]:
    """All weights after a run."""
    changed = safegen.unlearn(loaded, data, parsed(**settings), Run(0))
    return {**named_weights(loaded.denoiser), **of_denoiser(loaded, changed)}


@pytest.mark.parametrize("pipeline_kind", ["stable_diffusion", "v_prediction"], indirect=True, scope="session")
@pytest.mark.parametrize("target", ["published", "consistent"])
def test_what_the_target_shows(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that shows the mosaic, or as published more and more beyond it, has no error; others have."""
    scheduler, one = loaded.noise_scheduler, torch.tensor([0])
    assert unlearning_data.mosaic is not None
    data = replace(
        unlearning_data, forget=unlearning_data.forget.subset(one), mosaic=unlearning_data.mosaic.subset(one)
    )
    assert data.mosaic is not None
    unsafe, mosaic = data.forget.latents, data.mosaic.latents

    def error(is_shown: bool) -> float:
        calls: list[NoisyBatch] = []

        def network(_: torch.nn.Module, weights: Params, batch: NoisyBatch) -> torch.Tensor:
            calls.append(batch)
            zero = 0 * torch.stack([tensor.sum() for tensor in weights.values()]).sum()
            if len(calls) == 2 or not is_shown:
                return batch.target + zero
            alphas = scheduler.alphas_cumprod[batch.timesteps][:, None, None, None]
            shown = mosaic.expand_as(batch.noisy_latents)
            if target == "published":
                shown = unsafe - ((1 - alphas) / alphas).sqrt() * (unsafe - mosaic)
            noise = (batch.noisy_latents - alphas.sqrt() * shown) / (1 - alphas).sqrt()
            return noised(scheduler, shown, noise, batch.timesteps)[2] + zero

        monkeypatch.setattr(safegen, "predict", network)
        leaves = detached(named_weights(loaded.denoiser), requires_grad=True)
        _, logged = safegen.step_gradient(loaded, data, parsed(target=target))(leaves, leaves, Run(0).generator("t"))
        assert len(calls) == 2
        assert torch.equal(calls[0].timesteps, calls[1].timesteps)  # one t for both
        assert logged["retain_loss"] < 1e-10
        return logged["forget_loss"]

    assert error(is_shown=True) < 1e-6 * error(is_shown=False)


def test_with_mosaics_that_are_the_images_it_is_denoising_at_the_empty_prompt(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    data = replace(unlearning_data, mosaic=unlearning_data.forget)
    leaves = detached(named_weights(loaded.denoiser), requires_grad=True)
    found, logged = safegen.step_gradient(loaded, data, parsed())(leaves, leaves, Run(0).generator("t"))
    stream, losses = Run(0).generator("t"), []
    rows, retained = torch.randint(4, (4,), generator=stream), torch.randint(4, (4,), generator=stream)
    positions = torch.randint(1000, (4,), generator=stream)
    for images, drawn in ((data.forget, rows), (data.retain, retained)):
        empty = loaded.unconditional(len(images.conditioning))
        batch = replace(images, conditioning=empty).at(drawn, positions, stream)
        losses.append(denoising_loss(loaded.denoiser, leaves, batch))
    assert_near([logged["forget_loss"], logged["retain_loss"]], [loss.item() for loss in losses], 1e-6)
    assert_near(found, gradient(0.1 * losses[0] + 0.9 * losses[1], leaves), 1e-5)


def test_self_attention_is_trained_and_nothing_else(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    original = named_weights(loaded.denoiser)
    changed = set(differing(trained(loaded, unlearning_data), original))
    assert changed == {name for name in original if ".attn1." in name}
    assert {name.rpartition(".")[2] for name in changed} == {"weight", "bias"}
    assert not differing(trained(loaded, unlearning_data, steps=0), original)


def test_the_result_is_the_moving_average_of_diffusers(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    original, config = named_weights(loaded.denoiser), parsed(ema_decay=0.2)
    names = [name for name in original if ".attn1." in name]
    average = EMAModel([torch.nn.Parameter(original[name].clone()) for name in names], decay=0.2)
    last: dict[str, torch.Tensor] = {}

    def stepped(variables: Params) -> None:
        average.step([torch.nn.Parameter(variables[name].clone()) for name in names])
        last.update(detached(variables))

    direction = safegen.step_gradient(loaded, unlearning_data, config)
    descend(original, names, direction, config, Run(0), method="safegen", stepped=stepped)
    weights = trained(loaded, unlearning_data, ema_decay=0.2)
    changes = {name: last[name] - original[name] for name in names}
    expected = dict(zip(names, average.shadow_params, strict=True))
    assert_near({n: weights[n] - original[n] for n in names}, {n: expected[n] - original[n] for n in names}, 1e-3)
    assert any((weights[name] - last[name]).abs().max() > 0.01 * changes[name].abs().max() for name in names)
    # An average without memory is the weights themselves.
    memoryless = trained(loaded, unlearning_data, ema_decay=0.0)
    assert not differing({name: memoryless[name] for name in names}, last)


def test_it_learns_to_show_the_mosaic_at_any_prompt(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    """The prediction for an unsafe image moves towards more noise where the image differs from its mosaic."""
    settings = {"steps": 30, "lr": 1e-2, "mosaic_weight": 1.0, "retain_weight": 0.0, "ema_decay": 0.0}
    weights, original = trained(loaded, unlearning_data, **settings), named_weights(loaded.denoiser)
    assert unlearning_data.mosaic is not None
    stream = Run(7).generator("test")
    rows, positions = torch.arange(4).repeat(8), torch.arange(32) * 31
    batch = unlearning_data.forget.at(rows, positions, stream)
    away = (unlearning_data.forget.latents - unlearning_data.mosaic.latents)[rows]
    empty = replace(batch, conditioning=loaded.unconditional(32))
    with torch.no_grad():
        before, after = (
            (predict(loaded.denoiser, w, empty) - batch.target - away).square().mean() for w in (original, weights)
        )
    assert after < before - 0.01


def test_it_needs_mosaics(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    assert parsed().needs() == ("mosaic",)
    with pytest.raises(ValueError, match="needs the mosaics"):
        safegen.step_gradient(loaded, replace(unlearning_data, mosaic=None), parsed())


@pytest.mark.parametrize("is_base", [False, True])
def test_the_mosaics_have_the_settings_tiles(
    loaded: LoadedPipeline, image_folder: Path, is_base: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tile: the mean colour, encoded with the noise of its image. Of a base, the base's."""
    images = read_captioned_images(image_folder, pixels=loaded.pixels)
    given: list[UnlearningData] = []

    def unlearn(_: LoadedPipeline, data: UnlearningData, *_rest: Any) -> dict[str, torch.Tensor]:
        given.append(data)
        return {}

    config = parsed(mosaic_tiles=1)
    method, settings = (pgu, pgu.Config(base=config)) if is_base else (safegen, config)
    monkeypatch.setattr(method, "unlearn", unlearn)
    unlearned_weights(loaded, method, settings, {"forget": images}, Run(0))
    assert given[0].mosaic is not None
    colours = images.load().mean(dim=(2, 3), keepdim=True).expand(-1, -1, loaded.pixels, loaded.pixels)
    expected = loaded.encode_images(colours, Run(0).generator("encode", "forget"))
    assert_near(given[0].mosaic.latents, expected, 1e-4)
