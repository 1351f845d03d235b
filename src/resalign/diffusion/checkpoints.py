"""Released checkpoints, in their published forms, as tensors of the base model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resalign.config.assets import WEIGHT_SUFFIXES
from resalign.diffusion.architectures import architecture_in, architecture_of
from resalign.diffusion.forward_process import difference, forward_process_in, forward_process_of
from resalign.diffusion.loaded_pipeline import load_networks, trainable_tensors
from resalign.diffusion.lora_files import is_lora, lora_changes, lora_metadata
from resalign.lazy import diffusers, torch
from resalign.tensors.pretrained import difference as network_difference
from resalign.tensors.pretrained import load_network
from resalign.tensors.weights import WeightsError, component_files, load_pickled, read_tensors, tensor_shapes

Covers = Literal["all", "some"]

# What diffusers and transformers call a component's weights; several shards have -00001-of-00002 behind it.
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
LORA_STEM = "pytorch_lora_weights"
# Names of the original code, whose layers are built otherwise: CompVis/stable-diffusion, ldm/modules/diffusionmodules.
LDM_NAMES = re.compile(r"(^|\.)(diffusion_model|input_blocks|middle_block|output_blocks)\.")
# The numbers 0, 1, 2, …, which transformers before 4.31 saved with a text encoder: no weight.
NO_WEIGHT = "embeddings.position_ids"


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes:
        weights: Tensors by their name in a weight file, ``component.parameter``, in the model's dtype.
        differing: How many of them differ from the base model's, in the precision of the checkpoint.
        share: Share of the tensors of its components that it holds.
    """

    weights: dict[str, torch.Tensor]
    differing: int
    share: float


def read_checkpoint(
    path: Path, pipeline: diffusers.DiffusionPipeline, *, covers: Covers = "all", lora_scale: float = 1.0
) -> Checkpoint:
    """Reads the tensors that replace a base model's.

    Args:
        path: A file or folder; see :func:`_located` for the forms it may have.
        pipeline: The base model; left as it is.
        covers: ``all`` if every tensor of each component that the checkpoint has must be there.
        lora_scale: Factor of a LoRA's change.

    Raises:
        WeightsError: If a tensor is unknown, of another shape, not finite or missing, if the checkpoint is the base
            model's own, or if reading it would run code.
    """
    base = trainable_tensors(pipeline)
    beside = _beside_parameters(pipeline)
    found = _found(path, {**base, **beside}, headers_only=False)
    _check_constants(path, found.tensors, base, beside)
    found = _Found({name: tensor for name, tensor in found.tensors.items() if name in base}, found.lora)
    if lora_scale != 1.0 and not found.lora:
        raise WeightsError(f"{path}: holds no LoRA, so lora_scale {lora_scale} has no meaning; leave it out")
    share = _covered(path, found.tensors, base, covers)
    weights: dict[str, torch.Tensor] = {}
    changed: dict[str, int] = {}
    for name, tensor in found.tensors.items():
        own = base[name].detach().cpu()
        if found.lora:
            tensor = own + lora_scale * tensor.to(own.dtype)
        # Cloned: several tensors of a file may share memory, and those of a mapped file lie on the disk.
        weights[name] = tensor.detach().to(own.dtype).clone(memory_format=torch.contiguous_format)
        if not torch.isfinite(weights[name]).all():
            raise WeightsError(f"{path}: tensor '{name}' holds values that are not finite in {own.dtype}")
        component = name.split(".")[0]
        changed[component] = changed.get(component, 0) + (not torch.equal(tensor, own.to(tensor.dtype)))
    if not any(changed.values()):
        raise WeightsError(
            f"{path}: holds the base model's own weights in all {len(weights)} tensors; is it the right checkpoint?"
        )
    _check_autoencoder(path, pipeline)
    _check_forward_process(path, pipeline)
    taken = {name: tensor for name, tensor in weights.items() if changed[name.split(".")[0]]}
    return Checkpoint(taken, sum(changed.values()), share)


def check_checkpoint(path: Path, folder: Path, covers: Covers = "all") -> None:
    """Raises unless a checkpoint's tensors fit a pipeline folder's by name and shape; loads no weights.

    Raises:
        WeightsError: As :func:`read_checkpoint`, except for faults of values.
    """
    networks = load_networks(folder, "float32", "meta")
    trainable = {name: networks[name] for name in architecture_in(folder)[0].trainable if networks[name] is not None}
    base = {f"{component}.{name}": t for component, part in trainable.items() for name, t in part.named_parameters()}
    whole = {f"{component}.{name}": t for component, part in trainable.items() for name, t in part.state_dict().items()}
    found = _found(path, {**whole, **base}, headers_only=True).tensors
    _covered(path, [name for name in found if name in base], base, covers)


# --- where the tensors are --------------------------------------------------------------------------------------------


def _located(path: Path, components: Iterable[str]) -> dict[str | None, list[Path]]:
    """A checkpoint's weight files, by component where the folder names it.

    A file; a pipeline's folder, or one with the folders of some of its components; a component's own folder; or any
    folder with one weight file.
    """
    if path.is_file():
        return {None: [path]}
    if not path.is_dir():
        raise WeightsError(f"{path}: no such checkpoint; give a weight file, or a folder with one or with a pipeline")
    inside: dict[str | None, list[Path]] = {
        name: _weight_files(path / name) for name in components if (path / name).is_dir()
    }
    if not inside:
        return {None: _weight_files(path)}
    if list(path.glob(f"{LORA_STEM}.*")):
        raise WeightsError(f"{path}: holds {sorted(map(str, inside))} and a LoRA beside them; name the one to take")
    return inside


def _weight_files(folder: Path) -> list[Path]:
    """The weight files of one component: those with diffusers' names, safetensors first, or the only weight file."""
    for suffix in (".safetensors", ".bin"):
        for stem in STEMS:
            named = component_files(folder, stem, suffix)
            if named:
                return named
    files = sorted(file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES) if folder.is_dir() else []
    if len(files) != 1:
        found = [file.name for file in files]
        folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        raise WeightsError(
            f"{folder}: expected one weight file ({', '.join(WEIGHT_SUFFIXES)}), found {found}; name one behind the"
            f" asset's name, as asset/file, or one of its folders: {folders}"
        )
    return files


def all_tensors(files: Iterable[Path], headers_only: bool) -> dict[str, torch.Tensor]:
    """Every tensor of a component's files but :data:`NO_WEIGHT`.

    Raises:
        WeightsError: Also if one is quantized, sparse or without values, since a cast would change the weights.
    """
    found: dict[str, torch.Tensor] = {}
    for file in files:
        tensors = {n: t for n, t in _tensors(file, headers_only).items() if not n.endswith(NO_WEIGHT)}
        for name, tensor in tensors.items():
            plain = tensor.layout is torch.strided and (tensor.is_floating_point() or tensor.dim() == 0)
            if not plain or (tensor.is_meta and file.suffix != ".safetensors"):
                kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
                raise WeightsError(f"{file}: tensor '{name}' is {kind}; give dense weights that are not quantized")
        found |= tensors
    return found


def _tensors(file: Path, headers_only: bool) -> dict[str, torch.Tensor]:
    """One file's tensors by name; on the meta device, from its header, if ``headers_only``."""
    if file.suffix == ".safetensors":
        if headers_only:
            return {name: torch.empty(shape, device="meta") for name, shape in tensor_shapes(file).items()}
        return read_tensors(file)
    if file.suffix not in WEIGHT_SUFFIXES:
        raise WeightsError(f"{file}: no weight file; expected one of {', '.join(WEIGHT_SUFFIXES)}")
    return _named(load_pickled(file), file)


def _named(found: Any, file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``torch.save`` file: a state dict, or a dict that contains one.

    The entry is ``state_dict``, possibly with further training state, or one entry for each component by its name.
    """
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if isinstance(found, Mapping) and found and all(isinstance(entry, Mapping) for entry in found.values()):
        found = {f"{component}.{name}": tensor for component, entry in found.items() for name, tensor in entry.items()}
    if not isinstance(found, Mapping):
        raise WeightsError(f"{file}: expected named tensors, got {type(found).__name__}; save the model's state_dict")
    for name, tensor in found.items():
        if not isinstance(tensor, torch.Tensor):
            raise WeightsError(
                f"{file}: entry '{name}' is a {type(tensor).__name__}, expected tensors, or one state dict under"
                f" 'state_dict' or a component's name; save the model's state_dict alone"
            )
    return {str(name): tensor.detach() for name, tensor in found.items()}


# --- which tensors of the model they are ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """Tensors by their name in a weight file, or a LoRA's changes of them."""

    tensors: dict[str, torch.Tensor]
    lora: bool


def _found(path: Path, base: Mapping[str, torch.Tensor], *, headers_only: bool) -> _Found:
    """A checkpoint's tensors, each checked against the base model by name and shape."""
    components = list(dict.fromkeys(name.split(".")[0] for name in base))
    placed: dict[str, torch.Tensor] = {}
    lora = False
    for component, files in _located(path, components).items():
        where = str(files[0])
        tensors = all_tensors(files, headers_only)
        if not tensors:
            raise WeightsError(f"{where}: holds no tensors")
        if is_lora(tensors):
            tensors, lora = lora_changes(tensors, lora_metadata(files[0]), where), True
        _refuse_ldm(tensors, where)
        for group, members in _groups(tensors, component, components):
            placed |= _placed(members, [group] if group else components, base, where)
    return _Found(placed, lora)


def _refuse_ldm(names: Iterable[str], where: str) -> None:
    original = next((name for name in names if LDM_NAMES.search(name)), None)
    if original:
        raise WeightsError(
            f"{where}: names as in the original Stable Diffusion code ('{original}'), not diffusers'; convert it once: "
            "resalign convert FILE --base PIPELINE --output FOLDER, then import that folder"
        )


def _groups(
    tensors: dict[str, torch.Tensor], component: str | None, components: list[str]
) -> Iterator[tuple[str | None, dict[str, torch.Tensor]]]:
    """Tensors by component, where the folder or every tensor's name gives it."""
    heads = {name.split(".")[0] for name in tensors}
    if component is not None or not heads <= set(components):
        yield component, tensors
        return
    for head in sorted(heads):
        yield head, {name.partition(".")[2]: t for name, t in tensors.items() if name.split(".")[0] == head}


def _placed(
    tensors: Mapping[str, torch.Tensor], components: list[str], base: Mapping[str, torch.Tensor], where: str
) -> dict[str, torch.Tensor]:
    """Tensors of one component under their full names.

    A prefix shared by all names may be removed (``unet.``, ``model.``, ``text_model.``): the reading in which most
    tensors fit is taken. Names are not changed otherwise.
    """
    first = next(iter(tensors)).split(".")
    cuts = [""]
    for length in range(1, len(first)):
        prefix = ".".join(first[:length]) + "."
        if all(name.startswith(prefix) for name in tensors):
            cuts.append(prefix)
    readings = {
        (component, cut): {f"{component}.{name.removeprefix(cut)}": tensor for name, tensor in tensors.items()}
        for component in components
        for cut in cuts
    }
    fitting = {
        key: sum(name in base and base[name].shape == tensor.shape for name, tensor in reading.items())
        for key, reading in readings.items()
    }
    best = max(fitting, key=lambda key: fitting[key])
    if fitting[best] == len(tensors) and list(fitting.values()).count(len(tensors)) > 1:
        owners = sorted({component for (component, _), count in fitting.items() if count == len(tensors)})
        raise WeightsError(f"{where}: its tensors fit several components, {owners}; put it into a folder of that name")
    _check_fit(readings[best], base, where)
    return readings[best]


def _check_fit(tensors: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], where: str) -> None:
    """Raises WeightsError unless every tensor is one of the model's, of its shape."""
    unknown = [name for name in tensors if name not in base]
    if unknown:
        near = difflib.get_close_matches(unknown[0], base, n=1)
        hint = f", the nearest is '{near[0]}'" if near else ""
        raise WeightsError(
            f"{where}: the model has no tensor named '{unknown[0]}'{hint}; {len(unknown)} of {len(tensors)} names are "
            "unknown: these weights belong to another architecture or are named otherwise than in diffusers"
        )
    wrong = [name for name, tensor in tensors.items() if tensor.shape != base[name].shape]
    if wrong:
        shapes = f"{tuple(tensors[wrong[0]].shape)}, the model expects {tuple(base[wrong[0]].shape)}"
        raise WeightsError(
            f"{where}: tensor '{wrong[0]}' has shape {shapes}; {len(wrong)} of {len(tensors)} shapes are wrong: these "
            "weights belong to another architecture"
        )


def _covered(path: Path, names: Iterable[str], base: Iterable[str], covers: Covers) -> float:
    """Share of its components' tensors that a checkpoint holds; it must be 1 unless ``covers`` is ``some``."""
    held = set(names)
    components = {name.split(".")[0] for name in held}
    wanted = [name for name in base if name.split(".")[0] in components]
    lacking = sorted(set(wanted) - held)
    share = 1 - len(lacking) / len(wanted)
    if lacking and covers == "all":
        raise WeightsError(
            f"{path}: holds {len(held)} of the {len(wanted)} tensors of {', '.join(sorted(components))} ({share:.1%}), "
            f"not '{lacking[0]}'; if it is meant to hold the changed part only, set covers: some"
        )
    return share


def _beside_parameters(pipeline: diffusers.DiffusionPipeline) -> dict[str, torch.Tensor]:
    """A component's tensors other than parameters: buffers, and second names of tied parameters."""
    parts = {name: getattr(pipeline, name) for name in architecture_of(pipeline).trainable}
    return {
        f"{component}.{name}": tensor
        for component, part in parts.items()
        if part is not None
        for name, tensor in part.state_dict().items()
        if name not in dict(part.named_parameters())
    }


def _check_constants(
    path: Path,
    found: Mapping[str, torch.Tensor],
    base: Mapping[str, torch.Tensor],
    beside: Mapping[str, torch.Tensor],
) -> None:
    """Refuses a buffer that differs from the base model's, or a tied parameter with two different values."""
    names = {tensor.data_ptr(): name for name, tensor in base.items()}
    for name in found.keys() & beside.keys():
        tied_to = names.get(beside[name].data_ptr())
        expected = found[tied_to] if tied_to is not None and tied_to in found else beside[name].cpu()
        if not torch.equal(found[name].half(), expected.half()):
            raise WeightsError(
                f"{path}: '{name}' is no parameter, and another than the model has for it; no weight file can hold it"
            )


def _check_autoencoder(path: Path, pipeline: diffusers.DiffusionPipeline) -> None:
    """Refuses a pipeline whose autoencoder differs from the base model's: a weight file cannot hold it.

    Both are compared as diffusers loads them: older names become the newer ones, half precision is a rounding.
    """
    folder = path / "vae"
    if not any(file.suffix in WEIGHT_SUFFIXES for file in folder.glob("*")):
        return
    found = network_difference(load_network(type(pipeline.vae), folder, pickled=True), pipeline.vae)
    if found:
        raise WeightsError(
            f"{folder}: its autoencoder is not the base model's ({found}), and cannot be imported; to take the other"
            " components with the base model's autoencoder, take this folder away or name theirs"
        )


def _check_forward_process(path: Path, pipeline: diffusers.DiffusionPipeline) -> None:
    """Refuses weights that were trained for another noise schedule or another target."""
    if not (path / "scheduler").is_dir():
        return
    found = difference(forward_process_in(path), forward_process_of(pipeline))
    if found:
        raise WeightsError(
            f"{path}: its noise schedule is not the base model's ({found}), and cannot be imported; audit the folder "
            "as a pipeline of its own, or take its folder 'scheduler' away if it is wrong"
        )
