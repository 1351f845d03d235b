"""When a process began, by the clock that :func:`time.time` reads, and how a command ends that nobody reads."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import psutil


def created_at(process: psutil.Process) -> float:
    """UNIX time at which a process was created.

    On Linux psutil adds the time since boot to the time of boot, which the kernel gives in whole seconds: it may be a
    second early. The process's age is exact.
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return process.create_time()
    since_boot = process.create_time() - psutil.boot_time()
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's main; what it prints may have a reader that leaves early, such as ``| head``."""
    end_with_the_reader()
    main()


def end_with_the_reader() -> None:
    """Has this process end without a word, as other commands do, when it prints what nobody reads any more."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
