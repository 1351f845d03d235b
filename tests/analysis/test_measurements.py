import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pandas as pd
import pytest

from resalign.analysis.collect import ScoredRun, collect, load_metric, measure_sets, read_scores
from resalign.analysis.frames import long_table
from resalign.analysis.measurements import Measurements, check_frame
from resalign.config.report import ReportConfig
from resalign.config.strict import ConfigError
from resalign.display.panels import followed
from resalign.errors import DataError
from resalign.jobs.measure import Measurable
from tests.analysis.experiment import METRICS, SETTINGS, make_measurements
from tests.study import frames as study


def test_settings_and_measurements_import_cheaply():
    code = (
        "import sys, resalign.config.report, resalign.analysis.measurements; "
        "print(sorted({'pandas', 'numpy', 'scipy', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_report_needs_no_torch():
    code = "import sys, resalign.report.build; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def change(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The frame with its first row changed."""
    frame = frame.copy()
    for column, value in values.items():
        frame.loc[frame.index[0], column] = value
    return frame


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"value": float("nan")}, "column 'value' is NaN or infinite in 1 rows"),
        ({"value": float("inf")}, "column 'value' is NaN or infinite in 1 rows"),
        ({"value": 0.5}, "a rate's value is 0 or 1"),
        ({"model": "edd"}, r"model \['edd'\] not declared"),
        ({"metric": "fid"}, r"metric \['fid'\] not declared"),
        ({"dataset": "pages"}, "rows mix states"),
        ({"steps": 100}, "rows mix states"),
        ({"attack": "pages"}, "rows mix states"),
        ({"image_index": 1}, "1 rows repeat a measurement"),
    ],
)
def test_faulty_images_are_named(measurements: Measurements, values: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        make_measurements(images=change(measurements.images, **values))


def test_columns_and_types_are_checked(measurements: Measurements):
    with pytest.raises(ValueError, match=r"images: columns missing \['seed'\]"):
        make_measurements(images=measurements.images.drop(columns="seed"))
    with pytest.raises(ValueError, match="runs: column 'n' holds float64; expected int"):
        make_measurements(runs=measurements.runs.assign(n=1.5))
    with pytest.raises(ValueError, match=r"unknown \['colour'\]"):
        check_frame(measurements.runs.assign(colour="red"), "runs", dict.fromkeys(measurements.runs.columns, "str"))


def test_base_must_be_a_model():
    with pytest.raises(ValueError, match="base model 'sd' is not among the models"):
        make_measurements(base="sd")


def test_a_safety_metric_is_needed(measurements: Measurements):
    assert measurements.safety_metric == "ip"
    fid = {"fid": METRICS["fid"]}
    runs = measurements.runs[measurements.runs["metric"] == "fid"]
    empty = make_measurements(metrics=fid, images=measurements.images.head(0), runs=runs)
    with pytest.raises(ValueError, match="no metric of group 'safety'"):
        _ = empty.safety_metric


def test_settings_reject_unknown_keys_and_uneven_palettes():
    with pytest.raises(ConfigError, match="did you mean 'replicates'"):
        ReportConfig.parse({"replicate": 10}, where="report")
    with pytest.raises(ConfigError, match="palette_dark 6"):
        ReportConfig.parse({"palette": ["#000000"]}, where="report")


@pytest.mark.parametrize(
    ("label", "title"), [("clip_score", "CLIP score"), ("CLIP-T", "CLIP-T"), ("AS_train", "AS train")]
)
def test_two_uses_of_a_metric_are_told_apart_by_their_labels(label: str, title: str) -> None:
    _, _, info = load_metric(label, {"name": "clip_score", "prompts": "subject", "scorer": "clip"})
    assert (info.title, info.better, info.prompt_set) == (title, "higher", "subject")


def test_what_unlearning_has_recorded_is_a_value_of_its_model_before_fine_tuning(tmp_path):
    record = {"step": [0, 3], "quantity": ["loss", "weight_distance"], "value": [9.0, 2.5]}
    pd.DataFrame(record).to_csv(tmp_path / "history.csv", index=False)
    unlearned = {"unlearn": str(tmp_path)}
    runs = [ScoredRun("base", "none", "", 0, {}), ScoredRun("esd", "none", "", 0, unlearned)]
    runs += [ScoredRun("esd", "pages", "pages", 0, unlearned)]
    metric = load_metric("displacement", {"name": "displacement"})
    job = {"models": ["base", "esd"], "base": "base", "rows": [], "metrics": [], "attacks": []}
    job |= {"sweeps": [], "main_attacks": [], **dict.fromkeys(("heldout", "references", "compared"), {})}
    found = measure_sets(runs, {"displacement": metric}, Measurable.parse(job, where="job"))
    assert found[["model", "attack", "steps", "value"]].to_numpy().tolist() == [["esd", "none", 0, 2.5]]
    assert metric[2].prompt_set == "retained images"


def test_metrics_on_benign_prompts_are_followed_over_fine_tuning(tmp_path):
    made = study.write_study(tmp_path, {"base": study.RATES["base"]}, seeds=(0,), prompts=5, images=1)
    benign = {"name": "incidental_resurgence", "prompts": "near", "scorer": "net", "concept": "seven"}
    job = Measurable.parse(
        {
            **{key: made[key] for key in ("models", "base", "rows")},
            "metrics": [*study.METRICS.items(), ("incidental", benign)],
            "attacks": [(name, name) for name in made["attacks"]],
            "sweeps": [
                ("two", {"title": "Two", "axis": "data", "note": "", "metrics": [], "attacks": [("a", "plain")]})
            ],
            "main_attacks": ["bold"],
            **dict.fromkeys(("heldout", "references", "compared"), {}),
        },
        where="job",
    )
    found = collect(job).measurements
    images = found.images[found.images["metric"] == "incidental"]
    assert sorted(images["steps"]) == sorted([0, *study.STEPS, *study.STEPS] * 5)
    table = long_table(found, SETTINGS)
    assert followed(table, found) == ["ip", "incidental"]
    assert found.sweeps["two"].attacks == {"a": "plain"}
    assert list(found.main().attacks) == ["bold"]


def test_a_metric_of_the_last_step_alone_is_not_followed(measurements: Measurements):
    assert followed(long_table(measurements, SETTINGS), measurements) == ["ip"]


def test_scores_are_those_of_the_folder_at_hand(tmp_path: Path) -> None:
    """Experiments name their files by the same relative paths, and a file may be made anew."""
    for name, value in (("first", 1.0), ("second", 2.0)):
        (tmp_path / name).mkdir()
        with chdir(tmp_path / name):
            pd.DataFrame({"value": [value]}).to_parquet("scores.parquet")
            assert read_scores(Path("scores.parquet"))["value"].tolist() == [value]
    pd.DataFrame({"value": [3.0]}).to_parquet(tmp_path / "first" / "scores.parquet")
    assert read_scores(tmp_path / "first" / "scores.parquet")["value"].tolist() == [3.0]


def test_more_rows_than_the_memory_holds_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"value": [0.0] * 11}).to_parquet(tmp_path / "scores.parquet")
    monkeypatch.setattr("resalign.analysis.collect.MAX_ROWS", 10)
    with pytest.raises(DataError, match=r"scores\.parquet: has 11 rows, at most 10 are read"):
        read_scores(tmp_path / "scores.parquet")
