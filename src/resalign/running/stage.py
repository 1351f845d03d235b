"""The frame of every stage's script: arguments, threads, saved state, records."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import psutil

from resalign import hashes, pipes
from resalign.config.closure import import_closure, source_hash
from resalign.config.strict import ConfigError, Strict
from resalign.files import remove_parts, whole
from resalign.lazy import torch
from resalign.running import devices, memory
from resalign.running.attempt import Attempt, Interrupted
from resalign.running.folder import StateError, StateFolder, state_folder
from resalign.running.stage_server import hand_over

# Kept free at the end of a job's time, for its results and for what the scheduler's own processes take.
LONGEST_RESERVE_SECONDS = 60.0
RESERVE_SHARE = 0.2
SMALL_BYTES = 1_000_000  # files up to this size are inputs by their contents, as Snakemake has it


JobT = TypeVar("JobT", bound=Strict)


@dataclass
class StageArguments(Generic[JobT]):
    """What the workflow hands a stage.

    Attributes:
        job: Resolved settings and paths, as the plan wrote them; once it runs, with the device that it got.
        seed: Training seed.
        threads: CPU threads that the stage may use.
        output: Folder to write into; made if missing.
        modules: Members whose code belongs to the stage, for the source hash.
        limit_minutes: Minutes after the start of the process at which the scheduler will kill it; None for never.
    """

    job: JobT
    seed: int
    threads: int
    output: Path
    modules: tuple[str, ...]
    limit_minutes: float | None = None


def run_stage(main: Callable[[], None]) -> None:
    """Runs a script's main; an error that the user can mend ends it with one line, not with a traceback.

    The exit status of a job that was asked to stop is 75 where a time limit is near, 128 + n after signal n. It has
    saved its state, and the same command goes on from there.
    """
    hand_over()

    from resalign.errors import DataError
    from resalign.hashes import DamagedError
    from resalign.running.devices import DeviceError
    from resalign.running.memory import MemoryExhausted
    from resalign.tensors.steps import DivergenceError
    from resalign.tensors.weights import WeightsError

    # The shells of the rules ignore these, so that a log is written to its end; Python must not inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pipes.end_with_the_reader()
    if "-" not in sys.argv[1:]:
        close_standard_input()
    try:
        main()
    except (
        *(ConfigError, DataError, DamagedError, WeightsError, DivergenceError),
        *(StateError, DeviceError, MemoryExhausted),
    ) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        sys.exit(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}")
    except (Interrupted, KeyboardInterrupt) as interrupted:
        # Not by the log: it may be what was interrupted.
        print(f"stopped: {str(interrupted) or 'by SIGINT'}", file=sys.stderr)  # noqa: T201
        sys.exit(getattr(interrupted, "status", 128 + signal.SIGINT))
    # Everything is written; taking torch's modules apart would take the interpreter another second.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line that every stage has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--job", type=read_job, required=True, help="resolved settings as JSON; - reads standard input")
    parser.add_argument("--seed", type=int, default=0, help="training seed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads to use")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--modules", nargs="*", default=[], help="modules of the family members in use")
    parser.add_argument(
        "--limit-minutes", type=float, help="minutes that the job may take, obeyed if RESALIGN_ENFORCE_LIMIT is set"
    )
    return parser


def parse_arguments(description: str | None, job_class: type[JobT]) -> StageArguments[JobT]:
    """The arguments of this process's command line.

    Args:
        description: Text of ``--help``.
        job_class: Class of the job, see :mod:`resalign.jobs.job`.

    Raises:
        ConfigError: If the job is not one of the class.
    """
    found = argument_parser(description).parse_args()
    limit = found.limit_minutes if os.environ.get("RESALIGN_ENFORCE_LIMIT") else None
    job = job_class.parse(found.job, where="--job")
    return StageArguments(job, found.seed, found.threads, found.output, tuple(found.modules), limit)


def read_job(text: str) -> Any:
    """A job; one that names every run of a large experiment is longer than a command's argument may be (128 KiB)."""
    if text != "-":
        return json.loads(text)
    job = json.loads(sys.stdin.read())
    close_standard_input()
    return job


def close_standard_input() -> None:
    """From here on nobody can answer a library that asks, such as whether to run the code of a folder."""
    with open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)


@contextlib.contextmanager
def running(
    arguments: StageArguments[Any],
    *,
    resumes: Literal["no", "steps", "pieces"] = "no",
    inputs: Iterable[str | Path] = (),
    made: Iterable[str] | None = None,
) -> Iterator[Attempt]:
    """Sets a stage up, takes up what an earlier attempt has saved, and records the stage when it has ended well.

    Writes ``run.json`` (settings, seed, source hash, versions: the same whenever the result is), ``timing.json``
    (seconds, memory, machine: apart, as no two runs have the same) and, when all is written, ``hashes.json``.

    Args:
        arguments: Arguments from the workflow.
        resumes: Whether an attempt goes on from an earlier one's saved steps, or from the pieces that it has made.
        inputs: Files and folders that the stage reads, as their jobs have written them; with others it starts afresh.
        made: The stage's own files and folders in the output folder, where those of other stages lie beside them.

    Raises:
        DamagedError: If an input is not what its job has written.
        StateError: If the saved state is damaged, or in use by another process.
    """
    lease = _set_up(arguments)
    inputs, job = [hashes.verified(path) for path in inputs], arguments.job.model_dump(mode="json")
    record = {
        "job": job,
        "seed": arguments.seed,
        "source_sha256": source_hash(import_closure(f"scripts/{Path(sys.argv[0]).name}", *arguments.modules)),
        "versions": _versions(),
    }
    with contextlib.ExitStack() as stack:
        folder = None
        if resumes != "no":
            fingerprint = {**record, "threads": arguments.threads, "inputs": inputs_hash(inputs)}
            folder = stack.enter_context(StateFolder(state_folder(arguments.output), fingerprint))
        stack.enter_context(hashes.being_written(arguments.output))
        if made is None:  # else jobs of other machines may be at work there
            remove_parts(arguments.output)
        begun_at, created_at = time.time(), _created_at()
        attempt = Attempt(folder, deadline=_deadline(arguments.limit_minutes, created_at))
        stack.enter_context(_stopped_by_signals(attempt))
        with memory.explained(Path(sys.argv[0]).stem, job):
            yield attempt
        start_seconds = begun_at - created_at - lease.waited_seconds
        write_json(arguments.output / "run.json", record)
        write_json(arguments.output / "timing.json", _timing(attempt, arguments, lease, created_at, start_seconds))
        hashes.seal(arguments.output, made)
        if folder:
            folder.clear()


def _set_up(arguments: StageArguments[Any]) -> devices.Lease:
    """Sets up logging, threads and deterministic arithmetic, and takes the device that the job asks for."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # cuBLAS repeats its bits only with a workspace of fixed size; it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a job's work is more than its log
    arguments.output.mkdir(parents=True, exist_ok=True)
    job = arguments.job.model_dump(mode="json")
    lease = devices.lease(job.get("device", "cpu"))
    devices.warn_of_threads(arguments.threads)
    sampling = job.get("sampling", {})
    devices.check_precision(lease.device, job.get("precision"), sampling.get("precision"))
    if "device" in job:  # what the stage uses, records and resumes by is the device that it got
        arguments.job = arguments.job.model_copy(update={"device": lease.device})
    return lease


@contextlib.contextmanager
def _stopped_by_signals(attempt: Attempt) -> Iterator[None]:
    """SIGTERM and SIGINT stop the attempt, after its present step where it has steps."""
    before = {number: signal.signal(number, attempt.stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _created_at() -> float:
    """UNIX time at which this process was created.

    On Linux psutil adds the time since boot to the time of boot, which the kernel gives in whole seconds: it may be a
    second early. The process's age is exact.
    """
    created_at = psutil.Process().create_time()
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return created_at
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - (created_at - psutil.boot_time()))


def _deadline(limit_minutes: float | None, created_at: float) -> float | None:
    """When to be done, as a time of the monotonic clock: a little before the limit, so that there is time to save."""
    if limit_minutes is None:
        return None
    limit_seconds = 60 * limit_minutes
    reserve_seconds = min(LONGEST_RESERVE_SECONDS, RESERVE_SHARE * limit_seconds)
    return time.monotonic() + limit_seconds - reserve_seconds - (time.time() - created_at)


def inputs_hash(inputs: Iterable[str | Path]) -> str:
    """sha256 over files, and all those in folders: small ones' contents, sizes and times of the others.

    A workflow that runs a job again writes the same small files anew.
    """
    paths = map(Path, inputs)
    files = {file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])}
    lines = []
    for file in sorted(files):
        if file.is_file() and not file.name.startswith(".") and file.name not in hashes.RECORDS[1:]:
            found = file.stat()
            small = found.st_size <= SMALL_BYTES
            state = hashlib.sha256(file.read_bytes()).hexdigest() if small else f"{found.st_size} {found.st_mtime_ns}"
            lines.append(f"{file}\x1f{state}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_json(path: Path, values: Any) -> None:
    """Writes sorted, indented JSON."""
    with whole(path) as part:
        part.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def progress_bar(description: str) -> Any:
    """Wraps a range in a progress bar that writes a line every few seconds, fit for a log file too."""
    from tqdm import tqdm

    return lambda steps: tqdm(steps, desc=description, mininterval=10, ascii=True, ncols=90)


def _versions() -> dict[str, str]:
    """Versions that can change a number."""
    from importlib.metadata import version

    names = ["torch", "diffusers", "transformers", "open_clip_torch", "torch-fidelity", "numpy", "scikit-learn"]
    names += ["nudenet", "onnxruntime", "optuna", "peft", "pillow"]
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _timing(
    attempt: Attempt, arguments: StageArguments[Any], lease: devices.Lease, created_at: float, start_seconds: float
) -> dict[str, Any]:
    """Times of a stage, and the machine that it ran on."""
    import resource

    memory_unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes on Linux
    timing = {
        "seconds": round(attempt.seconds, 3),
        "start_seconds": round(start_seconds, 3),
        "started_at": round(created_at, 3),
        "ended_at": round(time.time(), 3),
        "attempts": attempt.number,
        "steps": attempt.steps_taken,
        "step_seconds": round(attempt.step_seconds, 3),
        "first_step_seconds": round(attempt.first_step_seconds, 3),
        "device": lease.name,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / memory_unit, 1),
        "threads": arguments.threads,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
    if lease.device == "cuda":
        timing["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return timing
