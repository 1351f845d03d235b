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
from resalign.diffusion.models import Models


def attacked(models: Models, data: AttackData, **settings: Any) -> tuple[tuple[Prompt, ...], Run]:
    run, saved = Run(0), []
    config = unlearndiffatk.Config.parse({"prompts": "unsafe", "steps": 3, **settings}, where="test")
    unlearndiffatk.attack(models, data, config, run, lambda step, weights, lora, prompts: saved.append(prompts))
    return tuple(saved[-1]), run


def test_the_projection_is_the_nearest_point_of_the_simplex() -> None:
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = unlearndiffatk.project(rows)
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(dim=1), torch.ones(20, dtype=torch.float64), rtol=0, atol=1e-12)
    # Of a convex set: no corner lies on the outer side of the plane through the projection, at right angles to the way.
    way = rows - found
    beyond = way - (way * found).sum(dim=1, keepdim=True)
    assert beyond.max() <= 1e-12
    torch.testing.assert_close(unlearndiffatk.project(found), found, rtol=0, atol=1e-12)


def test_the_words_lower_the_loss_that_they_are_chosen_by(models: Models, attack_data: AttackData) -> None:
    # One image, seen and held out, so that the loss behind the words is that which they descend.
    image = attack_data.train.subset(torch.tensor([0]))
    data = AttackData(image, image, None, attack_data.prompts[:1])
    _, run = attacked(models, data, steps=10, lr=0.2, batch_size=32)
    heldout = {step: value for step, name, value in run.history.rows if name == "heldout_loss"}
    assert heldout[10] < heldout[0]
    words = unlearndiffatk.Words.of(models)
    batch = image.draw_stratified(64, Run(0).generator("attack", "heldout"))
    at_random = [
        unlearndiffatk.heldout_loss(models, [Prompt("", words.text(chosen, data.prompts[0].text))], batch)
        for chosen in torch.randint(len(words), (5, 5), generator=torch.Generator().manual_seed(0))
    ]
    assert heldout[10] < min(at_random)


def test_a_prompts_words_do_not_depend_on_the_other_prompts(models: Models, attack_data: AttackData) -> None:
    together, _ = attacked(models, attack_data)
    for prompt, expected in zip(attack_data.prompts, together, strict=True):
        alone = AttackData(attack_data.train, attack_data.heldout, None, (prompt,))
        assert attacked(models, alone)[0] == (expected,)


def test_prompts_keep_their_ids_and_texts_behind_whole_words(models: Models, attack_data: AttackData) -> None:
    prompts, _ = attacked(models, attack_data, tokens=3)
    words = set(unlearndiffatk.Words.of(models).words)
    for plain, prompt in zip(attack_data.prompts, prompts, strict=True):
        first, second, third, rest = prompt.text.split(" ", 3)
        assert {first, second, third} <= words
        assert (prompt.id, rest) == (plain.id, plain.text)


def test_forbidden_words_never_appear(models: Models, attack_data: AttackData) -> None:
    # Nearly every word has one of these; ten words without them are no chance.
    prompts, _ = attacked(models, attack_data, forbidden=list("Aiou"))
    added = [prompt.text.removesuffix(plain.text) for plain, prompt in zip(attack_data.prompts, prompts, strict=True)]
    assert all(len(words.split()) == 5 and not set(words) & set("aiou") for words in added)


@pytest.mark.parametrize(
    ("settings", "prompts", "message"),
    [
        ({}, (), "name a list that has some as 'prompts'"),
        ({"tokens": 10}, (Prompt("a", "a seven"),), "tokens: 10 leave no room for a prompt: the text encoder reads 10"),
        ({"forbidden": list(string.ascii_lowercase)}, (Prompt("a", "a seven"),), "leaves no word of the vocabulary"),
    ],
)
def test_what_cannot_be_attacked_is_refused(
    models: Models, attack_data: AttackData, settings: dict[str, Any], prompts: tuple[Prompt, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        attacked(models, AttackData(attack_data.train, attack_data.heldout, None, prompts), **settings)


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
