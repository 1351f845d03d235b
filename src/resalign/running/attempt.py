"""One attempt at a job: it continues from the saved state, saves its own, and stops when it is asked to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from resalign.running.folder import StateFolder
from resalign.running.held import capture, capture_randomness, restore, restore_randomness
from resalign.tracking import log

# Work that a kill may cost. Weights and Adam's moments of Stable Diffusion are 10 GB: a save takes a while.
SAVE_INTERVAL_SECONDS = float(os.environ.get("RESALIGN_SAVE_INTERVAL_SECONDS", "300"))
TIME_LIMIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: run again


class Interrupted(BaseException):
    """A job was asked to stop, has saved its state and ends; no ``except Exception`` may swallow it."""

    def __init__(self, reason: str, status: int, where: str) -> None:
        """Args: why it stops, its exit status, and how far it has come."""
        super().__init__(f"{reason}: {where}; run again to go on")
        self.status = status


def _same(steps: range) -> Iterable[int]:
    return steps


class Attempt:
    """Step loops that can be left and continued with equal bits.

    Without a folder nothing is saved, and loops are plain loops.

    Attributes:
        number: Number of this attempt at the job, from 1.
        steps_taken, step_seconds: Steps and pieces of this attempt, and the seconds spent in them.
        first_step_seconds: Of the first of them, in which a GPU loads its kernels.
    """

    def __init__(
        self,
        folder: StateFolder | None = None,
        *,
        deadline: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the state that an earlier attempt has saved.

        Args:
            folder: Where the state is kept.
            deadline: Time of ``clock`` at which the job will be killed.
            clock: Seconds.

        Raises:
            StateError: If the saved state is damaged.
        """
        self._folder, self._deadline, self._clock = folder, deadline, clock
        self.number = folder.attempts if folder else 1
        self._saved = folder.load() if folder else None
        self._earlier_seconds: float = self._saved["seconds"] if self._saved else 0.0
        self._done: list[str] = list(self._saved["done"]) if self._saved else []
        self._begun: set[str] = set()
        self._began = self._last_save = clock()
        self._saving_seconds = self._longest_step_seconds = 0.0
        self.steps_taken, self.step_seconds, self.first_step_seconds = 0, 0.0, 0.0
        self._stop: tuple[str, int] | None = None
        self._in_loop = False

    @property
    def seconds(self) -> float:
        """Work on the job so far: this attempt's, and that which earlier ones have saved."""
        return self._earlier_seconds + self._clock() - self._began

    @property
    def unfinished(self) -> str | None:
        """The loop that an earlier attempt has left, until it is continued; all loops before it are done."""
        return self._saved["phase"] if self._saved else None

    def steps(
        self, steps: range, *, phase: str = "steps", progress: Callable[[range], Iterable[int]] = _same, **held: Any
    ) -> Iterator[int]:
        """The steps that are left of a loop; the objects that they change are saved between them.

        A phase that an earlier attempt has completed has no steps left: a later phase of the same job must hold all
        that it changed.

        Args:
            steps: All steps.
            phase: Name of the loop, where a job has several.
            progress: Wraps the steps that are left in a progress bar.
            held: Everything that a step changes and a later step or the result depends on; see
                :func:`resalign.running.held.capture`. The process's own random states are saved too.

        Raises:
            Interrupted: After a step, when the job was asked to stop.
            StateError: If the state cannot be saved.
            ValueError: If two loops of one job have the same name: the second would be taken for the first.
        """
        if phase in self._begun:
            raise ValueError(f"two loops of one job are called '{phase}'; give each a phase of its own")
        self._begun.add(phase)
        if phase in self._done:
            return
        start = self._go_on(phase, held)
        yield from self._loop(progress(steps[start:]), phase, start, len(steps), held)
        self._done.append(phase)

    def pieces(
        self, count: int, *, keep: Callable[[], None], progress: Callable[[range], Iterable[int]] = _same
    ) -> Iterator[int]:
        """Indices of pieces of work whose results need no saved state: only the seconds are saved beside them.

        Args:
            count: Number of pieces.
            keep: Keeps what has been made so far; called whenever saving is due.
            progress: Wraps the indices in a progress bar.

        Raises:
            Interrupted: After a piece, when the job was asked to stop.
        """
        yield from self._loop(progress(range(count)), "pieces", 0, count, {}, keep)

    def stop(self, number: int, _frame: object = None) -> None:
        """Handles a signal: inside a loop the present step is ended first; a second signal ends the process at once."""
        signal.signal(number, signal.SIG_DFL)
        reason = (f"stopped by {signal.Signals(number).name}", 128 + number)
        if not self._in_loop:
            raise Interrupted(*reason, "between loops, nothing new to save")
        self._stop = reason

    def _go_on(self, phase: str, held: dict[str, Any]) -> int:
        """Restores the saved state of a phase; returns the number of steps that are behind it."""
        if self._saved is None or self._saved["phase"] != phase:
            return 0
        saved, self._saved = self._saved, None
        for name, value in held.items():
            restore(value, saved["held"][name])
        restore_randomness(saved["randomness"])
        log.info("attempt %d goes on after %s %d", self.number, phase, saved["position"])
        return int(saved["position"])

    def _loop(
        self,
        steps: Iterable[int],
        phase: str,
        position: int,
        total: int,
        held: dict[str, Any],
        keep: Callable[[], None] = lambda: None,
    ) -> Iterator[int]:
        """Yields steps, counts them and saves when that is due; a signal waits for the end of the present step."""
        self._in_loop = True
        try:
            for step in steps:
                began = self._clock()
                yield step
                now, position = self._clock(), position + 1
                self.steps_taken += 1
                self.step_seconds += now - began
                if self.steps_taken == 1:
                    self.first_step_seconds = now - began
                self._longest_step_seconds = max(self._longest_step_seconds, now - began)
                needed_seconds = self._longest_step_seconds + 2 * self._saving_seconds
                stop = self._stop
                if not stop and self._deadline is not None and now + needed_seconds >= self._deadline:
                    stop = ("the time limit is near", TIME_LIMIT_STATUS)
                if stop or now - self._last_save >= SAVE_INTERVAL_SECONDS:
                    saving = self._clock()
                    keep()
                    self._save(phase, position, held)
                    self._last_save = self._clock()
                    self._saving_seconds = self._last_save - saving
                if stop and position < total:
                    raise Interrupted(*stop, f"saved after {phase} {position} of {total}")
        finally:
            self._in_loop = False

    def _save(self, phase: str, position: int, held: dict[str, Any]) -> None:
        if not self._folder:
            return
        self._folder.save(
            {
                "phase": phase,
                "position": position,
                "done": self._done,
                "seconds": self.seconds,
                "held": {name: capture(value) for name, value in held.items()},
                "randomness": capture_randomness(),
            }
        )
