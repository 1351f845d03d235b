"""Relaxed words: text and embeddings are one, and the gradient is that of mixing embeddings."""

from dataclasses import replace

import pytest
import torch

from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.soft_prompts import Words
from tests.nearness import assert_near
from tests.pipelines import WITH_T5

CHOSEN = torch.tensor([5, 17_000, 200])
KINDS = ["stable_diffusion", WITH_T5]


@pytest.fixture(scope="module")
def words(loaded: LoadedPipeline) -> Words:
    return Words.of(loaded)


@pytest.mark.parametrize("pipeline_kind", KINDS, indirect=True, scope="session")
def test_words_embed_as_the_text_that_they_are(loaded: LoadedPipeline, words: Words) -> None:
    shares = torch.full((3, len(words)), 1 / len(words), requires_grad=True)
    found = words.embed(loaded, CHOSEN, shares, "a red two")
    expected = loaded.encode_prompts([words.text(CHOSEN, "a red two")])
    assert found.encoder_hidden_states.requires_grad
    # With a gradient, attention may take another kernel.
    assert_near(found.encoder_hidden_states, expected.encoder_hidden_states, 1e-5)
    assert found.added.keys() == expected.added.keys()
    for name, tensor in expected.added.items():
        assert_near(found.added[name], tensor, 1e-5)
    # No hook stays behind.
    again = loaded.encode_prompts([words.text(CHOSEN, "a red two")]).encoder_hidden_states
    assert torch.equal(again, expected.encoder_hidden_states)


def test_every_word_is_read_as_its_own_entry(loaded: LoadedPipeline, words: Words) -> None:
    tokenizer, vocabulary = loaded.pipeline.tokenizer, loaded.pipeline.tokenizer.get_vocab()
    assert len(words) > 30_000  # of CLIP's 49,408 entries
    for rows in torch.arange(len(words)).split(5000):
        ids = tokenizer(words.text(rows, "two"), add_special_tokens=False, truncation=False, verbose=False).input_ids
        assert ids == [vocabulary[f"{words.words[row]}</w>"] for row in rows.tolist()] + [vocabulary["two</w>"]]
    table = loaded.pipeline.text_encoder.get_input_embeddings().weight
    row = words.words.index("seven")
    assert torch.equal(words.tables["text_encoder"][row], table[vocabulary["seven</w>"]])


def test_the_gradient_is_that_of_mixing_embeddings(loaded: LoadedPipeline, words: Words) -> None:
    place, other = 1, 123
    direction = torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(0))

    def value(words: Words, shares: torch.Tensor) -> torch.Tensor:
        return (words.embed(loaded, CHOSEN, shares, "a red two").encoder_hidden_states * direction).sum()

    shares = torch.nn.functional.one_hot(CHOSEN, len(words)).float().requires_grad_()
    (gradient,) = torch.autograd.grad(value(words, shares), shares)
    # Moving the chosen word's embedding towards the other's is moving its share there.
    table, chosen = words.tables["text_encoder"], int(CHOSEN[place])
    values = []
    for amount in (-1e-2, 1e-2):
        moved = table.clone()
        moved[chosen] += amount * (table[other] - table[chosen])
        values.append(value(replace(words, tables={"text_encoder": moved}), shares.detach()).item())
    slope = (values[1] - values[0]) / 2e-2
    assert abs(slope) > 1e-3
    assert (gradient[place, other] - gradient[place, chosen]).item() == pytest.approx(slope, rel=1e-2)
