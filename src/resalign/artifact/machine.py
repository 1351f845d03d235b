"""Describes the machine that packs an archive, and its installed packages."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import psutil


def machine() -> dict[str, Any]:
    """Processor, memory, GPUs, system and Python."""
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _gpus(),
        "python": platform.python_version(),
    }


def packages() -> str:
    """Every installed package, as ``name==version`` lines."""
    versions = {(versions.metadata["Name"] or "", versions.version) for versions in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions, key=lambda pair: pair[0].lower()))


def _processor() -> str:
    """Name of the processor, if the system knows it (Linux); a GPU job's is in the job's timing.json."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpus() -> list[str]:
    """Names of the NVIDIA GPUs, from their driver's files (Linux): no reason to load torch."""
    models = []
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = information.read_text(encoding="utf-8").splitlines()
        models += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return models
