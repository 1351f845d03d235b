"""Which row textual inversion trains, along which gradient, and that sampling reads it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.attacks import textual_inversion
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.data.images import DataError
from resalign.data.prompts import Prompt
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.diffusion.sampling import sample_images
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.weights import save_weights
from tests.nearness import assert_near, differing
from tests.pipelines import WITH_T5

from .recorded import Recorded, attacked

every_text_encoder = pytest.mark.parametrize(
    "pipeline_kind", ["stable_diffusion", "stable_diffusion_xl", WITH_T5], indirect=True, scope="session"
)
# A word of the captions of `attack_data`, and its number in CLIP's vocabulary.
TOKEN, ID = "two", 1237


def inverted(loaded: LoadedPipeline, data: AttackData, **settings: Any) -> Recorded:
    return attacked(textual_inversion, loaded, data, **{"token": TOKEN, "lr": 0.1, **settings})


@every_text_encoder
def test_the_tokens_row_of_every_clip_text_encoder_alone_is_trained(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    saved = inverted(loaded, attack_data, weight_decay=0.5).weights
    original = trainable_tensors(loaded.pipeline)
    assert saved.keys() == {
        name for name in original if name.startswith("text_encoder") and name.endswith("token_embedding.weight")
    }
    for name, table in saved.items():
        assert (table != original[name]).any(dim=1).nonzero().flatten().tolist() == [ID]


@pytest.fixture
def double(pipeline_folder: Path) -> LoadedPipeline:
    """A copy of the tiny pipeline in float64, to be changed."""
    loaded = load_pipeline(pipeline_folder)
    loaded.pipeline.to(torch.float64)
    return loaded


def in_double(images: EncodedImages) -> EncodedImages:
    return replace(images, latents=images.latents.double(), conditioning=images.conditioning.to(torch.float64))


@every_text_encoder
def test_a_step_is_along_the_gradient_of_the_denoising_loss(double: LoadedPipeline, attack_data: AttackData) -> None:
    train = in_double(attack_data.train)
    data = AttackData(train, in_double(attack_data.heldout))
    saved = inverted(double, data, steps=1, lr=0.5, optimizer="sgd", batch_size=5).weights
    batch = train.draw(5, Run(0).generator("attack", "full"))
    assert len(set(batch.prompts)) > 1
    tables = {name: tensor.data for name, tensor in trainable_tensors(double.pipeline).items() if name in saved}
    generator = torch.Generator().manual_seed(0)
    for name, table in tables.items():
        row, gradient = table[ID].clone(), (table[ID] - saved[name][ID]) / 0.5
        direction, losses = torch.randn(row.shape, generator=generator, dtype=row.dtype), []
        for distance in (1e-5, -1e-5):
            table[ID] = row + distance * direction
            moved = replace(batch, conditioning=double.encode_prompts(batch.prompts))
            losses.append(denoising_loss(double.denoiser, {}, moved).item())
        table[ID] = row
        slope = (losses[0] - losses[1]) / 2e-5
        assert slope != 0
        assert_near(gradient @ direction, slope, 1e-5, scale=gradient.norm() * direction.norm())


def test_it_learns_what_it_is_trained_on(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    found = inverted(loaded, AttackData(attack_data.train, attack_data.train), steps=30, batch_size=4)
    assert found.history("heldout_loss")[30] < found.history("heldout_loss")[0]


def test_training_starts_from_the_initializers_embedding(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    original = trainable_tensors(loaded.pipeline)
    [table] = (tensor for name, tensor in original.items() if name.endswith("token_embedding.weight"))
    other = loaded.pipeline.tokenizer("seven", add_special_tokens=False).input_ids[0]
    untouched = inverted(loaded, attack_data).history("heldout_loss")[0]
    for initializer, row in ((None, ID), ("seven", other)):
        found = inverted(loaded, attack_data, initializer_token=initializer, steps=1, lr=1e-7)
        assert_near(next(iter(found.weights.values()))[ID], table[row], 1e-4)
        assert found.history("heldout_loss")[0] == untouched
    # Without a step the model is given back.
    assert not differing(original, inverted(loaded, attack_data, initializer_token="seven", steps=0).weights)


def test_images_with_the_token_change_and_others_keep_every_bit(
    loaded: LoadedPipeline, pipeline_folder: Path, attack_data: AttackData, tmp_path: Path
) -> None:
    saved = inverted(loaded, attack_data, steps=3, lr=0.3).weights
    save_weights(tmp_path / "w.safetensors", saved)
    prompts = [(Prompt("0", "a red seven"), 0), (Prompt("1", "a blue two"), 0)]
    before, after = (
        sample_images(m, prompts, sampling_seed=0, num_inference_steps=3, guidance_scale=2.0)
        for m in (loaded, load_pipeline(pipeline_folder, tmp_path / "w.safetensors"))
    )
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("key", ["token", "initializer_token"])
@pytest.mark.parametrize("word", ["resalign", "two sevens", "<|endoftext|>", " "])
def test_a_token_is_one_word_of_the_vocabulary(
    loaded: LoadedPipeline, attack_data: AttackData, key: str, word: str
) -> None:
    with pytest.raises(ConfigError, match=r"must be one word of the vocabulary of text_encoder, .* such as 'sks'"):
        inverted(loaded, attack_data, **{key: word})


@pytest.mark.parametrize("part", ["train", "heldout"])
@pytest.mark.parametrize("caption", ["a red seven", "a a a a a a a a a a a a two"])  # twelve tokens are read
def test_captions_have_the_token(loaded: LoadedPipeline, attack_data: AttackData, part: str, caption: str) -> None:
    images = getattr(attack_data, part)
    without = replace(images, prompts=(caption,) * len(images))
    with pytest.raises(DataError, match=f"{part}: no caption has the token 'two'"):
        inverted(loaded, replace(attack_data, **{part: without}))
