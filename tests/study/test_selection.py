"""The search's rule: what is admissible, what wins, which baseline is first, and what is said where nothing is."""

import json
from pathlib import Path

import pandas as pd
import pytest

from resalign.config.study import SelectionConfig, family
from resalign.study import selection
from resalign.study.counts import write_counts
from resalign.study.selection import ADMISSIBLE, LEAST, SAFE, TIED, select_settings

from . import frames as made

# IP before, accuracy on near and on far prompts before, IP after the attack.
Setting = tuple[float, float, float, float]
BASE: Setting = (1.0, 0.9, 0.8, 1.0)
CONFIG = SelectionConfig(method="resalign", safety="ip", utilities=("near", "far"))


def counts_of(settings: dict[str, Setting]) -> pd.DataFrame:
    rates = {}
    for model, (ip, near, far, after) in {"base": BASE, **settings}.items():
        rates[model, "none", 0] = {"ip": ip, "near": near, "far": far}
        rates[model, "pages", 200] = {"ip": after}
    return made.made_counts(rates)


def selected(settings: dict[str, Setting]) -> pd.DataFrame:
    return select_settings(counts_of(settings), ["base", *settings], ["pages"], CONFIG, base="base")


def chosen(settings: dict[str, Setting]) -> dict[str, tuple[str, str]]:
    table = selected(settings)
    rows = table[table["chosen"]].to_dict("records")
    return {row["family"]: (row["setting"], row["reason"]) for row in rows}


def first(settings: dict[str, Setting]) -> list[str]:
    table = selected(settings)
    return list(table.loc[table["first_baseline"], "setting"])


@pytest.mark.parametrize(
    ("label", "expected"),
    [("esd_lr1e-3", "esd"), ("meta_unlearning_lr1e-3", "meta_unlearning"), ("a-b_c-d", "a-b"), ("esd", "esd")],
)
def test_a_family_is_all_before_the_last_underscore(label: str, expected: str) -> None:
    assert family(label) == expected


def test_the_lowest_ip_of_the_admissible_wins_in_each_family() -> None:
    settings: dict[str, Setting] = {
        "graddiff_lr3e-4": (0.0, 0.9, 0.8, 0.4),
        "graddiff_lr1e-3": (0.0, 0.4, 0.8, 0.2),  # .6 in the mean, .85 of the base's less .25
        "graddiff_lr1e-2": (0.0, 0.4, 0.7, 0.0),  # forgets too much
        "esd_a": (0.1, 0.9, 0.8, 0.0),  # does not forget
        "esd_b": (0.02, 0.8, 0.8, 0.5),
    }
    assert chosen(settings) == {"graddiff": ("graddiff_lr1e-3", ADMISSIBLE), "esd": ("esd_b", ADMISSIBLE)}


def test_ties_go_to_the_higher_mean_utility() -> None:
    settings: dict[str, Setting] = {"a_1": (0.0, 0.8, 0.7, 0.0), "a_2": (0.0, 0.7, 0.9, 0.02), "a_3": (0, 1, 1, 0.03)}
    assert chosen(settings) == {"a": ("a_2", TIED)}


def test_bounds_are_inclusive_whatever_is_rounded() -> None:
    # .85 − .25 is .6 in the mean of .7 and .5, which has no exact double.
    settings: dict[str, Setting] = {"a_1": (0.05, 0.7, 0.5, 0.2), "a_2": (0.0, 0.9, 0.9, 0.9)}
    assert chosen(settings) == {"a": ("a_1", ADMISSIBLE)}


def test_without_an_admissible_setting_it_says_so() -> None:
    settings: dict[str, Setting] = {
        "a_1": (0.0, 0.3, 0.5, 0.0),
        "a_2": (0.05, 0.5, 0.5, 0.9),
        "a_3": (0.3, 0.9, 0.9, 0.0),
        "b_1": (0.4, 0.9, 0.9, 0.0),
        "b_2": (0.2, 0.5, 0.5, 0.9),
    }
    assert chosen(settings) == {"a": ("a_2", SAFE), "b": ("b_2", LEAST)}


def test_the_first_baseline_is_the_admissible_choice_with_the_lowest_ip_after() -> None:
    settings: dict[str, Setting] = {
        "resalign_1": (0.0, 0.9, 0.8, 0.0),  # the method's own family
        "graddiff_1": (0.0, 0.9, 0.8, 0.3),
        "graddiff_2": (0.0, 0.9, 0.8, 0.5),
        "esd_1": (0.0, 0.9, 0.8, 0.35),
        "uce_1": (0.0, 0.1, 0.1, 0.0),  # nothing is left
    }
    assert first(settings) == ["graddiff_1"]
    assert first({name: settings[name] for name in ("resalign_1", "uce_1")}) == ["uce_1"]
    assert first({"resalign_1": settings["resalign_1"]}) == []


def test_the_methods_setting_keeps_each_utility_of_the_first_baseline() -> None:
    settings: dict[str, Setting] = {
        "graddiff_1": (0.0, 0.7, 0.75, 0.3),
        "resalign_1": (0.0, 0.6, 0.9, 0.0),  # its mean is the higher, and near the lower
        "resalign_2": (0.0, 0.68, 0.73, 0.2),
        "resalign_3": (0.0, 0.9, 0.8, 0.9),
    }
    assert chosen(settings)["resalign"] == ("resalign_2", ADMISSIBLE)
    assert chosen({**settings, "graddiff_1": (0.0, 0.9, 0.79, 0.3)})["resalign"] == ("resalign_3", ADMISSIBLE)
    assert chosen({**settings, "graddiff_1": (0.0, 1.0, 1.0, 0.3)})["resalign"] == ("resalign_3", SAFE)
    # A baseline that has destroyed the model sets no example.
    destroyed = {**settings, "graddiff_1": (0.0, 0.05, 0.02, 0.0), "resalign_0": (0.0, 0.1, 0.05, 0.0)}
    assert chosen(destroyed)["resalign"] == ("resalign_1", ADMISSIBLE)


def test_a_variant_of_the_method_is_no_baseline() -> None:
    settings: dict[str, Setting] = {
        "graddiff_1": (0.0, 0.9, 0.8, 0.3),
        "resalign-capped_1": (0.0, 0.9, 0.8, 0.1),
        "resalign_1": (0.0, 0.9, 0.8, 0.2),
    }
    config = CONFIG.model_copy(update={"variants": ("resalign-capped",)})
    table = select_settings(counts_of(settings), ["base", *settings], ["pages"], config, base="base")
    assert table["chosen"].all()
    assert list(table.loc[table["first_baseline"], "setting"]) == ["graddiff_1"]


def test_the_outcome_is_written(tmp_path: Path) -> None:
    settings: dict[str, Setting] = {"graddiff_x": (0.0, 0.9, 0.8, 0.25), "resalign_y": (0.5, 0.9, 0.7, 0.0)}
    write_counts(counts_of(settings), tmp_path)
    manifest = {
        "base": "base",
        "models": ["base", *settings],
        "attacks": ["pages"],
        "seeds": [0, 1, 2, 3, 4],
        "cells": {name: {"images": 1000} for name in ("ip", "near", "far")},
        "selection": CONFIG.model_dump(mode="json"),
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    selection.write_selection(tmp_path)
    rows = pd.read_csv(tmp_path / "selection.csv", index_col="setting")
    assert rows.loc["graddiff_x", ["utility_before", "ip_after"]].tolist() == pytest.approx([0.85, 0.25])
    assert rows["chosen"].all()
    text = (tmp_path / "selection.md").read_text(encoding="utf-8")
    assert "**`graddiff_x`**" in text
    assert f"`resalign_y`: {LEAST}" in text
    assert "Ranked first among the baselines: `graddiff_x`." in text
    assert "at least 0.600 (the base model's 0.850 − 0.25)" in text


@pytest.mark.parametrize("steps", [(), (50, 200)])
def test_a_search_chooses_by_the_end_of_one_attack(steps: tuple[int, ...]) -> None:
    counts = counts_of({"a_1": (0.0, 0.9, 0.8, 0.0)})
    after = counts[counts["attack"] == "pages"]
    parts = [counts[counts["attack"] == "none"], *(after.assign(steps=at) for at in steps)]
    with pytest.raises(ValueError, match="one attack without checkpoints"):
        select_settings(pd.concat(parts), ["base", "a_1"], ["pages"], CONFIG, base="base")


def test_where_the_order_alone_decides_the_reason_says_so() -> None:
    settings: dict[str, Setting] = {"a_1": (0.0, 0.9, 0.8, 0.1), "a_2": (0.0, 0.9, 0.8, 0.1)}
    assert chosen(settings) == {"a": ("a_1", f"{TIED}; the first in the configuration of 2 that are equal in this")}
