"""Networks from folders and files in the formats of their libraries: what a folder lacks is an error.

transformers, diffusers and open_clip fill in what is missing, some of it with random numbers, and only log it. Every
network of this package is loaded here, so that none is filled in unsaid.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from resalign.lazy import open_clip, torch
from resalign.tensors.settings import (
    REMEDY,
    check_network,
    check_open_clip,
    check_processor,
    check_shards,
    first_sentence,
)
from resalign.tensors.weights import (
    WeightsError,
    check_finite,
    component_files,
    load_pickled,
    missing_files,
    tensor_shapes,
)

# How diffusers and transformers call the weight files of a component, and their pickled ones.
NETWORK_FILES, ENCODER_FILES = "diffusion_pytorch_model", "model"
PICKLES = {NETWORK_FILES: "diffusion_pytorch_model.bin", ENCODER_FILES: "pytorch_model.bin"}
# A batch normalisation counts its training batches; torch itself does without the number.
COUNTER = "num_batches_tracked"
# How many names an error gives.
NAMED = 3
# As open_clip 3.3's factory has them: which files it takes for weights, and which names it prefers to all others.
OPEN_CLIP_SUFFIXES = (".safetensors", ".bin", ".pth")
OPEN_CLIP_NAMES = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)


def check_loaded(
    where: Path,
    network: torch.nn.Module,
    missing: Iterable[str] = (),
    mismatched: Iterable[tuple[str, Any, Any]] = (),
    unexpected: Iterable[str] = (),
    *,
    strict: bool = False,
) -> None:
    """Refuses a network unless every tensor of it comes from the file.

    A tensor that the network has no use for is no fault as such: a training's head often stands beside the weights.
    It is one if it belongs to a module that the network has, such as a bias, or one more of its layers.

    Args:
        where: The file or folder.
        network: What was loaded.
        missing: Names of the network's tensors that the file lacks.
        mismatched: Name, shape in the file and shape in the network of those that do not fit.
        unexpected: Names in the file that the network does not have.
        strict: Whether any tensor that the network does not have is a fault.

    Raises:
        WeightsError: Naming where, how many tensors and the first of them.
    """
    own = network.state_dict()
    missing, mismatched = sorted(missing), sorted(mismatched)
    modules = {_kind(name.rpartition(".")[0]) for name in own}
    extra = sorted(name for name in unexpected if strict or _belongs(name, modules))
    faults = []
    if missing:
        are_missing = f"{'is' if len(missing) == 1 else 'are'} missing: {_list(missing)}"
        faults.append(f"{len(missing)} of the {len(own)} tensors of {type(network).__name__} {are_missing}")
    if mismatched:
        name, found, expected = mismatched[0]
        shapes = f"'{name}' has shape {tuple(found)}, the network expects {tuple(expected)}"
        faults.append(f"{len(mismatched)} of the {len(own)} tensors do not fit: {shapes}")
    if shown := extra or (sorted(unexpected) if missing else []):
        faults.append(f"{len(shown)} tensors are not the network's: {_list(shown)}{_wrapper(missing, shown)}")
    if missing or mismatched or extra:
        raise WeightsError(f"{where}: {'; '.join(faults)}; {REMEDY}")


def load_network(
    network_class: Any,
    folder: Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    may_lack: tuple[str, ...] = (),
    pickled: bool = False,
) -> Any:
    """A network of transformers or diffusers, in evaluation mode, every tensor of it from the folder.

    Args:
        network_class: Its class, or one of transformers' Auto classes.
        folder: A folder as ``save_pretrained`` writes it.
        dtype: Which precision its tensors have, whatever that of the file is. In float16 transformers keeps some of T5
            in float32, whose activations overflow; it must not be cast afterwards.
        device: ``cpu``, or ``meta`` to check only names and shapes.
        may_lack: Beginnings of the names of tensors that nothing depends on.
        pickled: Whether a folder without safetensors may have ``.bin``, from which only tensors are read.

    Raises:
        WeightsError: If the folder has no such network, or lacks a tensor of it; if one has another shape or holds a
            value that is not finite.
    """
    from huggingface_hub.errors import StrictDataclassError

    is_diffusers = hasattr(network_class, "load_config")
    stem = NETWORK_FILES if is_diffusers else ENCODER_FILES
    settings: dict[str, Any] = {} if is_diffusers else {"weights_only": True}
    if device == "meta":
        settings["device_map"] = "meta"
    safe = _weights_are_safe(folder, stem, pickled)
    check_network(folder / "config.json", network_class)
    try:
        network, report = network_class.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=safe,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **settings,
        )
    except (OSError, ValueError, ImportError, StrictDataclassError) as error:
        raise WeightsError(f"{folder}: {first_sentence(error)}; {REMEDY}") from None
    missing = [name for name in report["missing_keys"] if not name.startswith(may_lack)]
    check_loaded(folder, network, missing, report["mismatched_keys"], report["unexpected_keys"])
    if device != "meta":
        check_finite(folder, {n: t for n, t in network.state_dict().items() if not n.startswith(may_lack)})
    return network.eval()


def load_tensors(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], where: Path) -> None:
    """Gives a network the tensors of a file, which must be its own, all of them; puts it into evaluation mode.

    Raises:
        WeightsError: If names or shapes are not exactly the network's, or a value is not finite.
    """
    own = network.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    missing = [name for name in own.keys() - shapes.keys() if not name.endswith(COUNTER)]
    mismatched = [(n, shapes[n], own[n].shape) for n in own.keys() & shapes.keys() if shapes[n] != own[n].shape]
    check_loaded(where, network, missing, mismatched, shapes.keys() - own.keys(), strict=True)
    odd = [n for n in own.keys() & shapes.keys() if own[n].is_floating_point() != tensors[n].is_floating_point()]
    if odd:
        kind = f"tensor '{odd[0]}' is {tensors[odd[0]].dtype}"
        raise WeightsError(f"{where}: {kind}; give dense weights that are not quantized")
    check_finite(where, tensors)
    # Not the network's own method: torch-fidelity's networks are loaded with theirs switched off.
    torch.nn.Module.load_state_dict(network, dict(tensors), strict=False)
    network.eval()


def load_open_clip(folder: Path, device: str) -> tuple[torch.nn.Module, Callable[..., Any], Callable[..., Any]]:
    """A CLIP in a folder of open_clip's, in float32, with its transforms for training and for inference.

    Raises:
        WeightsError: If a setting, the weights or a tensor is missing, or a tensor has another shape: open_clip would
            draw random weights, or stretch position embeddings.
    """
    _open_clip_settings(folder)
    file = _open_clip_file(folder)
    shapes = _shapes(file)
    try:
        with _unlogged():  # it would warn that the model is initialised randomly
            network, train, inference = open_clip.create_model_and_transforms(
                f"local-dir:{folder}", device=device, load_weights=False, pretrained_text=False
            )
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise WeightsError(f"{folder}: open_clip cannot build it ({first_sentence(error)}); {REMEDY}") from None
    own = network.state_dict()
    names = {name: name if name in own else f"text.{name}" for name in shapes}  # older files have the text at the top
    mismatched = [
        (names[name], shape, own[names[name]].shape)
        for name, shape in shapes.items()
        if names[name] in own and own[names[name]].numel() > 1 and shape != own[names[name]].shape
    ]
    check_loaded(file, network, mismatched=mismatched)
    report = open_clip.load_checkpoint(network, str(file), strict=False)
    check_loaded(file, network, report.missing_keys, (), report.unexpected_keys, strict=True)
    check_finite(file, network.state_dict())
    return network.eval(), train, inference


def load_processor(processor_class: Any, folder: Path) -> Any:
    """The preprocessing that a folder describes, by a processor of transformers, which fills in missing settings.

    Raises:
        WeightsError: If there is no ``preprocessor_config.json``, or it leaves out what images depend on.
    """
    file, settings = check_processor(folder)
    try:
        processor = processor_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise WeightsError(f"{file}: {first_sentence(error)}; {REMEDY}") from None
    needed = {"do_resize": ("size",), "do_normalize": ("image_mean", "image_std")}
    wanted = [key for switch, keys in needed.items() if getattr(processor, switch, False) for key in keys]
    lacking = [key for key in wanted if settings.get(key) is None]
    if lacking:
        raise WeightsError(f"{file}: lacks {lacking}; a default would be a guess: fetch the original file")
    return processor


def difference(one: Any, other: Any) -> str | None:
    """In what two networks of diffusers or transformers differ, up to rounding; None if they are the same function.

    Both were loaded by their library, so that older names are the newer ones, and settings that a file leaves out have
    their values.
    """
    if type(one) is not type(other):
        return f"one is a {type(one).__name__}, the other a {type(other).__name__}"
    settings = [_settings(network.config) for network in (one, other)]
    for key in sorted({*settings[0], *settings[1]}):
        if settings[0].get(key) != settings[1].get(key):
            return f"setting '{key}'"
    tensors = one.state_dict(), other.state_dict()
    for name in sorted({*tensors[0], *tensors[1]}):
        if not all(name in found for found in tensors) or not _same_values(tensors[0][name], tensors[1][name]):
            return f"tensor '{name}'"
    return None


# --- what fits --------------------------------------------------------------------------------------------------------


def _kind(name: str) -> str:
    """A module's name without the numbers of its layers."""
    return re.sub(r"\d+", "*", name)


def _belongs(name: str, modules: set[str]) -> bool:
    """Whether a tensor is a parameter of a module that the network has, in this layer or in another, or scales one."""
    module, _, last = name.rpartition(".")
    return bool(module) and any(word in last for word in ("weight", "bias", "scale")) and _kind(module) in modules


def _list(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:NAMED]) + (", …" if len(names) > NAMED else "")


def _wrapper(missing: list[str], found: list[str]) -> str:
    """A hint if a missing tensor is there with something in front of its name."""
    ends = [name for name in found if missing and name.endswith(f".{missing[0]}")]
    prefix = ends[0].removesuffix(missing[0]) if ends else ""
    if not prefix or not all(name.startswith(prefix) for name in found):
        return ""
    return f" (saved with a wrapper's '{prefix}' in front of every name: save the model inside it)"


def _same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are one, or one of them is the other rounded."""
    if one.shape != other.shape:
        return False
    pair = one.detach().cpu().float(), other.detach().cpu().float()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        rounded = [tensor.to(dtype) for tensor in pair]
        exact = any(torch.equal(own.float(), tensor) for own, tensor in zip(rounded, pair, strict=True))
        if exact and torch.equal(*rounded):
            return True
    return False


# Settings that describe a network's origin or training images, and do not change what it computes.
NO_FUNCTION = ("sample_size", "force_upcast", "dtype", "torch_dtype", "architectures", "transformers_version")


def _settings(config: Any) -> dict[str, Any]:
    """The settings that determine what a network computes; a library fills in what a file leaves out."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    plain = json.loads(json.dumps(values, default=str))  # tuples are lists in a file
    return {key: value for key, value in plain.items() if not key.startswith("_") and key not in NO_FUNCTION}


# --- files ------------------------------------------------------------------------------------------------------------


def _weights_are_safe(folder: Path, stem: str, pickled: bool) -> bool:
    """Whether a folder's weights are safetensors, all of them whole; else they are a pickle of only tensors."""
    if (folder / "adapter_config.json").is_file():
        raise WeightsError(f"{folder}: holds an adapter of another model; merge it and save the whole model")
    check_shards(folder, stem)
    files = component_files(folder, stem)
    for file in files:
        tensor_shapes(file)
    if files:
        return True
    if not pickled or not (folder / PICKLES[stem]).is_file():
        raise missing_files(folder, stem)
    load_pickled(folder / PICKLES[stem])
    return False


def _open_clip_settings(folder: Path) -> None:
    """Refuses a folder of which open_clip would guess how images are prepared, or that it would obey in more."""
    file = folder / "open_clip_config.json"
    settings = check_open_clip(file)
    lacking = [key for key in ("mean", "std") if key not in (settings.get("preprocess_cfg") or {})]
    if lacking:
        raise WeightsError(f"{file}: its preprocess_cfg lacks {lacking}; a default would be a guess: {REMEDY}")


def _open_clip_file(folder: Path) -> Path:
    """The weights that open_clip takes; of several without a name of its own, it would take the first unsaid."""
    from open_clip.factory import _find_checkpoint_in_dir

    with _unlogged():
        file = _find_checkpoint_in_dir(folder)
    found = sorted(path.name for path in folder.iterdir() if path.suffix in OPEN_CLIP_SUFFIXES)
    if file is not None and len(found) > 1 and Path(file).name not in OPEN_CLIP_NAMES:
        raise WeightsError(
            f"{folder}: holds several checkpoints, {_list(found)}, and none that open_clip prefers; leave one of them "
            f"in it, or call it '{OPEN_CLIP_NAMES[0]}' or '{OPEN_CLIP_NAMES[2]}'"
        )
    if file is None:
        raise WeightsError(
            f"{folder}: no open_clip_model.safetensors: without weights open_clip draws random ones; fetch the file too"
        )
    return Path(file)


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a weight file, without what torch's parallel training puts in front of them."""
    if file.suffix == ".safetensors":
        shapes = tensor_shapes(file)
    else:
        found = load_pickled(file)
        found = found.get("state_dict", found) if isinstance(found, dict) else found
        if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
            raise WeightsError(f"{file}: expected named tensors; {REMEDY}")
        shapes = {str(name): tuple(tensor.shape) for name, tensor in found.items()}
    if not shapes:
        raise WeightsError(f"{file}: holds no tensors")
    return {name.removeprefix("module."): shape for name, shape in shapes.items()}


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Without the warnings of open_clip, which writes them to the root of all loggers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
