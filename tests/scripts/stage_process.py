"""One stage in a process of its own that can be killed, forked from a server in which the libraries are loaded."""

import itertools
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 600  # of a busy machine; nothing waits for as long as that
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.scripts.preloaded"])


@dataclass(frozen=True)
class Interruption:
    """A signal that a process sends to itself: where it arrives does not depend on what else the machine does.

    Attributes:
        number: SIGKILL, say.
        steps: Steps that the attempt has begun by then; 0 for its start-up.
        delay_seconds: From then on.
    """

    number: signal.Signals
    steps: int
    delay_seconds: float

    def begin(self) -> None:
        """Sends it after the delay; without one, before anything else is done."""
        if self.delay_seconds:
            threading.Timer(self.delay_seconds, os.kill, (os.getpid(), self.number)).start()
        else:
            os.kill(os.getpid(), self.number)


def run_stage_here(
    arguments: list[str], folder: str, begun: str, patches: dict[str, float], interruption: Interruption | None
) -> None:
    """What the process does: a script's main, as its rule calls it, writing one byte for each step that it begins."""
    from resalign.running import attempt as module

    counter, own = os.open(begun, os.O_WRONLY | os.O_APPEND | os.O_CREAT), itertools.count(1)
    if interruption and not interruption.steps:
        interruption.begin()

    def counted(loop: Any) -> Any:
        def steps(self: module.Attempt, *positional: Any, **named: Any) -> Iterator[int]:
            for step in loop(self, *positional, **named):
                os.write(counter, b".")
                if interruption and next(own) == interruption.steps:
                    interruption.begin()
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
        patches: Constants of :mod:`resalign.running.attempt`.
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

    def start(self, interruption: Interruption | None = None) -> BaseProcess:
        """Begins an attempt."""
        values = (self.arguments, str(self.folder), str(self.begun), self.patches, interruption)
        process = SERVER.Process(target=run_stage_here, args=values)
        process.start()
        return process

    def finish(self) -> int:
        """One attempt to its end."""
        return self.ended(self.start())

    def interrupt(self, number: signal.Signals, steps: int, delay_seconds: float = 0.0) -> int:
        """One attempt, sent a signal that many steps and seconds after it has begun."""
        return self.ended(self.start(Interruption(number, steps, delay_seconds)))

    def ended(self, process: BaseProcess) -> int:
        """An attempt's exit status, once it has ended."""
        process.join(PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{self.arguments[0]} did not end within {PATIENCE_SECONDS} s:\n{self.log[-2000:]}")
        assert process.exitcode is not None
        self.status.append(process.exitcode)
        return process.exitcode
