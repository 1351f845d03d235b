"""One stage in a process of its own that can be killed, forked from a server in which the libraries are loaded."""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.scripts.preloaded"])


def run_stage_here(arguments: list[str], folder: str, begun: str, patches: dict[str, float]) -> None:
    """What the process does: a script's main, as its rule calls it, writing one byte for each step that it begins."""
    from resalign.resume import attempt as module

    counter = os.open(begun, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def counted(loop: Any) -> Any:
        def steps(self: module.Attempt, *positional: Any, **named: Any) -> Iterator[int]:
            for step in loop(self, *positional, **named):
                os.write(counter, b".")
                yield step

        return steps

    module.Attempt.steps = counted(module.Attempt.steps)  # type: ignore[method-assign]
    module.Attempt.pieces = counted(module.Attempt.pieces)  # type: ignore[method-assign]
    for name, value in patches.items():
        setattr(module, name, value)
    log = os.open(f"{begun}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    sys.argv = [str(ROOT / arguments[0]), *arguments[1:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


@dataclass
class StageProcess:
    """A stage's command line, run as often as it takes.

    Attributes:
        arguments: Script and options, as the rule gives them.
        folder: Working directory.
        begun: File with one byte for each step begun, over all attempts; its log lies beside it.
        patches: Constants of :mod:`resalign.resume.attempt`.
        status: Exit statuses of the attempts; −9 for SIGKILL.
    """

    arguments: list[str]
    folder: Path
    begun: Path
    patches: dict[str, float] = field(default_factory=dict)
    status: list[int] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps begun so far."""
        return self.begun.stat().st_size if self.begun.exists() else 0

    @property
    def log(self) -> str:
        """Everything that the attempts have printed."""
        return Path(f"{self.begun}.log").read_text()

    def start(self) -> BaseProcess:
        """Begins an attempt."""
        values = (self.arguments, str(self.folder), str(self.begun), self.patches)
        process = SERVER.Process(target=run_stage_here, args=values)
        process.start()
        return process

    def finish(self, seconds: float = 120) -> int:
        """One attempt to its end."""
        return self._ended(self.start(), seconds)

    def interrupt(self, number: signal.Signals, steps: int, delay_seconds: float) -> int:
        """One attempt, sent a signal that many steps and seconds after it has begun."""
        process, goal = self.start(), self.steps + steps
        limit = time.monotonic() + 60
        while self.steps < goal and process.is_alive() and time.monotonic() < limit:
            time.sleep(0.001)
        time.sleep(delay_seconds)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, number)
        return self._ended(process, 60)

    def _ended(self, process: BaseProcess, seconds: float) -> int:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{self.arguments[0]} did not end within {seconds} s:\n{self.log[-2000:]}")
        assert process.exitcode is not None
        self.status.append(process.exitcode)
        return process.exitcode
