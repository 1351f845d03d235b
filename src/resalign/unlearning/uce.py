"""UCE: edits cross-attention's keys and values in closed form, so that the concept's tokens have a guide's values.

Source: unified concept editing, Gandikota 2023, WACV 2024, arXiv 2308.14761, Eq. 7. The newer release edits the last
token of a concept (``tokens: last``); that of the paper's time every token from there on, padding too (``aligned``).
Deviation: solved in float64, relative to W₀, which gives W₀ itself where nothing is to be changed. Stable Diffusion
XL's pooled embedding passes by cross-attention and is not edited, as in the releases.
"""

from __future__ import annotations

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.unlearning import _cross_attention
from resalign.unlearning._concept_edit import ConceptEdit, concept_edit

ARCHITECTURES = _cross_attention.ARCHITECTURES


class Config(ConceptEdit):
    """Published defaults."""


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """W = (λW₀ + a Σ_E W₀g cᵀ + b Σ_P W₀p pᵀ)(λI + a Σ_E ccᵀ + b Σ_P ppᵀ)⁻¹ for every key and value matrix.

    Returns:
        The changed weights, by their names in a weight file.
    """
    change, condition = concept_edit(loaded, data, config)
    run.history.record(0, condition_number=condition)
    return loaded.named(
        _cross_attention.edited(named_weights(loaded.denoiser), lambda _, start: start + start @ change)
    )
