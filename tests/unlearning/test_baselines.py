"""What GradDiff and ESD do to the tiny model: the right weights, in the right direction."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.distillation import distillation_loss
from resalign.objectives.erasure import erasure_loss
from resalign.tensors.params import Params
from resalign.tensors.weights import WeightsError, save_weights
from resalign.unlearning import esd, graddiff, imported
from tests.nearness import assert_near, differing
from tests.weight_names import of_denoiser


def trained(
    loaded: LoadedPipeline, method: Any, data: UnlearningData, **settings: Any
) -> tuple[dict[str, torch.Tensor], Run]:
    """All weights after a method's run, and the run."""
    run = Run(0)
    changed = method.unlearn(loaded, data, method.Config.parse(settings, where="test"), run)
    return {**named_weights(loaded.denoiser), **of_denoiser(loaded, changed)}, run


def denoising_error(loaded: LoadedPipeline, weights: Params, images: EncodedImages) -> float:
    batch = images.draw_stratified(32, Run(7).generator("test"))
    with torch.no_grad():
        return float(denoising_loss(loaded.denoiser, weights, batch))


# --- GradDiff ---------------------------------------------------------------------------------------------------------

GRADDIFF = {"steps": 8, "lr": 3e-3, "max_grad_norm": 100.0}


def test_graddiff_unlearns_the_forget_set(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    weights, run = trained(loaded, graddiff, unlearning_data, **GRADDIFF, alpha=0.0, truncation=None)
    before = denoising_error(loaded, named_weights(loaded.denoiser), unlearning_data.forget)
    assert denoising_error(loaded, weights, unlearning_data.forget) > 1.2 * before
    assert run.history.last("forget_loss") < -before  # the loss that is minimised is the negative error


def test_graddiff_retains_more_with_a_larger_alpha(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    original = named_weights(loaded.denoiser)
    batch = unlearning_data.retain.draw_stratified(32, Run(7).generator("test"))
    drift = []
    for alpha in (0.0, 30.0):
        weights, _ = trained(loaded, graddiff, unlearning_data, **GRADDIFF, alpha=alpha, truncation=None)
        with torch.no_grad():
            drift.append(float(distillation_loss(loaded.denoiser, weights, original, batch)))
    assert drift[1] < 0.7 * drift[0]


def test_graddiff_may_retain_what_simulated_users_train_on(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    data = replace(unlearning_data, pool=unlearning_data.forget)  # the fixture's pool is its retain set
    first, second = data.forget.subset(torch.tensor([0])), data.pool.subset(torch.tensor([3, 1]))
    joined = first.joined(second)
    assert joined.prompts == (*first.prompts, *second.prompts)
    for image, source in ((0, (first, 0)), (1, (second, 0)), (2, (second, 1))):
        of, place = source
        assert torch.equal(joined.latents[image], of.latents[place])
        embedded = (s.conditioning[s.prompt_rows[[i]]].encoder_hidden_states for s, i in ((joined, image), source))
        assert torch.equal(*embedded)
    settings = {**GRADDIFF, "alpha": 30.0, "truncation": None}
    weights, _ = trained(loaded, graddiff, data, **settings, retain_images="retain_and_pool")
    swapped = replace(data, retain=data.retain.joined(data.pool))
    same, _ = trained(loaded, graddiff, swapped, **settings)
    assert not differing(weights, same)
    alone, _ = trained(loaded, graddiff, data, **settings)
    assert differing(weights, alone)


def test_graddiff_stops_at_the_truncation_and_trains_its_scope(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = named_weights(loaded.denoiser)
    stopped, _ = trained(loaded, graddiff, unlearning_data, **GRADDIFF, alpha=0.0, truncation=1e-6)
    assert not differing(stopped, original)
    scoped, _ = trained(loaded, graddiff, unlearning_data, steps=2, lr=1e-3, scope="cross_attention")
    changed = set(differing(scoped, original))
    assert changed
    assert changed <= set(select(original, "cross_attention"))


# --- ESD --------------------------------------------------------------------------------------------------------------

ESD = {"steps": 30, "lr": 2e-4, "batch_size": 4, "num_inference_steps": 4}


@pytest.mark.parametrize(
    ("variant", "scope"),
    [("x", "cross_attention"), ("x-strict", "cross_attention_kv"), ("u", "noxattn"), ("all", "full")],
)
def test_esd_variants_train_their_scope(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, variant: str, scope: Any
) -> None:
    original = named_weights(loaded.denoiser)
    weights, _ = trained(loaded, esd, unlearning_data, **{**ESD, "steps": 2}, variant=variant)
    changed, allowed = set(differing(weights, original)), set(select(original, scope))
    assert changed <= allowed
    assert len(changed) > 0.7 * len(allowed)


def test_esd_moves_the_concept_towards_its_target(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    original = named_weights(loaded.denoiser)
    weights, run = trained(loaded, esd, unlearning_data, **ESD, variant="all")
    batch = unlearning_data.forget.draw_stratified(32, Run(7).generator("test"))
    empty = loaded.unconditional(32)
    with torch.no_grad():
        before, after = (
            erasure_loss(loaded.denoiser, w, original, batch, empty, 1.0).item() for w in (original, weights)
        )
    assert before > 0
    assert after < 0.9 * before
    # At the first step the model still is the original, (1 + η)(ε₀(c) − ε₀(∅)) away from its target.
    assert next(value for _, name, value in run.history.rows if name == "erasure_loss") > 0.1 * before


def test_esd_looks_at_no_image(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    none = unlearning_data.forget.subset(torch.tensor([], dtype=torch.long))
    blind = replace(unlearning_data, forget=none, retain=none, pool=none)
    first, second = (trained(loaded, esd, data, **{**ESD, "steps": 1})[0] for data in (unlearning_data, blind))
    assert not differing(second, first)


# --- a released checkpoint --------------------------------------------------------------------------------------------


def imported_from(
    loaded: LoadedPipeline, data: UnlearningData, checkpoint: Path | None, **settings: Any
) -> tuple[dict[str, torch.Tensor], Run]:
    run = Run(0)
    config = imported.Config.parse({"checkpoint": "x", **settings}, where="test")
    return imported.unlearn(loaded, replace(data, checkpoint=checkpoint), config, run), run


def test_imported_weights_are_the_files(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    weights, run = imported_from(loaded, unlearning_data, unlearning_data.checkpoint)
    original = named_weights(loaded.denoiser)
    assert weights.keys() == {f"unet.{name}" for name in original}
    assert not differing(weights, {f"unet.{name}": tensor + 0.01 for name, tensor in original.items()})
    counts = {"imported_tensors": len(original), "differing_tensors": len(original), "covered_share": 1}
    assert run.history.rows == [(0, name, value) for name, value in counts.items()]


def test_a_part_is_imported_by_config(loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path) -> None:
    original = named_weights(loaded.denoiser)
    part = {"conv_in.bias": original["conv_in.bias"] + 1, "conv_out.bias": original["conv_out.bias"].clone()}
    torch.save(part, tmp_path / "part.pt")
    with pytest.raises(WeightsError, match=r"holds 2 of the \d+ tensors of unet .* set covers: some"):
        imported_from(loaded, unlearning_data, tmp_path / "part.pt")
    weights, run = imported_from(loaded, unlearning_data, tmp_path / "part.pt", covers="some")
    assert {name: tensor.tolist() for name, tensor in weights.items()} == {
        f"unet.{name}": tensor.tolist() for name, tensor in part.items()
    }
    assert run.history.last("differing_tensors") == 1
    assert run.history.last("covered_share") == pytest.approx(2 / len(original))


def test_a_lora_is_imported_by_config(loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path) -> None:
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    lora = {f"unet.{name}.lora_A.weight": torch.ones(1, 16), f"unet.{name}.lora_B.weight": torch.ones(16, 1)}
    save_weights(tmp_path / "pytorch_lora_weights.safetensors", lora)
    weights, _ = imported_from(loaded, unlearning_data, tmp_path, covers="some", lora_scale=0.25)
    expected = named_weights(loaded.denoiser)[f"{name}.weight"] + 0.25
    assert_near(weights, {f"unet.{name}.weight": expected}, 1e-6)


def test_imported_without_a_checkpoint_fails(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    with pytest.raises(WeightsError, match="checkpoint 'x'"):
        imported_from(loaded, unlearning_data, None)
