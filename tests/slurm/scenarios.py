"""What can happen to a grid on a cluster: each function disturbs a copy of a finished one, and finishes it again."""

import json
import time
from collections.abc import Callable

from .cluster import MEMORY_MB
from .grid import Grid

Scenario = Callable[[Grid], Grid]


def run(scenario: Scenario, grid: Grid) -> Grid:
    """A scenario, and how long it took; nothing of it is left running."""
    began = time.monotonic()
    try:
        return scenario(grid)
    finally:
        grid.seconds = time.monotonic() - began
        grid.stop()


def time_limit(grid: Grid) -> Grid:
    """A job that would take longer than its run time of one minute, SLURM's shortest."""
    grid.forget("attack/graddiff*")
    grid.run("resources={attack: {runtime_minutes: 1}}", step_seconds=1.6)
    return grid


def scancelled(grid: Grid) -> Grid:
    """A job that is cancelled half way."""
    grid.forget("attack/graddiff*")
    grid.start(step_seconds=0.2)
    grid.cluster.command("scancel", grid.running("attack"))
    grid.finish()
    return grid


def too_little_memory(grid: Grid) -> Grid:
    """Images and scores in a job that may have four fifths of what the sampling process alone has used before."""
    [record, *_] = sorted(grid.folder.glob("results/runs/sample/graddiff-*/**/timing.json"))
    memory = {"mem_mb": int(0.8 * json.loads(record.read_text())["peak_memory_mb"])}
    grid.forget("sample/graddiff-*", "score/graddiff-*")
    grid.run(f"resources={json.dumps({'sample': memory, 'score': memory})}")
    return grid


def killed_master(grid: Grid) -> Grid:
    """Snakemake itself is killed while jobs run; `make recover`, then the same command."""
    grid.forget("attack/graddiff*")
    master = grid.start(step_seconds=0.2)
    grid.running("attack")
    grid.recovered = [grid.recover()]
    master.kill()
    grid.finish()
    grid.recovered.append(grid.recover())
    grid.left = grid.cluster.jobs(grid.folder, "PD,R,CG")
    grid.run()
    return grid


def impossible_request(grid: Grid) -> Grid:
    """More memory than any node has."""
    grid.forget("unlearn")
    grid.run(f"resources={{unlearn: {{mem_mb: {MEMORY_MB + 1}}}}}")
    return grid


def node_crash(grid: Grid) -> Grid:
    """The node dies with the job, without a word, and comes back."""
    grid.forget("attack/graddiff*")
    grid.start(step_seconds=0.2)
    grid.running("attack")
    grid.cluster.crash_node()
    grid.cluster.start_node()
    grid.finish()
    return grid


# The longest first; the one that all others would suffer from last.
ALL: tuple[Scenario, ...] = (
    time_limit,
    scancelled,
    killed_master,
    too_little_memory,
    impossible_request,
    node_crash,
)
