"""When a process began, by the clock that :func:`time.time` reads."""

from __future__ import annotations

import time

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
