"""Takes results over that another folder or machine has made, where this one would make the same (`make adopt`)."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys

from resalign.running.adopt import planned_jobs, sorted_out
from resalign.running.stage import run_stage
from resalign.tracking import log


def main() -> None:
    """Marks results that agree with the plan as made; prints which do not, and why."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", nargs="+", default=["config/config.yaml"], help="the experiment's files")
    parser.add_argument("--config", nargs="*", default=[], help="further values, as for Snakemake: tier=smoke")
    parser.add_argument("targets", nargs="*", default=["all"], help="what the results are of, after --")
    found = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", *found.configfile]
    command += ["--config", *found.config] if found.config else []

    def snakemake(*options: str) -> str:
        ended = subprocess.run([*command, *options], capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"error: snakemake {options[0]} failed:\n{(ended.stdout + ended.stderr).strip()}")
        return ended.stdout

    plan = ("--dry-run", "--printshellcmds", "--", *found.targets)
    jobs = planned_jobs(snakemake(*plan))
    # The user's own files are checked here, wherever they were checked before; it takes seconds.
    if own := [output for job in jobs if job.rule.endswith("check_inputs") for output in job.outputs]:
        snakemake("--", *own)
        jobs = planned_jobs(snakemake(*plan))
    adopted, left = sorted_out(jobs)
    if adopted:
        snakemake("--touch", "--", *adopted)
    log.info("%d of %d jobs are taken over", len(jobs) - sum(map(len, left.values())), len(jobs))
    for reason, outputs in left.items():
        log.info("%d are made again: %s %s%s", len(outputs), outputs[0], reason, " …" if outputs[1:] else "")


if __name__ == "__main__":
    run_stage(main)
