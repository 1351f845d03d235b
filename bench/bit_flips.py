"""Whether a flipped bit in results is noticed: by the check of the whole tree, and by the jobs that read the file.

    python -m resalign.running.stage_server python bench/bit_flips.py --flips 300 --read 40

Each trial flips one random bit of one random file of a kind, leaves the file's times as they were, asks for all
problems below the folder, and puts the bit back. Some of the files are read as well, by a stage whose record names
them; it must end with an error that names the file. Take a copy: a trial that is killed leaves its bit flipped.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from resalign import hashes

KINDS = {
    "scores": ("scores.parquet",),
    "weights": ("*.safetensors",),
    "images": ("*.png", "*.webp"),
    "manifests": ("images.csv", "checkpoints.json", "metadata.csv", "run.json", hashes.NAME),
}
STAGES = ("unlearn", "attack", "sample", "score")


def main() -> None:
    """Flips and prints a table; exit status 1 if a flip was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="of a finished experiment")
    parser.add_argument("--flips", type=int, default=300, help="trials, spread over the kinds")
    parser.add_argument("--read", type=int, default=40, help="trials in which a stage reads the file as well")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of files and bits")
    parsed = parser.parse_args()
    chosen, counts, missed = random.Random(parsed.seed), collections.Counter[tuple[str, str]](), list[str]()
    files = {kind: sorted(listed_files(parsed.results, patterns)) for kind, patterns in KINDS.items()}
    for trial in range(parsed.flips):
        kind = list(KINDS)[trial % len(KINDS)]
        path = chosen.choice(files[kind])
        with flipped(path, chosen.randrange(8 * path.stat().st_size)):
            named = any(str(path) in problem for problem in hashes.problems(parsed.results))
            counts[kind, "named by the check" if named else "missed by the check"] += 1
            missed += [] if named else [f"{path}: missed by the check"]
            if sum(n for (_, what), n in counts.items() if "reader" in what) < parsed.read:
                said = read_by_a_stage(path, parsed.results)
                if said is not None:
                    stopped = "error: " in said and str(path) in said
                    counts[kind, "stopped its reader" if stopped else "missed by its reader"] += 1
                    missed += [] if stopped else [f"{path}: {said[-300:]}"]
    for (kind, what), number in sorted(counts.items()):
        print(f"{kind:10} {what:22} {number}")
    sys.exit("\n".join(missed))


def listed_files(results: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """Files of a kind that a job has written below its own folder, and the lists themselves."""
    for folder in hashes.sealed_folders(results):
        for path in (folder / hashes.NAME, *(folder / name for name in hashes.read(folder) or ())):
            if any(path.match(pattern) for pattern in patterns):
                yield path


@contextlib.contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """One bit of a file is the other one within the block."""
    before, times = path.read_bytes(), path.stat()
    content = bytearray(before)
    content[bit // 8] ^= 1 << bit % 8

    def write(changed: bytes) -> None:
        path.write_bytes(changed)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        hashes.forget()

    write(bytes(content))
    try:
        yield
    finally:
        write(before)


def read_by_a_stage(path: Path, results: Path) -> str | None:
    """What a stage says that reads the file: one whose record names it, a folder that it lies in or a list that has it.

    The measured frames are made from all scores; None if there is no reader.
    """
    images = [*path.parents[3].glob("*/images.csv")]
    lists = {".safetensors": [path.parent / "checkpoints.json"], ".png": images, ".webp": images}
    names = [
        f'"{place}"'
        for place in (path, *path.parents, *lists.get(path.suffix, ()))
        if place not in (results, *results.parents)
    ]
    records = [(stage, record) for stage in STAGES for record in sorted((results / "runs" / stage).rglob("run.json"))]
    for stage, record in [*records, *(("measure", record) for record in results.glob("*/measured/run.json"))]:
        text = record.read_text(encoding="utf-8", errors="replace")
        is_named = path.name == "scores.parquet" if stage == "measure" else any(name in text for name in names)
        if record != path and is_named:
            told = json.loads(text)
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, f"scripts/{stage}.py", "--job", "-", "--seed", str(told["seed"])]
                command += ["--output", f"{folder}/output"]
                job = json.dumps(told["job"])
                finished = subprocess.run(command, input=job, capture_output=True, text=True)
            return finished.stdout + finished.stderr
    return None


if __name__ == "__main__":
    main()
