"""What an experiment's finished jobs have cost: device hours of each stage and table, and where the cores' time went.

The Snakefile calls :func:`end_of_run` when a run has ended, well or not.
``python -m resalign.accounting.efficiency --configfile config/demo.yaml`` says the same at any time.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from resalign.accounting.core_time import CoreTime, core_time
from resalign.accounting.job_records import JobRecord, read_job_records
from resalign.accounting.planned_jobs import STAGES, tables, unite
from resalign.config.plan import RESULTS, Plan, load_plan
from resalign.config.shape import TIERS
from resalign.config.strict import ConfigError
from resalign.display.text_table import aligned
from resalign.files import whole
from resalign.pipes import run_command
from resalign.running.processes import created_at

# part is 'stage', 'table' or 'core time'; hours are device hours, and core hours in the last; share is of its part.
COLUMNS = ("part", "name", "recorded", "planned", "attempts", "device", "hours", "share")
Row = tuple[str, str, int, int, int, str, float, float]

DEFINITION = (
    "Of the wall time of all cores, own work is what a stage itself does, process start the rest of its process "
    "(interpreter, imports, records), Snakemake the time in which a core was idle although a job's inputs were there "
    "(on a cluster, its queue too), and no job ready that in which it was idle because every job that was left waited "
    "for another's result."
)


def workflow_started_at() -> float | None:
    """UNIX time at which the Snakemake process that runs this code, itself or by a job, was created.

    Returns:
        None where no process above this one is Snakemake: somebody has started a script by hand.
    """
    own = psutil.Process()
    for process in reversed([own, *own.parents()]):
        try:
            command = process.cmdline()[:3]
        except psutil.Error:
            continue  # another user's, such as the scheduler's, or just gone: not the Snakemake that was asked
        # `snakemake …` is `python …/snakemake …`; a shell whose command line mentions it is not meant.
        if any(os.path.basename(argument) == "snakemake" for argument in command):
            return created_at(process)
    return None


def device_hours(records: Iterable[JobRecord]) -> dict[str, float]:
    """Hours by device."""
    hours: Counter[str] = Counter()
    for record in records:
        hours[record.device] += record.device_hours  # type: ignore[assignment]
    return dict(sorted(hours.items()))


def in_words(found: CoreTime) -> str:
    """The shares in one sentence."""
    shares = ", ".join(f"{100 * seconds / found.available:.1f} % {kind}" for kind, seconds in found.kinds().items())
    runs = "one run" if found.runs == 1 else f"{found.runs} runs"
    return (
        f"Wall time {found.wall_seconds:.0f} s × {found.cores}, the most cores at once, in {runs}: {shares}. "
        f"Process start and Snakemake together: {100 * found.overhead:.1f} %."
    )


def rows(plan: Plan, records: Sequence[JobRecord], found: CoreTime | None) -> list[Row]:
    """What is known, as rows of :data:`COLUMNS`; a stage or table has one row a device.

    Args:
        plan: The experiment.
        records: Its finished jobs.
        found: Where their core-seconds went; None if there are none.
    """
    groups = tables(plan)
    jobs = unite(groups)
    by_folder = {record.folder: record for record in records}
    parts = [("stage", stage, [job for job in jobs if job.stage == stage]) for stage in STAGES]
    parts += [("table", name, group) for name, group in groups.items()]
    total = sum(device_hours(records).values())
    result: list[Row] = []
    for part, name, planned in parts:
        own = [by_folder[job.folder] for job in planned if job.is_recorded]
        attempts = sum(record.attempts for record in own)
        for device, hours in (device_hours(own) or {"": 0.0}).items() if planned else ():
            result.append(
                (part, name, len(own), len(planned), attempts, device, hours, hours / total if total else 0.0)
            )
    for kind, seconds in found.kinds().items() if found else ():
        share = seconds / found.available if found else 0.0
        result.append(("core time", kind, len(records), len(jobs), 0, "core", seconds / 3600, share))
    return result


def summarise(plan: Plan, run_started_at: float | None) -> str:
    """The summary as text; written to ``results/NAME/efficiency.csv`` as a table, if that is another.

    Args:
        plan: The experiment.
        run_started_at: When Snakemake was started, where it is known.

    Raises:
        ValueError: If a record is damaged.
    """
    records = read_job_records(job.entry for job in unite(tables(plan)) if job.is_recorded)
    name = plan.experiment.config.name
    if not records:
        return f"{name}: no job has been recorded yet\n"
    found = core_time(records, run_started_at=run_started_at)
    table = rows(plan, records, found)
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerows([COLUMNS, *((*row[:-2], f"{row[-2]:.5f}", f"{row[-1]:.4f}") for row in table)])
    path = Path(RESULTS) / name / "efficiency.csv"
    if not path.is_file() or path.read_text(encoding="utf-8") != written.getvalue():
        with whole(path) as part:
            part.write_text(written.getvalue(), encoding="utf-8")
    lines = [(name, "jobs", "attempts", "hours", "device")]
    for kind, label, recorded, planned, attempts, device, hours, _ in table:
        if kind != "core time":
            label = label if kind == "stage" else f"table {label}"
            lines.append((label, f"{recorded} of {planned}", str(attempts), f"{hours:.3f}", device))
    return "\n".join([*aligned(lines), "", in_words(found), DEFINITION, ""])


def end_of_run(plan: Plan) -> None:
    """Writes and prints the summary at the end of a workflow run, which it never makes fail."""
    try:
        text = summarise(plan, workflow_started_at())
    except (OSError, ValueError, TypeError, psutil.Error) as error:
        text = f"no efficiency summary: {error}\n"
    sys.stderr.write(f"\n{text}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m resalign.accounting.efficiency", description=__doc__)
    parser.add_argument("--configfile", required=True, help="the experiment's configuration")
    parser.add_argument("--tier", choices=TIERS, help="another tier than the configuration's")
    arguments = parser.parse_args()
    try:
        plan = load_plan(arguments.configfile, {"tier": arguments.tier} if arguments.tier else {})
        sys.stdout.write(summarise(plan, None))
    except (ConfigError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_command(main)
