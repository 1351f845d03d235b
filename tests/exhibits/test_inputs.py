"""Frames and names are read back as they were written."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from resalign.analysis.frames import decimals, read_csv
from resalign.analysis.measured import by_prompt, measurements_of, names_of
from resalign.exhibits._inputs import ExhibitInputs
from tests.analysis.experiment import METRICS, make_swept
from tests.exhibits.frames import METHODS, inputs_of


def test_names_are_read_back() -> None:
    measurements = make_swept()
    found = measurements_of(names_of(measurements, METHODS))
    assert found.models == measurements.models
    assert dict(found.metrics) == METRICS
    assert found.sweeps["rates"] == measurements.sweeps["rates"]
    assert list(found.main().attacks) == ["pages", "bold"]


def test_an_empty_name_stays_a_name_and_an_empty_number_is_nan(tmp_path: Path) -> None:
    (tmp_path / "frame.csv").write_text("model,dataset,prompt_id,std\nNA,,007,\n")
    frame = read_csv(tmp_path / "frame.csv")
    assert frame.loc[0, ["model", "dataset", "prompt_id"]].tolist() == ["NA", "", "007"]
    assert frame["std"].isna().all()


def test_sums_by_prompt_are_of_all_images_of_a_prompt() -> None:
    images = make_swept().images
    found = by_prompt(images)
    own = images[(images["model"] == "esd") & (images["attack"] == "pages") & (images["steps"] == 200)]
    one = own[(own["metric"] == "ip") & (own["seed"] == 1) & (own["prompt_id"] == "p003")]
    keys = {"model": "esd", "attack": "pages", "steps": 200, "metric": "ip", "seed": 1, "prompt_id": "p003"}
    row = found[(found[list(keys)] == list(keys.values())).all(axis=1)]
    assert row[["sum", "n"]].iloc[0].tolist() == [one["value"].sum(), 2]
    assert found["sum"].sum() == pytest.approx(images["value"].sum())


@pytest.mark.parametrize(("middle", "digits"), [(0.35, 3), (0.016, 4), (17.0, 2), (0.0, 3)])
def test_three_significant_digits(middle: float, digits: int) -> None:
    assert decimals(middle) == digits


def test_models_are_held_against_resalign_or_the_most_resilient(frame_paths: dict[str, Path]) -> None:
    inputs = inputs_of(frame_paths)
    assert inputs.focus == "resalign"
    renamed = dataclasses.replace(inputs)
    renamed.names["methods"] = {}
    assert renamed.focus == "resalign"  # by its rate after the attacks
    with pytest.raises(KeyError, match="no frame 'absent'"):
        inputs.frame("absent")


def test_series_are_of_the_ablation_and_of_sweeps_by_name(inputs: ExhibitInputs) -> None:
    found = inputs.series("rates")
    assert list(dict.fromkeys(zip(found["series"], found["variant"], strict=True))) == [
        *(("gamma", "0.01"), ("gamma", "1")),
        *(("rates", "gentle"), ("rates", "as it is"), ("rates", "harsh")),
    ]
    assert set(found.loc[found["attack"] == "pages", "steps"]) == {200}


def test_what_an_ablation_alone_has_is_named_too(inputs: ExhibitInputs) -> None:
    row = {"model": "new", "attack": "personal", "dataset": "dog"}
    found = inputs.naming(pd.DataFrame([row | {"metric": "clip_t"}, row | {"metric": "dino"}]))
    assert found.models[-1] == "new"
    assert list(found.attacks)[-1] == "personal"
    assert (found.metrics["clip_t"].title, found.metrics["clip_t"].better) == ("clip t", "higher")
    assert found.metrics["ip"] == METRICS["ip"]
    with pytest.raises(ValueError, match="metric 'odd' of an ablation is none of the experiment's"):
        inputs.naming(pd.DataFrame([row | {"metric": "odd"}]))
