"""RECE: repeats UCE's edit on the embeddings that still reach the concept, found in closed form.

Source: reliable and efficient concept erasure, Gong 2024, ECCV, arXiv 2407.12383, Eq. 3.
Deviation: a fixed number of epochs; the released code keeps an epoch's weights only if a detector on a validation list
finds fewer than before. In float64, as :mod:`resalign.unlearning.uce`; no epoch gives UCE's bits.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.config.strict import Strict
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.unlearning import _cross_attention
from resalign.unlearning._concept_edit import ConceptEdit, Guide, concept_edit, guide_needs, guided

ARCHITECTURES = _cross_attention.ARCHITECTURES


class Start(ConceptEdit):
    """The edit of the paper's time, from which RECE starts."""

    tokens: Literal["last", "aligned"] = "aligned"


class Config(Strict):
    """Published defaults for nudity."""

    start: Start = Field(Start(), description="UCE's edit before the first epoch; its guide and weights are its own")
    epochs: int = Field(3, ge=0)
    guide: Guide = Field("empty", description="whose values the found embeddings get: no prompt's, or the substitute's")
    erase_weight: float = Field(1.0, gt=0, description="a, weight of each found embedding")
    keep_weight: float = Field(
        0.1, ge=0, description="b, weight of each token of no prompt, kept once for each erased one"
    )
    damping: float = Field(0.1, gt=0, description="λ, weight of the distance from the last epoch's weights")
    reach_damping: float = Field(0.1, gt=0, description="ρ, weight of a found embedding's squared length")

    def needs(self) -> tuple[str, ...]:
        """What the first edit and the later ones need."""
        return tuple(dict.fromkeys(self.start.needs() + guide_needs(self.guide)))


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """UCE's edit, then ``epochs`` edits of the embeddings found by :func:`reaching`.

    All edits are W ← W + WT for every layer, so that W₀ + W₀T with one T of all edits is the result.

    Returns:
        The changed weights, by their names in a weight file.
    """
    weights = named_weights(loaded.denoiser)
    change, condition = concept_edit(loaded, data, config.start)
    run.history.record(0, condition_number=condition)
    layers_gram = torch.zeros_like(change)
    for name in _cross_attention.projections(weights):
        layers_gram += _cross_attention.gram(weights[name].double())
    pairs = guided(loaded, data, config.guide)
    concept = torch.cat([old.embeddings for old, _ in pairs])
    guide = torch.cat([new.embeddings for _, new in pairs])
    kept = len(pairs) * config.keep_weight * _cross_attention.prompts_gram(loaded, [""], len(change))
    scale = config.erase_weight**0.5
    for epoch in range(config.epochs):
        found, residual = reaching(concept, layers_gram, change, config.reach_damping)
        run.history.record(epoch, reach_residual=residual)
        system = _cross_attention.ridge(
            _cross_attention.gram(scale * found) + kept, config.damping, what=f"rece at epoch {epoch}"
        )
        step = _cross_attention.remapping(scale * found, scale * guide, system)
        change = change + step + change @ step  # (I + T)(I + step) − I
    return loaded.named(_cross_attention.edited(weights, lambda _, start: start + start @ change))


def reaching(
    concept: torch.Tensor, layers_gram: torch.Tensor, change: torch.Tensor, damping: float
) -> tuple[torch.Tensor, float]:
    """Embeddings c' to which the edited layers Wᵢ respond as W₀ᵢ does to the concept's c.

    c' = (Σ WᵢᵀWᵢ + ρI)⁻¹ Σ WᵢᵀW₀ᵢ c, the minimum of Σ ‖Wᵢc' − W₀ᵢc‖² + ρ‖c'‖² over all layers together [RECE, Eq. 3].

    Args:
        concept: c, (n, d), float64.
        layers_gram: Σ W₀ᵢᵀW₀ᵢ, (d, d).
        change: T of the edits so far, Wᵢ = W₀ᵢ(I + T), (d, d).
        damping: ρ.

    Returns:
        c' (n, d), and Σ ‖Wᵢc' − W₀ᵢc‖² relative to Σ ‖W₀ᵢc‖², over all c.
    """
    edit = torch.eye(len(change)).to(change) + change
    system = _cross_attention.ridge(edit.T @ layers_gram @ edit, damping, what="rece's search for embeddings")
    found = system.right_divide(concept @ layers_gram @ edit)
    difference = found @ edit.T - concept
    residual = ((difference @ layers_gram) * difference).sum() / ((concept @ layers_gram) * concept).sum()
    return found, float(residual)
