"""Weight files: safetensors, checked against what they are loaded into; a look into others that runs nothing."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resalign.files import whole
from resalign.hashes import verified
from resalign.lazy import torch

# What torch's reader of pickles without code was seen to raise at broken files, found by changing bytes of whole ones.
PICKLE_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AssertionError,
    TypeError,
    AttributeError,
    struct.error,
)


class WeightsError(ValueError):
    """A weight file that cannot be used; the message names file, tensor and remedy."""


def save_weights(path: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors atomically: the file is whole or absent.

    Raises:
        WeightsError: If there are none.
    """
    from safetensors.torch import save_file

    if not weights:
        raise WeightsError(
            f"{path}: no tensors to write; a method that changes nothing needs more steps or a larger lr"
        )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with whole(path) as part:
        save_file(tensors, part, metadata=dict(metadata or {}))


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, read from its header.

    Raises:
        WeightsError: If the file is missing or no whole safetensors file (truncated, or a renamed pickle).
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file; fetch or make it")
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path}: expected a .safetensors file; convert it first, other formats may run code when read"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise WeightsError(
            f"{path}: not a whole safetensors file ({error}); truncated, or a renamed pickle? fetch or make it again"
        ) from None


def kept_states(manifest: Path) -> dict[int, Path | None]:
    """Weight files by step, of an attack's ``checkpoints.json``; None where the model's own weights are unchanged.

    Raises:
        WeightsError: If a file is missing.
    """
    names = json.loads(verified(manifest).read_text(encoding="utf-8"))
    states = {int(step): None if name is None else manifest.parent / name for step, name in names.items()}
    missing = [str(path) for path in states.values() if path is not None and not path.is_file()]
    if missing:
        raise WeightsError(f"{missing} are listed in {manifest} but missing; delete {manifest} to make them again")
    return states


def component_files(folder: Path, stem: str, suffix: str = ".safetensors") -> list[Path]:
    """The weight files of a pipeline's component as diffusers finds them: one of that name, or all of its shards.

    Args:
        folder: The component's folder.
        stem: What its library calls its weights.
        suffix: Of their files.

    Returns:
        Their paths, none if there are neither; ``stem.fp16.safetensors`` is a variant, which has to be asked for.

    Raises:
        WeightsError: If a shard is missing.
    """
    if (folder / f"{stem}{suffix}").is_file():
        return [folder / f"{stem}{suffix}"]
    shards = sorted(folder.glob(f"{stem}-?????-of-?????{suffix}"))
    if shards and len(shards) != (count := int(shards[0].stem[-5:])):
        raise WeightsError(f"{folder}: has {len(shards)} of {count} shards; fetch the others")
    return shards


def missing_files(folder: Path, stem: str) -> WeightsError:
    """The error for a folder without the safetensors file that its library looks for."""
    weights = (*folder.glob("*.bin"), *folder.glob("*.pth"), *folder.glob("*.pt"), *folder.glob("*.safetensors"))
    found = sorted(path.name for path in weights) or "nothing"
    return WeightsError(
        f"{folder}: no {stem}.safetensors (found {found}); only safetensors are loaded, and no variants: to convert "
        "it, load it once with its own library (with variant=... if need be) and save it with "
        "save_pretrained(folder, safe_serialization=True)"
    )


def check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises WeightsError unless a file's tensors are some of the model's, each of the model's shape."""
    if not shapes:
        raise WeightsError(f"{path}: holds no tensors")
    for name, shape in shapes.items():
        if name not in expected:
            raise WeightsError(
                f"{path}: the model has no tensor named '{name}'; these weights belong to another architecture"
            )
        if shape != expected[name]:
            raise WeightsError(f"{path}: tensor '{name}' has shape {shape}, the model expects {expected[name]}")


def load_weights(path: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reads named tensors that must fit a model.

    Args:
        path: A safetensors file.
        expected: The model's tensors by name; the file may hold any subset of them, but nothing else.

    Raises:
        WeightsError: If the file is missing, is not a whole safetensors file (such as a pickle), names a tensor that
            the model lacks, or holds one of another shape or with values that are not finite.
    """
    check_shapes(path, tensor_shapes(path), {name: tuple(tensor.shape) for name, tensor in expected.items()})
    weights = read_tensors(path)
    check_finite(path, weights)
    return weights


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file, as it stands there.

    Raises:
        WeightsError: If the file is missing or no whole safetensors file.
    """
    from safetensors.torch import load_file

    tensor_shapes(path)
    return dict(load_file(verified(path)))


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def check_finite(where: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises WeightsError if a tensor holds NaN or an infinite value, as a cast to a smaller type may make of it."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() and not torch.isfinite(torch.stack(tensor.aminmax())).all():
            raise WeightsError(f"{where}: tensor '{name}' holds values that are not finite in {tensor.dtype}")


def load_pickled(path: Path) -> Any:
    """Reads a file of ``torch.save`` that holds only tensors and plain containers; no code of the pickle is run.

    Tensors of a file of torch 1.6 or later stay on the disk until they are used.

    Raises:
        WeightsError: If the file is missing, is none of ``torch.save``, or would call anything.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file; fetch it or put it there")
    try:
        with warnings.catch_warnings(action="ignore"):  # of a protocol that is not torch's own: it is read, or refused
            return torch.load(verified(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except PICKLE_ERRORS as error:
        # torch wraps its reason in advice to trust the file.
        problem = str(error).partition("WeightsUnpickler error:")[2] or str(error) or "it ends too early"
        reason = problem.strip().splitlines()[0].split(". ")[0]
        raise WeightsError(f"{path}: not a file of only tensors ({reason}); convert it to .safetensors") from None
