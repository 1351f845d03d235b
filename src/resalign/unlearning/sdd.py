"""SDD: draws a student's prediction for the concept to its own for no prompt, and returns the average of the students.

Source: Kim 2023, ICML workshop, arXiv 2307.05977; the released script (safe-diffusion, commit a2e820c). It samples x_t
with all concepts at once and trains on one a step; the paper's pseudo-code has these roles the other way round.
Deviation: the prompt of a step is drawn; the script takes its concepts in turn.
Deviation: a whole sampling is never run; the script's is, in 1 of N steps, for images that are called noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import Params, detached
from resalign.unlearning._concept_prompts import draw_rows
from resalign.unlearning._descent import Gradient, Logged, descend, of_loss
from resalign.unlearning._partial_sampling import SampledConfig, sampled

ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")  # cross-attention, and x_t sampled by DDIM


class Config(SampledConfig):
    """Published defaults."""

    scope: Scope = "cross_attention"
    steps: int = Field(1500, ge=0)
    lr: float = Field(1e-5, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(1e-4, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    sampled_at: Literal["all", "drawn"] = Field(
        "all", description="prompt at which x_t is sampled: all prompts joined by commas, as released, or the drawn one"
    )
    decay: float = Field(0.999, ge=0, le=1, description="share of the teacher that a step leaves as it is")
    decay_steps: int | None = Field(
        1500,
        gt=0,
        description="steps for which `decay` is meant: of a run of other length it is raised to decay_steps / steps, "
        "so that the original has the same share in the result (22 % as published); null leaves it as it is",
    )

    @property
    def step_decay(self) -> float:
        """The decay of one of this run's steps."""
        return self.decay if self.decay_steps is None else self.decay ** (self.decay_steps / max(self.steps, 1))


def step_gradient(
    loaded: LoadedPipeline, data: UnlearningData, config: Config, teacher: Params | None = None
) -> Gradient:
    """The gradient of MSE(ε_θ(x_t, c), ε_θ(x_t, ∅)), the second without a gradient.

    Args:
        loaded: Supplies network, prompts' embeddings and noise schedule.
        data: The concepts in words.
        config: Batch size, and the sampling of x_t.
        teacher: The trained weights of the model that samples x_t, which may change between steps; None for θ itself.
    """
    prompts, empty = loaded.encode_prompts(data.prompts), loaded.unconditional(config.batch_size)
    together = _together(loaded, data.prompts).expand(config.batch_size) if config.sampled_at == "all" else None

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        concept = prompts[draw_rows(data.concepts, config.batch_size, stream)]
        prompt = concept if together is None else together
        sample = sampled(loaded, config, {**weights, **(teacher or {})}, prompt, empty, stream)
        with torch.no_grad():
            target = predict(loaded.denoiser, weights, replace(sample, conditioning=empty))
        batch = replace(sample, conditioning=concept, target=target)
        value = denoising_loss(loaded.denoiser, weights, batch)
        return value, {"concept_loss": value.item()}

    return of_loss(loss)


def _together(loaded: LoadedPipeline, prompts: Sequence[str]) -> Conditioning:
    """All prompts as one, which the text encoder must read to its end."""
    joined, tokenizer = ", ".join(prompts), loaded.pipeline.tokenizer
    tokens = len(tokenizer(joined, verbose=False).input_ids)
    if tokens > tokenizer.model_max_length:
        raise ConfigError(
            f"sdd samples at all prompts of the concept as one, which has {tokens} tokens; the text encoder reads "
            f"{tokenizer.model_max_length}: give fewer prompts, or set sampled_at: drawn"
        )
    return loaded.encode_prompts([joined])


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Trains the student and returns the teacher, the exponential moving average of its weights.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    names = select(original, config.scope)
    teacher = detached({name: original[name] for name in names})

    def stepped(student: Params) -> None:
        for name, tensor in teacher.items():
            tensor.lerp_(student[name], 1 - config.step_decay)

    direction = step_gradient(loaded, data, config, teacher)
    descend(original, names, direction, config, run, method="sdd", stepped=stepped, teacher=teacher)
    return loaded.named(teacher)
