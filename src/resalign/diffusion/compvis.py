"""Checkpoints with the names of the original code, CompVis/stable-diffusion, as folders that diffusers loads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from resalign.diffusion.checkpoints import all_tensors
from resalign.diffusion.loaded_pipeline import load_pipeline
from resalign.files import whole_folder
from resalign.lazy import torch
from resalign.tensors.weights import WeightsError, check_finite

# A component's names begin so; a file of the UNet alone may leave the first words out.
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}
BARE_UNET = re.compile(r"(diffusion_model\.)?(?=(time_embed|label_emb|input_blocks|middle_block|output_blocks|out)\.)")
# The noise schedule's numbers, which follow from alphas_cumprod, and counters: no weights.
SCHEDULE = re.compile(r"[a-z0-9_]*(alphas|betas|posterior)[a-z0-9_]*|lvlb_weights|logvar|scale_factor|global_step")
Tensors = Mapping[str, "torch.Tensor"]


def convert(path: Path, base: Path, output: Path) -> None:
    """Writes the base's pipeline with the components that a checkpoint in CompVis' names has.

    They are some of UNet, autoencoder and CLIP text encoder; diffusers' own converters map the names. Every tensor of
    the file must reach a component, and every tensor of such a component come from the file.

    Args:
        path: A file of ``torch.save`` or safetensors; only tensors are read.
        base: Pipeline folder of the same architecture; supplies settings, and the components that the file lacks.
        output: An empty or new folder; weights are written in float32.

    Raises:
        WeightsError: If a tensor is unknown, missing, of another shape or not finite, or if the noise schedule is not
            the base's.
    """
    if output.is_dir() and any(output.iterdir()):
        raise WeightsError(f"{output}: has files already; name an empty folder, or take them away")
    pipeline = load_pipeline(base).pipeline
    components, rest = _components(all_tensors([path], headers_only=False))
    if not components:
        raise WeightsError(f"{path}: no name begins as in CompVis' code, such as {PREFIXES['unet']}; is it diffusers'?")
    _check_rest(path, rest, pipeline.scheduler.alphas_cumprod)
    for name, tensors in components.items():
        network = getattr(pipeline, name, None)
        if network is None:
            raise WeightsError(f"{path}: holds a {name}, which the pipeline {base} has not; give the base of its kind")
        check_finite(path, tensors)
        try:
            converted = _converters()[name](tensors, network.config)
            if len(converted) != len(tensors):
                raise WeightsError(f"{path}: {len(tensors)} tensors of its {name} became {len(converted)}; {_OTHER}")
            network.load_state_dict(_named_as(converted, network))
        except (RuntimeError, KeyError) as error:  # how torch and the converters tell names that do not fit
            raise WeightsError(f"{path}: its {name} does not fit {base}: {error}; {_OTHER}") from None
    with whole_folder(output) as part:
        pipeline.save_pretrained(part)


_OTHER = "give the base that it was made from"


def _components(tensors: Tensors) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """The tensors by component, under their names in a whole checkpoint, and those of none."""
    components: dict[str, dict[str, torch.Tensor]] = {}
    rest: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        bare = BARE_UNET.match(name)
        whole = PREFIXES["unet"] + name[bare.end() :] if bare else name
        component = next((c for c, prefix in PREFIXES.items() if whole.startswith(prefix)), None)
        (rest if component is None else components.setdefault(component, {}))[whole] = tensor
    return components, rest


def _check_rest(path: Path, rest: Tensors, alphas_cumprod: torch.Tensor) -> None:
    """Refuses what belongs to no component, unless it is the base's noise schedule."""
    unknown = next((name for name in rest if not SCHEDULE.fullmatch(name)), None)
    if unknown and unknown.startswith("model_ema."):
        raise WeightsError(f"{path}: holds a moving average, too ('{unknown}'); save the weights that you mean alone")
    if unknown:
        raise WeightsError(
            f"{path}: '{unknown}' belongs to no component that is converted ({', '.join(PREFIXES.values())})"
        )
    found = rest.get("alphas_cumprod")
    if found is not None and not torch.allclose(found.float(), alphas_cumprod, rtol=1e-3, atol=0):
        raise WeightsError(f"{path}: its noise schedule, alphas_cumprod, is not the base's; {_OTHER}")


def _converters() -> dict[str, Callable[[Tensors, Mapping[str, object]], dict[str, torch.Tensor]]]:
    from diffusers.loaders import single_file_utils as diffusers_names

    return {
        "unet": diffusers_names.convert_ldm_unet_checkpoint,
        "vae": diffusers_names.convert_ldm_vae_checkpoint,
        "text_encoder": lambda tensors, _: diffusers_names.convert_ldm_clip_checkpoint(tensors),
    }


def _named_as(tensors: Tensors, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors without ``text_model.`` before their names, where transformers has left it out of the network's."""
    prefix = "text_model."
    if any(name.startswith(prefix) for name in network.state_dict()):
        return dict(tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
