"""About how many device hours and how much disk an experiment takes, before any of it is run.

The planned steps and images are multiplied by the measured seconds in config/rates.csv, each with its device and
source. They were measured at one setting, so that another number of draws or another batch size takes another time.
Work that was never measured enters no sum of hours, which is then a lower bound. Disk is an upper bound of what is
counted: model weights, where their size is known, and images as uncompressed pixels.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from resalign.config.plan import Plan, Stage, load_plan
from resalign.config.shape import TIERS
from resalign.config.strict import ConfigError
from resalign.display.text_table import aligned
from resalign.jobs.digits import digits_parts
from resalign.pipes import run_command

CONFIG, RATES = "config/config.yaml", Path("config/rates.csv")
_BYTES_A_PIXEL = 3


@dataclass(frozen=True)
class Rate:
    """One row of ``config/rates.csv``.

    Attributes:
        seconds: Device seconds of one step, image or asset; None where they were not measured.
        start_seconds: Device seconds of a job besides these.
        size_bytes: One state of the model, or one asset; None where it is not known.
        device, source: Where it was measured.
    """

    seconds: float | None = None
    start_seconds: float = 0.0
    size_bytes: float | None = None
    device: str = ""
    source: str = ""


@dataclass(frozen=True)
class Work:
    """Jobs of one stage and one member.

    Attributes:
        stage, member: What works.
        jobs: How many there are.
        units: Their steps, images or assets; None where only the inputs give the number.
        states: States of the model, or assets, that they keep.
        image_bytes: Size of their images.
    """

    stage: str
    member: str
    jobs: int
    units: int | None
    states: int = 0
    image_bytes: float = 0.0

    def hours(self, rate: Rate) -> float | None:
        """Device hours; None if they cannot be known."""
        if rate.seconds is None or self.units is None:
            return None
        return (self.jobs * rate.start_seconds + self.units * rate.seconds) / 3600

    def size_bytes(self, rate: Rate) -> float | None:
        """Bytes of images and states; None if the states' size is not known."""
        if self.states and rate.size_bytes is None:
            return None
        return self.image_bytes + self.states * (rate.size_bytes or 0.0)

    def __add__(self, other: Work) -> Work:
        """The jobs of both, which are of one stage and member."""
        units = None if self.units is None or other.units is None else self.units + other.units
        sizes = self.states + other.states, self.image_bytes + other.image_bytes
        return Work(self.stage, self.member, self.jobs + other.jobs, units, *sizes)


def planned_work(plan: Plan) -> list[Work]:
    """All jobs that train, sample or score, and those that make the demo's own assets; a row for each member."""
    found: dict[tuple[str, str], Work] = {}
    for work in _single_jobs(plan):
        key = (work.stage, work.member)
        found[key] = found[key] + work if key in found else work
    return list(found.values())


def _single_jobs(plan: Plan) -> Iterator[Work]:
    for part in digits_parts(plan).values():
        yield Work("assets", part, 1, 1, states=1)
    for run in plan.unlearn.values():
        jobs = len(plan.seeds(run))
        member = plan.experiment.unlearning[run.model]
        yield Work("unlearn", member.name, jobs, jobs * getattr(member.config, "steps", 0), states=jobs)
    for run in plan.attack.values():
        jobs = len(plan.seeds(run))
        member = plan.experiment.attacks[run.attack or ""]
        # A search takes the steps of all its candidates; an attack on prompts takes its steps for each prompt.
        steps = getattr(member.config, "optimizer_steps", getattr(member.config, "steps", 1))
        attacked = plan.attacked_prompts(run.attack)
        prompts = plan.most_prompts(attacked) if attacked else 1
        yield Work("attack", member.name, jobs, prompts and jobs * steps * prompts, states=jobs * _states(plan, run))
    for run in plan.sample.values():
        jobs = len(plan.seeds(run))
        images = _images(plan, run)
        size_bytes = (images or 0) * jobs * plan.experiment.config.pixels**2 * _BYTES_A_PIXEL
        yield Work("sample", "images", jobs, images and jobs * images, image_bytes=size_bytes)
        yield Work("score", "images", jobs, images and jobs * images)


def _states(plan: Plan, run: Stage) -> int:
    """States of the model that a run leaves or samples: its last, and those along the way."""
    config = plan.experiment.attacks[run.attack].config if run.attack else None
    return 1 + len(getattr(config, "checkpoints", ()))


def _images(plan: Plan, run: Stage) -> int | None:
    """Images of one run; None if a prompt list gives their number."""
    images = 0
    for name, prompts in plan.experiment.config.prompts.items():
        count = plan.experiment.tier.prompts[name]
        if prompts.source_after(run.attack) is None:
            continue
        if count.prompts is None:
            return None
        images += count.prompts * count.images * (_states(plan, run) if prompts.along_the_way else 1)
    return images


def read_rates(path: Path, model: str) -> dict[tuple[str, str], Rate]:
    """The rates of one base model, by stage and member.

    Raises:
        ValueError: If the file lacks a column, or a number is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return {(row["stage"], row["member"]): _rate(row) for row in csv.DictReader(file) if row["model"] == model}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: is no table of rates ({error}); restore it from git") from None


def _rate(row: dict[str, str]) -> Rate:
    seconds, start_seconds, megabytes = (
        float(row[key]) if row[key] else None for key in ("seconds", "start_seconds", "megabytes")
    )
    size_bytes = None if megabytes is None else megabytes * 1e6
    return Rate(seconds, start_seconds or 0.0, size_bytes, row["device"], row["source"])


def describe(plan: Plan, rates: dict[tuple[str, str], Rate]) -> str:
    """The whole answer as text: one line in words, then a row for each stage and member, then the sources."""
    hours: Counter[str] = Counter()
    rows: list[Sequence[str]] = [("stage", "jobs", "steps or images", "device hours", "disk, at most")]
    sources: dict[str, list[str]] = {}
    total_bytes, unmeasured, uncounted = 0.0, list[str](), list[str]()
    for work in planned_work(plan):
        rate = rates.get((work.stage, work.member)) or rates.get((work.stage, "*"), Rate())
        own, size_bytes, name = work.hours(rate), work.size_bytes(rate), f"{work.stage} {work.member}"
        if size_bytes is None:
            uncounted.append(name)
        total_bytes += size_bytes or 0.0
        if own is None:
            unmeasured.append(name)
        else:
            hours[rate.device] += own  # type: ignore[assignment]
            sources.setdefault(f"{rate.device}, {rate.source}", []).append(name)
        units = "?" if work.units is None else f"{work.units:,}"
        cells = "not measured" if own is None else f"{own:.2f}", "not known" if size_bytes is None else disk(size_bytes)
        rows.append((name, str(work.jobs), units, *cells))
    bound = "at least" if unmeasured else "about"
    sums = [f"{bound} {own:,.1f} h of one {device}" for device, own in sorted(hours.items())] or ["hours unknown"]
    parts = [", ".join(sums), *([f"not measured: {', '.join(unmeasured)}"] if unmeasured else [])]
    parts.append(f"at most {disk(total_bytes)}" + (f" without {', '.join(uncounted)}" if uncounted else ""))
    head = f"{plan.experiment.config.name}, tier {plan.tier}: {'; '.join(parts)}"
    origins = [f"  {', '.join(names)}: {source}" for source, names in sources.items()]
    note = "Not included: what is fetched (`make doctor` has the sizes), tables, figures and the page."
    return "\n".join([head, "", *aligned(rows), "", note, "Measured:", *(origins or ["  nothing of this model"]), ""])


def disk(size_bytes: float) -> str:
    """Such as ``3.4 GB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes / 1e3:.1f} kB"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="resalign costs", description=__doc__)
    parser.add_argument("--configfile", default=CONFIG, help="the experiment's configuration (%(default)s)")
    parser.add_argument("--tier", choices=TIERS, help="another tier than the configuration's")
    arguments = parser.parse_args()
    try:
        plan = load_plan(arguments.configfile, {"tier": arguments.tier} if arguments.tier else {})
        model = plan.asset_of(plan.experiment.config.model)
        sys.stdout.write(describe(plan, read_rates(RATES, model)))
    except (ConfigError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_command(main)
