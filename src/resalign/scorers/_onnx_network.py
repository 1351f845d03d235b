"""An ONNX file as onnxruntime runs it on the CPU; a fault of the file is one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resalign.lazy import torch
from resalign.tensors.weights import WeightsError

if TYPE_CHECKING:
    import onnxruntime


def open_network(path: Path) -> onnxruntime.InferenceSession:
    """The network; onnxruntime refuses weights outside the file's folder, and operations that are not its own."""
    import onnxruntime

    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the scorer's key 'file' the ONNX file's name")
    # With it the file itself could choose where onnxruntime writes a profile and the optimised network.
    os.environ.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with explained(path):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns onnxruntime's errors about a file into one line."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    of_the_file = (errors.InvalidProtobuf, errors.InvalidGraph, errors.NotImplemented, errors.NoSuchFile)
    try:
        yield
    except (errors.Fail, errors.RuntimeException, errors.InvalidArgument, *of_the_file) as error:
        problem = " ".join(str(error).split())
        raise WeightsError(
            f"{path}: onnxruntime cannot run it: {problem}; export it again, with ONNX's own operations and all files "
            "of its weights beside it, and check the scorer's keys 'pixels' and 'layout'"
        ) from None
