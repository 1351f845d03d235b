"""LoRA files in diffusers' format, written from a training and read as changes of the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resalign.diffusion.parametrisation import LowRank
from resalign.lazy import torch
from resalign.tensors.params import Params
from resalign.tensors.weights import WeightsError, read_metadata, save_weights

# The file that load_lora_weights looks for in a folder (diffusers.loaders.lora_base).
FILE_NAME = "pytorch_lora_weights.safetensors"

# The safetensors metadata in which diffusers keeps a LoRA's configuration (diffusers.loaders.lora_base).
METADATA_KEY = "lora_adapter_metadata"
# What a LoRA may hold of each layer, as peft names it: A, B, and α where it is not the rank.
DOWN, UP, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"


@dataclass(frozen=True)
class Lora:
    """A LoRA of one component of a pipeline, trained but not merged.

    Attributes:
        component: The changed component: ``unet`` or ``transformer``.
        adapted: Its adapted weights.
        variables: A and B of each, as ``adapted`` names them.
    """

    component: str
    adapted: LowRank
    variables: Params

    def write(self, folder: Path) -> None:
        """Writes the file that ``pipeline.load_lora_weights(folder)`` reads, its α in the metadata."""
        layers = [name.removesuffix(".weight") for name in self.adapted.names]
        tensors = {}
        for layer in layers:
            tensors[f"{self.component}.{layer}{DOWN}"] = self.variables[f"lora_down.{layer}.weight"]
            tensors[f"{self.component}.{layer}{UP}"] = self.variables[f"lora_up.{layer}.weight"]
        rank = self.adapted.rank
        settings = {"r": rank, "lora_alpha": self.adapted.scale * rank, "target_modules": layers}
        metadata = json.dumps({f"{self.component}.{key}": value for key, value in settings.items()}, sort_keys=True)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / FILE_NAME, tensors, {"format": "pt", METADATA_KEY: metadata})


def is_lora(names: Iterable[str]) -> bool:
    """Whether tensors' names are a LoRA's, in whichever format."""
    return any("lora" in name for name in names)


def lora_metadata(path: Path) -> dict[str, Any]:
    """The configuration that diffusers wrote beside a LoRA's tensors; empty where it wrote none.

    Raises:
        WeightsError: If it is no JSON object.
    """
    raw = read_metadata(path).get(METADATA_KEY) if path.suffix == ".safetensors" else None
    try:
        found = dict(json.loads(raw)) if raw else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{path}: its metadata '{METADATA_KEY}' is no JSON object ({error}); fetch it again"
        ) from None
    return found


def lora_changes(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any], where: str
) -> dict[str, torch.Tensor]:
    """The change (α / r) · B A of every weight that a LoRA adapts, by the weight's name in the file.

    Source: Hu 2022, arXiv 2106.09685, Section 4.1; names and metadata as diffusers writes them.

    Args:
        tensors: The file's tensors; A (r, in, …) and B (out, r, …) of linear layers or convolutions. Meta tensors give
            meta tensors, whose shapes can be checked.
        metadata: See :func:`lora_metadata`.
        where: What to call the file in an error.

    Raises:
        WeightsError: If it is another kind of adapter, or a layer's tensors do not belong together.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft

    # Names of diffusers before 0.22 (`lora.down`, `processor.to_q_lora.down`) become peft's.
    tensors = convert_unet_state_dict_to_peft(dict(tensors))
    _check_kind(tensors, where)
    layers = sorted({name.removesuffix(end) for name in tensors for end in (DOWN, UP, ALPHA) if name.endswith(end)})
    changes = {}
    for layer in layers:
        down, up = tensors.get(layer + DOWN), tensors.get(layer + UP)
        if down is None or up is None or min(down.dim(), up.dim()) < 2 or up.shape[1] != down.shape[0]:
            shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (down, up)]
            raise WeightsError(f"{where}: A and B of '{layer}' have shapes {shapes}, expected (r, in) and (out, r)")
        scale = _scale(layer, down.shape[0], tensors.get(layer + ALPHA), metadata, where)
        product = up.float().flatten(1) @ down.float().flatten(1)
        changes[f"{layer}.weight"] = scale * product.reshape(up.shape[0], *down.shape[1:])
    return changes


def _check_kind(tensors: Iterable[str], where: str) -> None:
    """Refuses all but plain LoRAs in diffusers' format: other adapters would be merged wrongly or in part."""
    remedy = "load it with diffusers and write it with save_lora_weights"
    for name in tensors:
        if name.startswith("base_model.model."):
            raise WeightsError(f"{where}: a LoRA of peft, whose α is in another file, adapter_config.json; {remedy}")
        if name.startswith("lora_"):
            raise WeightsError(f"{where}: a LoRA in Kohya's format ('{name}'); {remedy}")
        if not name.endswith((DOWN, UP, ALPHA)):
            raise WeightsError(
                f"{where}: '{name}' is no part of a plain LoRA (names end in {DOWN}, {UP} or {ALPHA}); merge it into "
                "the model with its own code and import the whole model"
            )


def _scale(
    layer: str, rank: int, alpha: torch.Tensor | None, metadata: Mapping[str, Any], where: str
) -> float | torch.Tensor:
    """α / r: of the layer's own α, else of the file's configuration, else 1, as diffusers has it."""
    from peft.utils.other import get_pattern_key

    if alpha is not None and metadata:
        raise WeightsError(f"{where}: holds α both as tensors ('{layer}{ALPHA}') and in its metadata; remove one")
    if alpha is not None:
        if alpha.numel() != 1:
            raise WeightsError(f"{where}: '{layer}{ALPHA}' has shape {tuple(alpha.shape)}, expected one number")
        return alpha.float().reshape(()) / rank
    if not metadata:
        return 1.0
    # The configuration of a component has its name in front where the file may hold several.
    component = f"{layer.split('.')[0]}."
    named = any(key.startswith(component) for key in metadata)
    config = {key.removeprefix(component): value for key, value in metadata.items()} if named else dict(metadata)
    if config.get("use_dora"):
        raise WeightsError(f"{where}: a DoRA, whose magnitudes are no low-rank change; import the whole model")
    if "lora_alpha" not in config:
        raise WeightsError(f"{where}: its metadata has no lora_alpha for '{layer}'; write it with save_lora_weights")
    inner = layer.removeprefix(component) if named else layer
    pattern = config.get("alpha_pattern") or {}
    value = float(pattern.get(get_pattern_key(pattern, inner), config["lora_alpha"]))
    return value / (math.sqrt(rank) if config.get("use_rslora") else rank)
