"""UnlearnDiffAtk: its projection, that its words lower the loss, and which words they may be."""

import string
from typing import Any

import pytest
import torch

from resalign.attacks import unlearndiffatk
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run
from resalign.data.prompts import Prompt
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from tests.nearness import assert_near

from .recorded import Recorded, attacked


def prompted(loaded: LoadedPipeline, data: AttackData, **settings: Any) -> tuple[tuple[Prompt, ...], Recorded]:
    found = attacked(unlearndiffatk, loaded, data, **{"steps": 3, "batch_size": 8, **settings})
    return found.prompts[max(found.prompts)], found


def test_the_projection_is_the_nearest_point_of_the_simplex() -> None:
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = unlearndiffatk.project(rows)
    assert found.min() >= 0
    assert_near(found.sum(dim=1), torch.ones(20, dtype=torch.float64), 1e-12)
    # Of a convex set: no corner lies on the outer side of the plane through the projection, at right angles to the way.
    way = rows - found
    beyond = way - (way * found).sum(dim=1, keepdim=True)
    assert beyond.max() <= 1e-12
    assert_near(unlearndiffatk.project(found), found, 1e-12)


def test_shares_descend_and_the_best_words_are_kept(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    data = AttackData(attack_data.train, attack_data.train, prompts=attack_data.prompts[:1])
    (prompt,), found = prompted(loaded, data, steps=20, heldout_batch_size=64)
    losses, heldout = list(found.history("train_loss").values()), found.history("heldout_loss")
    # One sample of noise and timesteps, so that all losses can be compared.
    assert sum(losses[-5:]) / 5 < min(losses[:5])
    stream = Run(0).generator("attack", "unlearndiffatk", prompt.id, "noise")
    batch = unlearndiffatk.target_of(data.prompts[0], data, Run(0)).draw_stratified(8, stream)
    # In float32; of a relaxed prompt the embedding is the text's up to rounding.
    assert unlearndiffatk.heldout_loss(loaded, [prompt], batch) == pytest.approx(min(losses), rel=1e-5)
    # It carries over to other noise, timesteps and images.
    assert heldout[20] < heldout[0]


def test_a_prompts_words_do_not_depend_on_the_other_prompts(loaded: LoadedPipeline, attack_data: AttackData) -> None:
    together, _ = prompted(loaded, attack_data)
    for prompt, expected in zip(attack_data.prompts, together, strict=True):
        alone = AttackData(attack_data.train, attack_data.heldout, prompts=(prompt,))
        assert prompted(loaded, alone)[0] == (expected,)


def test_prompts_keep_their_ids_and_texts_behind_whole_words_that_are_allowed(
    loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    # Nearly every word has one of these letters; ten words without them are no chance.
    prompts, _ = prompted(loaded, attack_data, forbidden=list("Aiou"))
    words = set(unlearndiffatk.Words.of(loaded).words)
    for plain, prompt in zip(attack_data.prompts, prompts, strict=True):
        *added, rest = prompt.text.split(" ", 5)
        assert (prompt.id, rest) == (plain.id, plain.text)
        assert set(added) <= words
        assert len(added) == 5
        assert not set("".join(added)) & set("aiou")


@pytest.mark.parametrize(
    ("settings", "prompts", "message"),
    [
        ({}, (), "name a list that has some as 'prompts'"),
        ({"tokens": 10}, (Prompt("a", "a seven"),), "tokens: 10 leave no room for a prompt: the text encoder reads 10"),
        ({"forbidden": list(string.ascii_lowercase)}, (Prompt("a", "a seven"),), "leaves no word of the vocabulary"),
    ],
)
def test_what_cannot_be_attacked_is_refused(
    loaded: LoadedPipeline, attack_data: AttackData, settings: dict[str, Any], prompts: tuple[Prompt, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prompted(loaded, AttackData(attack_data.train, attack_data.heldout, prompts=prompts), **settings)


def test_a_prompts_target_is_an_image_of_its_own_where_there_is_one(
    encoded_images: EncodedImages, attack_data: AttackData
) -> None:
    data = AttackData(encoded_images, attack_data.heldout)
    named = [encoded_images.latents[index] for index in (1, 5)]  # of the caption "a blue seven"
    found = [unlearndiffatk.target_of(Prompt(str(i), "a blue seven"), data, Run(0)).latents[0] for i in range(8)]
    assert all(any(torch.equal(one, latents) for latents in named) for one in found)
    assert not all(torch.equal(one, found[0]) for one in found)
    others = [unlearndiffatk.target_of(Prompt(str(i), "days in a week"), data, Run(0)).latents[0] for i in range(8)]
    assert not all(any(torch.equal(one, latents) for latents in named) for one in others)
