"""UCE and RECE: their closed forms against a library's least squares, their limits, their tokens."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.unlearning import rece, uce
from resalign.unlearning._cross_attention import embed, gram, projections, remapping, ridge
from tests.nearness import assert_near, differing
from tests.pipelines import KINDS
from tests.unlearning.least_squares import least_squares, near, random
from tests.weight_names import of_denoiser

Weights = dict[str, torch.Tensor]
with_each_text_encoder = pytest.mark.parametrize(
    "pipeline_kind", [kind for kind in KINDS if kind in uce.ARCHITECTURES], indirect=True, scope="session"
)


def edited(loaded: LoadedPipeline, method: Any, data: UnlearningData, **settings: Any) -> tuple[Weights, Run]:
    run = Run(0)
    weights = method.unlearn(loaded, data, method.Config.parse(settings, where="test"), run)
    return of_denoiser(loaded, weights), run


def original(loaded: LoadedPipeline) -> Weights:
    weights = named_weights(loaded.denoiser)
    return {name: weights[name] for name in projections(weights)}


def about(data: UnlearningData, *prompts: str, substitute: str = "a one") -> UnlearningData:
    return replace(data, concepts=(ConceptPrompts(prompts=prompts, substitute=substitute),))


# --- the edit as a function of matrices -------------------------------------------------------------------------------


@pytest.mark.parametrize("concepts", [1, 10, 100])
def test_the_edit_is_the_least_squares_of_the_stacked_system(concepts: int) -> None:
    start, keys, guides = random(7, 24), random(concepts, 24, seed=1), random(concepts, 24, seed=2)
    kept = random(5, 24, seed=3)
    system = ridge(2.0 * gram(keys) + 0.3 * gram(kept), 0.5, what="test")
    found = start + start @ remapping(2.0**0.5 * keys, 2.0**0.5 * guides, system)
    blocks = [(2.0, keys, guides @ start.T), (0.3, kept, kept @ start.T), near(0.5, start)]
    assert_near(found, least_squares(blocks), 1e-8)


@pytest.mark.parametrize(("concepts", "width"), [(3, 24), (10, 24), (100, 128)])
def test_the_limits_of_lambda(concepts: int, width: int) -> None:
    start, keys, guides = random(7, width), random(concepts, width, seed=1), random(concepts, width, seed=2)

    def found(damping: float) -> torch.Tensor:
        return start + start @ remapping(keys, guides, ridge(gram(keys), damping, what="test"))

    assert_near(found(1e14), start, 1e-10)
    assert_near(found(1e-9) @ keys.T, start @ guides.T, 1e-8)  # without λ each concept has its guide's values
    difference = found(0.5) - start
    assert int(torch.linalg.matrix_rank(difference)) == min(concepts, 7)  # at most as many directions as erased vectors
    apart = random(width, seed=4)
    apart = apart - torch.linalg.pinv(keys) @ (keys @ apart)
    assert_near(difference @ apart, torch.zeros(7), 1e-12, scale=difference)


def test_a_singular_system_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rece at epoch 1: the keys span less than the 24 dimensions .* set damping"):
        ridge(gram(random(23, 24)), 0.0, what="rece at epoch 1")
    keys = random(24, 24)
    condition = ridge(gram(keys), 0.0, what="test").condition
    assert condition == pytest.approx(float(torch.linalg.cond(keys)) ** 2, rel=1e-6)


# --- UCE --------------------------------------------------------------------------------------------------------------


@with_each_text_encoder
def test_uce_gives_the_last_word_the_values_of_no_prompt(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    # 'red seven' is 'start, red, seven, end': the last word is at 2. No prompt's is the start token.
    data = about(unlearning_data, "red seven")
    key = loaded.encode_prompts(["red seven"]).encoder_hidden_states[0, 2].double()
    guide = loaded.unconditional(1).encoder_hidden_states[0, 0].double()
    weights, run = edited(loaded, uce, data, damping=0.25)
    for name, start in original(loaded).items():
        expected = least_squares([(1.0, key[None], (start.double() @ guide)[None]), near(0.25, start.double())])
        assert_near(weights[name], expected, 1e-6)  # cast to float32
    assert run.history.last("condition_number") == pytest.approx(float(1 + key @ key / 0.25), rel=1e-9)


@with_each_text_encoder
def test_uce_aligned_edits_every_token_from_the_last_word_on(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    data = about(unlearning_data, "red seven", substitute="one")
    old, new, retained = loaded.encode_prompts(["red seven", "one", "two"]).encoder_hidden_states.double()
    empty = loaded.unconditional(1).encoder_hidden_states[0].double()
    data = replace(data, retain_prompts=("two",))
    weights, _ = edited(loaded, uce, data, tokens="aligned", guide="substitute", keep=True)
    for name, start in original(loaded).items():
        w = start.double()
        # From 'seven', at 2, to the end; from 'one', at 1, as many. b = 1/2 for no prompt and 'two'.
        blocks = [(1.0, old[2:], new[1:-1] @ w.T), near(0.5, w)]
        blocks += [(0.5, kept, kept @ w.T) for kept in (empty, retained)]
        assert_near(weights[name], least_squares(blocks), 1e-6)


@pytest.mark.parametrize("tokens", ["last", "aligned"])
def test_uce_of_a_concept_that_is_its_substitute_changes_no_bit(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tokens: str
) -> None:
    data = about(unlearning_data, "a red seven", substitute="a red seven")
    weights, _ = edited(loaded, uce, data, tokens=tokens, guide="substitute")
    assert not differing(weights, original(loaded))


def test_uce_keeps_retain_prompts(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    tokens = embed(loaded, unlearning_data.retain_prompts)
    kept = torch.stack([t.embeddings[t.last] for t in tokens])

    def moved(**settings: Any) -> float:
        weights, _ = edited(loaded, uce, unlearning_data, **settings)
        return sum(float(((weights[n].double() - w) @ kept.T).square().sum()) for n, w in original(loaded).items())

    assert moved(keep=True, keep_weight=1e6) < 1e-3 * moved(keep=True) < moved()


def test_a_concept_without_prompts_is_refused(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    with pytest.raises(ConfigError, match="no prompt names the concept; give concept.prompts"):
        edited(loaded, uce, about(unlearning_data))


def test_the_needs_follow_the_settings() -> None:
    assert uce.Config().needs() == ()
    assert uce.Config(guide="substitute", keep=True).needs() == ("substitute", "retain_prompts")
    assert rece.Config(guide="substitute", start=rece.Start(guide="substitute")).needs() == ("substitute",)


# --- RECE -------------------------------------------------------------------------------------------------------------


@with_each_text_encoder
def test_rece_without_an_epoch_is_uce_to_the_bit(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    without, _ = edited(loaded, rece, unlearning_data, epochs=0)
    expected, _ = edited(loaded, uce, unlearning_data, tokens="aligned")
    assert without.keys() == expected.keys()
    assert not differing(without, expected)
    assert differing(edited(loaded, rece, unlearning_data, epochs=1)[0], expected)


@pytest.mark.parametrize("concepts", [1, 10, 100])
def test_found_embeddings_are_the_least_squares_over_all_layers(concepts: int) -> None:
    layers, change = [random(n, 16, seed=n) for n in (5, 9, 11)], 0.1 * random(16, 16, seed=1)
    concept = random(concepts, 16)
    changed = [w + w @ change for w in layers]
    found, residual = rece.reaching(concept, sum(gram(w) for w in layers), change, 0.01)
    stack = torch.cat(changed)  # the equations in c': one row for each output of each layer
    wanted = torch.cat(layers) @ concept.T
    expected = least_squares([(1.0, stack, wanted), near(0.01, torch.zeros_like(concept))])
    assert_near(found, expected, 1e-8)
    assert residual == pytest.approx(float((stack @ expected.T - wanted).square().sum() / wanted.square().sum()))


def test_unedited_layers_are_reached_by_the_concept_itself() -> None:
    layers_gram, concept = gram(random(40, 16)), random(4, 16, seed=1)
    found, residual = rece.reaching(concept, layers_gram, torch.zeros(16, 16, dtype=torch.float64), 1e-9)
    assert_near(found, concept, 1e-8)
    assert residual < 1e-16


@pytest.mark.parametrize("prompts", [("red seven",), ("red seven", "two")])
def test_rece_edits_the_found_embeddings_relative_to_the_last_weights(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, prompts: tuple[str, ...]
) -> None:
    data = about(unlearning_data, *prompts)
    concept = loaded.encode_prompts(prompts).encoder_hidden_states.double().flatten(0, 1)
    # No prompt is the guide of each, and is kept once for each.
    empty = loaded.unconditional(1).encoder_hidden_states[0].double().repeat(len(prompts), 1)
    layers = {name: w.double() for name, w in original(loaded).items()}
    current = {name: w.double() for name, w in edited(loaded, uce, data, tokens="aligned")[0].items()}
    for _ in range(2):
        stack, wanted = torch.cat(list(current.values())), torch.cat(list(layers.values())) @ concept.T
        found = least_squares([(1.0, stack, wanted), near(0.1, torch.zeros_like(concept))])
        current = {
            name: least_squares([(1.0, found, empty @ w.T), (0.1, empty, empty @ w.T), near(0.1, w)])
            for name, w in current.items()
        }
    weights, _ = edited(loaded, rece, data, epochs=2)
    assert_near(weights, current, 1e-5)  # UCE's weights were cast to float32 on the way


def test_each_epoch_of_rece_makes_the_concept_harder_to_reach(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    _, run = edited(loaded, rece, unlearning_data, epochs=4)
    residuals = [value for _, name, value in run.history.rows if name == "reach_residual"]
    assert residuals == sorted(residuals)
    assert residuals[-1] > 1.5 * residuals[0] > 0
