"""What is special about AdvUnlearn: the text encoder is trained, at prompts that an adversary has changed."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from resalign.config.concept import ConceptPrompts
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.soft_prompts import Words, embed_behind
from resalign.tensors.params import Params, detached, norm
from resalign.unlearning import advunlearn
from resalign.unlearning._partial_sampling import sampled
from tests.nearness import assert_near, differing

QUICK = {"num_inference_steps": 4, "batch_size": 2, "retain_batch_size": 2, "warm_up": 0, "attack_steps": 2}
SEVEN = "a red seven"


def config_of(**settings: Any) -> advunlearn.Config:
    return advunlearn.Config.parse({**QUICK, **settings}, where="test")


def first_step(
    loaded: LoadedPipeline, data: UnlearningData, config: advunlearn.Config, **arguments: Any
) -> tuple[Params, dict[str, float]]:
    """The gradient of one step in all weights of the text encoder, and what is logged."""
    variables = detached(advunlearn.text_weights(loaded), requires_grad=True)
    direction = advunlearn.attacked_gradient(loaded, data, config, **arguments)
    found, logged = direction(variables, variables, Run(0).generator("step"))
    return found, dict(logged)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_without_an_attack_it_is_esd_on_the_text_encoder(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, eta: float
) -> None:
    data = replace(unlearning_data, concepts=(ConceptPrompts(prompts=(SEVEN,)),))
    config = config_of(attack_steps=0, retain_weight=0.0, negative_guidance=eta)
    found, logged = first_step(loaded, data, config)
    # The same with modules that hold their own gradients.
    stream = Run(0).generator("step")
    torch.randint(1, (1,), generator=stream)  # the step's prompt, of one
    concept, empty = loaded.encode_prompts([SEVEN]).expand(2), loaded.unconditional(2)
    batch = sampled(loaded, config, {}, concept, empty, stream)
    encoder, tokenizer = copy.deepcopy(loaded.pipeline.text_encoder).requires_grad_(True), loaded.pipeline.tokenizer
    ids = tokenizer([SEVEN], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids

    def predicted(hidden_states: torch.Tensor) -> torch.Tensor:
        prediction: torch.Tensor = loaded.denoiser(batch.noisy_latents, batch.timesteps, hidden_states).sample
        return prediction

    named, unnamed = predicted(concept.encoder_hidden_states), predicted(empty.encoder_hidden_states)
    loss = (predicted(encoder(ids)[0].expand(2, -1, -1)) - (1 + eta) * unnamed + eta * named).square().mean()
    loss.backward()
    assert_near(logged["erasure_loss"], loss, 1e-4)
    expected = {f"text_encoder.{name}": parameter.grad for name, parameter in encoder.named_parameters()}
    assert_near(found, expected, 1e-3)


def test_the_warm_up_is_without_the_adversary(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    taken = {"steps": 0}
    warm = first_step(loaded, unlearning_data, config_of(warm_up=1), taken=taken)[0]
    assert taken == {"steps": 1}
    unattacked = first_step(loaded, unlearning_data, config_of(attack_steps=0))[0]
    assert not differing(warm, unattacked)
    found, logged = first_step(loaded, unlearning_data, config_of(warm_up=1), taken=taken)
    assert differing(found, unattacked)
    assert logged["attack_loss"] > 0


@pytest.mark.parametrize("sign", [False, True])
def test_the_adversary_comes_nearer_to_the_originals_prediction(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, sign: bool
) -> None:
    weights = advunlearn.text_weights(loaded)
    # A text encoder that has unlearned, so that there is a way back.
    erased = {name: tensor + 0.1 if ".mlp." in name else tensor for name, tensor in weights.items()}
    concept = loaded.encode_prompts([SEVEN]).expand(16)
    stream = Run(7).generator("frozen")
    batch = replace(unlearning_data.forget.draw_stratified(16, stream), conditioning=concept)
    losses = []
    for steps in (0, 40):
        config = config_of(attack_steps=steps, attack_lr=3e-2, attack_tokens=2, attack_sign=sign)
        vectors, text, _ = advunlearn.attack(loaded, erased, SEVEN, config, Run(0).generator("attack"))
        assert text.endswith(SEVEN)
        attacked = embed_behind(loaded, vectors, text, erased).expand(16)
        with torch.no_grad():
            losses.append(float(advunlearn.distance(loaded, batch, attacked)))
    assert losses[1] < 0.9 * losses[0]


def test_soft_tokens_that_are_words_are_those_words(loaded: LoadedPipeline) -> None:
    words, chosen = Words.of(loaded), torch.tensor([3, 30])
    text = words.text(chosen, SEVEN)
    vectors = {name: table[chosen] for name, table in words.tables.items()}
    found = embed_behind(loaded, vectors, text, {}).encoder_hidden_states
    assert_near(found, loaded.encode_prompts([text]).encoder_hidden_states, 1e-6)
    moved = embed_behind(loaded, {name: rows + 1 for name, rows in vectors.items()}, text, {}).encoder_hidden_states
    assert torch.equal(moved[:, 0], found[:, 0])  # the start token, which sees no other
    assert (moved[:, 1:] - found[:, 1:]).abs().amax(dim=-1).min() > 0


def test_layers_and_the_last_norm_of_text_encoders_are_trained_alone(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    before = {name: tensor.clone() for name, tensor in loaded.denoiser.state_dict().items()}
    weights = advunlearn.text_weights(loaded)
    changed = advunlearn.unlearn(loaded, unlearning_data, config_of(steps=2), Run(0))
    assert set(differing(changed, {name: weights[name] for name in changed})) == set(changed)
    assert {name for name in weights if name not in changed} == {
        "text_encoder.embeddings.token_embedding.weight",
        "text_encoder.embeddings.position_embedding.weight",
    }
    assert not differing(loaded.denoiser.state_dict(), before)


def test_a_concept_that_is_no_prompt_has_neither_loss_nor_gradient(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    config = config_of(attack_steps=0)
    nothing = replace(unlearning_data, concepts=(ConceptPrompts(prompts=("",)),))
    found, logged = first_step(loaded, nothing, config)  # the retain prompts, too, are where they were
    of_concept, loss = first_step(loaded, unlearning_data, config)
    assert logged["erasure_loss"] < 1e-8 * loss["erasure_loss"]
    assert logged["retain_loss"] < 1e-8 * loss["erasure_loss"]
    assert norm(found) < 1e-3 * norm(of_concept)


def test_a_large_retain_weight_keeps_retain_prompts_where_they_were(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    prompts = list(unlearning_data.retain_prompts)
    before = loaded.encode_prompts(prompts).encoder_hidden_states
    drift = []
    for weight in (0.0, 100.0):
        config = config_of(steps=30, lr=3e-3, attack_steps=0, retain_weight=weight)
        changed = advunlearn.unlearn(loaded, unlearning_data, config, Run(0))
        with torch.no_grad():
            after = loaded.encode_prompts(prompts, changed).encoder_hidden_states
        drift.append(float((after - before).square().mean()))
    assert drift[1] < 0.5 * drift[0]


def test_retain_prompts_are_needed_for_their_term_alone() -> None:
    assert advunlearn.Config().needs() == ("retain_prompts",)
    assert advunlearn.Config(retain_weight=0.0).needs() == ()
