"""RG: gradient ascent on the forget set and descent on the retain set, each without what works against the other.

Source: the restricted gradient, Ko 2024, NeurIPS, arXiv 2412.07808, Theorem 4, without its diversified sets.
Deviations: images are drawn at random, not in the order of their files. The loss of a batch is truncated where it
passes the limit, as released; the projection then leaves the retain gradient as it is, where the release divides by 0.
"""

from __future__ import annotations

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.unlearning._descent import Gradient
from resalign.unlearning._restricted import RestrictedConfig, descend_restricted, restricted_gradient


class Config(RestrictedConfig):
    """Published defaults."""


def step_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The restricted gradient of the forget and the retain set."""
    return restricted_gradient(loaded, data.forget, data.retain, config)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends along the restricted gradient.

    Returns:
        The changed weights, by their names in a weight file.
    """
    return descend_restricted(loaded, step_gradient(loaded, data, config), config, run, method="rg")
