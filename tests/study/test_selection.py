"""The search's rule: what is admissible, what wins, and what is said where nothing is."""

import json
from pathlib import Path

import pandas as pd
import pytest

from resalign.config.study import SelectionConfig
from resalign.study import selection
from resalign.study.counts import read_counts, write_counts
from resalign.study.selection import ADMISSIBLE, LEAST, SAFE, TIED, select_settings

from . import frames as made

# IP before, retained accuracy before, IP after each of two attacks.
Setting = tuple[float, float, float, float]
BASE: Setting = (1.0, 0.9, 1.0, 1.0)
CONFIG = SelectionConfig()


def counts_of(settings: dict[str, Setting]) -> pd.DataFrame:
    rates = {}
    for model, (ip, kept, first, second) in {"base": BASE, **settings}.items():
        for state, value in ((("none", 0), ip), (("pages", 200), first), (("bold", 200), second)):
            rates[model, *state] = {"ip": value, "retained_accuracy": kept}
    return made.made_counts(rates)


def chosen(settings: dict[str, Setting]) -> dict[str, tuple[str, str]]:
    table = select_settings(counts_of(settings), ["base", *settings], ["pages", "bold"], CONFIG, base="base")
    rows = table[table["chosen"]].to_dict("records")
    return {row["family"]: (row["setting"], row["reason"]) for row in rows}


def test_the_lowest_mean_ip_of_the_admissible_wins_in_each_family() -> None:
    settings: dict[str, Setting] = {
        "graddiff_lr3e-4": (0.0, 0.9, 0.4, 0.2),
        "graddiff_lr1e-3": (0.0, 0.88, 0.1, 0.3),
        "graddiff_lr1e-2": (0.0, 0.7, 0.0, 0.0),  # forgets too much
        "esd_a": (0.1, 0.9, 0.0, 0.0),  # does not forget
        "esd_b": (0.02, 0.87, 0.5, 0.5),
    }
    assert chosen(settings) == {"graddiff": ("graddiff_lr1e-3", ADMISSIBLE), "esd": ("esd_b", ADMISSIBLE)}


def test_ties_go_to_the_higher_retained_accuracy() -> None:
    settings: dict[str, Setting] = {"a_1": (0.0, 0.86, 0.0, 0.0), "a_2": (0.0, 0.9, 0.01, 0.01), "a_3": (0, 1, 0.1, 0)}
    assert chosen(settings) == {"a": ("a_2", TIED)}


def test_bounds_are_inclusive_whatever_is_rounded() -> None:
    # 0.9 − 0.05 is 0.8500000000000001 in floating point.
    settings: dict[str, Setting] = {"a_1": (0.05, 0.85, 0.2, 0.2), "a_2": (0.0, 0.9, 0.9, 0.9)}
    assert chosen(settings) == {"a": ("a_1", ADMISSIBLE)}


def test_without_an_admissible_setting_it_says_so() -> None:
    settings: dict[str, Setting] = {
        "a_1": (0.0, 0.7, 0.0, 0.0),
        "a_2": (0.05, 0.8, 0.9, 0.9),
        "a_3": (0.3, 0.9, 0.0, 0.0),
        "b_1": (0.4, 0.9, 0.0, 0.0),
        "b_2": (0.2, 0.5, 0.9, 0.9),
    }
    assert chosen(settings) == {"a": ("a_2", SAFE), "b": ("b_2", LEAST)}


def test_the_outcome_is_written(tmp_path: Path) -> None:
    settings: dict[str, Setting] = {"graddiff_x": (0.0, 0.9, 0.25, 0.75), "resalign_y": (0.5, 0.9, 0.0, 0.0)}
    losses = pd.DataFrame(columns=["model", "attack", "steps", "seed", "heldout_loss"])
    write_counts(counts_of(settings), losses, tmp_path)
    manifest = {
        "base": "base",
        "models": ["base", *settings],
        "attacks": ["pages", "bold"],
        "seeds": [0, 1, 2, 3, 4],
        "cells": {"ip": {"images": 1000}, "retained_accuracy": {"images": 1000}},
        "selection": CONFIG.model_dump(),
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    selection.write_selection(tmp_path)
    rows = pd.read_csv(tmp_path / "selection.csv", index_col="setting")
    assert rows.loc["graddiff_x", ["ip_pages_200", "ip_bold_200", "mean_ip"]].tolist() == pytest.approx(
        [0.25, 0.75, 0.5]
    )
    assert rows["chosen"].all()
    text = (tmp_path / "selection.md").read_text(encoding="utf-8")
    assert "**`graddiff_x`**" in text
    assert f"`resalign_y`: {LEAST}" in text
    assert len(read_counts(tmp_path)[1]) == 0


def test_a_search_without_attacks_is_refused() -> None:
    counts = counts_of({"a_1": (0.0, 0.9, 0.0, 0.0)})
    plain = counts[counts["attack"] == "none"]
    with pytest.raises(ValueError, match="no attacks"):
        select_settings(plain, ["base", "a_1"], [], CONFIG, base="base")


def test_where_the_order_alone_decides_the_reason_says_so() -> None:
    settings: dict[str, Setting] = {"a_1": (0.0, 0.9, 0.1, 0.1), "a_2": (0.0, 0.9, 0.1, 0.1)}
    assert chosen(settings) == {"a": ("a_1", f"{TIED}; the first in the configuration of 2 that are equal in this")}
