"""The measured theory joined with the safety metric, and what its text says of made-up numbers."""

import math
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from resalign.analysis.frames import write_csv
from resalign.analysis.measurements import Measurements
from resalign.theory import theory_figures
from resalign.theory.landscape import DisplacementRow, SharpnessRow, SliceRow
from resalign.theory.proposition1 import displacement_words, page, sharpness_words
from resalign.theory.theory_tables import read_table, regained_table
from tests.analysis.experiment import SETTINGS

# (model, seed): Tr(H), ‖H‖_F².
SHARPNESS = {
    ("base", 0): (-10.0, 4.0),
    ("esd", 0): (-20.0, 9.0),
    ("esd", 1): (-30.0, 8.0),
    ("resalign", 0): (-5.0, 3.0),
}
SHARPNESS |= {("resalign", 1): (-50.0, 2.0)}


def sharpness_rows() -> pd.DataFrame:
    rows = [
        SharpnessRow(model, seed, 1000, 16, 24, -0.5, 0.01, 0.3, trace, 1.0, square, 0.2)
        for (model, seed), (trace, square) in SHARPNESS.items()
    ]
    return pd.DataFrame([asdict(row) for row in rows])


def per_run() -> pd.DataFrame:
    rows = [("base", "none", 0, 0, 0.9), ("base", "pages", 200, 0, 0.8), ("base", "pages", 200, 1, 0.7)]
    for seed in (0, 1):
        rows += [
            ("esd", "none", 0, seed, 0.1),
            ("esd", "pages", 100, seed, 0.99),
            ("esd", "pages", 200, seed, 0.4 + seed),
        ]
        rows += [("resalign", "none", 0, seed, 0.0), ("resalign", "pages", 200, seed, 0.05)]
    frame = pd.DataFrame(rows, columns=["model", "attack", "steps", "seed", "value"]).assign(metric="ip")
    return pd.concat([frame, frame.assign(metric="us", value=-1.0)])


def displacement_rows(real: float = 0.3, isotropic: float = -0.11, **changes: float) -> pd.DataFrame:
    common = {"model": "esd", "attack": "pages", "seed": 0, "steps": 200, "sigma": 1.0, "n": 8, "tensors_elsewhere": 0}
    common |= {"predicted": -0.1, "predicted_standard_error": 0.01, "measured_standard_error": 0.01}
    terms = {"linear": 0.25, "quadratic": 0.05}
    rows = [
        common | terms | {"kind": "real", "measured": 9.0, "steps": 100},
        common | terms | {"kind": "real", "measured": real},
        common | {"kind": "isotropic", "measured": isotropic, "linear": math.nan, "quadratic": math.nan},
    ]
    return pd.DataFrame([asdict(DisplacementRow(**{**row, **changes})) for row in rows])


def test_what_came_back_is_after_the_last_step_less_before(measurements: Measurements) -> None:
    found = regained_table(per_run(), sharpness_rows(), measurements).set_index(["model", "seed"])
    assert found.loc[("esd", 0), "regained"] == pytest.approx(0.3)
    assert found.loc[("esd", 1), "regained"] == pytest.approx(1.3)
    assert set(found["metric"]) == {"ip"}
    assert set(found["steps"]) == {200}
    assert (found.loc[("esd", 1), "trace"], found.loc[("esd", 1), "frobenius_squared"]) == (-30.0, 8.0)
    # Nothing has trained the base: one measurement, attacked with both seeds.
    assert found.loc[("base", 1), "regained"] == pytest.approx(-0.2)
    assert found.loc[("base", 1), "trace"] == -10.0


def test_a_model_of_another_seed_is_no_substitute(measurements: Measurements) -> None:
    twice = pd.concat([sharpness_rows(), sharpness_rows().query("model == 'esd'").assign(seed=7)])
    without = twice[(twice["model"] != "esd") | (twice["seed"] != 1)]
    with pytest.raises(ValueError, match="model 'esd' was measured with seeds"):
        regained_table(per_run(), without, measurements)


def test_a_trace_that_fell_while_sharpness_rose_is_named(measurements: Measurements) -> None:
    sharpness = sharpness_rows()
    regained = regained_table(per_run(), sharpness, measurements)
    trace, square, both, ranks = sharpness_words(sharpness, regained, measurements)
    seeds = "esd (seed 0), esd (seed 1)"
    assert trace.startswith(f"Tr(H) is below the base's (−10 ± 1) for {seeds}, resalign (seed 1);")
    assert "; above it for resalign (seed 0); within 2 standard errors, and so" in trace
    assert square.startswith("‖H‖_F² is below the base's (4 ± 0.2) for resalign (seed 0), resalign (seed 1);")
    assert f"; above it for {seeds}; within" in square
    assert all(text.endswith("not told apart from it, for none.") for text in (trace, square))
    assert both == f"The signed trace fell although sharpness rose, both by more than 2 standard errors: {seeds}."
    # Regained 0.3, 1.3, 0.05, 0.05 against Tr −20, −30, −5, −50 and ‖H‖_F² 9, 8, 3, 2.
    assert "Over the 4 unlearned models and seeds" in ranks
    expected = pd.Series([0.3, 1.3, 0.05, 0.05]).corr(pd.Series([9.0, 8.0, 3.0, 2.0]), method="spearman")
    assert ranks.split("‖H‖_F² ")[1].startswith(f"{expected:.3g}")


def test_models_within_the_errors_are_not_told_apart(measurements: Measurements) -> None:
    """2 errors of a difference are 2.83 of Tr(H) and 0.566 of ‖H‖_F² here: more than 2 of either estimate's."""
    sharpness = sharpness_rows().set_index(["model", "seed"])
    sharpness.loc[("esd", 0), ["trace", "frobenius_squared"]] = (-12.7, 4.5)
    sharpness.loc[("esd", 1), ["trace", "frobenius_squared"]] = (-13.0, 4.5)
    sharpness.loc[("resalign", 0), ["trace", "frobenius_squared"]] = (-7.3, 3.5)
    sharpness = sharpness.reset_index()
    trace, square, both, _ = sharpness_words(
        sharpness, regained_table(per_run(), sharpness, measurements), measurements
    )
    assert "for esd (seed 1), resalign (seed 1); above it for none;" in trace
    assert trace.endswith("not told apart from it, for esd (seed 0), resalign (seed 0).")
    assert square.endswith("not told apart from it, for esd (seed 0), esd (seed 1), resalign (seed 0).")
    assert both.endswith("standard errors: none.")


def test_agreement_is_counted_for_either_kind(measurements: Measurements) -> None:
    random, real, linear = displacement_words(displacement_rows())
    assert "agrees within 2 standard errors in 1 of 1 runs and has the measured sign in 1" in random
    assert "agrees within 2 standard errors in 0 of 1 runs and has the measured sign in 0" in real
    assert "has the median 3," in real
    assert "the larger of the first two terms in 1 of 1 runs" in linear
    off, *_ = displacement_words(displacement_rows(isotropic=-0.129))
    assert "in 0 of 1 runs and has the measured sign in 1" in off
    *_, elsewhere = displacement_words(displacement_rows(tensors_elsewhere=2))
    assert elsewhere == "Left out: what pages changed outside the denoiser."


def test_what_left_the_denoiser_alone_agrees_with_nothing() -> None:
    still = {"sigma": 0.0, "predicted": 0.0, "predicted_standard_error": 0.0, "measured_standard_error": 0.0}
    words = displacement_rows(0.0, 0.0, **still).assign(attack="words", tensors_elsewhere=1)
    isotropic, real, _, left_out, *_ = displacement_words(pd.concat([displacement_rows(), words]))
    assert "in 1 of 1 runs" in isotropic
    assert "in 0 of 1 runs" in real
    assert left_out == "Excluded: 1 runs of words, which did not change the denoiser."
    assert list(displacement_words(words)) == ["No fine-tuning has moved the denoiser's weights."]


def test_the_page_and_figures_are_whole(measurements: Measurements) -> None:
    sharpness, displacement = sharpness_rows(), displacement_rows()
    regained = regained_table(per_run(), sharpness, measurements)
    text = page(sharpness, displacement, regained, measurements)
    words = " ".join(text.split())
    assert "NEGATIVE denoising loss over 16 frozen examples" in words
    assert "all 1,000 weights of the denoiser, measured with 24 probes" in words
    assert "| esd | 1 | −0.5 | 0.3 | −30 ± 1 | 8 ± 0.2 | 1.3 |" in text
    assert "| base | 0 | −0.5 | 0.3 | −10 ± 1 | 4 ± 0.2 | −0.15 |" in text  # mean over the attacks' seeds
    assert "| esd | pages | 0 | 1 | −0.1 ± 0.01 | −0.11 ± 0.01 | 0.3 ± 0.01 | 0.25 | 0.05 |" in text
    rows = [
        SliceRow("esd", direction, 0, position, "harmful_loss_change", position, 0.1)
        for direction in ("pages", "random-0-pages")
        for position in (0.0, 1.0)
    ]
    slices = pd.DataFrame([asdict(row) for row in rows])
    drawn = theory_figures.slices_figure(slices, measurements, SETTINGS)
    assert [len(axis.lines) for axis in drawn.axes] == [4, 0]
    assert len(theory_figures.sharpness_figure(regained, measurements, SETTINGS).axes) == 2
    assert len(theory_figures.displacement_figure(displacement, measurements, SETTINGS).axes) == 2


def test_a_label_that_looks_like_a_number_stays_one(tmp_path: Path) -> None:
    write_csv(sharpness_rows().assign(model="007"), tmp_path / "sharpness.csv")
    assert set(read_table("sharpness", [tmp_path / "sharpness.csv"])["model"]) == {"007"}


def test_parts_of_a_table_are_joined_in_order(tmp_path: Path) -> None:
    rows = sharpness_rows()
    files = [tmp_path / f"{place}.csv" for place in range(len(rows) + 1)]
    for place, file in enumerate(files):
        rows.iloc[place : place + 1].to_csv(file, index=False)  # the last one is empty but for its head
    pd.testing.assert_frame_equal(read_table("sharpness", files), rows)
    assert list(read_table("sharpness", files[-1:])) == list(rows)


def test_what_came_back_is_read_as_it_was_written(tmp_path: Path, measurements: Measurements) -> None:
    regained = regained_table(per_run(), sharpness_rows().assign(parameters=1_023_076), measurements)
    write_csv(regained, tmp_path / "regained.csv")
    found = read_table("regained", [tmp_path / "regained.csv"])
    pd.testing.assert_frame_equal(found, regained, check_dtype=False)
    assert set(found["parameters"]) == {1_023_076}  # seven digits, where a float has six


def test_an_older_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slices.csv").write_text("model,direction\n")
    with pytest.raises(ValueError, match="slices.csv has columns .*make it anew"):
        read_table("slices", [tmp_path / "slices.csv"])
