"""What every stage's script shares: its arguments, its threads, its records."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resalign.config.closure import import_closure, source_hash
from resalign.config.strict import ConfigError
from resalign.lazy import torch


@dataclass(frozen=True)
class StageArguments:
    """What the workflow tells a stage.

    Attributes:
        job: Resolved settings and folders, as the plan wrote them.
        seed: Training seed.
        threads: CPU threads that the stage may use.
        output: Folder to write into; made if missing.
        modules: Members whose code belongs to the stage, for the source hash.
    """

    job: dict[str, Any]
    seed: int
    threads: int
    output: Path
    modules: tuple[str, ...]


def run_stage(main: Callable[[], None]) -> None:
    """Runs a script's main; an error that the user can mend ends it with one line, not with a traceback."""
    from resalign.data.images import DataError
    from resalign.tensors.steps import DivergenceError
    from resalign.tensors.weights import WeightsError

    try:
        main()
    except (ConfigError, DataError, WeightsError, DivergenceError) as error:
        sys.exit(f"error: {error}")


def parse_arguments(description: str) -> StageArguments:
    """The command line that every stage has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--job", type=json.loads, required=True, help="resolved settings as JSON")
    parser.add_argument("--seed", type=int, default=0, help="training seed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads to use")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--modules", nargs="*", default=[], help="modules of the family members in use")
    arguments = parser.parse_args()
    return StageArguments(arguments.job, arguments.seed, arguments.threads, arguments.output, tuple(arguments.modules))


@contextlib.contextmanager
def running(arguments: StageArguments) -> Iterator[None]:
    """Sets a stage up, and records it when it has ended well.

    Writes ``run.json`` (settings, seed, source hash, versions: the same whenever the result is) and ``timing.json``
    (seconds, memory, machine: different at every run, and so kept apart from everything that is compared).
    """
    started = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # cuBLAS repeats its bits only with a workspace of fixed size; it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    yield
    files = import_closure(f"scripts/{Path(sys.argv[0]).name}", *arguments.modules)
    record = {
        "job": arguments.job,
        "seed": arguments.seed,
        "source_sha256": source_hash(files),
        "versions": _versions(),
    }
    write_json(arguments.output / "run.json", record)
    timing = {
        "seconds": round(time.monotonic() - started, 3),
        "peak_memory_mb": _peak_memory_mb(),
        "threads": arguments.threads,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
    write_json(arguments.output / "timing.json", timing)


def write_json(path: Path, values: Any) -> None:
    """Writes sorted, indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def progress_bar(description: str) -> Any:
    """Wraps a range in a progress bar that writes a line every few seconds, fit for a log file too."""
    from tqdm import tqdm

    return lambda steps: tqdm(steps, desc=description, mininterval=10, ascii=True, ncols=90)


def _versions() -> dict[str, str]:
    """Versions that can change a number."""
    from importlib.metadata import version

    names = ("torch", "diffusers", "transformers", "open_clip_torch", "torch-fidelity", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 if sys.platform == "darwin" else 1024) / (1024 if sys.platform == "darwin" else 1), 1)
