"""On PYTHONPATH of every process of a test grid: SLURM is asked each second, and steps can be made to last."""

import os
import sys

if any(argument.endswith("/snakemake") for argument in sys.orig_argv[:2]):
    import asyncio

    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    RemoteExecutor.sleep = lambda self: asyncio.sleep(1)

if (seconds := float(os.environ.get("TEST_STEP_SECONDS", 0))) and any(a.startswith("scripts/") for a in sys.orig_argv):
    import time

    from resalign.running.attempt import Attempt

    def slowly(self, *arguments, loop=Attempt.steps, **options):
        for step in loop(self, *arguments, **options):
            time.sleep(seconds)
            yield step

    Attempt.steps = slowly
