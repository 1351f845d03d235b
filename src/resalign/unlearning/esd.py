"""ESD: erases a concept by steering the model away from its own predictions for the concept's prompts.

Source: Gandikota 2023, ICCV, arXiv 2303.07345, Eq. 6 and 7; the first release (erasing, commit a2189e9). The newer
release (25613d2) is 200 steps at a rate of 5e-5 with ``sampler: base``.
Deviation: the timestep is the partial sampling's next; the first release draws one of the 1000/N around it. Where the
model's own sampler spaces timesteps by `linspace`, x_t is noisier than its timestep says, by 1000/N(N − 1) timesteps.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.config.passes import Passes
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, named_weights, select
from resalign.lazy import torch
from resalign.objectives.erasure import steered_loss
from resalign.tensors.params import Params
from resalign.unlearning._concept_prompts import draw_rows
from resalign.unlearning._descent import Gradient, Logged, descend, of_loss
from resalign.unlearning._partial_sampling import SampledConfig, sampled

# Its variants are defined by cross-attention, and x_t is sampled by DDIM.
ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")
SCOPES: dict[str, Scope] = {"x": "cross_attention", "x-strict": "cross_attention_kv", "u": "noxattn", "all": "full"}


class Config(SampledConfig):
    """Published defaults."""

    variant: Literal["x", "x-strict", "u", "all"] = Field(
        "u",
        description="trained weights; x: cross-attention; x-strict: its keys and values; u: all but cross-attention, "
        "the time embedding and the output layers, the first release's noxattn; all: everything",
    )
    steps: int = Field(1000, ge=0)
    lr: float = Field(1e-5, gt=0)
    negative_guidance: float = Field(
        1.0, ge=0, description="η; as ESD-u-3 is named, 3. The newer release's is this plus 1, see erase_from"
    )
    erase_from: str | None = Field(
        None,
        description="a prompt to erase the concept from: trained and sampled at it, with ε₀ of it as the target's "
        "first term; null: at the concept's own prompt, with ε₀(∅). The concept's own prompt here is the newer "
        "release's form, in which η = 2 is the paper's η = 1",
    )
    sampler: Literal["trained", "base"] = Field(
        "trained", description="the model that x_t is sampled from; base: the original, as in the newer release"
    )

    @property
    def denoiser_passes(self) -> Passes:
        """Of a step: x_t, the target's terms, and the trained prediction."""
        terms = 1 + bool(self.negative_guidance) + (self.erase_from is not None)
        return (Passes(gradient=1, forward=terms) + self.sampling_passes) * self.batch_size


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The gradient of ESD's loss on the prompts of one concept a step; no image is used."""
    original = named_weights(loaded.denoiser)
    concept, empty = loaded.encode_prompts(data.prompts), loaded.unconditional(config.batch_size)
    at = None
    if config.erase_from is not None:
        at = loaded.encode_prompts([config.erase_from]).expand(config.batch_size)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        prompts = concept[draw_rows(data.concepts, config.batch_size, stream)]
        # x_t: partial sampling to a random step of the schedule [ESD, Section 3.2].
        sampler = weights if config.sampler == "trained" else original
        batch = sampled(loaded, config, sampler, prompts if at is None else at, empty, stream, exact=False)
        # ε₀(∅) − η(ε₀(c) − ε₀(∅)) [ESD, Eq. 6], with ε₀ of `erase_from` for the first term where it is given.
        terms = [*([] if at is None else [(1.0, at)]), (-config.negative_guidance, prompts)]
        value = steered_loss(loaded.denoiser, weights, original, batch, empty, terms)
        return value, {"erasure_loss": value.item()}

    return of_loss(loss)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends ESD's loss.

    Returns:
        The changed weights, by their names in a weight file.
    """
    original = named_weights(loaded.denoiser)
    names = select(original, SCOPES[config.variant])
    return loaded.named(descend(original, names, step_gradient(loaded, data, config), config, run, method="esd"))
