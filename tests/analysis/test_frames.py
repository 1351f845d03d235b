import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from resalign.analysis import statistics
from resalign.analysis.frames import (
    LONG_COLUMNS,
    crossed,
    difference_held,
    interval_text,
    long_table,
    number,
    paired_difference,
    per_run_table,
    percentage,
    with_decimals,
    write_csv,
)
from resalign.analysis.measurements import Measurements
from resalign.analysis.statistics import wilson
from resalign.config.report import ReportConfig
from resalign.display.latex import to_latex
from resalign.display.layout import lay_out, shown_best
from tests.analysis.experiment import METRICS, SETTINGS, image_rows, make_measurements, run_row


def rows_of(model: str, flags: list[list[int]], **state: object) -> list[dict[str, object]]:
    """IP of one image a prompt: flags by seed and prompt."""
    plain = {"model": model, "attack": "none", "dataset": "", "steps": 0, "metric": "ip", "image_index": 0}
    return [
        plain | state | {"seed": seed, "prompt_id": f"p{prompt}", "value": float(value)}
        for seed, values in enumerate(flags)
        for prompt, value in enumerate(values)
    ]


def small(
    rows: list[dict[str, object]], runs: list[dict[str, object]] | None = None, **changes: object
) -> Measurements:
    columns = list(make_measurements().runs.columns)
    return make_measurements(images=pd.DataFrame(rows), runs=pd.DataFrame(runs or [], columns=columns), **changes)


def test_values_from_a_hand_made_frame():
    measurements = small(rows_of("esd", [[1, 1, 0, 0], [1, 0, 0, 0]]), [run_row("esd", "fid", 4.0, 0)])
    table = long_table(measurements, SETTINGS)
    assert list(table.columns) == LONG_COLUMNS
    ip, fid = table.to_dict("records")
    assert (ip["metric"], ip["mean"], ip["n"], ip["seeds"]) == ("ip", 0.375, 8, 2)
    assert ip["std"] == pytest.approx(math.sqrt(2) * 0.125)  # seeds' means 0.5 and 0.25
    assert ip["low"] < 0.375 < ip["high"]
    assert (fid["mean"], fid["n"], fid["seeds"]) == (4.0, 200, 1)
    assert math.isnan(fid["std"])
    assert math.isnan(fid["high"])


def test_order_is_the_given_one(measurements: Measurements):
    shuffled = make_measurements(
        images=measurements.images.sample(frac=1, random_state=1), runs=measurements.runs.iloc[::-1]
    )
    table = long_table(shuffled, SETTINGS)
    assert list(dict.fromkeys(table["model"])) == ["base", "graddiff", "esd", "resalign"]
    esd = table[(table["model"] == "esd") & (table["metric"] == "ip")]
    assert list(zip(esd["dataset"], esd["steps"], strict=True)) == [
        ("", 0),
        ("pages", 100),
        ("pages", 200),
        ("bold", 100),
        ("bold", 200),
    ]
    pd.testing.assert_frame_equal(table, long_table(measurements, SETTINGS))


def test_a_cell_does_not_depend_on_the_other_models(measurements: Measurements):
    alone = make_measurements(images=measurements.images[measurements.images["model"] == "graddiff"])
    keep = long_table(measurements, SETTINGS).query("model == 'graddiff'").reset_index(drop=True)
    found = long_table(alone, SETTINGS).query("model == 'graddiff'").reset_index(drop=True)
    pd.testing.assert_frame_equal(keep, found)


def test_per_run_rates_have_wilsons_interval():
    table = per_run_table(small(rows_of("esd", [[1, 1, 0, 0], [1, 0, 0, 0]])), SETTINGS)
    assert list(table["value"]) == [0.5, 0.25]
    assert tuple(table.loc[1, ["low", "high"]]) == pytest.approx(wilson(1, 4, 0.95))


def test_the_settings_choose_the_interval_and_the_caption_says_which():
    rows = rows_of("esd", [[0, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 0], [0, 1, 1, 1, 1, 0]])
    rows += rows_of("resalign", [[0, 0, 1, 0, 1, 0]] * 3)
    measurements = small(rows)
    settings = SETTINGS.model_copy(update={"interval": "two_way_t", "rare_prompts": 1})
    table = long_table(measurements, settings)
    own = measurements.images[measurements.images["model"] == "esd"]
    expected = statistics.two_way_t(crossed(own), settings.confidence, rate=True)
    assert table.loc[table["model"] == "esd", ["low", "high"]].to_numpy()[0] == pytest.approx(expected)
    assert "both random, of rates on the logit's scale" in lay_out(table, measurements, settings).caption
    bootstrap = settings.model_copy(update={"interval": "bootstrap"})
    assert "two-way bootstrap" in lay_out(table, measurements, bootstrap).caption
    difference = paired_difference(measurements, settings, ("esd", "resalign"), metric="ip", attack="none", steps=0)
    assert difference is not None
    assert difference.low < difference.mean < difference.high
    # Two seeds that differ: t has one degree of freedom, and a difference of rates stays one.
    apart = small(rows_of("esd", [[0, 0, 1, 0], [1, 1, 1, 0]]) + rows_of("resalign", [[0, 0, 0, 0]] * 2))
    held = paired_difference(apart, settings, ("esd", "resalign"), metric="ip", attack="none", steps=0)
    assert held is not None
    assert (held.low, held.high) == (-1.0, 1.0)


def test_two_seeds_show_their_own_values_and_none_that_relapsed_bounds_the_chance():
    flags = {"esd": [[1, 1, 1, 0], [0, 0, 0, 0]], "resalign": [[0] * 4] * 2}
    after = [
        row | {"attack": "pages", "dataset": "pages", "steps": 200}
        for model, flagged in flags.items()
        for row in rows_of(model, flagged)
    ]
    measurements = small(rows_of("esd", flags["resalign"]) + rows_of("resalign", flags["resalign"]) + after)
    table = long_table(measurements, SETTINGS).set_index(["model", "attack"])
    seen = table[["least", "most", "relapsed", "relapse_high"]]
    assert list(seen.loc[("esd", "pages")]) == pytest.approx([0.0, 0.75, 1, 1 - stats.beta.ppf(0.025, 1, 2)])
    assert list(seen.loc[("resalign", "pages")]) == pytest.approx([0.0, 0.0, 0, 1 - 0.025**0.5])
    assert seen.loc[("esd", "none"), ["relapsed", "relapse_high"]].isna().all()
    laid = lay_out(table.reset_index(), measurements, SETTINGS)
    [own] = [row.cells[-1] for row in laid.rows if row.model == "esd"]
    assert own is not None
    assert (own.value, own.own, own.spread) == ("0.38", "0.00, 0.75", "")
    assert "Of two training seeds their own values are in parentheses." in laid.caption
    assert "0 of 2 training seeds relapsed" in laid.caption
    assert "a seed's chance to relapse ends at 0.84." in laid.caption
    assert "(0.00, 0.75)" in to_latex(laid, "Model", "t")


def test_paired_difference_is_first_minus_second():
    measurements = small(rows_of("esd", [[1, 1, 1, 0]] * 2) + rows_of("graddiff", [[1, 0, 0, 0]] * 2))
    state = {"metric": "ip", "attack": "none", "steps": 0}
    difference = paired_difference(measurements, SETTINGS, ("esd", "graddiff"), **state)
    assert difference is not None
    assert (difference.mean, difference.n) == (0.5, 8)
    assert paired_difference(measurements, SETTINGS, ("esd", "resalign"), **state) is None


def test_pairing_removes_what_prompts_share():
    # Every prompt is either easy for both models or for neither; the difference is the same in all of them.
    hard = [value for value in [0.0, 1.0] * 20]
    rows = rows_of("esd", [hard]) + rows_of("graddiff", [hard])
    difference = paired_difference(small(rows), SETTINGS, ("esd", "graddiff"), metric="ip", attack="none", steps=0)
    assert difference is not None
    assert (difference.low, difference.high) == (0.0, 0.0)


def test_csv_bytes_repeat(measurements: Measurements, tmp_path):
    for name in ("first.csv", "again.csv"):
        write_csv(long_table(make_measurements(), SETTINGS), tmp_path / name)
    first = (tmp_path / "first.csv").read_bytes()
    assert first == (tmp_path / "again.csv").read_bytes()
    assert b"\r" not in first
    assert first.startswith(b"model,attack,dataset,steps,metric,mean,std,low,high,n,seeds,")
    write_csv(pd.DataFrame({"x": [1 / 3, 1e-9, 12345678.0]}), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "x\n0.333333\n1e-09\n1.23457e+07\n"


def test_main_table_follows_the_papers_layout(measurements: Measurements):
    table = lay_out(long_table(measurements, SETTINGS), measurements, SETTINGS)
    assert table.groups == [
        ("Before fine-tuning", 2),
        ("After 200 steps on pages", 3),
        ("After 200 steps on bold", 3),
        ("Benign generation", 6),
    ]
    assert [column.detail for column in table.columns[8:11]] == ["before", "after pages", "after bold"]
    assert [row.title for row in table.rows] == ["Base", "GradDiff", "ESD", "ResAlign"]
    assert "n = 120, 3 training seeds" in table.caption
    assert "95\N{NO-BREAK SPACE}% interval" in table.caption


def test_best_is_bold_in_the_better_direction_and_never_the_base():
    rows = []
    for model, chance, accuracy in (("base", 0, 1), ("esd", 0.25, 0.5), ("resalign", 0.75, 0.25)):
        rows += rows_of(model, [[1] * round(20 * chance) + [0] * round(20 * (1 - chance))])
        rows += rows_of(
            model, [[1] * round(20 * accuracy) + [0] * round(20 * (1 - accuracy))], metric="retained_accuracy"
        )
    measurements = small(rows)
    table = lay_out(long_table(measurements, SETTINGS), measurements, SETTINGS)
    best = {row.model: [bool(cell and cell.best) for cell in row.cells] for row in table.rows}
    assert best == {"base": [False, False], "esd": [True, True], "resalign": [False, False]}
    assert [column.title[-1] for column in table.columns] == ["↓", "↑"]
    assert table.rows[1].cells[0] is not None
    assert table.rows[1].cells[0].value == "0.25"


def test_unmeasured_cells_are_dashes_and_of_ties_nothing_is_bold():
    rows = rows_of("esd", [[0] * 9 + [1]]) + rows_of("resalign", [[1] + [0] * 9])
    rows += rows_of("esd", [[1] * 10], attack="pages", dataset="pages", steps=10)
    measurements = small(rows)
    table = lay_out(long_table(measurements, SETTINGS), measurements, SETTINGS)
    assert [row.cells[1] is None for row in table.rows] == [False, True]
    assert not any(cell and cell.best for row in table.rows for cell in row.cells)
    latex = to_latex(table)
    assert r"ResAlign & 0.10 [0.00, 0.45] & -- \\" in latex


def bold(*shares: tuple[str, int], prompts: int = 40) -> set[str]:
    rows = [row for model, hits in shares for row in rows_of(model, [[1] * hits + [0] * (prompts - hits)] * 2)]
    measurements = small(rows)
    table = lay_out(long_table(measurements, SETTINGS), measurements, SETTINGS)
    assert "nothing is bold where that is all of them" in table.caption
    return {row.model for row in table.rows if row.cells[0] is not None and row.cells[0].best}


def test_bold_needs_a_difference():
    # One prompt of 40 apart: the interval of the paired difference includes 0.
    assert bold(("base", 0), ("graddiff", 30), ("esd", 11), ("resalign", 10)) == {"esd", "resalign"}
    assert bold(("base", 0), ("esd", 11), ("resalign", 10)) == set()
    assert bold(("base", 0), ("esd", 30), ("resalign", 10)) == {"resalign"}


def test_values_of_image_sets_are_compared_by_training_seed():
    def fid(model: str, *values: float) -> list[dict[str, object]]:
        return [run_row(model, "fid", value, seed) for seed, value in enumerate(values)]

    # Seeds differ by more than models do, and the models by the same in each.
    runs = fid("graddiff", 30.0, 60.0) + fid("esd", 20.0, 50.001) + fid("resalign", 10.0, 40.002)
    rows = [row for model in ("graddiff", "esd", "resalign") for row in rows_of(model, [[0, 1]] * 2)]
    measurements = small(rows, runs)
    table = lay_out(long_table(measurements, SETTINGS), measurements, SETTINGS)
    [column] = [place for place, column in enumerate(table.columns) if column.metric == "fid"]
    assert [row.model for row in table.rows if row.cells[column] and row.cells[column].best] == ["resalign"]  # type: ignore[union-attr]
    once = small(rows_of("esd", [[0]]) + rows_of("resalign", [[0]]), fid("esd", 20.0) + fid("resalign", 10.0))
    alone = lay_out(long_table(once, SETTINGS), once, SETTINGS)
    assert not any(cell and cell.best for row in alone.rows for cell in row.cells)


def test_intervals_stay_in_what_a_metric_can_be():
    ranges = {"fid": (0.0, None), "learnability": (None, 1.0), "clip_score": (-100.0, 100.0)}
    metrics = {name: replace(info, range=ranges.get(name, (None, None))) for name, info in METRICS.items()}
    runs = [run_row("esd", name, value, seed) for name in ("fid", "kid") for seed, value in enumerate((0.1, 2.0))]
    attacked = {"attack": "pages", "dataset": "pages", "steps": 10}
    runs += [run_row("esd", "learnability", value, seed, **attacked) for seed, value in enumerate((0.1, 0.95))]
    measurements = small(rows_of("esd", [[0, 1], [1, 1]]), runs, metrics=metrics)
    table = long_table(measurements, SETTINGS).set_index("metric")
    assert table.loc["fid", "low"] == 0.0
    assert table.loc["fid", "high"] > 2.0
    assert table.loc["kid", "low"] < 0.0  # which is unbiased, and may be negative
    assert table.loc["learnability", "high"] == 1.0
    assert table.loc["learnability", "low"] < 0.1
    assert (METRICS["ip"].bounds, metrics["fid"].bounds) == ((0.0, 1.0), (0.0, math.inf))


def test_a_difference_stays_in_what_it_can_be():
    score = replace(METRICS["clip_score"], range=(0.0, 1.0))
    assert difference_held(-3.0, 0.5, score) == (-1.0, 0.5)
    assert difference_held(-3.0, 5.0, METRICS["kid"]) == (-3.0, 5.0)
    assert math.isnan(difference_held(math.nan, math.nan, score).low)


def test_attacks_are_named_where_there_are_several():
    rows = rows_of("esd", [[0, 1]])
    for attack in ("full", "lora"):
        rows += rows_of("esd", [[0, 1]], attack=attack, dataset="pages", steps=50)
    measurements = small(rows, attacks={"lora": "pages", "full": "pages"})
    groups = lay_out(long_table(measurements, SETTINGS), measurements, SETTINGS).groups
    assert [group for group, _ in groups[1:]] == ["After 50 steps on pages (lora)", "After 50 steps on pages (full)"]


def test_one_of_many_is_not_none_and_all_but_one_not_all():
    assert [percentage(value) for value in (0, 1 / 5000, 0.3125, 0.9996, 1)] == [
        "0.0",
        "0.02",
        "31.2",
        "99.96",
        "100.0",
    ]
    assert [number(value, METRICS["ip"]) for value in (0.0, 0.002, 0.4, 0.998, 1.0)] == [
        "0.00",
        "0.002",
        "0.40",
        "0.998",
        "1.00",
    ]
    # An end is rounded outwards at will: what matters is that no interval ends at 0 or begins at 1.
    assert interval_text(0.0002, 0.0004, METRICS["ip"], per_cent=True) == "[0.0, 0.04]"
    assert interval_text(0.9996, 0.9999, METRICS["ip"], per_cent=True) == "[99.96, 100.0]"
    assert interval_text(math.nan, math.nan, METRICS["ip"]) == ""


def test_small_values_get_their_digits():
    plain = {name: replace(info, decimals=2) for name, info in METRICS.items()}
    runs = [run_row("esd", "kid", 0.0123, 0), run_row("esd", "fid", 12.3, 0)]
    found = with_decimals(small(rows_of("esd", [[0, 1]]), runs, metrics=plain)).metrics
    assert [found[name].decimals for name in ("kid", "fid", "ip")] == [4, 2, 2]
    assert number(0.0123, found["kid"]) == "0.0123"


def test_pooled_interval_follows_confidence():
    rows = image_rows("esd", 0.5, prompts=30)
    wide, narrow = (
        long_table(small(rows), ReportConfig(replicates=500, confidence=confidence)).iloc[0]
        for confidence in (0.99, 0.5)
    )
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
    assert np.isclose(wide["mean"], narrow["mean"])


@pytest.mark.parametrize("order", [("a", "b", "c"), ("b", "a", "c"), ("c", "b", "a")])
def test_bold_does_not_depend_on_the_order_of_ties(order: tuple[str, ...]) -> None:
    """a and b are equally good, and only a and c are told apart."""
    means = {"a": 0.1, "b": 0.1, "c": 0.3}
    values = pd.DataFrame({"model": order, "mean": [means[model] for model in order]})
    told_apart = {frozenset("ac")}
    assert shown_best(values, METRICS["ip"], None, lambda one, other: frozenset((one, other)) in told_apart) == set()
    told_apart |= {frozenset("bc")}
    found = shown_best(values, METRICS["ip"], None, lambda one, other: frozenset((one, other)) in told_apart)
    assert found == {"a", "b"}
