"""AdvUnlearn: trains the text encoder to erase a concept behind soft tokens that an adversary puts before the prompt.

Source: Zhang 2024, NeurIPS, arXiv 2405.15234; the released code (AdvUnlearn, commit 9d23124). The denoiser is fixed, so
that every x_t is the original model's; the weights returned are the text encoders'.
Deviation: the gradient of the attack is that of its step; the release never sets it to zero, and it accumulates.
Deviation: the attack starts from whole words of letters, not from any entry of the vocabulary, and prompts are counted
in tokens, not in words.
Deviation: the timestep is the partial sampling's next; the release draws one of the 1000/N around it.
Deviation: retain prompts are taken as they are; the release leaves out those that a language model calls related.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from resalign.config.passes import Passes
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.diffusion.prediction import predict
from resalign.diffusion.soft_prompts import Words, embed_behind
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.erasure import steered_loss
from resalign.tensors.params import Params, detached, gradient
from resalign.unlearning._concept_prompts import draw_rows
from resalign.unlearning._descent import Gradient, Logged, descend, of_loss
from resalign.unlearning._partial_sampling import SampledConfig, sampled

# Text encoders of CLIP's kind alone, and x_t is sampled by DDIM.
ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")
TRAINED = (".layers.", "final_layer_norm.")  # not the embeddings of tokens and positions, nor SDXL's projection


class Config(SampledConfig):
    """Published defaults, for nudity."""

    steps: int = Field(1000, ge=0)
    lr: float = Field(1e-5, gt=0)
    negative_guidance: float = Field(1.0, ge=0, description="η of ESD's loss")
    retain_weight: float = Field(0.3, ge=0, description="γ, weight of the distillation on retain prompts")
    retain_batch_size: int = Field(5, gt=0)
    warm_up: int = Field(200, ge=0, description="first steps, which are taken at the prompt itself")
    attack_steps: int = Field(30, ge=0, description="of the adversary, in every step after the warm-up")
    attack_lr: float = Field(1e-3, gt=0)
    attack_tokens: int = Field(1, gt=0, description="k, soft tokens before the prompt")
    attack_sign: bool = Field(False, description="whether the adversary takes its gradient's sign, the fast variant")

    def needs(self) -> tuple[str, ...]:
        """Retain prompts are what is distilled on."""
        return ("retain_prompts",) if self.retain_weight else ()

    @property
    def denoiser_passes(self) -> Passes:
        """Of a step, the mean of those in the warm-up and after it; every prediction has an x_t of its own."""
        attacked = self.attack_steps * max(0, self.steps - self.warm_up) / max(1, self.steps)
        distances = self.batch_size * attacked + self.retain_batch_size * bool(self.retain_weight)
        erasure = Passes(gradient=1, forward=1 + bool(self.negative_guidance)) + self.sampling_passes
        return erasure * self.batch_size + (Passes(gradient=1, forward=1) + self.sampling_passes) * distances


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends ESD's loss at attacked prompts.

    Returns:
        The text encoders' changed weights, by their names in a weight file.
    """
    original = text_weights(loaded)
    names = [name for name in original if any(part in name for part in TRAINED)]
    taken = {"steps": 0}
    direction = attacked_gradient(loaded, data, config, taken)
    return descend(original, names, direction, config, run, method="advunlearn", taken=taken)


def text_weights(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    """The text encoders' weights, named ``component.parameter``."""
    every, prefix = trainable_tensors(loaded.pipeline), f"{loaded.architecture.denoiser}."
    return {name: tensor.detach() for name, tensor in every.items() if not name.startswith(prefix)}


def attacked_gradient(
    loaded: LoadedPipeline, data: UnlearningData, config: Config, taken: dict[str, int] | None = None
) -> Gradient:
    """The gradient of ESD's loss behind an adversary's tokens plus γ times the distillation on retain prompts.

    Args:
        loaded: Supplies networks and noise schedule.
        data: The concepts in words, and the retain prompts.
        config: Weights and batch sizes of the two terms, the adversary's settings, the sampling of x_t.
        taken: The number of ``steps`` so far, counted here; None for none of a warm-up.
    """
    denoiser = loaded.denoiser
    taken = taken if taken is not None else {"steps": config.warm_up}

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        logged: dict[str, float] = {}
        text = data.prompts[int(draw_rows(data.concepts, 1, stream))]
        concept = loaded.encode_prompts([text]).expand(config.batch_size)
        if config.attack_steps and taken["steps"] >= config.warm_up:
            vectors, text_with, attack_loss = attack(loaded, detached(weights), text, config, stream)
            attacked = embed_behind(loaded, vectors, text_with, weights)
            logged["attack_loss"] = attack_loss
        else:
            attacked = loaded.encode_prompts([text], weights)
        taken["steps"] += 1
        empty = loaded.unconditional(config.batch_size)
        batch = sampled(loaded, config, {}, concept, empty, stream)
        at_attacked = replace(batch, conditioning=attacked.expand(config.batch_size))
        erasure = steered_loss(denoiser, {}, {}, at_attacked, empty, [(-config.negative_guidance, concept)])
        logged["erasure_loss"] = erasure.item()
        if not config.retain_weight:
            return erasure, logged
        retain = _retain_loss(loaded, weights, data, config, stream)
        return erasure + config.retain_weight * retain, {**logged, "retain_loss": retain.item()}

    return of_loss(loss)


def attack(
    loaded: LoadedPipeline, weights: Params, prompt: str, config: Config, stream: torch.Generator
) -> tuple[dict[str, torch.Tensor], str, float]:
    """Tokens before a prompt with which the erased model predicts as the original does at the prompt alone.

    Args:
        loaded: Supplies networks and noise schedule.
        weights: The text encoders' weights, detached.
        prompt: The concept's.
        config: Number of tokens and steps, and the sampling of x_t, which is anew in every step.
        stream: Draws the words that the tokens start from, and x_t.

    Returns:
        For each text encoder the tokens' vectors (k, width); a text with words in their places; the last step's loss.
    """
    words = Words.of(loaded)
    chosen = torch.randint(len(words), (config.attack_tokens,), generator=stream)
    text = words.text(chosen, prompt)
    vectors = detached({name: table[chosen] for name, table in words.tables.items()}, requires_grad=True)
    optimizer = torch.optim.Adam(list(vectors.values()), lr=config.attack_lr)
    concept = loaded.encode_prompts([prompt]).expand(config.batch_size)
    empty, value = loaded.unconditional(config.batch_size), torch.zeros(())
    for _ in range(config.attack_steps):
        batch = sampled(loaded, config, {}, concept, empty, stream)
        attacked = embed_behind(loaded, vectors, text, weights)
        value = distance(loaded, batch, attacked.expand(config.batch_size))
        for name, found in gradient(value, vectors).items():
            vectors[name].grad = found.sign() if config.attack_sign else found
        optimizer.step()
    return detached(vectors), text, value.item()


def distance(loaded: LoadedPipeline, batch: NoisyBatch, conditioning: Conditioning) -> torch.Tensor:
    """The mean squared distance of the denoiser's predictions at B other embeddings from those at the batch's own."""
    with torch.no_grad():
        target = predict(loaded.denoiser, {}, batch)
    return denoising_loss(loaded.denoiser, {}, replace(batch, conditioning=conditioning, target=target))


def _retain_loss(
    loaded: LoadedPipeline, weights: Params, data: UnlearningData, config: Config, stream: torch.Generator
) -> torch.Tensor:
    """MSE(ε(x_r, T_θ(r)), ε(x_r, T₀(r))) on retain prompts r, x_r sampled at them."""
    rows = torch.randint(len(data.retain_prompts), (config.retain_batch_size,), generator=stream)
    prompts = [data.retain_prompts[row] for row in rows.tolist()]
    retain, empty = loaded.encode_prompts(prompts), loaded.unconditional(config.retain_batch_size)
    batch = sampled(loaded, config, {}, retain, empty, stream)
    return distance(loaded, batch, loaded.encode_prompts(prompts, weights))
