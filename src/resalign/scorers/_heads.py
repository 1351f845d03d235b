"""Small networks on embeddings, as released: one file of named tensors, read so that no code in it can run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.tensors.pretrained import load_tensors
from resalign.tensors.weights import WeightsError, load_pickled, read_tensors

if TYPE_CHECKING:
    import numpy as np


class HeadConfig(Strict):
    """A head on CLIP's embedding.

    Attributes:
        folder: CLIP ViT-L/14 of OpenAI, as an open_clip folder.
        head: A folder with the head's files.
    """

    folder: str
    head: str


def read_checked(path: Path, sha256: str, remedy: str = "fetch it again, or name the hash of your own file") -> bytes:
    """A file's content.

    Args:
        path: The file.
        sha256: What it must have.
        remedy: What to do if it has another.

    Raises:
        WeightsError: If it is missing or has another hash.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file; fetch it or put it there")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(f"{path}: sha256 {found}, expected {sha256}; {remedy}")
    return content


def only_file(folder: Path, suffixes: Sequence[str]) -> Path:
    """The one file of a folder with one of the suffixes.

    Raises:
        WeightsError: If there is none, or more than one.
    """
    found = sorted(path for path in folder.glob("*") if path.suffix in suffixes)
    if len(found) != 1:
        names = [path.name for path in found]
        raise WeightsError(f"{folder}: expected exactly one file of {list(suffixes)}, found {names}")
    return found[0]


def load_head(network: torch.nn.Module, path: Path) -> None:
    """Gives a network the tensors of a file: of safetensors, or of ``torch.save`` read with ``weights_only``.

    Raises:
        WeightsError: If the file is neither, or its names or shapes are not exactly the network's.
    """
    weights = read_tensors(path) if path.suffix == ".safetensors" else load_pickled(path)
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise WeightsError(f"{path}: expected named tensors, got {type(weights).__name__}")
    load_tensors(network, weights, path)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays of plain numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        allowed: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
        for core in ("numpy.core", "numpy._core"):  # its name before NumPy 2, and since
            allowed[f"{core}.multiarray", "_reconstruct"] = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        allowed["_codecs", "encode"] = _latin_1
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only NumPy arrays are allowed")
        return allowed[module, name]


def _latin_1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes; other encodings are codecs, which may do anything."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}, and only latin1 is allowed")
    return text.encode("latin1")


def unpickle_array(content: bytes, source: Path) -> np.ndarray:
    """A pickled NumPy array of numbers.

    Raises:
        WeightsError: If the pickle holds anything else; nothing of it has run then.
    """
    import io

    import numpy as np

    try:
        stream = io.BytesIO(content)
        array = _ArrayUnpickler(stream).load()
        if stream.read(1):
            raise pickle.UnpicklingError("more stands behind the array")
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{source}: no pickled array: {' '.join(str(error).split())}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise WeightsError(f"{source}: expected an array of floating-point numbers, got {type(array).__name__}")
    return array
