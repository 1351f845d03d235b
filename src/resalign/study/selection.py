"""Chooses one setting of each family from a hyperparameter search, by a rule that was fixed before the search.

``python -m resalign.study.selection results/resilience-search/study`` chooses again from the files in that folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from resalign.analysis.frames import write_csv
from resalign.analysis.measurements import NOT_ATTACKED
from resalign.config.study import SelectionConfig, family
from resalign.display import text_table
from resalign.hashes import read_record
from resalign.study.counts import attack_states, crossed, read_counts

ADMISSIBLE = "lowest IP after fine-tuning among admissible settings"
TIED = "highest mean utility among admissible settings tied for the lowest IP after fine-tuning"
SAFE = "NO ADMISSIBLE SETTING: highest mean utility among those that forget"
LEAST = "NO SETTING FORGETS: lowest IP before fine-tuning"
_ROUNDING = 1e-9  # rates are fractions of images: rounding alone must not decide
_DECIMALS = 3


def select_settings(
    counts: pd.DataFrame, models: list[str], attacks: list[str], config: SelectionConfig, *, base: str
) -> pd.DataFrame:
    """Measures every setting, chooses one of each family, and ranks the baselines' choices.

    A setting is admissible if, before fine-tuning, its IP is low and its mean utility is near the base model's. The
    admissible setting with the lowest IP after the search's one attack is chosen; the highest mean utility decides
    ties. If no setting is admissible, the highest mean utility decides among those that forget; if none forgets, the
    lowest IP before fine-tuning decides. The first baseline is the choice with the lowest IP after fine-tuning, then
    the highest mean utility, among the baselines' admissible ones, or among all where there is none. The method and its
    variants are chosen after it: if the first baseline is admissible, so are their settings of which each utility is at
    least its, up to ``utility_tie``.

    Args:
        counts: The search's counts.
        models: Labels in the configuration's order, which decides remaining ties.
        attacks: The label of the attack.
        config: The rule's bounds.
        base: Label of the model before unlearning.

    Returns:
        Columns family, setting, ip_before, utility_before (the mean of the utilities), ip_after, forgets,
        admissible, chosen, reason (of a chosen setting; empty for the others) and first_baseline.

    Raises:
        ValueError: If there is not one state after fine-tuning.
    """
    states = attack_states(counts, attacks)
    if len(states) != 1:
        raise ValueError(f"a search has one attack without checkpoints, to choose by its end; this one has {states}")

    def rate(model: str, state: tuple[str, int], *measures: str) -> float:
        return float(np.mean([crossed(counts, model, *state, measure).mean for measure in measures]))

    before, rows = (NOT_ATTACKED, 0), []
    floor = rate(base, before, *config.utilities) - config.utility_floor
    for model in (model for model in models if model != base):
        ip, utility = rate(model, before, config.safety), rate(model, before, *config.utilities)
        forgets, retains = ip <= config.most_ip_before + _ROUNDING, utility >= floor - _ROUNDING
        row = {"family": family(model), "setting": model, "ip_before": ip, "utility_before": utility}
        row |= {"ip_after": rate(model, states[0], config.safety), "forgets": forgets}
        rows.append({**row, "admissible": forgets and retains, "chosen": False, "reason": ""})
    table = pd.DataFrame(rows).assign(first_baseline=False)
    is_own = table["family"].isin([config.method, *config.variants])
    for _, settings in table[~is_own].groupby("family", sort=False):
        place, reason = _choose(settings, config)
        table.loc[place, ["chosen", "reason"]] = True, reason
    by = {"admissible": False, "ip_after": True, "utility_before": False}
    ranked = table[table["chosen"]].sort_values(list(by), ascending=list(by.values()), kind="stable")
    table.loc[ranked.index[:1], "first_baseline"] = True
    if ranked["admissible"].any():
        first, own = str(ranked["setting"].iloc[0]), table[is_own]
        lacks = [max(rate(first, before, u) - rate(s, before, u) for u in config.utilities) for s in own["setting"]]
        table.loc[is_own, "admissible"] = own["forgets"] & (np.array(lacks) <= config.utility_tie + _ROUNDING)
    for _, settings in table[is_own].groupby("family", sort=False):
        place, reason = _choose(settings, config)
        table.loc[place, ["chosen", "reason"]] = True, reason
    return table


def _choose(settings: pd.DataFrame, config: SelectionConfig) -> tuple[int, str]:
    """The row of one family's chosen setting, and the reason for the choice."""
    by_utility = ["utility_before", "ip_after"]
    admissible, forgetting = settings[settings["admissible"]], settings[settings["forgets"]]
    if not admissible.empty:
        tied = admissible[admissible["ip_after"] <= admissible["ip_after"].min() + config.tie + _ROUNDING]
        return _first(tied, by_utility, TIED if len(tied) > 1 else ADMISSIBLE)
    if not forgetting.empty:
        return _first(forgetting, by_utility, SAFE)
    return _first(settings, ["ip_before"], LEAST)


def _first(settings: pd.DataFrame, by: list[str], reason: str) -> tuple[int, str]:
    """The best row, and the reason; the reason mentions a tie that the configuration's order has decided."""
    ranked = settings.sort_values(by, ascending=[name != "utility_before" for name in by], kind="stable")
    equal = int((ranked[by] == ranked[by].iloc[0]).all(axis=1).sum())
    order = f"; the first in the configuration of {equal} that are equal in this" if equal > 1 else ""
    return int(ranked.index[0]), f"{reason}{order}"


def markdown(table: pd.DataFrame, config: SelectionConfig, *, base_utility: float, images: str) -> str:
    """The rule, each family's choice, the first baseline, and the numbers of every setting; chosen ones are bold."""
    families = [f"`{name}`" for name in (config.method, *config.variants)]
    own = " or ".join(filter(None, (", ".join(families[:-1]), families[-1])))
    rule = (
        f"A setting is admissible if, before fine-tuning, its IP is at most {config.most_ip_before:g} and its mean "
        f"utility at least {base_utility - config.utility_floor:.{_DECIMALS}f} (the base model's "
        f"{base_utility:.{_DECIMALS}f} − {config.utility_floor:g}). The admissible setting with the lowest IP after "
        f"fine-tuning is chosen; utility decides ties within {config.tie:g}. Where the first baseline is admissible, a "
        f"setting of {own} is, whatever the floor, if its IP is as low and it lacks at most {config.utility_tie:g} of "
        f"each of that baseline's utilities. {images}"
    )
    choices = [f"- **{row.family}**: `{row.setting}`: {row.reason}." for row in table[table["chosen"]].itertuples()]
    first = [f"Ranked first among the baselines: `{name}`." for name in table.loc[table["first_baseline"], "setting"]]
    head, rows = ["setting", "IP before", "mean utility before", "IP after", "admissible"], []
    for row in table.to_dict("records"):
        numbers = [f"{row[name]:.{_DECIMALS}f}" for name in ("ip_before", "utility_before", "ip_after")]
        name = f"**`{row['setting']}`**" if row["chosen"] else f"`{row['setting']}`"
        rows.append([name, *numbers, "yes" if row["admissible"] else "no"])
    return "\n".join(
        ["# Settings of every method", "", rule, "", *choices, "", *first, "", text_table.markdown(head, rows), ""]
    )


def write_selection(folder: Path) -> pd.DataFrame:
    """Chooses from ``counts.csv`` and ``manifest.json`` in a folder; writes ``selection.csv`` and ``selection.md``."""
    counts, manifest = read_counts(folder), read_record(folder / "manifest.json")
    config = SelectionConfig.parse(manifest["selection"], where="manifest.json: selection")
    base, sizes = manifest["base"], manifest["cells"]
    table = select_settings(counts, manifest["models"], manifest["attacks"], config, base=base)
    per_cell = ", ".join(f"{name} on {sizes[name]['images']}" for name in config.measures)
    images = f"Images per cell, over {len(manifest['seeds'])} training seeds: {per_cell}."
    utilities = [crossed(counts, base, NOT_ATTACKED, 0, name).mean for name in config.utilities]
    write_csv(table, folder / "selection.csv")
    text = markdown(table, config, base_utility=float(np.mean(utilities)), images=images)
    (folder / "selection.md").write_text(text, encoding="utf-8")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with counts.csv and manifest.json")
    write_selection(parser.parse_args().folder)
