"""SPEED: edits cross-attention's values in closed form, in the null space of what is to be kept.

Source: scalable, precise and efficient concept erasure, Li 2026, ICLR, arXiv 2503.07392.
Deviations: all tokens of no prompt stay where they are, exactly; the release holds centres of an unseeded clustering of
them, softly by its λ (0). It writes the constrained minimum with projections; here it is taken in a basis of the
allowed directions. Retain prompts are given by the user. That prompts below the MEAN influence are left out, and the
noise's unit scale, are recalled from the paper.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.config.strict import ConfigError, Strict
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.unlearning import _cross_attention
from resalign.unlearning._concept_edit import Guide, guide_needs, guided

ARCHITECTURES = _cross_attention.ARCHITECTURES
PARTS = {
    "values": (_cross_attention.VALUES,),
    "keys_and_values": (_cross_attention.KEYS, _cross_attention.VALUES),
}


class Config(Strict):
    """Published defaults."""

    part: Literal["values", "keys_and_values"] = "values"
    guide: Guide = Field("empty", description="whose values the concept gets: no prompt's, or the substitute's")
    damping: float = Field(1.0, gt=0, description="r, weight of the change's squared size")
    null_threshold: float = Field(
        0.1, gt=0, description="directions in which the retain keys' mean square is below it may change"
    )
    augmentations: int = Field(10, ge=0, description="noisy copies of each retain key, along W's weakest direction")
    augmentation_std: float = Field(1.0, ge=0, description="standard deviation of that noise")

    def needs(self) -> tuple[str, ...]:
        """Always the retain prompts."""
        return ("retain_prompts", *guide_needs(self.guide))


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Edits each layer by itself; targets, anchors and retain keys are the last words' tokens.

    Returns:
        The changed weights, by their names in a weight file.
    """
    pairs = guided(loaded, data, config.guide)
    targets = torch.stack([old.embeddings[old.last] for old, _ in pairs])
    anchors = torch.stack([new.embeddings[new.last] for _, new in pairs])
    retain = torch.stack([t.embeddings[t.last] for t in _cross_attention.embed(loaded, data.retain_prompts)])
    fixed = _cross_attention.embed(loaded, [""])[0].embeddings
    dimensions = []

    def change(name: str, weight: torch.Tensor) -> torch.Tensor:
        stream = run.generator("speed", name)
        kept = augmented(influenced(weight, targets, anchors, retain, config.damping), weight, config, stream)
        basis = null_space(kept, fixed, config.null_threshold)
        dimensions.append(basis.shape[1])
        return weight + weight @ constrained_edit(targets, anchors, basis, config.damping)

    result = _cross_attention.edited(named_weights(loaded.denoiser), change, PARTS[config.part])
    run.history.record(0, free_dimensions=sum(dimensions) / len(dimensions))
    return loaded.named(result)


def constrained_edit(targets: torch.Tensor, anchors: torch.Tensor, basis: torch.Tensor, damping: float) -> torch.Tensor:
    """T (d, d) of the edit Δ = WT, the best of those whose rows lie in the span of a basis.

    Δ = W(A − S)N(NᵀSN + rI)⁻¹Nᵀ minimises mean ‖(W + Δ)t − Wa‖² + r‖Δ‖² among Δ = DNᵀ, with S = mean ttᵀ and
    A = mean atᵀ.

    Args:
        targets: t, one a concept's prompt, (n, d), float64.
        anchors: a, (n, d).
        basis: N, orthonormal columns, (d, k).
        damping: r.
    """
    scale = len(targets) ** -0.5
    inside = scale * targets @ basis  # (n, k)
    system = _cross_attention.ridge(_cross_attention.gram(inside), damping, what="speed")
    return system.right_divide((scale * (anchors - targets)).T @ inside) @ basis.T


def influenced(
    weight: torch.Tensor, targets: torch.Tensor, anchors: torch.Tensor, retain: torch.Tensor, damping: float
) -> torch.Tensor:
    """The retain keys (m, d) that the edit without constraints would move at least as far as it does on average."""
    everything = torch.eye(targets.shape[1]).to(targets)
    moved = retain @ (weight @ constrained_edit(targets, anchors, everything, damping)).T
    influence = moved.square().sum(dim=1)
    return retain[influence >= torch.minimum(influence.mean(), influence.max())]


def augmented(retain: torch.Tensor, weight: torch.Tensor, config: Config, generator: torch.Generator) -> torch.Tensor:
    """Retain keys (m, d) and noisy copies of them, moved along the direction to which W responds least."""
    weakest = torch.linalg.svd(weight, full_matrices=False).Vh[-1]
    copies = retain.repeat(config.augmentations, 1)
    noise = config.augmentation_std * torch.randn(len(copies), 1, generator=generator).to(weight)
    return torch.cat([retain, copies + noise * weakest])


def null_space(retain: torch.Tensor, fixed: torch.Tensor, threshold: float) -> torch.Tensor:
    """Orthonormal directions (d, k) in which a change moves no fixed key, and the retain keys hardly.

    Args:
        retain: Keys r, (m, d), float64. Directions are free where the eigenvalue of mean rrᵀ is below the threshold.
        fixed: Keys that must not move, (m', d).
        threshold: Of the eigenvalues.

    Raises:
        ConfigError: If no direction is left.
    """
    values, vectors = torch.linalg.eigh(_cross_attention.gram(retain) / len(retain))
    free = vectors[:, values < threshold]
    _, sizes, directions = torch.linalg.svd(fixed @ free, full_matrices=True)
    # Embeddings are computed in float32: a singular value below its rounding is 0.
    rounding = max(fixed.shape) * torch.finfo(torch.float32).eps * torch.linalg.matrix_norm(fixed, 2)
    basis = free @ directions[int((sizes > rounding).sum()) :].T
    if not basis.shape[1]:
        raise ConfigError(
            f"the retain prompts and no prompt leave none of {len(vectors)} directions free; "
            "give fewer retain_prompts, or raise null_threshold"
        )
    return basis
