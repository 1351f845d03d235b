"""A look into pickles without loading them: which functions they would call."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path, PurePosixPath

from resalign.data.source import BrokenFileError, Source, UnsafeFileError

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".p", ".pickle")
# torch's first format is five pickles in a row, then raw numbers.
MOST_PICKLES = 5
MAX_PICKLE_BYTES = 64 << 20
# What tensors, arrays and plain containers are built with, as torch's weights_only loader has it; and numpy's.
HARMLESS = {
    "collections": {"OrderedDict", "defaultdict"},
    "_codecs": {"encode"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "torch._utils": {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"},
    "torch": {"Size", "device", "Tensor"},
    "torch.serialization": {"_get_layout"},
}
STORAGES = ("Storage",)  # torch.FloatStorage and its kin
DTYPES = {"float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"}


def check_pickles(source: Source, path: Path, label: str) -> None:
    """Refuses a weight file whose pickle names anything that tensors do not need; nothing in it is run.

    Raises:
        UnsafeFileError: Naming what it would have called.
        BrokenFileError: If it is no whole pickle.
    """
    if PurePosixPath(label).suffix.lower() not in SUFFIXES or not path.is_file():
        return
    try:
        found = sorted(name for content in _pickles(path) for name in _names(content) if not _is_harmless(name))
    except (ValueError, IndexError, EOFError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise source.error(BrokenFileError, f"{label} is no whole pickle ({error})", "fetch it anew") from None
    if found:
        problem = f"{label} is a pickle that would call {', '.join(found[:3])}; it was not loaded"
        raise source.error(UnsafeFileError, problem, "use a safetensors file of the same weights")


def _pickles(path: Path) -> list[bytes]:
    """Every pickle of a file: torch's zip holds one as data.pkl."""
    with path.open("rb") as stream:
        content = stream.read(MAX_PICKLE_BYTES)
    # By its first bytes, as torch decides: a zip may be hung on a pickle, and zipfile would find it from the end.
    if not content.startswith(b"PK\x03\x04"):
        return [content]
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".pkl")]
        if not infos or any(info.file_size > MAX_PICKLE_BYTES for info in infos):
            raise ValueError(f"{len(infos)} pickles in a zip, or too large ones")
        return [archive.read(info) for info in infos]


def _names(content: bytes) -> list[str]:
    """Every ``module.name`` that loading would look up."""
    stream = io.BytesIO(content)
    found: list[str] = []
    for number in range(MOST_PICKLES):
        try:
            _add_names(stream, found)
        except ValueError:
            if number == 0:
                raise
            break  # the raw numbers behind torch's pickles
        if stream.tell() == len(content):
            break
    return found


def _add_names(stream: io.BytesIO, found: list[str]) -> None:
    """Adds one pickle's names.

    A name on the stack is known only if the operations right before pushed it, as text or from the memo: whatever else
    happens there counts as unknown, and so as harmful.
    """
    pushed: list[str | None] = []
    memo: dict[int, str | None] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            found.append(str(argument).replace(" ", ".", 1))
            pushed.append(None)
        elif opcode.name == "STACK_GLOBAL":
            module, name = ([None, None, *pushed])[-2:]
            found.append(f"{module}.{name}" if module and name else "something that it does not name")
            pushed.append(None)
        elif opcode.name.startswith("EXT"):
            found.append(f"extension {argument}")
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = pushed[-1] if pushed else None
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(str(argument))] = pushed[-1] if pushed else None
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(int(str(argument))))
        else:
            pushed.append(argument if isinstance(argument, str) and "UNICODE" in opcode.name else None)


def _is_harmless(name: str) -> bool:
    module, _, last = name.rpartition(".")
    torch_type = module == "torch" and (last.endswith(STORAGES) or last in DTYPES)
    return last in HARMLESS.get(module, ()) or torch_type
