"""A working copy in which the real Snakefile is run through the real profile on a test's cluster."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .cluster import Cluster, until

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "tests/slurm/grid.yaml"
LONGEST_SECONDS = 900  # of a command that hangs; a grid of several attempts has taken 300 s on a slow machine
# Times and machines, and what is made of them: different at every run.
OF_ITS_DAY = ("timing.json", "hashes.json", "report.html")


def copy_of_the_repository(folder: Path) -> Path:
    """Every file that git tracks, or would if asked, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@dataclass
class Grid:
    """One working directory on the cluster.

    Attributes:
        folder: Its root.
        cluster: Where its jobs run.
        config: Its configuration, relative to the root.
        variables: Of the environment, besides those that every grid has.
        runs: Snakemake's main processes so far, each below a ``timeout``.
        seconds: What a scenario has taken.
        recovered: What `make recover` has answered.
        left: Jobs after it.
        stopped: Whether no command may be started any more.
    """

    folder: Path
    cluster: Cluster
    config: str = CONFIG
    variables: Mapping[str, str] = field(default_factory=dict)
    runs: list[subprocess.Popen[bytes]] = field(default_factory=list)
    seconds: float = 0
    recovered: list[subprocess.CompletedProcess[str]] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    def copy(self, name: str) -> "Grid":
        """The same directory elsewhere."""
        other = self.folder.parent / name
        shutil.copytree(self.folder, other, ignore=shutil.ignore_patterns("snakemake.log"))
        return Grid(other, self.cluster)

    def forget(self, *runs: str) -> None:
        """Removes the results of some runs, with all that is kept of them, and the report."""
        for pattern in (f"{tree}/runs/{run}" for run in runs for tree in ("results", "results/.state")):
            for found in self.folder.glob(pattern):
                shutil.rmtree(found)
        shutil.rmtree(self.folder / "results/grid")

    def environment(self, step_seconds: float = 0) -> Mapping[str, str]:
        """Of a user of this directory: the copy's own package, the virtual environment, the test's patches."""
        paths = (self.folder / "tests/slurm/patches", self.folder / "src")
        return self.cluster.environment | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{self.cluster.environment['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "TEST_STEP_SECONDS": str(step_seconds),
            "RESALIGN_SAVE_INTERVAL_SECONDS": "1",
            # A hundred processes start from these sources.
            "PYTHONDONTWRITEBYTECODE": "",
            **self.variables,
        }

    def start(self, *overrides: str, step_seconds: float = 0) -> psutil.Process:
        """Starts the user's command; the process is Snakemake's own."""
        command = ["timeout", "--kill-after=5", str(LONGEST_SECONDS), "snakemake", "--profile", "slurm"]
        command += ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"]
        command += ["--max-jobs-per-timespan", "100/1s"]  # a test's command ends when its jobs have
        command += ["--configfile", self.config]
        command += ["--config", *overrides] if overrides else []
        assert not self.stopped
        with self.log.open("ab") as log:
            run = subprocess.Popen(command, cwd=self.folder, env=self.environment(step_seconds), stdout=log, stderr=log)
        self.runs.append(run)
        until(lambda: psutil.Process(run.pid).children(), "snakemake started")
        return psutil.Process(run.pid).children()[0]

    def finish(self) -> int:
        """Waits for the last command; its exit status, 124 after too long."""
        return self.runs[-1].wait()

    def run(self, *overrides: str, step_seconds: float = 0) -> int:
        """The user's command, from start to end."""
        self.start(*overrides, step_seconds=step_seconds)
        return self.finish()

    def stop(self) -> None:
        """Kills what is left of the commands; there will be no others."""
        self.stopped = True
        for run in self.runs:
            for process in [*_children(run.pid), run]:
                process.send_signal(signal.SIGKILL)
            run.wait()

    @property
    def log(self) -> Path:
        """Everything that the commands have printed."""
        return self.folder / "snakemake.log"

    def recover(self) -> "subprocess.CompletedProcess[str]":
        """What `make recover` runs."""
        command = ["python", "scripts/recover.py"]
        return subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, text=True)

    def running(self, rule: str) -> str:
        """A rule's SLURM job, once one of its attempts has saved a state."""
        until(lambda: list((self.folder / f"results/.state/runs/{rule}").rglob("*.pt")), f"a state of {rule}", 90)
        return next(n for n, comment in self.cluster.jobs(self.folder, "R").items() if f"rule_{rule}" in comment)

    def attempts(self, runs: str) -> list[int]:
        """How often each of some jobs was started, as its last attempt has recorded."""
        records = sorted(self.folder.glob(f"results/runs/{runs}/**/timing.json"))
        return [json.loads(record.read_text())["attempts"] for record in records]

    def results(self) -> dict[str, bytes]:
        """Every result that must repeat: weights, images, scores, tables and the records of what made them."""
        root = self.folder / "results"
        files = [path for path in root.rglob("*") if path.is_file() and path.name not in OF_ITS_DAY]
        names = {path.relative_to(root): path for path in files}
        found = {str(name): path.read_bytes() for name, path in names.items() if ".state" not in name.parts}
        # The page's record has the whole configuration, of which a scenario changes what jobs may use.
        record = json.loads(found["grid/run.json"])
        record["job"]["config"].pop("resources")
        return {**found, "grid/run.json": json.dumps(record).encode()}


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
