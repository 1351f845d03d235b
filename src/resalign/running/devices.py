"""The device of a stage's process: one GPU that is no other process's, or the CPU where that is asked for."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from resalign.lazy import torch
from resalign.tracking import log

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 1.0
# `nvidia-smi -L`; instances of a divided GPU (MIG) stand below it, indented.
LISTED = re.compile(r"^(?:GPU \d+: |\s+)(?P<name>.+?):? *\(UUID: (?P<uuid>(?:GPU|MIG)-[^)]+)\)", re.MULTILINE)


class DeviceError(RuntimeError):
    """A requested GPU is missing or cannot be used; the message names a remedy."""


@dataclass(frozen=True)
class Lease:
    """A device that this process holds until it ends.

    Attributes:
        device: ``cuda`` or ``cpu``, as torch takes it.
        name: What it is: the GPU's model, or ``cpu``.
        waited_seconds: How long all GPUs were taken.
    """

    device: str
    name: str
    waited_seconds: float = 0.0


@dataclass(frozen=True)
class Gpu:
    """A visible GPU.

    Attributes:
        uuid: What it is called by every process on every host.
        name: Its model.
    """

    uuid: str
    name: str


@functools.cache
def lease(requested: str) -> Lease:
    """The device that a process works on; a GPU belongs to one process of this user at a time.

    A GPU is held by a lock that the kernel frees with the process, however it ends. Taking one sets
    CUDA_VISIBLE_DEVICES to it alone, so that ``cuda`` means it everywhere; CUDA must not have been used before.

    Args:
        requested: ``cpu``; ``cuda``, one of the visible GPUs; or ``auto``, the CPU where no GPU is visible.

    Raises:
        DeviceError: If no GPU is visible to ``cuda``, or one is visible that torch cannot use or tell from others.
    """
    if requested == "cpu":
        return Lease("cpu", "cpu")
    if torch.cuda.is_initialized():
        raise DeviceError("CUDA was used before a GPU was taken, so that its choice came too late; lease first")
    gpus = visible()
    if not gpus and torch.cuda.is_available():
        raise DeviceError("torch can use a GPU that `nvidia-smi -L` does not list; is nvidia-smi on the PATH?")
    if not gpus:
        if requested != "auto":
            raise DeviceError(f"{none_visible()}; run where one is, or set resources.<stage>.device: auto or cpu")
        log.info("%s: running on the CPU", none_visible())
        return Lease("cpu", "cpu")
    gpu, waited_seconds = _taken(gpus)
    os.environ[VISIBLE] = gpu.uuid  # an index could mean another GPU to CUDA, which may count the fastest first
    if not torch.cuda.is_available():
        raise DeviceError(
            f"torch {torch.__version__} cannot use {gpu.name} ({VISIBLE}={gpu.uuid}); it was built for CUDA "
            f"{torch.version.cuda}: update the driver, install a build that fits it, or set the stage's device: cpu"
        )
    log.info("running on %s (%s=%s)", gpu.name, VISIBLE, gpu.uuid)
    return Lease("cuda", gpu.name, waited_seconds)


def none_visible() -> str:
    """Error text: there is no GPU, and where it was looked for."""
    looked = f"{VISIBLE} is '{os.environ[VISIBLE]}'" if VISIBLE in os.environ else "nvidia-smi lists none"
    return f"no GPU is visible ({looked})"


def check_precision(device: str, *names: str | None) -> None:
    """Refuses a precision that a device has no units for: torch would emulate it, slower than float32.

    Raises:
        DeviceError: Naming the GPU.
    """
    if device == "cuda" and "bfloat16" in names and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DeviceError(
            f"{torch.cuda.get_device_name()} does not compute in bfloat16; set precision (or sampling.precision): "
            "float32, or run on a newer GPU"
        )


def warn_of_threads(threads: int) -> None:
    """Logs a warning if a stage has more threads than this process may use cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads > cores:
        log.warning("%d threads on %d cores are slower than %d; lower --cores", threads, cores, cores)


def visible() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES lets this process see, all if it is unset; starts no CUDA.

    An entry that names no GPU hides itself and those after it, as CUDA has it: '', '-1' and 'NoDevFiles' hide all.
    """
    installed = _installed()
    names = os.environ.get(VISIBLE)
    if names is None:
        return [Gpu(uuid, name) for uuid, name in installed.items() if uuid.startswith("GPU-")]
    whole = [uuid for uuid in installed if uuid.startswith("GPU-")]
    gpus = []
    for token in map(str.strip, names.split(",")):
        if token.isdecimal():
            matching = whole[int(token) : int(token) + 1]
        else:
            matching = [uuid for uuid in installed if token.startswith(("GPU-", "MIG-")) and uuid.startswith(token)]
        if len(matching) != 1:
            break
        gpus.append(Gpu(matching[0], installed[matching[0]]))
    return gpus


def _installed() -> dict[str, str]:
    """Model by UUID of this host's GPUs and of their instances, in the driver's order; empty without a driver."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        return {}
    except subprocess.TimeoutExpired:
        raise DeviceError("nvidia-smi -L does not answer; repair the driver, or set the stage's device: cpu") from None
    output = (listed.stdout + listed.stderr).strip()
    if listed.returncode and "No devices" not in output:
        raise DeviceError(f"nvidia-smi -L failed ({output}); repair the driver, or set the stage's device: cpu")
    return {match["uuid"]: " ".join(match["name"].split()) for match in LISTED.finditer(listed.stdout)}


def lock_folder() -> Path:
    """Folder of this user's locks: one file for each GPU."""
    return Path(tempfile.gettempdir()) / f"resalign-gpus-{os.getuid()}"


_held: list[IO[str]] = []  # open files, and so their locks, until the process ends


def _taken(gpus: list[Gpu], sleep: Callable[[float], None] = time.sleep) -> tuple[Gpu, float]:
    """Locks the first GPU that is free, waiting until one is; with the seconds that it waited."""
    folder = lock_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    began, logged = time.monotonic(), False
    while True:
        for gpu in gpus:
            file = (folder / f"{gpu.uuid.replace('/', '_')}.lock").open("a")
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _held.append(file)
                return gpu, time.monotonic() - began if logged else 0.0
            file.close()
        if not logged:
            log.info("%s taken by other jobs; waiting for one", _count(len(gpus)))
            logged = True
        sleep(POLL_SECONDS)


def _count(number: int) -> str:
    return "the one visible GPU is" if number == 1 else f"all {number} visible GPUs are"
