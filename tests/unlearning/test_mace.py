"""MACE: its closed forms against a library's least squares, the words that it maps, what its LoRAs learn."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.attention import concept_attention_loss
from resalign.running.attempt import Attempt, Interrupted
from resalign.running.folder import StateFolder
from resalign.unlearning import mace
from resalign.unlearning._cross_attention import Tokens, gram, projections, ridge
from tests.nearness import assert_near, differing
from tests.pipelines import KINDS
from tests.unlearning.least_squares import least_squares, near, random
from tests.weight_names import of_denoiser

Weights = dict[str, torch.Tensor]
SMALL: dict[str, Any] = {"steps": 2, "damping": 0.1, "templates": ["a photo of {}", "{} in a print"]}


def trained(loaded: LoadedPipeline, data: UnlearningData, **settings: Any) -> tuple[Weights, Run]:
    run = Run(0)
    weights = mace.unlearn(loaded, data, mace.Config.parse({**SMALL, **settings}, where="test"), run)
    return of_denoiser(loaded, weights), run


def about(data: UnlearningData, *concepts: tuple[tuple[str, ...], str]) -> UnlearningData:
    return replace(data, concepts=tuple(ConceptPrompts(prompts=prompts, substitute=s) for prompts, s in concepts))


def original(loaded: LoadedPipeline) -> Weights:
    weights = named_weights(loaded.denoiser)
    return {name: weights[name] for name in projections(weights)}


# --- stage 1 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pipeline_kind", [kind for kind in KINDS if kind in mace.ARCHITECTURES], indirect=True, scope="session"
)
def test_refinement_maps_the_words_around_the_concept_to_the_substitutes(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    # start a photo of | red seven | end and padding, and start a photo of | dog | the same, one position earlier.
    texts = ["a photo of red seven", "a photo of dog", "red seven in a print", "dog in a print", "two", "a zero"]
    old, new, old_2, new_2, *retained = loaded.encode_prompts(texts).encoder_hidden_states.double()
    data = replace(about(unlearning_data, (("red seven",), "dog")), retain_prompts=("two", "a zero"))
    weights, run = trained(loaded, data, steps=0, prior_weight=0.3)
    keys, mapped = torch.cat([old[:4], old[6:]]), torch.cat([new[:4], new[5:-1]])
    keys_2, mapped_2 = torch.cat([old_2[:1], old_2[3:]]), torch.cat([new_2[:1], new_2[2:-1]])
    for name, start in original(loaded).items():
        w = start.double()
        blocks = [(1.0, keys, mapped @ w.T), (1.0, keys_2, mapped_2 @ w.T), near(0.1, w)]
        blocks += [(0.3, kept, kept @ w.T) for kept in retained]
        refined = least_squares(blocks)
        # Stage 3 without a LoRA: the prior pulls from W₁ to W₀.
        fused = [(1.0, e, e @ refined.T) for e in (old, old_2)] + [(0.3, kept, kept @ w.T) for kept in retained]
        assert_near(weights[name], least_squares([*fused, near(0.1, refined)]), 1e-5)
    assert run.history.last("refinement_condition_number") > 1
    assert run.history.last("fusion_condition_number") > 1


@pytest.mark.parametrize("concepts", [10, 100])
def test_refinement_of_many_concepts_is_the_least_squares_of_their_sentences(concepts: int) -> None:
    start, prior = random(7, 24), random(30, 24, seed=1)
    old, new = random(concepts, 6, 24, seed=2), random(concepts, 6, 24, seed=3)
    # Start, a word, the concept's or the substitute's own, then end and padding.
    sentences = [
        mace.Sentences(("a word",), [Tokens((0, 1, 3, 2), e)], [Tokens((0, 1, 4, 2), guide)], (2,), (3,))
        for e, guide in zip(old, new, strict=True)
    ]
    change, _ = mace.refinement(sentences, 0.2 * gram(prior), 0.3)
    keys, guides = (e[:, [0, 1, 3, 4, 5]].flatten(0, 1) for e in (old, new))
    blocks = [(1.0, keys, guides @ start.T), (0.2, prior, prior @ start.T), near(0.3, start)]
    assert_near(start + start @ change, least_squares(blocks), 1e-8)


def test_a_concept_that_is_its_substitute_and_no_step_change_no_bit(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    data = about(unlearning_data, (("red seven",), "red seven"))
    weights, _ = trained(loaded, data, steps=0, prior_weight=0.0)
    assert not differing(weights, original(loaded))


def test_a_singular_system_is_refused(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    # The tiny text encoder's last layer norm makes all embeddings sum to 0.
    with pytest.raises(ConfigError, match="mace's refinement: the keys span less than the 16 dimensions"):
        trained(loaded, unlearning_data, damping=0.0)


# --- stage 2 ----------------------------------------------------------------------------------------------------------


def test_the_concepts_tokens_are_found_in_every_sentence(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    concept = ConceptPrompts(prompts=("Red seven", "nine"), substitute="dog")
    sentences = mace.sentences_of(loaded, concept, ("a photo of {}", "{} in a print"))
    assert sentences.texts == ("a photo of Red seven", "a photo of nine", "Red seven in a print", "nine in a print")
    rows = sentences.concept_tokens(use_pooler=False)
    assert [row.nonzero().flatten().tolist() for row in rows] == [[4, 5], [4], [1, 2], [1]]
    pooled = sentences.concept_tokens(use_pooler=True) & ~rows
    # The end tokens stand behind 5, 4, 5 and 4 words, of twelve positions.
    assert [row.nonzero().flatten().tolist() for row in pooled] == [list(range(n, 12)) for n in (6, 5, 6, 5)]
    # What it shares with its substitute is not the concept's.
    concept = ConceptPrompts(prompts=("a red seven",), substitute="a red dog")
    rows = mace.sentences_of(loaded, concept, ("a photo of {}", "{} in a print")).concept_tokens(use_pooler=False)
    assert [row.nonzero().flatten().tolist() for row in rows] == [[6], [3]]


def test_a_concept_without_a_word_of_its_own_is_refused(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    with pytest.raises(ConfigError, match="mace: the substitute leaves no word of 'a photo of seven' out"):
        trained(loaded, about(unlearning_data, (("seven",), "red seven")))


def test_a_lora_takes_attention_off_the_concept(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    settings = {"steps": 40, "lr": 3e-2, "rank": 2, "use_pooler": False, "prior_weight": 0.0, "max_grad_norm": None}
    data = about(unlearning_data, (("red seven",), "dog"))
    batch = data.forget.draw_stratified(16, Run(7).generator("test"))
    batch = replace(batch, conditioning=loaded.encode_prompts(["a photo of red seven"] * 16))
    tokens = torch.zeros(16, 12, dtype=torch.bool)
    tokens[:, 4:6] = True

    def looked(weights: Weights) -> float:
        every = {**named_weights(loaded.denoiser), **weights}
        with torch.no_grad():
            return float(concept_attention_loss(loaded.denoiser, every, batch, tokens))

    before, _ = trained(loaded, data, **{**settings, "steps": 0})
    after, run = trained(loaded, data, **settings)
    assert looked(after) < 0.7 * looked(before)
    losses = [value for _, name, value in run.history.rows if name == "attention_loss"]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_masks_restrict_the_attention_that_is_trained(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    def losses(masks: torch.Tensor, **settings: Any) -> list[float]:
        _, run = trained(loaded, replace(unlearning_data, masks=masks), **settings)
        return [value for _, name, value in run.history.rows if name == "attention_loss"]

    everywhere, nowhere = torch.ones(4, 8, 8), torch.zeros(4, 8, 8)
    assert losses(nowhere, use_masks=True) == [0.0, 0.0]
    assert losses(everywhere, use_masks=True) == losses(nowhere)
    with pytest.raises(ValueError, match="needs the masks of the forget set"):
        trained(loaded, replace(unlearning_data, masks=None), use_masks=True)
    assert mace.Config(use_masks=True).needs() == ("substitute", "retain_prompts", "masks")
    assert mace.Config(prior_weight=0.0).needs() == ("substitute",)


def test_each_concept_has_its_own_lora_on_its_own_images(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    data = about(unlearning_data, (("red seven",), "dog"), (("Blue seven",), "cat"))
    assert data.forget.prompts == ("a red seven", "a blue seven") * 2
    assert [mace.images_of(data, index).tolist() for index in (0, 1)] == [[0, 2], [1, 3]]
    within = about(unlearning_data, (("even", "RED"), "dog"), (("seven",), "cat"))  # 'seven' does not name 'even'
    assert [mace.images_of(within, index).tolist() for index in (0, 1)] == [[0, 2], [0, 1, 2, 3]]
    _, run = trained(loaded, data)
    assert [step for step, name, _ in run.history.rows if name == "attention_loss"] == [1, 2, 3, 4]  # after stage 1
    with pytest.raises(ConfigError, match=r"no image to forget has a caption with one of \['green'\]"):
        trained(loaded, about(unlearning_data, (("red",), "dog"), (("green",), "cat")))


@pytest.mark.parametrize("loop", [0, 1, 2])
def test_a_run_that_stops_in_any_concepts_loop_keeps_the_loras_before_it(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path, loop: int
) -> None:
    data = about(unlearning_data, (("red seven",), "dog"), (("blue",), "cat"), (("seven",), "one"))
    config, loops, now = mace.Config.parse({**SMALL, "lr": 1e-2}, where="test"), itertools.count(), [0.0]

    def late(steps: range) -> Iterator[int]:
        now[0] = 10.0 if next(loops) == loop else 0.0
        yield from steps

    with StateFolder(tmp_path, {}) as state:
        stopped = Run(0, progress=late, attempt=Attempt(state, deadline=5.0, clock=lambda: now[0]))
        with pytest.raises(Interrupted, match=f"concept {loop} 1 of 2"):
            mace.unlearn(loaded, data, config, stopped)
    with StateFolder(tmp_path, {}) as state:
        run = Run(0, attempt=Attempt(state))
        resumed = mace.unlearn(loaded, data, config, run)
    weights, whole = trained(loaded, data, lr=1e-2)
    assert not differing(of_denoiser(loaded, resumed), weights)
    assert run.history.rows == whole.history.rows


def test_focused_timesteps_lie_between_200_and_400_of_1000() -> None:
    assert torch.equal(mace.position_weights(mace.Config(), 7), torch.ones(7))
    weights = mace.position_weights(mace.Config(timesteps="focused"), 1000)
    assert int(weights.argmax()) == 300
    assert float(weights[200]) == pytest.approx(0.5, abs=1e-3)
    assert float(weights[150:450].sum() / weights.sum()) > 0.96
    assert_near(mace.position_weights(mace.Config(timesteps="focused"), 500), weights[::2], 1e-5)


# --- stage 3 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concepts", [1, 10, 100])
def test_fusion_is_the_least_squares_of_all_loras(concepts: int) -> None:
    refined, start, prior = random(7, 24), random(7, 24, seed=1), random(30, 24, seed=2)
    changes = [random(7, 24, seed=10 + i) for i in range(concepts)]
    sentences = [random(15, 24, seed=20 + i) for i in range(concepts)]
    grams, weighted = [gram(e) for e in sentences], 0.2 * gram(prior)
    found = mace.fusion(refined, start, changes, grams, weighted, ridge(sum(grams, weighted), 0.3, what="test"))
    blocks = [(1.0, e, e @ (refined + change).T) for e, change in zip(sentences, changes, strict=True)]
    blocks += [(0.2, prior, prior @ start.T), near(0.3, refined)]
    assert_near(found, least_squares(blocks), 1e-8)


def test_fusion_of_one_lora_without_prior_is_the_lora() -> None:
    refined, change, sentences = random(7, 24), random(7, 24, seed=1), gram(random(40, 24, seed=2))
    system = ridge(sentences, 0.0, what="test")
    none = torch.zeros(24, 24, dtype=torch.float64)
    found = mace.fusion(refined, random(7, 24, seed=3), [change], [sentences], none, system)
    assert_near(found, refined + change, 1e-10)


def test_the_lora_of_one_concept_is_what_stage_three_receives(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    # With a vanishing ridge W* = W₁ + ΔW where sentences reach, and ΔW has rank one. Keys only: no attention map
    # depends on the last layer's values.
    settings = {"lr": 1e-2, "damping": 1e-9, "prior_weight": 0.0}
    data = about(unlearning_data, (("red seven",), "dog"))
    refined, _ = trained(loaded, data, **{**settings, "steps": 0})
    weights, _ = trained(loaded, data, **settings)
    for name in (name for name in weights if name.endswith("to_k.weight")):
        values = np.linalg.svd((weights[name] - refined[name]).double().numpy(), compute_uv=False)
        assert values[0] > 1e-3
        assert values[1] < 1e-3 * values[0]


def test_templates_must_have_a_place_for_the_concept() -> None:
    assert len(set(mace.TEMPLATES)) == 30
    assert all(template.count("{}") == 1 for template in mace.TEMPLATES)
    for template in ("a photo", "{} beside {}"):  # of two places the second's tokens would not be the concept's
        with pytest.raises(ConfigError, match="templates"):
            mace.Config.parse({"templates": [template]}, where="test")
