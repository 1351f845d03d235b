"""A copy of the repository whose planned outputs all exist and are current, and what Snakemake would do there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipelines import write_pipeline

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("src", "scripts", "workflow", "config", "envs")


@dataclass(frozen=True)
class Checkout:
    """A working copy of its own; ``resalign`` is imported from there.

    Attributes:
        folder: Its root.
        config: Configuration file, relative to it.
    """

    folder: Path
    config: str = "config/demo.yaml"
    tier: str = "smoke"

    def snakemake(self, *options: str, overrides: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Runs Snakemake in the copy, with further values for ``--config``."""
        return subprocess.run(capture_output=True, **self.command(*options, overrides=overrides))

    def script(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a script of the copy."""
        return subprocess.run(capture_output=True, **(self.command() | {"args": [sys.executable, *command]}))

    def made(self, *targets: str) -> subprocess.CompletedProcess[str]:
        """Makes targets, the stages in forks of a stage server."""
        command = self.command("--", *targets)
        command["args"] = [sys.executable, "-m", "resalign.running.stage_server", *command["args"]]
        return subprocess.run(capture_output=True, **command)

    def command(self, *options: str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
        """What :mod:`subprocess` needs to run Snakemake in the copy."""
        command = [sys.executable, "-m", "snakemake", "--cores", "1"]
        command += ["--configfile", self.config, "--config", f"tier={self.tier}", *overrides, *options]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # The copy's bytecode is kept: a dry run spends a sixth of its time on compiling it.
        ours = {"PATH": path, "PYTHONPATH": str(self.folder / "src"), "PYTHONDONTWRITEBYTECODE": ""}
        return {"args": command, "cwd": self.folder, "env": {**os.environ, **ours}, "text": True}

    def planned(self, *overrides: str, target: str = "all", forced: tuple[str, ...] = ()) -> dict[str, set[str]]:
        """Labels of the runs that a dry run would make, by rule; '' for a rule without a run."""
        rerun = ("--forcerun", *forced) if forced else ()
        finished = self.snakemake("--dry-run", *rerun, "--", target, overrides=overrides)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        jobs: dict[str, set[str]] = {}
        for block in re.split(r"^\[.*\]\n", finished.stdout, flags=re.MULTILINE)[1:]:
            rule = re.match(r"(?:local)?rule (\S+):", block)
            assert rule, block
            run = re.search(r"^    wildcards: run=(\S+)-[0-9a-f]{10},", block, flags=re.MULTILINE)
            if "\n    output:" in block:  # a target alone makes nothing itself
                jobs.setdefault(rule[1], set()).add(run[1] if run else "")
        assert jobs or "Nothing to be done" in finished.stdout
        return jobs

    def make_everything(self, target: str = "all") -> None:
        """Writes every output of the plan, empty but for a word, and records it as made by the present code."""
        summary = self.snakemake("--summary", "--", target)
        assert summary.returncode == 0, summary.stderr
        rows = [line.split("\t") for line in summary.stdout.splitlines()]
        assert rows[0][0] == "output_file"
        for output, *_ in rows[1:]:
            path = self.folder / output
            if path.name == "figures":  # the one output that is a folder
                path.mkdir(parents=True, exist_ok=True)
                path /= "steps.svg"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
        touched = self.snakemake("--touch", "--forceall", "--", target)
        assert touched.returncode == 0, touched.stderr

    def forget(self, *folders: str) -> None:
        """Removes what another test may have made; one checkout serves many, in any order."""
        for folder in folders:
            shutil.rmtree(self.folder / folder, ignore_errors=True)

    def edited(self, name: str, edit: Callable[[str], str]) -> "Edit":
        """The file ``name``, edited inside a ``with`` block and put back after it."""
        return Edit(self.folder / name, edit)


@dataclass
class Edit:
    """See :meth:`Checkout.edited`."""

    path: Path
    edit: Callable[[str], str]
    before: str | None = field(default=None, init=False)

    def __enter__(self) -> Path:
        self.before = self.path.read_text() if self.path.exists() else None
        after = self.edit(self.before or "")
        assert after != self.before, f"the edit of {self.path} changes nothing"
        self.path.write_text(after)
        return self.path

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            self.path.unlink()
        else:
            self.path.write_text(self.before)


def copy_repository(folder: Path) -> Path:
    """The parts of the repository that the workflow is made of."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "tests").mkdir()
    shutil.copy(Path(__file__), folder / "tests" / "test_example.py")
    return folder


def write_tiny_experiment(folder: Path, **changes: Any) -> Path:
    """The demo on a tiny pipeline of one's own, mine/model, without unlearning and attacks, and otherwise as said."""
    write_pipeline("stable_diffusion", folder / "mine" / "model")
    demo = yaml.safe_load((folder / "config" / "demo.yaml").read_text())
    own = {"name": "tiny", "pixels": 16, "model": "mine/model", "assets": {**demo["assets"], "mine": {"path": "mine"}}}
    config = {**demo, **own, "unlearning": {}, "attacks": {}, "main_table_attacks": [], "sweeps": {}, **changes}
    path = folder / "config" / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which the demo has been run (its files are empty, but Snakemake does not know)."""
    checkout = Checkout(copy_repository(tmp_path_factory.mktemp("finished") / "repository"))
    checkout.make_everything()
    return checkout
