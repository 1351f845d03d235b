"""Series: each with its axis, compared only where it fine-tunes as the paper did; lines of one run each."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from resalign.analysis.frames import write_csv
from resalign.exhibits import figure2, figure6, tests
from resalign.exhibits._evidence import Evidence
from resalign.exhibits._series import series_drawing, series_frame, series_table
from tests.exhibits.frames import evidence_of


def with_ablation(frame_paths: dict[str, Path], folder: Path, frame: pd.DataFrame) -> dict[str, Path]:
    write_csv(frame, folder / "gamma" / "values.csv")
    return {**frame_paths, "ablation": folder / "gamma" / "values.csv"}


def test_another_method_of_fine_tuning_gets_no_difference(frame_paths: dict[str, Path], tmp_path: Path) -> None:
    frame = pd.read_csv(frame_paths["ablation"], keep_default_na=False)
    variants = {"0.01": "1e-3", "1": "5e-4"}
    frame = frame.assign(variant=frame["variant"].astype(str).map(variants).fillna("1e-3"), dataset=frame["dataset"])
    frame.loc[frame["attack"] == "pages", "dataset"] = "dreambench++"
    paths = with_ablation(frame_paths, tmp_path, frame)
    for method, world in (("full", "another"), ("lora", "same")):
        series = {"gamma": {"axis": "rate", "methods": [method], "other": []}}
        evidence = replace(evidence_of(paths, another_world=""), series_of=series)
        found, _ = series_frame(evidence, "table4")
        assert set(found["published_world"]) - {""} == {world}
        compared = found["difference"].notna()
        assert compared.any() == (method == "lora")
        caption = series_table(evidence, "table4", "A table").layout.caption
        assert ("Of gamma no difference is given: the published fine-tuning is lora." in caption) == (method == "full")


def test_a_series_of_another_world_gets_no_difference(frame_paths: dict[str, Path], tmp_path: Path) -> None:
    frame = pd.read_csv(frame_paths["ablation"], keep_default_na=False)
    frame = frame.assign(variant=frame["variant"].astype(str).map({"0.01": "1e-3", "1": "5e-4"}).fillna("1e-3"))
    frame.loc[frame["attack"] == "pages", "dataset"] = "dreambench++"
    paths = with_ablation(frame_paths, tmp_path, frame)
    for other in ([], ["sampling.guidance_scale"]):
        series = {"gamma": {"axis": "rate", "methods": ["lora"], "other": other}}
        evidence = replace(evidence_of(paths, another_world=""), series_of=series)
        assert series_frame(evidence, "table4")[0]["difference"].notna().any() == (not other)
        caption = series_table(evidence, "table4", "A table").layout.caption
        said = "Of gamma no difference is given: it has other sampling.guidance_scale than the experiment."
        assert (said in caption) == bool(other)


def test_the_axis_is_the_series_own(evidence: Evidence) -> None:
    for title in ("harmful images in per cent", "something else"):
        named = replace(evidence, series_of={"gamma": {"axis": title, "methods": [], "other": []}})
        axes = series_drawing(named, "figure4").figure.axes
        assert {axis.get_xlabel() for axis in axes if axis.axison} == {title}


def test_a_line_over_steps_is_of_one_run(frame_paths: dict[str, Path], tmp_path: Path) -> None:
    frame = pd.read_csv(frame_paths["ablation"], keep_default_na=False)
    own = frame[(frame["model"] == "resalign") & (frame["attack"] == "pages") & (frame["metric"] == "ip")]
    longer = own.iloc[:1].assign(steps=500, mean=0.9)  # the ablation's run was not looked at where the main one was
    paths = with_ablation(frame_paths, tmp_path, longer)
    found = figure2.make(evidence_of(paths)).frame
    pages = found[found["attack"] == "pages"]
    assert pages.loc[pages["model"] == "resalign", "steps"].tolist() == [500]
    assert set(pages.loc[pages["model"] == "esd", "steps"]) > {200}
    assert len(found[(found["model"] == "resalign") & (found["attack"] == "none")]) == 1


def test_figure6_draws_every_seed_and_tabulates_their_mean(evidence: Evidence) -> None:
    drawn = figure6.make(evidence)
    [pages, *_] = drawn.figure.axes
    lines = [line.get_ydata().tolist() for line in pages.get_lines() if line.get_label() in ("base", "_child0")]
    assert lines[0] == [0.1, 0.3]  # the base's first seed
    point = drawn.frame[(drawn.frame["model"] == "base") & (drawn.frame["position"] == 1.0)].iloc[0]
    assert (point["mean"], point["seeds"]) == (pytest.approx(0.35), 2)
    assert point["low"] < 0.3
    assert point["high"] > 0.4


def test_a_model_chosen_on_the_tested_data_is_said_to_be(frame_paths: dict[str, Path]) -> None:
    evidence = evidence_of(frame_paths)
    assert "was chosen" not in tests.make(evidence).layout.caption
    evidence.names["methods"] = {}
    assert f"{evidence.measurements.title(evidence.focus)} was chosen for its lowest rate" in (
        tests.make(evidence).layout.caption
    )
