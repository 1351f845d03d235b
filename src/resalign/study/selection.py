"""Chooses one setting of each method from a hyperparameter search, by a rule that was fixed before the search.

``python -m resalign.study.selection results/resilience-search/study`` chooses again from the files in that folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from resalign.analysis.frames import write_csv
from resalign.analysis.measurements import NOT_ATTACKED
from resalign.config.study import SAFETY, UTILITY, SelectionConfig
from resalign.hashes import read_record
from resalign.study.counts import attack_states, crossed, read_counts

ADMISSIBLE = "lowest mean IP after the attacks among admissible settings"
TIED = "highest retained accuracy among admissible settings tied for the lowest mean IP"
SAFE = "NO ADMISSIBLE SETTING: highest retained accuracy among those that forget"
LEAST = "NO SETTING FORGETS: lowest IP before the attacks"
_ROUNDING = 1e-9  # rates are fractions of images: rounding alone must not decide
_DECIMALS = 3


def family(label: str) -> str:
    """The method that a label such as ``graddiff_lr3e-4`` is a setting of."""
    return label.split("_")[0]


def select_settings(
    counts: pd.DataFrame, models: list[str], attacks: list[str], config: SelectionConfig, *, base: str
) -> pd.DataFrame:
    """Measures every setting and chooses one of each family.

    A setting is admissible if, before any attack, its IP is low and its retained accuracy is near the base model's. The
    admissible setting with the lowest mean IP over all attack states is chosen; the highest retained accuracy decides
    ties. If no setting is admissible, the highest retained accuracy decides among those that forget; if none forgets,
    the lowest IP before the attacks decides.

    Args:
        counts: The search's counts.
        models: Labels in the configuration's order, which decides remaining ties.
        attacks: Labels of the attacks, in order.
        config: The rule's bounds.
        base: Label of the model before unlearning.

    Returns:
        Columns family, setting, ip_before, retained_accuracy_before, ip_ATTACK_STEPS (one per state), mean_ip,
        admissible, chosen and reason (of a chosen setting; empty for the others).
    """
    states = attack_states(counts, attacks)
    if not states:
        raise ValueError("the search has no attacks; there is nothing to choose by")
    floor = crossed(counts, base, NOT_ATTACKED, 0, UTILITY).mean - config.utility_margin
    rows = []
    for model in (model for model in models if model != base):
        before = {measure: crossed(counts, model, NOT_ATTACKED, 0, measure).mean for measure in (SAFETY, UTILITY)}
        after = {f"ip_{attack}_{steps}": crossed(counts, model, attack, steps, SAFETY).mean for attack, steps in states}
        rows.append(
            {
                "family": family(model),
                "setting": model,
                "ip_before": before[SAFETY],
                "retained_accuracy_before": before[UTILITY],
                **after,
                "mean_ip": float(np.mean(list(after.values()))),
                "forgets": before[SAFETY] <= config.most_ip_before + _ROUNDING,
                "retains": before[UTILITY] >= floor - _ROUNDING,
            }
        )
    table = pd.DataFrame(rows)
    table["admissible"] = table["forgets"] & table["retains"]
    table["chosen"], table["reason"] = False, ""
    for _, settings in table.groupby("family", sort=False):
        place, reason = _choose(settings, config)
        table.loc[place, ["chosen", "reason"]] = True, reason
    return table.drop(columns=["forgets", "retains"])


def _choose(settings: pd.DataFrame, config: SelectionConfig) -> tuple[int, str]:
    """The row of one family's chosen setting, and the reason for the choice."""
    by_accuracy = ["retained_accuracy_before", "mean_ip"]
    admissible, forgetting = settings[settings["admissible"]], settings[settings["forgets"]]
    if not admissible.empty:
        lowest = admissible["mean_ip"].min()
        tied = admissible[admissible["mean_ip"] <= lowest + config.tie + _ROUNDING]
        best = tied.sort_values(by_accuracy, ascending=[False, True], kind="stable")
        return _first(best, by_accuracy, TIED if len(tied) > 1 else ADMISSIBLE)
    if not forgetting.empty:
        best = forgetting.sort_values(by_accuracy, ascending=[False, True], kind="stable")
        return _first(best, by_accuracy, SAFE)
    return _first(settings.sort_values("ip_before", kind="stable"), ["ip_before"], LEAST)


def _first(ranked: pd.DataFrame, by: list[str], reason: str) -> tuple[int, str]:
    """The first row, and the reason; the reason mentions a tie that the configuration's order has decided."""
    equal = int((ranked[by] == ranked[by].iloc[0]).all(axis=1).sum())
    order = f"; the first in the configuration of {equal} that are equal in this" if equal > 1 else ""
    return int(ranked.index[0]), f"{reason}{order}"


def markdown(table: pd.DataFrame, config: SelectionConfig, *, base_accuracy: float, images: str) -> str:
    """The rule, each family's choice, and the numbers of every setting; chosen settings are bold."""
    rule = (
        f"A setting is admissible if, before any attack, its IP is at most {config.most_ip_before:g} and its retained "
        f"accuracy at least {base_accuracy - config.utility_margin:.{_DECIMALS}f} (the base model's "
        f"{base_accuracy:.{_DECIMALS}f} − {config.utility_margin:g}). The admissible setting with the lowest mean IP "
        f"over the attack states is chosen; retained accuracy decides ties within {config.tie:g}. {images}"
    )
    chosen = table[table["chosen"]]
    choices = [f"- **{row.family}**: `{row.setting}`: {row.reason}." for row in chosen.itertuples()]
    after = [str(name) for name in table.columns if str(name).startswith("ip_") and name != "ip_before"]
    head = ["setting", "IP before", "retained accuracy before", *(f"IP {n[3:].replace('_', ', ')}" for n in after)]
    lines = [[*head, "mean IP after", "admissible"]]
    lines.append(["---"] * len(lines[0]))
    for row in table.to_dict("records"):
        numbers = [row[name] for name in ("ip_before", "retained_accuracy_before", *after, "mean_ip")]
        name = f"**`{row['setting']}`**" if row["chosen"] else f"`{row['setting']}`"
        lines.append([name, *(f"{n:.{_DECIMALS}f}" for n in numbers), "yes" if row["admissible"] else "no"])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([rule, "", *choices, "", body, ""])


def write_selection(folder: Path) -> pd.DataFrame:
    """Chooses from ``counts.csv`` and ``manifest.json`` in a folder; writes ``selection.csv`` and ``selection.md``."""
    counts, _ = read_counts(folder)
    manifest = read_record(folder / "manifest.json")
    config = SelectionConfig.parse(manifest["selection"], where="manifest.json: selection")
    base, sizes = manifest["base"], manifest["cells"]
    table = select_settings(counts, manifest["models"], manifest["attacks"], config, base=base)
    images = (
        f"IP is measured on {sizes[SAFETY]['images']} images per cell and retained accuracy on "
        f"{sizes[UTILITY]['images']}, over {len(manifest['seeds'])} training seeds."
    )
    accuracy = crossed(counts, base, NOT_ATTACKED, 0, UTILITY).mean
    write_csv(table, folder / "selection.csv")
    text = markdown(table, config, base_accuracy=accuracy, images=images)
    (folder / "selection.md").write_text(text, encoding="utf-8")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with counts.csv and manifest.json")
    write_selection(parser.parse_args().folder)
