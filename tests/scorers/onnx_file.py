"""A tiny ONNX file, written byte by byte: no package that writes them is among the dependencies."""

from pathlib import Path

import numpy as np

# Field numbers and type codes are those of onnx.proto; strings, messages and packed bytes are all of wire type 2.
FLOAT = 1
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


def node(operation: str, inputs: list[str], output: str) -> bytes:
    return chunk(1, *(chunk(1, name) for name in inputs), chunk(2, output), chunk(3, output), chunk(4, operation))


def initializer(name: str, values: np.ndarray) -> bytes:
    shape = b"".join(number(1, size) for size in values.shape)
    return chunk(5, shape, number(2, FLOAT), chunk(8, name), chunk(9, values.astype("<f4").tobytes()))


def value_info(field: int, name: str, shape: list[int | str]) -> bytes:
    sizes = b"".join(chunk(1, number(1, size) if isinstance(size, int) else chunk(2, size)) for size in shape)
    return chunk(field, chunk(1, name), chunk(2, chunk(1, number(1, FLOAT), chunk(2, sizes))))


def write_onnx(path: Path, weight: np.ndarray, bias: np.ndarray) -> Path:
    """images (1, 3, H, W) → logits (1, classes): a linear map of the mean colour; (3, classes) and (classes,)."""
    graph = chunk(
        7,
        node("GlobalAveragePool", ["images"], "mean"),
        node("Flatten", ["mean"], "flat"),
        node("Gemm", ["flat", "weight", "bias"], "logits"),
        chunk(2, "tiny"),
        initializer("weight", weight),
        initializer("bias", bias),
        value_info(11, "images", [1, 3, "height", "width"]),
        value_info(12, "logits", [1, len(bias)]),
    )
    path.write_bytes(number(1, IR_VERSION) + graph + chunk(8, chunk(1, ""), number(2, OPSET)))
    return path
