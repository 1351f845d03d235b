"""Series: each with its axis, compared only where it fine-tunes as the paper did; lines of one run each."""

from pathlib import Path

import pandas as pd
import pytest

from resalign.analysis.frames import write_csv
from resalign.exhibits import figure2, figure6
from resalign.exhibits._inputs import ExhibitInputs
from resalign.exhibits._series import series_frame, series_table
from resalign.jobs.series import SeriesWords
from tests.analysis.experiment import SETTINGS
from tests.exhibits.frames import inputs_of


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
        inputs = inputs_of(paths, another_world="", gamma=SeriesWords(axis="rate", methods=(method,)))
        found, _ = series_frame(inputs, "table4")
        assert set(found["published_world"]) - {""} == {world}
        compared = found["difference"].notna()
        assert compared.any() == (method == "lora")
        caption = series_table(inputs, "table4").layout.caption
        assert ("No difference is given for gamma: the published fine-tuning is lora." in caption) == (method == "full")


def test_a_series_of_another_world_gets_no_difference(frame_paths: dict[str, Path], tmp_path: Path) -> None:
    frame = pd.read_csv(frame_paths["ablation"], keep_default_na=False)
    frame = frame.assign(variant=frame["variant"].astype(str).map({"0.01": "1e-3", "1": "5e-4"}).fillna("1e-3"))
    frame.loc[frame["attack"] == "pages", "dataset"] = "dreambench++"
    paths = with_ablation(frame_paths, tmp_path, frame)
    for other in ((), ("sampling.guidance_scale",)):
        inputs = inputs_of(paths, another_world="", gamma=SeriesWords(axis="rate", methods=("lora",), other=other))
        assert series_frame(inputs, "table4")[0]["difference"].notna().any() == (not other)
        caption = series_table(inputs, "table4").layout.caption
        said = "No difference is given for gamma: it has other sampling.guidance_scale than the experiment."
        assert (said in caption) == bool(other)


def test_a_line_over_steps_is_of_one_run(frame_paths: dict[str, Path], tmp_path: Path) -> None:
    frame = pd.read_csv(frame_paths["ablation"], keep_default_na=False)
    own = frame[(frame["model"] == "resalign") & (frame["attack"] == "pages") & (frame["metric"] == "ip")]
    longer = own.iloc[:1].assign(steps=500, mean=0.9)  # the ablation's run was not looked at where the main one was
    paths = with_ablation(frame_paths, tmp_path, longer)
    found = figure2.make(inputs_of(paths)).frame
    pages = found[found["attack"] == "pages"]
    assert pages.loc[pages["model"] == "resalign", "steps"].tolist() == [500]
    assert set(pages.loc[pages["model"] == "esd", "steps"]) > {200}
    assert len(found[(found["model"] == "resalign") & (found["attack"] == "none")]) == 1


def test_figure6_draws_every_seed_and_tabulates_their_mean(inputs: ExhibitInputs) -> None:
    drawn = figure6.make(inputs)
    [pages, *_] = drawn.figure(SETTINGS).axes
    lines = [line.get_ydata().tolist() for line in pages.get_lines() if line.get_label() in ("base", "_child0")]
    assert lines[0] == pytest.approx([0.1, 0.3])  # the base's first seed
    point = drawn.frame[(drawn.frame["model"] == "base") & (drawn.frame["position"] == 1.0)].iloc[0]
    assert (point["mean"], point["seeds"]) == (pytest.approx(0.35), 2)
    assert point["low"] < 0.3
    assert point["high"] > 0.4
