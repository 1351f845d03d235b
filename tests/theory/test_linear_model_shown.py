"""What the text says of the linear model follows from its table: another table, another sentence."""

import math
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from resalign.config.theory import LinearModelConfig
from resalign.tensors.steps import DivergenceError
from resalign.theory.linear_model_grid import grid
from resalign.theory.linear_model_shown import conclusions, page, ratio_figure, read
from tests.analysis.experiment import SETTINGS

CONFIG = LinearModelConfig(
    dimension=4, subspaces=((1, 1), (1, 2)), overlaps=(0.0, 0.3, 1.0), curvatures=(0.2, 1.0), positions=(50, 900)
)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.DataFrame([asdict(row) for row in grid(CONFIG)])


def sentence(frame: pd.DataFrame, start: str) -> str:
    [found] = [text for text in conclusions(frame) if text.startswith(start)]
    return found


def changed(frame: pd.DataFrame, where: pd.Series, **values: float) -> pd.DataFrame:
    copy = frame.copy()
    for name, value in values.items():
        copy.loc[where, name] = value
    return copy


def test_agreement_is_what_the_differences_say(frame: pd.DataFrame) -> None:
    assert " agree to 1e-06" in sentence(frame, "Simulated")
    assert "DO NOT agree to 1e-06: largest difference 1.0e-05" in sentence(
        changed(frame, frame.index == 3, difference=1e-5), "Simulated"
    )


@pytest.mark.parametrize("column", ["difference", "simulated", "closed_form"])
def test_a_simulation_that_is_no_number_is_no_agreement(frame: pd.DataFrame, column: str) -> None:
    lost = changed(frame, frame.index == 3, **{column: math.nan})
    with pytest.raises(DivergenceError, match=f"1 of {len(frame)} rows are not finite"):
        page(lost, CONFIG.samples)


def test_the_printed_leakage_is_called_vacuous_only_where_it_is(frame: pd.DataFrame) -> None:
    assert "it is 0 at every point: both published bounds read 0 ≤ … and are vacuous" in sentence(frame, "As printed")
    other = changed(frame, frame.index == 3, bound_whole=0.1)
    assert f"is 0 at {len(frame) - 1} of {len(frame)} rows" in sentence(other, "As printed")
    assert "wherever dim S > dim C" in sentence(frame, "The natural reading")
    assert "dim S > dim C" not in sentence(changed(frame, frame["leakage"] == 0, leakage=0.1), "The natural reading")


def test_a_bound_that_fails_at_one_point_is_said_to_fail(frame: pd.DataFrame) -> None:
    start = "**gradient, W moves in S: ∇L·P_S**"
    assert "holds at all 8 points" in sentence(frame, start)
    one = (frame["quantity"] == "gradient") & (frame["reading"] == "rows in S") & (frame["bound"] > 0)
    first = frame.index == one.idxmax()
    assert "does NOT hold at 1 of 8 points; smallest ratio 0.9" in sentence(changed(frame, first, ratio=0.9), start)


def test_the_page_has_a_line_for_every_reading_and_names_the_grid(frame: pd.DataFrame) -> None:
    text = page(frame, CONFIG.samples)
    assert text.count("\n| ") == 2 + frame[["quantity", "reading", "step"]].drop_duplicates().shape[0]
    assert "at 24 points: (dim C, dim S)" in text
    assert "in (1, 1), (1, 2); cos²" in text
    assert len(ratio_figure(frame, SETTINGS).axes) >= 10


def test_the_text_is_the_same_from_the_written_table(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "linear_model.csv", index=False, float_format="%.12g")
    assert page(read(tmp_path / "linear_model.csv"), CONFIG.samples) == page(frame, CONFIG.samples)
