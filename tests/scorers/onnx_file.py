"""A tiny ONNX file, written byte by byte: no package that writes them is among the dependencies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Field numbers and type codes are those of onnx.proto; strings, messages and packed bytes are all of wire type 2.
CODES = {"float32": 1, "uint8": 2, "float16": 10, "float64": 11}
EXTERNAL, INTS = 1, 7
IR_VERSION, OPSET = 8, 13


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def chunk(field: int, *content: bytes | str) -> bytes:
    whole = b"".join(part.encode() if isinstance(part, str) else part for part in content)
    return varint(field << 3 | 2) + varint(len(whole)) + whole


def node(operation: str, inputs: list[str], output: str, domain: str = "", **attributes: Sequence[int]) -> bytes:
    """One operation, ONNX's own or of another domain; attributes are lists of integers."""
    listed = [
        chunk(5, chunk(1, name), *(number(8, value) for value in values), number(20, INTS))
        for name, values in attributes.items()
    ]
    names = (chunk(1, name) for name in inputs)
    return chunk(1, *names, chunk(2, output), chunk(3, output), chunk(4, operation), *listed, chunk(7, domain))


def initializer(name: str, values: np.ndarray, file: str = "") -> bytes:
    """Numbers of their own type; in ``file``, beside the graph, they are declared here and written by the caller."""
    shape = b"".join(number(1, size) for size in values.shape)
    kind = number(2, CODES[values.dtype.name])
    if not file:
        return chunk(5, shape, kind, chunk(8, name), chunk(9, values.astype(values.dtype.newbyteorder("<")).tobytes()))
    entries = {"location": file, "offset": "0", "length": str(values.nbytes)}
    stored = b"".join(chunk(13, chunk(1, key), chunk(2, value)) for key, value in entries.items())
    return chunk(5, shape, kind, chunk(8, name), stored, number(14, EXTERNAL))


def value_info(field: int, name: str, shape: Sequence[int | str], kind: str = "float32") -> bytes:
    sizes = b"".join(chunk(1, number(1, size) if isinstance(size, int) else chunk(2, size)) for size in shape)
    return chunk(field, chunk(1, name), chunk(2, chunk(1, number(1, CODES[kind]), chunk(2, sizes))))


def write_onnx(
    path: Path,
    weight: np.ndarray,
    bias: np.ndarray,
    *,
    ends_in: str = "",
    shape: Sequence[int | str] = (1, 3, "height", "width"),
    inputs: Sequence[str] = ("images",),
    weight_file: str = "",
    channels_last: bool = False,
    domain: str = "",
    metadata: str = "",
) -> Path:
    """images → scores (batch, classes): a linear map of the mean colour; (3, classes) and (classes,), in their type.

    Args:
        path: The file.
        weight, bias: Of the map.
        ends_in: An operation on the scores, such as ``Softmax``.
        shape: Of the images.
        inputs: Their name, and names of further inputs that nothing reads.
        channels_last: Whether the images are (batch, H, W, 3).
        weight_file: Where the weight is kept, relative to the file; '' for in it.
        domain: Of the last operation; '' for ONNX's own.
        metadata: What the file says under ``ort_config``.
    """
    kind, last = weight.dtype.name, "scores" if ends_in else "logits"
    graph = chunk(
        7,
        *([node("Transpose", ["images"], "turned", perm=(0, 3, 1, 2))] if channels_last else []),
        node("GlobalAveragePool", ["turned" if channels_last else "images"], "mean"),
        node("Flatten", ["mean"], "flat"),
        node("Gemm", ["flat", "weight", "bias"], "logits"),
        *([node(ends_in, ["logits"], "scores", domain)] if ends_in else []),
        chunk(2, "tiny"),
        initializer("weight", weight, weight_file),
        initializer("bias", bias),
        *(value_info(11, name, shape, kind) for name in inputs),
        value_info(12, last, [shape[0], len(bias)], kind),
    )
    domains = [chunk(8, chunk(1, name), number(2, 1 if name else OPSET)) for name in dict.fromkeys(("", domain))]
    said = chunk(14, chunk(1, "ort_config"), chunk(2, metadata)) if metadata else b""
    path.write_bytes(number(1, IR_VERSION) + graph + b"".join(domains) + said)
    return path
