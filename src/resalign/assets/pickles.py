"""Inspects pickles without loading them: which functions they would call.

Two inspections must both pass: the rules below, which allow only what tensors and arrays need and read every pickle to
its end, and the library picklescan.
"""

from __future__ import annotations

import collections
import io
import logging
import pickletools
import tarfile
import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from resalign.assets.source import BrokenFileError, Source, UnsafeFileError
from resalign.data.members import BROKEN

ARRAY = ".npy"
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".th", ".pkl", ".p", ".pickle", ".joblib", ARRAY, ".npz")
# torch's first format is five pickles in a row, of which the first is its magic number, then raw numbers.
TORCH_PICKLES = 5
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# Of one file: the tensors of a Stable Diffusion checkpoint are described by 60,000 operations in 1 MB.
MAX_PICKLE_BYTES = 64 << 20
MAX_OPERATIONS = 1_000_000
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
    """Refuses a file whose pickle looks up anything that tensors do not need; nothing in the file is run.

    Files with a suffix of pickles are inspected, and all others that begin like one.

    Raises:
        UnsafeFileError: Naming what it would have called, or why it cannot be read to its end.
        BrokenFileError: If it is not a complete pickle.
    """
    suffix = PurePosixPath(label).suffix.lower()
    if not path.is_file() or not (suffix in PICKLED or _begins_as_pickle(path, suffix)):
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's, of backslashes in texts that may be any bytes
            called = sorted({name for name in _names_in(path, suffix) if not _is_harmless(name)})
    except _TooLargeError as error:
        problem = f"{label} cannot be checked to its end: {error}; it was not loaded"
        raise source.error(UnsafeFileError, problem, "use a safetensors file of the same weights") from None
    except (*BROKEN, ValueError, IndexError, RuntimeError, SyntaxError, tokenize.TokenError) as error:
        raise source.error(BrokenFileError, f"{label} is no whole pickle ({error})", "fetch it anew") from None
    if called:
        problem = f"{label} is a pickle that would call {', '.join(called[:3])}; it was not loaded"
        raise source.error(UnsafeFileError, problem, "use a safetensors file of the same weights")


class _TooLargeError(Exception):
    """A pickle with more bytes or operations than the limits."""


def _begins_as_pickle(path: Path, suffix: str) -> bool:
    """Whether a file has the mark of protocols 2 to 5, with which torch's and numpy's pickles begin."""
    if suffix == ".safetensors":  # begins with a length, which may be equal to the mark
        return False
    with path.open("rb") as stream:
        return stream.read(2) in {bytes((0x80, protocol)) for protocol in range(2, 6)}


def _names_in(path: Path, suffix: str) -> list[str]:
    """The names that a file's pickles look up.

    Whether a file is a zip is decided by its first bytes, as torch and numpy do: a zip may be appended to a pickle, and
    zipfile would find it from the end.
    """
    with path.open("rb") as stream:
        start = stream.read(6)
        stream.seek(0)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _names_in_zip(path)
        names = _names_in_array(stream) if suffix == ARRAY or start == b"\x93NUMPY" else _names(stream)
    if all(map(_is_harmless, names)) and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path)):
        raise ValueError("it is an archive, too: what is read depends on the reader")
    return names


def _names_in_zip(path: Path) -> list[str]:
    """The names that a zip's pickles and arrays look up: torch's has a pickle, data.pkl, and raw data below data/."""
    names: list[str] = []
    pickled = 0
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        # torch's reader of zips takes capitals for small letters.
        times = collections.Counter(info.filename.lower() for info in infos)
        if not infos or max(times.values()) > 1 or min(info.header_offset for info in infos):
            raise ValueError("its zip has a name twice, nothing, or something before its files: readers differ")
        for info in infos:
            if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
                raise ValueError(f"{info.filename} has two sizes in its zip")
            suffix = PurePosixPath(info.filename).suffix.lower()
            with archive.open(info) as stream:  # refuses encryption, and a file with another name than in the table
                if suffix not in PICKLED:
                    continue
                content = stream.read(MAX_PICKLE_BYTES + 1) if suffix != ARRAY else b""
                if len(content) > MAX_PICKLE_BYTES:
                    raise _TooLargeError(f"{info.filename} has more than {MAX_PICKLE_BYTES} bytes")
                names += _names(io.BytesIO(content)) if suffix != ARRAY else _names_in_array(stream)
                pickled += 1
    if not pickled:
        raise ValueError("its zip holds no pickle and no array")
    return names


def _names_in_array(stream: IO[bytes]) -> list[str]:
    """The names that an array file looks up: none, unless it holds objects, which are a pickle behind the header."""
    from numpy.lib import format as array_file

    version = array_file.read_magic(stream)
    read_header = array_file.read_array_header_1_0 if version == (1, 0) else array_file.read_array_header_2_0
    return _names(stream) if read_header(stream)[2].hasobject else []


def _names(stream: IO[bytes]) -> list[str]:
    """Every ``module.name`` that a stream's pickles look up; they fill it, unless they are torch's five.

    Raises:
        ValueError: If one of them is not whole, or something else stands behind them.
    """
    looked_up: list[str] = []
    begun, budget = stream.tell(), iter(range(MAX_OPERATIONS))
    try:
        is_torch, number = _add_names(_operations(stream, begun, budget), looked_up) == TORCH_MAGIC, 1
        while not (is_torch and number == TORCH_PICKLES) and stream.read(1):
            stream.seek(-1, io.SEEK_CUR)
            _add_names(_operations(stream, begun, budget), looked_up)
            number += 1
    except ValueError:
        if all(map(_is_harmless, looked_up)):
            raise
        return looked_up  # the names of its calls are more useful than 'it is broken'
    size = stream.tell() - begun
    stream.seek(begun)
    return [*looked_up, *_found_by_picklescan(stream.read(size))]


def _operations(stream: IO[bytes], begun: int, budget: Iterator[int]) -> Iterator[tuple[Any, Any]]:
    """A pickle's operations and their arguments.

    Raises:
        _TooLargeError: Beyond the number of bytes and operations that are read.
    """
    bounded: Any = _Bounded(stream, begun + MAX_PICKLE_BYTES)
    for opcode, argument, _ in pickletools.genops(bounded):
        if next(budget, None) is None:
            raise _TooLargeError(f"its pickle has more than {MAX_OPERATIONS} operations")
        yield opcode, argument


class _Bounded:
    """A stream with a limit, so that a falsely declared length takes no memory."""

    def __init__(self, stream: IO[bytes], end: int) -> None:
        self._stream, self._end = stream, end
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if self.tell() + size > self._end:
            raise _TooLargeError(f"its pickle has more than {MAX_PICKLE_BYTES} bytes")
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(self._end - self.tell() + 1)
        self.read(0)
        return line


def _add_names(operations: Iterator[tuple[Any, Any]], names: list[str]) -> Any:
    """Adds the names in one pickle, and returns its first argument, which may be torch's magic number.

    A name is known only if the two operations before the lookup pushed it as text or from the memo; anything else
    counts as unknown, and therefore as harmful.
    """
    pushed: collections.deque[str | None] = collections.deque([None, None], maxlen=2)
    memo: dict[int, str | None] = {}
    first: list[Any] = []
    for opcode, argument in operations:
        first += [argument] if not first and opcode.name != "PROTO" else []
        if opcode.name in ("GLOBAL", "INST"):
            names.append(str(argument).replace(" ", ".", 1))
            pushed.append(None)
        elif opcode.name == "STACK_GLOBAL":
            module, name = pushed
            names.append(f"{module}.{name}" if module and name else "something that it does not name")
            pushed.append(None)
        elif opcode.name.startswith("EXT"):
            names.append(f"extension {argument}")
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = pushed[-1]
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(str(argument))] = pushed[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(int(str(argument))))
        else:
            pushed.append(argument if isinstance(argument, str) and "UNICODE" in opcode.name else None)
    return first[0]


def _is_harmless(name: str) -> bool:
    module, _, last = name.rpartition(".")
    torch_type = module == "torch" and (last.endswith(STORAGES) or last in DTYPES)
    return last in HARMLESS.get(module, ()) or torch_type


def _found_by_picklescan(content: bytes) -> Iterator[str]:
    """Every name that picklescan finds, marked where only picklescan knows it as dangerous.

    Raises:
        ValueError: If it cannot read all of it.
    """
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)  # the caller reports its findings
    result = scan_pickle_bytes(io.BytesIO(content), "a pickle")
    if result.scan_err:
        raise ValueError("picklescan cannot read it")
    for looked_up in result.globals:
        name = f"{looked_up.module}.{looked_up.name}"
        differs = looked_up.safety is SafetyLevel.Dangerous and _is_harmless(name)
        yield f"{name} (dangerous by picklescan)" if differs else name
