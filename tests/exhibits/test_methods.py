"""The table of methods, its rows' metrics and notes, and the configuration's note under the main table."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from resalign.analysis.measurements import MetricInfo
from resalign.exhibits import methods, table1
from tests.analysis.experiment import METRICS, make_measurements, run_row
from tests.exhibits.frames import inputs_of, write_frames

DISTANCE = MetricInfo("Weight distance", "neither", "set", "weights", "what unlearning recorded")


def test_a_row_has_every_metric_and_the_note(tmp_path: Path) -> None:
    made = make_measurements()
    moved = pd.DataFrame(run_row("esd", "distance", 2.0 + seed, seed) for seed in range(3))
    runs = pd.concat([made.runs, moved], ignore_index=True)
    inputs = inputs_of(write_frames(tmp_path, make_measurements(runs=runs, metrics=METRICS | {"distance": DISTANCE})))
    plain = methods.make(inputs)
    assert [column.title for column in plain.layout.columns if column.metric == "distance"] == ["Weight distance"]
    noted = methods.make(replace(inputs, words=inputs.words.model_copy(update={"notes": {"esd": "keeps half"}})))
    assert noted.frame.groupby("model")["note"].unique().map(list).to_dict()["esd"] == ["keeps half"]
    rows = {row.model: row.cells for row in noted.layout.rows}
    assert {model: len(cells) for model, cells in rows.items()} == dict.fromkeys(rows, len(noted.layout.columns))
    assert {model: cells[-1].value for model, cells in rows.items() if cells[-1]}["esd"] == "keeps half"
    place = [column.metric for column in noted.layout.columns].index("distance")
    shown = {model: cells[place] and cells[place].value for model, cells in rows.items()}
    assert shown == {"base": None, "graddiff": None, "esd": "3.00", "resalign": None}
    assert not any(cell.best for cells in rows.values() if (cell := cells[place]))


def test_the_concepts_note_ends_both_captions_of_the_main_table(tmp_path: Path) -> None:
    inputs = inputs_of(write_frames(tmp_path, make_measurements()))
    plain = table1.make(inputs).layout
    noted = table1.make(replace(inputs, words=inputs.words.model_copy(update={"note": "Its images are drawn."}))).layout
    captions = (plain.caption, plain.short_caption)
    assert (noted.caption, noted.short_caption) == tuple(f"{caption} Its images are drawn." for caption in captions)
