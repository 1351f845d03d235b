"""About how many device hours and how much disk an experiment takes, before any of it is run.

The planned steps and images are multiplied by the seconds in config/rates.csv. Measured ones and those that were
reckoned from numbers of operations stand in columns of their own; what has no rate enters no sum, which is then a lower
bound. For another GPU than a rate's, hours are multiplied by how much slower its memory is (config/gpus.csv).
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from resalign.accounting.rates import FORWARD, GRADIENT, RATES, Gpu, Rates, chosen, rate_of, read_gpus, read_rates
from resalign.accounting.work import Hours, Work, added_work, image_files, planned_work
from resalign.assets.source import Source
from resalign.config.ablations import Ablations
from resalign.config.assets import FETCHED, described
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.shape import TIERS
from resalign.config.strict import ConfigError, read_yaml
from resalign.display.text_table import aligned
from resalign.jobs.exhibit import exhibits, member
from resalign.pipes import run_command

CONFIG, COLUMNS = "config/config.yaml", 100
PASSES = GRADIENT, FORWARD
KEPT = {"sample": "images", "score": "scores"}  # what a stage leaves, if no weights
HEAD = ("jobs", "steps or images", "h measured", "h estimated", "disk, about")


@dataclass(frozen=True)
class Scaling:
    """What turns hours of one GPU into those of another.

    Attributes:
        gpus: All that are known, by the names that rates have.
        target: The one that is asked for; None where none of the rates is a GPU's.
    """

    gpus: dict[str, Gpu]
    target: Gpu | None

    @classmethod
    def to(cls, name: str | None, rates: Rates) -> Scaling:
        """To the GPU that a person types; without one, to the GPU of the first rate.

        Raises:
            ConfigError: If there is no such GPU, or no rate is a GPU's.
        """
        typed = read_gpus()
        gpus = {gpu.name: gpu for gpu in typed.values()}
        found = [gpus[rate.device] for rate in rates.values() if rate.device in gpus]
        if name and not found:
            raise ConfigError(f"--gpu {name}: {RATES} has no GPU's rates of this model; leave it out")
        return cls(gpus, chosen(typed, name) if name else next(iter(found), None))

    def __call__(self, hours: Hours) -> Hours:
        """The target's hours: as much longer as its memory is slower; those of no GPU as they are."""
        if self.target is None or hours.device not in self.gpus:
            return hours
        factor = self.gpus[hours.device].bandwidth / self.target.bandwidth
        return replace(hours, device=self.target.name, hours=hours.hours * factor)

    def line(self, device: str) -> str:
        """What the target's hours are taken for; '' where they are the device's own."""
        one, other = self.gpus.get(device), self.target
        if one is None or other is None or one == other:
            return ""
        return (
            f"Hours of one {one.name} times {one.bandwidth / other.bandwidth:.2f} are taken for those of one "
            f"{other.name}: the ratio of memory bandwidths, {one.bandwidth:,.0f} to {other.bandwidth:,.0f} GB/s "
            f"({one.source}, {other.source}). By float32 arithmetic it would be {one.float32 / other.float32:.2f}."
        )


@dataclass
class Totals:
    """Sums over rows.

    Attributes:
        measured, estimated: Hours by device.
        kept: Bytes of images, scores and weights, as far as they are known.
        unknown, unsized: Rows that enter no hours, and rows that enter no bytes.
        sources: Rows by where their seconds come from.
    """

    measured: Counter[str] = field(default_factory=Counter)
    estimated: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    unsized: list[str] = field(default_factory=list)
    sources: dict[tuple[bool, str, str], list[str]] = field(default_factory=dict)

    def add(self, work: Work, rates: Rates, scaling: Scaling) -> tuple[str, str, str]:
        """Adds a row; returns its cells of measured hours, estimated hours and disk."""
        name, own, size_bytes = f"{work.stage} {work.member}", work.hours(rates), work.size_bytes(rates)
        cells = ["-", "-"]
        if own is None:
            self.unknown.append(name)
            cells[1] = "not known"
        else:
            scaled = scaling(own)
            (self.measured if own.is_measured else self.estimated)[scaled.device] += scaled.hours  # type: ignore[assignment]
            self.sources.setdefault((not own.is_measured, own.device, own.source), []).append(name)
            cells[not own.is_measured] = _hours(scaled.hours)
        if size_bytes is None:
            self.unsized.append(name)
        else:
            self.kept[KEPT.get(work.stage, "weights")] += size_bytes  # type: ignore[assignment]
        return cells[0], cells[1], "not known" if size_bytes is None else disk(size_bytes)

    def cells(self) -> tuple[str, str, str]:
        """The cells of the sums."""
        measured, estimated = (_hours(own.total()) for own in (self.measured, self.estimated))
        size = "not known" if self.unsized else disk(self.kept.total())
        return ("not known", "not known", size) if self.unknown else (measured, estimated, size)

    @property
    def hours(self) -> str:
        """In words, such as ``about 312.4 h of one H100 80GB (7.0 h by measured rates, 305.4 h estimated)``."""
        bound = "at least" if self.unknown else "about"
        parts = []
        for device in sorted({*self.measured, *self.estimated}):
            measured, estimated = self.measured[device], self.estimated[device]
            split = f" ({measured:,.1f} h by measured rates, {estimated:,.1f} h estimated)" if estimated else ""
            parts.append(f"{bound} {measured + estimated:,.1f} h of one {device}{split}")
        unknown = [f"not known: {', '.join(self.unknown)}"] if self.unknown else []
        return "; ".join([", ".join(parts) or "hours unknown", *unknown])

    @property
    def on_disk(self) -> str:
        """In words, such as ``about 5.1 GB of results (images 3.0 GB, weights 2.1 GB)``."""
        sizes = [f"{kind} {disk(size)}" for kind, size in sorted(self.kept.items()) if size]
        sizes += [f"without {', '.join(self.unsized)}"] if self.unsized else []
        return f"about {disk(self.kept.total())} of results ({', '.join(sizes)})"


def describe(plan: Plan, rates: Rates, scaling: Scaling, ablations: Ablations | None = None) -> str:
    """The whole answer as text: the sums in words, a row for each stage and member, ablations, and the sources."""
    totals = Totals()
    rows = [("stage", *HEAD)]
    for work in planned_work(plan):
        units = "?" if work.units is None else f"{work.units:,}"
        rows.append((f"{work.stage} {work.member}", str(work.jobs), units, *totals.add(work, rates, scaling)))
    rows.append(("all", "", "", *totals.cells()))
    head = [
        f"{plan.experiment.config.name}, tier {plan.tier}: {totals.hours}",
        f"Disk: {totals.on_disk}; {fetched(plan)}",
        f"Images: {images(plan, rates, totals.kept['images'])}",
    ]
    note = (
        "Not included: what is prepared from downloads or generated to train on, the scoring of real images, tables, "
        "figures and the page."
    )
    scaled = [line for device in dict.fromkeys(key[1] for key in totals.sources) if (line := scaling.line(device))]
    origins = [
        f"{', '.join(names)}: {'estimated for' if is_estimated else 'measured on'} one {device}, {source}"
        for (is_estimated, device, source), names in sorted(totals.sources.items())
    ]
    origins += [f"{' '.join(key)}: {one.seconds:g} s, {one.source}" for key in PASSES if (one := rates.get(key))]
    blocks = [_wrapped(head), aligned(rows), _wrapped([note, *scaled])]
    blocks += [ablation_lines(ablations, rates, scaling)] if ablations and ablations.entries else []
    blocks += [["Hours come from:", *_wrapped(origins or ["nothing of this model is known"], indent="  ")]]
    return "\n".join("\n".join([*block, ""]) for block in blocks)


def ablation_lines(ablations: Ablations, rates: Rates, scaling: Scaling) -> list[str]:
    """A row for each ablation: what it adds to the experiment's own runs."""
    rows, faults = [("exhibit", *HEAD)], list[str]()
    shown = {getattr(member(exhibit), "ABLATION", ""): exhibit for exhibit in exhibits()}
    for ablation, exhibit in sorted(shown.items(), key=lambda item: item[1]):
        if ablation not in ablations.entries:
            continue
        title = f"{exhibit} ({ablation})"
        try:
            added = added_work(ablations, ablation)
        except ConfigError as error:
            faults.append(f"{title}: cannot be planned: {error}")
            continue
        totals = Totals()
        for work in added:
            totals.add(work, rates, scaling)
        units = [work.units for work in added]
        steps = "?" if None in units else f"{sum(unit for unit in units if unit):,}"
        rows.append((title, str(sum(work.jobs for work in added)), steps, *totals.cells()))
    head = "The page and all other exhibits need the jobs above. An exhibit's ablation adds to them, each by itself:"
    return [*_wrapped([head]), *aligned(rows), *_wrapped(faults)]


def images(plan: Plan, rates: Rates, all_bytes: float) -> str:
    """The number of their files, and which of them stay, in words; ``all_bytes`` are 0 where they are not known."""
    config, found = plan.experiment.config, image_files(plan)
    if found is None:
        return f"as many as the lists give, keep_images: {config.keep_images}"
    files, more, shown = found
    number = f"{files:,} files" + (f" and up to {more:,} more while a job samples" if more else "")
    if config.keep_images == "all":
        return f"{number}; all images stay"
    size = rate_of(rates, "sample", f"{config.sampling.image_format} images").size_bytes
    stay = f"{shown:,} images that the page shows ({disk(shown * size) if size else 'size not known'})"
    flagged = f" and those that {config.flagging_metric} flags, at most all" if config.keep_images == "flagged" else ""
    at_once = f"{disk(all_bytes)} at once, in " if all_bytes else ""
    return f"at most {at_once}{number}; keep_images: {config.keep_images} leaves {stay}{flagged}"


def fetched(plan: Plan) -> str:
    """What is to be downloaded, in words."""
    assets = plan.experiment.config.assets
    sizes = {
        name: Source(name, described(name, asset)).entry.size_bytes
        for name, asset in assets.items()
        if asset.origin in FETCHED
    }
    unknown = [name for name, size in sizes.items() if size is None]
    without = f", without {', '.join(unknown)}, whose size is not stated" if unknown else ""
    known = sum(size for size in sizes.values() if size)
    return f"{disk(known)} of downloads{without}" if sizes else "no downloads"


def _wrapped(lines: Iterable[str], indent: str = "") -> list[str]:
    wrapped = (textwrap.wrap(line, COLUMNS, initial_indent=indent, subsequent_indent=f"{indent}  ") for line in lines)
    return [part for parts in wrapped for part in parts]


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours else "-"


def disk(size_bytes: float) -> str:
    """Such as ``3.4 GB``; ``-`` for nothing."""
    if not size_bytes:
        return "-"
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes / 1e3:.1f} kB"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="resalign costs", description=__doc__)
    parser.add_argument("--configfile", default=CONFIG, help="the experiment's configuration (%(default)s)")
    parser.add_argument("--tier", choices=TIERS, help="another tier than the configuration's")
    parser.add_argument("--gpu", help="hours of another GPU than the measured one: its name in config/gpus.csv")
    arguments = parser.parse_args()
    try:
        values = read_yaml(arguments.configfile) | ({"tier": arguments.tier} if arguments.tier else {})
        plan = Plan(Experiment(values, where=arguments.configfile))
        rates = read_rates(RATES, plan.asset_of(plan.experiment.config.model))
        scaling = Scaling.to(arguments.gpu, rates)
        sys.stdout.write(describe(plan, rates, scaling, Ablations(plan, values)))
    except (ConfigError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_command(main)
