"""Tables and runs whose assets cannot be had: what each lacks, and the lines that leave it out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resalign.assets.doctor import Need, need_of, needs_of
from resalign.config.assets import AssetConfig
from resalign.config.dependents import dependents, fault_without
from resalign.config.plan import Plan


def verdicts(plan: Plan, needs: Iterable[Need]) -> list[str]:
    """One line for each table of an experiment: whether its assets can be had, or which cannot, and why.

    Args:
        plan: The experiment's.
        needs: From :func:`resalign.assets.doctor.needs_of`.
    """
    experiment, config, needs = plan.experiment, plan.experiment.config, list(needs)
    blocked = {need.name: dependents(experiment, [need.name]) for need in needs if need.is_blocked}
    why = {need.name: f"{need.name} ({need.state}; {need.remedy})" for need in needs}
    is_fetching = any(need.is_missing and not need.is_blocked for need in needs)
    can = "can run: what is missing is fetched" if is_fetching else "can run"
    main = list(config.main_table_attacks or config.attacks), list(experiment.metrics)
    tables = {f"main table of {experiment.where}": main}
    for label, sweep in config.sweeps.items():
        shown = list(sweep.metrics) or main[1][:1]
        tables[f"sweep {label}"] = list(experiment.sweeps[label].values()), shown
    lines = []
    for title, (attacks, metrics) in tables.items():
        lacking = [
            why[name]
            for name, of in blocked.items()
            if of.rows or set(of.attacks) & set(attacks) or set(of.metrics) & set(metrics)
        ]
        lines.append(f"{title}: {'cannot run without ' + '; '.join(lacking) if lacking else can}")
    return lines


def refusal(
    plan: Plan, fetched: Iterable[Mapping[str, Any]], jobs: Iterable[str], environment: Mapping[str, str] = os.environ
) -> str:
    """What a run lacks that no program can bring, what depends on it, and the lines that leave it out; '' if nothing.

    Args:
        plan: The experiment's.
        fetched: Asset and origin of each download of the run, see :class:`resalign.jobs.fetch.FetchJob`.
        jobs: Text of every job of the run, as its script reads it.
        environment: Variables that name mirror and token.
    """
    needs = [
        need_of(job["asset"], AssetConfig.parse(job["origin"], where=job["asset"]), environment) for job in fetched
    ]
    text = "\n".join(jobs)
    needs += [need for need in needs_of(plan, environment) if need.asset.path and _named(need.asset.path, text)]
    blocked = [need for need in needs if need.is_blocked]
    if not blocked:
        return ""
    lines = [f"{len(blocked)} of this run's assets cannot be had:"]
    for need in blocked:
        on_it = str(dependents(plan.experiment, [need.name])) or "ablations"
        lines += [f"  {need.line}", f"    on it depend: {on_it}"]
    return "\n".join([*lines, *_without(plan, [need.name for need in blocked])])


def lost(plan: Plan, assets: Sequence[str]) -> list[str]:
    """What depends on assets whose downloads have failed, and the lines that leave it out; nothing for no asset."""
    on_it = {asset: str(dependents(plan.experiment, [asset])) or "ablations" for asset in assets}
    lines = [f"on asset '{asset}' depend: {of}" for asset, of in on_it.items()]
    return [*lines, *_without(plan, assets)] if assets else []


def _named(folder: str, jobs: str) -> bool:
    """Whether a path in jobs is the folder, or lies in it."""
    return re.search(re.escape(json.dumps(folder)[:-1]) + r"[\"/]", jobs) is not None


def _without(plan: Plan, assets: Sequence[str]) -> list[str]:
    """What to do: the lines of a configuration without the assets, or what is in their way."""
    import yaml

    experiment = plan.experiment
    changes = dependents(experiment, assets).changes
    if not changes:
        return ["Get them, or leave out the ablations."]
    if fault := fault_without(experiment, changes):
        return [f"Get them, or name others in their place: without them, {fault}"]
    extends = {"extends": os.path.relpath(experiment.where)} if Path(experiment.where).is_file() else {}
    whole = {**extends, "name": f"{experiment.config.name}-reduced", **changes}
    text = yaml.safe_dump(whole, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return ["Get them, or run without them, by a configuration file of these lines:", *text.splitlines()]
