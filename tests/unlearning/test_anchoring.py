"""Anchoring: both targets are the original model's, on the images that its configuration names."""

from dataclasses import replace
from typing import Any

import torch

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.objectives.distillation import distillation_loss
from resalign.objectives.relabelling import relabelling_loss
from resalign.unlearning import anchoring, graddiff, salun
from resalign.unlearning._descent import descend
from tests.nearness import differing
from tests.weight_names import of_denoiser

SETTINGS = {"batch_size": 2, "retain_batch_size": 2, "steps": 3, "lr": 1e-3, "max_grad_norm": None}


def trained(loaded: LoadedPipeline, method: Any, data: UnlearningData, **settings: Any) -> dict[str, torch.Tensor]:
    """All weights after a method's run."""
    changed = method.unlearn(loaded, data, method.Config.parse(settings, where="test"), Run(0))
    return {**named_weights(loaded.denoiser), **of_denoiser(loaded, changed)}


def test_without_a_retain_term_it_is_salun_of_every_weight_with_the_original_models_targets(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = named_weights(loaded.denoiser)
    config = anchoring.Config.parse({**SETTINGS, "alpha": 0.0, "retain_images": "retain"}, where="test")
    direction = anchoring.step_gradient(loaded, unlearning_data, config)
    found = descend(original, original, direction, config, Run(0), method="salun")
    everything = {**SETTINGS, "alpha": 0.0, "mask_share": 1.0, "target": "original"}
    assert not differing(found, trained(loaded, salun, unlearning_data, **everything))


def test_nothing_moves_where_the_substitute_is_the_concept_and_the_retain_term_is_graddiffs(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    images = unlearning_data.forget
    own = replace(images, conditioning=loaded.encode_prompts(["a one"]).expand(len(images.conditioning)))
    data = replace(unlearning_data, forget=own, pool=images)
    original = named_weights(loaded.denoiser)
    assert not differing(trained(loaded, anchoring, data, **SETTINGS), original)
    # Away from the original weights, where both of its terms differ from 0.
    moved = {name: (weight * 1.05).requires_grad_() for name, weight in original.items()}
    config = anchoring.Config.parse({**SETTINGS, "alpha": 0.7}, where="test")
    _, logged = anchoring.step_gradient(loaded, data, config)(moved, moved, Run(0).generator("test"))
    settings = {"batch_size": 2, "retain_batch_size": 2, "retain_images": "retain_and_pool"}
    other = graddiff.Config.parse(settings, where="test")
    _, expected = graddiff.step_gradient(loaded, data, other)(moved, moved, Run(0).generator("test"))
    assert logged["retain_loss"] == expected["retain_loss"] > 0
    assert logged["forget_loss"] > 0


def test_it_moves_the_concept_to_its_substitute_and_holds_the_pool(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original, stream = named_weights(loaded.denoiser), Run(7).generator("test")
    forgotten, kept = (images.draw_stratified(32, stream) for images in (unlearning_data.forget, unlearning_data.pool))
    substitute = loaded.encode_prompts(["a one"]).expand(32)

    def losses(alpha: float) -> tuple[float, float]:
        settings = {**SETTINGS, "batch_size": 4, "retain_batch_size": 4, "steps": 30, "lr": 1e-4, "alpha": alpha}
        weights = trained(loaded, anchoring, unlearning_data, **settings)
        with torch.no_grad():
            moved = relabelling_loss(loaded.denoiser, weights, original, forgotten, substitute)
            return moved.item(), distillation_loss(loaded.denoiser, weights, original, kept).item()

    with torch.no_grad():
        before = relabelling_loss(loaded.denoiser, original, original, forgotten, substitute).item()
    (alone, drift), (with_pool, held_drift) = losses(0.0), losses(3.0)
    assert 0 < max(alone, with_pool) < 0.9 * before
    assert held_drift < 0.7 * drift


def test_it_trains_its_scope_alone(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    weights = trained(loaded, anchoring, unlearning_data, **SETTINGS, scope="cross_attention")
    original = named_weights(loaded.denoiser)
    changed = set(differing(weights, original))
    assert changed
    assert changed <= set(select(original, "cross_attention"))
