"""What an experiment will cost, before any of it is paid for: jobs, device hours and disk of each table and stage.

``python -m resalign.accounting.costs --configfile config/config.yaml`` prints it, from ``config/rates.csv``.
A job whose like was never measured is counted as unknown and enters no sum. With ``--measure SOURCE`` the rates of the
experiment's finished jobs are written into that file instead.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resalign.accounting.measured_rates import measure_rates
from resalign.accounting.planned_jobs import STAGES, PlannedJob, tables, unite
from resalign.accounting.rates import Rate, Work, newest, read_rates, work_of, write_rates
from resalign.config.plan import Plan, load_plan
from resalign.config.shape import TIERS
from resalign.config.strict import ConfigError
from resalign.display.text_table import aligned
from resalign.pipes import run_command

RATES = Path("config/rates.csv")
_SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Cost:
    """What some jobs cost.

    Attributes:
        jobs: How many they are.
        done: How many of them have finished already.
        unknown: How many have no rate, and are in none of the sums.
        hours: Device hours of the others, by device.
        size_bytes: What the others leave on the disk.
    """

    jobs: int
    done: int
    unknown: int
    hours: dict[str, float]
    size_bytes: float

    @property
    def bound(self) -> str:
        """What stands before a sum that lacks jobs."""
        return "≥ " if self.unknown else ""


def cost_of(planned: Iterable[PlannedJob], rates: dict[Work, Rate]) -> Cost:
    """Adds up jobs, finished ones included.

    Args:
        planned: The jobs, each once.
        rates: What was measured.
    """
    hours: Counter[str] = Counter()
    members, unknown, size_bytes = list(planned), 0, 0.0
    for job in members:
        rate = rates.get(work_of(job))
        if rate is None or job.units is None:
            unknown += 1
            continue
        hours[rate.device] += rate.seconds(job.units) / _SECONDS_AN_HOUR  # type: ignore[assignment]
        size_bytes += rate.size_bytes(job.units)
    return Cost(len(members), sum(job.is_done for job in members), unknown, dict(hours), size_bytes)


def describe(plan: Plan, rates: dict[Work, Rate]) -> str:
    """The whole answer as text: a block for each table, one for all of them, and what was never measured."""
    groups = tables(plan)
    everything = unite(groups)
    total = cost_of(everything, rates)
    devices = sorted(total.hours)
    lines = [("", "jobs", "done", *(f"hours of {device}" for device in devices), "disk", "unknown jobs")]
    for name, group in groups.items():
        lines.append(_row(name, cost_of(group, rates), devices))
        stages = {stage: [job for job in group if job.stage == stage] for stage in STAGES}
        lines += [_row(f"  {stage}", cost_of(members, rates), devices) for stage, members in stages.items() if members]
    lines.append(_row("all, shared jobs once", total, devices))
    head = f"{plan.experiment.config.name}, tier {plan.tier}: {in_words(total)}"
    return "\n".join([head, "", *aligned(lines), *_never_measured(everything, rates), ""])


def in_words(cost: Cost) -> str:
    """Such as ``≥ 3.20 h of one GPU, ≥ 1.2 GB; 120 of 193 jobs are unknown and in no sum``."""
    sums = [f"{cost.bound}{hours:.2f} h of {device}" for device, hours in sorted(cost.hours.items())]
    known = ", ".join([*sums, f"{cost.bound}{disk(cost.size_bytes)}"]) if sums else "device hours and disk unknown"
    return f"{known}; {cost.unknown} of {cost.jobs} jobs are unknown and in no sum"


def disk(size_bytes: float) -> str:
    """Such as ``3.4 GB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes / 1e3:.1f} kB"


def _row(name: str, cost: Cost, devices: list[str]) -> tuple[str, ...]:
    sums = [f"{cost.hours.get(device, 0.0):.3f}" for device in devices] + [disk(cost.size_bytes)]
    known = [f"{cost.bound}{text}" if cost.unknown < cost.jobs else "unknown" for text in sums]
    return name, str(cost.jobs), str(cost.done), *known, str(cost.unknown)


def _never_measured(planned: Iterable[PlannedJob], rates: dict[Work, Rate]) -> list[str]:
    """What a row of the table of rates would have to be of, for each kind of job that has none."""
    jobs: Counter[Work] = Counter()
    units: Counter[Work] = Counter()
    for job in planned:
        work = work_of(job)
        if work not in rates or job.units is None:
            jobs[work] += 1
            units[work] += job.units or 0
    rows = [(w.stage, w.member, w.model, w.work, str(jobs[w]), f"{units[w]} {w.unit}s") for w in jobs]
    head = ("stage", "member", "model", "work", "jobs", "units")
    return ["", "Never measured:", *aligned([head, *rows])] if rows else []


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m resalign.accounting.costs", description=__doc__)
    parser.add_argument("--configfile", required=True, help="the experiment's configuration")
    parser.add_argument("--tier", choices=TIERS, help="another tier than the configuration's")
    parser.add_argument("--rates", type=Path, default=RATES, help=f"the table of rates ({RATES})")
    parser.add_argument(
        "--measure",
        metavar="SOURCE",
        help="write the rates of the jobs that have finished here, found by readers there",
    )
    arguments = parser.parse_args()
    try:
        plan = load_plan(arguments.configfile, {"tier": arguments.tier} if arguments.tier else {})
        known = read_rates(arguments.rates) if arguments.rates.exists() else []
        if arguments.measure is None:
            sys.stdout.write(describe(plan, newest(known)))
            return
        measured = measure_rates(unite(tables(plan)), arguments.measure)
        write_rates(arguments.rates, [*known, *measured])
        sys.stdout.write(f"rates of {plan.experiment.config.name} written to {arguments.rates}: {len(measured)}\n")
    except (ConfigError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_command(main)
