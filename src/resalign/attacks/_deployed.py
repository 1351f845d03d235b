"""The model that is sampled where its user has fine-tuned the base, and unlearning's change is added afterwards."""

from __future__ import annotations

from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.lazy import torch
from resalign.tensors.params import Params


def deployed(loaded: LoadedPipeline, unlearned: Params, changed: Params) -> dict[str, torch.Tensor]:
    """θ₀ + Δ_s + Δ_u: the attack's weights, plus unlearning's change where the attack has started without it.

    θ₀ is the model as loaded, Δ_s unlearning's change, Δ_u the user's. Without the user's change the sum has the
    bits of the unlearned model.

    Source: Kim 2024, arXiv 2412.00357 (Modular LoRA), whose two changes are LoRAs; here either may be any change.

    Args:
        loaded: The model that was fine-tuned.
        unlearned: θ₀ + Δ_s, by names in a weight file; empty where the attack has started from it.
        changed: θ₀ + Δ_u, by names in a weight file; a weight that is not there is θ₀'s.
    """
    own = trainable_tensors(loaded.pipeline)
    both = {}
    for name, tensor in unlearned.items():
        theta = own[name].double()  # in float64: its rounding is below the last bit of a float
        both[name] = (tensor.to(theta) + (changed.get(name, own[name]).double() - theta)).to(own[name].dtype)
    return {**changed, **both}
