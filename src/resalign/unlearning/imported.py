"""A released checkpoint, unchanged, for baselines whose authors published weights, as the paper used them."""

from __future__ import annotations

from pydantic import Field

from resalign.config.strict import Strict
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.checkpoints import Covers, read_checkpoint
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.tensors.weights import WeightsError


class Config(Strict):
    """Settings for importing a released checkpoint.

    Attributes:
        checkpoint: Asset, or ``asset/file`` or ``asset/folder``: a state dict (safetensors, or ``torch.save``'s), a
            pipeline's or a component's folder, or a LoRA, named as diffusers names them.
        covers: ``all`` if the checkpoint holds every tensor of its components, as a whole UNet does; ``some`` if it
            holds only the changed part, as UCE's and a LoRA do. All other tensors stay the base model's.
        lora_scale: Factor of a LoRA's change when it is merged.
    """

    checkpoint: str
    covers: Covers = "all"
    lora_scale: float = Field(1.0, gt=0)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Reads the checkpoint's tensors; every name and shape must fit the base model.

    Returns:
        Tensors by their name in a weight file, ``component.parameter``: a checkpoint may have a text encoder.

    Raises:
        WeightsError: If it cannot be read, is of another architecture, incomplete, or the base model itself.
    """
    if data.checkpoint is None:
        raise WeightsError(f"checkpoint '{config.checkpoint}' was not given to the method")
    found = read_checkpoint(data.checkpoint, loaded.pipeline, covers=config.covers, lora_scale=config.lora_scale)
    run.history.record(
        0, imported_tensors=len(found.weights), differing_tensors=found.differing, covered_share=found.share
    )
    return found.weights
