"""What is special about ESD: its forms of the target, its weights, who samples, one concept a step."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from resalign.config.concept import ConceptPrompts
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.objectives.erasure import erasure_loss
from resalign.tensors.params import Params, detached, norm
from resalign.unlearning import esd
from resalign.unlearning._concept_prompts import draw_rows
from tests.nearness import assert_near, differing

SEVEN = (ConceptPrompts(prompts=("a red seven",)),)


def step(
    loaded: LoadedPipeline, data: UnlearningData, weights: Params, seed: int = 0, **settings: Any
) -> tuple[Params, float]:
    """The gradient of one step in all weights, and its loss."""
    values = {"num_inference_steps": 4, "batch_size": 2, **settings}
    variables = detached(weights, requires_grad=True)
    direction = esd.step_gradient(loaded, data, esd.Config.parse(values, where="test"))
    found, logged = direction(variables, variables, Run(seed).generator("esd"))
    return found, logged["erasure_loss"]


@pytest.mark.parametrize("eta", [0.0, 1.0, 3.0])
def test_a_concept_that_is_no_prompt_has_neither_loss_nor_gradient(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, eta: float
) -> None:
    data = replace(unlearning_data, concepts=(ConceptPrompts(prompts=("",)),))
    found, loss = step(loaded, data, named_weights(loaded.denoiser), negative_guidance=eta)
    named = replace(unlearning_data, concepts=SEVEN)
    of_concept, loss_of_concept = step(loaded, named, named_weights(loaded.denoiser), negative_guidance=eta)
    assert loss < 1e-8 * loss_of_concept
    assert norm(found) < 1e-4 * norm(of_concept)


class Linear(torch.nn.Module):
    """ε = W x + V c of one pixel, c the mean token; the whole function is linear in (x, c)."""

    def __init__(self) -> None:
        super().__init__()
        stream = Run(0).generator("linear")
        self.of_image = torch.nn.Parameter(torch.randn(4, 4, generator=stream))
        self.of_prompt = torch.nn.Parameter(torch.randn(4, 3, generator=stream))

    def forward(self, latents: torch.Tensor, _timesteps: torch.Tensor, tokens: torch.Tensor) -> SimpleNamespace:
        prompt = torch.einsum("oi,bi->bo", self.of_prompt, tokens.mean(dim=1))
        return SimpleNamespace(sample=torch.einsum("oi,bihw->bohw", self.of_image, latents) + prompt[..., None, None])


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.5])
def test_on_a_linear_model_the_minimiser_is_the_target_s_own_map(eta: float) -> None:
    denoiser, stream = Linear(), Run(0).generator("data")
    original = named_weights(denoiser)
    latents = torch.randn((16, 4, 2, 2), generator=stream)
    concept, empty = torch.randn((2, 1, 5, 3), generator=stream).unbind()
    batch = NoisyBatch(latents, torch.zeros(16), Conditioning(concept).expand(16), torch.empty(0))
    weights = detached(original, requires_grad=True)
    optimizer = torch.optim.LBFGS(weights.values(), max_iter=500, tolerance_grad=1e-9, tolerance_change=0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = erasure_loss(denoiser, weights, original, batch, Conditioning(empty).expand(16), eta)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_near(weights["of_image"], original["of_image"], 1e-3)
    steered = empty.mean(dim=1) - eta * (concept - empty).mean(dim=1)  # the prompt that the target amounts to
    found, expected = concept.mean(dim=1) @ weights["of_prompt"].T, steered @ original["of_prompt"].T
    assert_near(found, expected, 1e-3)


@pytest.mark.parametrize("eta", [0.0, 1.0, 3.0])
def test_the_newer_release_s_guidance_counts_one_more(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, eta: float
) -> None:
    data, weights = replace(unlearning_data, concepts=SEVEN), named_weights(loaded.denoiser)
    paper, loss = step(loaded, data, weights, negative_guidance=eta)
    newer, same_loss = step(loaded, data, weights, negative_guidance=eta + 1, erase_from="a red seven")
    assert_near(newer, paper, 1e-4)
    assert_near(same_loss, loss, 1e-4)


def test_erasing_from_another_prompt_trains_that_prompt(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    data, weights = replace(unlearning_data, concepts=SEVEN), named_weights(loaded.denoiser)
    # Steered by nothing the other prompt keeps its own prediction.
    found, loss = step(loaded, data, weights, negative_guidance=0.0, erase_from="a blue two")
    assert loss < 1e-12
    # The steering is the one of the concept, so that at η = 1 the loss is the squared guidance at the same x_t.
    _, loss = step(loaded, data, weights, negative_guidance=1.0, erase_from="a blue two")
    _, doubled = step(loaded, data, weights, negative_guidance=2.0, erase_from="a blue two")
    assert loss > 1e-6
    assert_near(doubled, 4 * loss, 1e-4)
    assert norm(found) < 1e-5


def test_the_sampler_is_the_trained_model_or_the_original(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = named_weights(loaded.denoiser)
    moved = {name: tensor + 0.02 for name, tensor in original.items()}
    unlike = []
    for seed in range(6):
        for weights in (original, moved):
            trained, base = (
                step(loaded, unlearning_data, weights, seed, sampler=sampler)[0] for sampler in ("trained", "base")
            )
            unlike.append(bool(differing(trained, base)))
    assert not any(unlike[::2])
    assert any(unlike[1::2])  # not all: where no step is sampled x_t is the initial noise


def test_a_step_takes_one_concept_and_concepts_are_equally_likely() -> None:
    concepts = [ConceptPrompts(prompts=("a",)), ConceptPrompts(prompts=("b", "c", "d"))]
    stream = Run(0).generator("rows")
    drawn = [set(draw_rows(concepts, 8, stream).tolist()) for _ in range(400)]
    assert all(rows == {0} or rows <= {1, 2, 3} for rows in drawn)
    assert set().union(*drawn) == {0, 1, 2, 3}
    share = sum(rows == {0} for rows in drawn) / 400
    assert abs(share - 0.5) < 5 * 0.025  # five standard deviations of 400 draws


def test_variant_u_is_the_first_release_s_noxattn(loaded: LoadedPipeline) -> None:
    names = set(named_weights(loaded.denoiser))
    left_out = names - set(select(dict.fromkeys(names), esd.SCOPES["u"]))  # type: ignore[arg-type]
    parts = {"attn2" if ".attn2." in name else name.split(".")[0] for name in left_out}
    assert parts == {"attn2", "time_embedding", "conv_norm_out", "conv_out"}
    assert all(name in left_out for name in names if ".attn2." in name or name.split(".")[0] in parts)
    strict = select(dict.fromkeys(names), esd.SCOPES["x-strict"])  # type: ignore[arg-type]
    assert {name.rsplit(".", 2)[1] for name in strict} == {"to_k", "to_v"}
