"""Variants as a table: which states are one column, and what is best among what."""

from typing import Any

import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED, Measurements
from resalign.display.layout import ResultTable
from resalign.display.variants_table import lay_out_variants
from tests.analysis.experiment import make_measurements

COLUMNS = ["series", "variant", "model", "attack", "dataset", "steps", "metric", "mean", "low", "high"]
COUNTS = {"std": 0.01, "n": 40, "seeds": 3}
MODELS = (("base", 0.0), ("esd", 0.6), ("resalign", 0.3))


def names(**attacks: str) -> Measurements:
    made = make_measurements()
    return make_measurements(images=made.images[:0], runs=made.runs[:0], attacks=attacks, titles={})


def after(variant: str, model: str, attack: str, mean: float, *, dataset: str = "pages", **more: Any) -> list[Any]:
    row = {"series": "rates", "steps": 200, **more}
    return [row["series"], variant, model, attack, dataset, row["steps"], "ip", mean, mean - 0.01, mean + 0.01]


def laid_out(rows: list[list[Any]], **attacks: str) -> ResultTable:
    return lay_out_variants(pd.DataFrame(rows, columns=COLUMNS).assign(**COUNTS), names(**attacks), "A caption.")


def cells(table: ResultTable) -> dict[str, list[tuple[str, bool] | None]]:
    return {row.title: [cell and (cell.value, cell.best) for cell in row.cells] for row in table.rows}


def test_a_sweeps_attacks_are_one_state() -> None:
    rows = [after("1e-3", "esd", "fast", 0.6), after("1e-4", "esd", "slow", 0.2)]
    table = laid_out(rows, fast="pages", slow="pages")
    assert table.groups == [("After fine-tuning", 1)]
    assert cells(table) == {"1e-3": [("0.60", False)], "1e-4": [("0.20", True)]}


def test_attacks_of_every_variant_are_states_of_their_own() -> None:
    values = (("1", "bold", 0.5), ("1", "pages", 0.2), ("2", "bold", 0.1))
    rows = [after("1", "esd", NOT_ATTACKED, 0.0, dataset="", steps=0)]
    rows += [after(variant, "esd", attack, mean, dataset=attack) for variant, attack, mean in values]
    table = laid_out(rows, pages="pages", bold="bold")
    assert [title for title, _ in table.groups] == [
        "Before fine-tuning",
        "After 200 steps on pages",
        "After 200 steps on bold",
    ]
    # Nothing is best where a variant stands alone; what was not measured is no cell.
    assert cells(table) == {
        "1": [("0.00", False), ("0.20", False), ("0.50", False)],
        "2": [None, None, ("0.10", True)],
    }


def test_the_best_model_of_each_variant_is_bold_and_the_base_never() -> None:
    rows = [after(variant, model, "pages", mean) for variant in "ab" for model, mean in MODELS]
    assert cells(laid_out(rows, pages="pages")) == {
        f"{variant}, {model}": [(f"{mean:.2f}", model == "resalign")] for variant in "ab" for model, mean in MODELS
    }


def test_one_model_of_one_variant_without_a_name_is_named_itself() -> None:
    rows = [after("", "esd", "pages", 0.3, series="")]
    assert [row.title for row in laid_out(rows, pages="pages").rows] == ["esd"]


def test_series_are_named_where_there_are_several_and_have_a_best_variant_each() -> None:
    values = (("x", "1", 0.3), ("x", "2", 0.4), ("y", "1", 0.2), ("y", "2", 0.1))
    rows = [after(variant, "esd", "pages", mean, series=series) for series, variant, mean in values]
    best = {title: found[0] and found[0][1] for title, found in cells(laid_out(rows, pages="pages")).items()}
    assert best == {"x, 1": True, "x, 2": False, "y, 1": False, "y, 2": True}
