"""An ablation's numbers, table and figure: which states are whose, and files that are made from the values alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from resalign.ablations.measured import VALUE_COLUMNS, VARIANT_RUN_COLUMNS, by_steps, described, measured
from resalign.ablations.shown import Ablation, along, main
from resalign.analysis.frames import final_states, write_csv
from resalign.config.report import ReportConfig
from resalign.display.latex import to_latex
from tests.study.frames import METRICS, write_study

SETTINGS = ReportConfig(replicates=200).model_dump(mode="json")
LEARNABILITY = {"name": "learnability"}


def value(variant: str, attack: str, steps: int, metric: str, mean: float, model: str = "resalign") -> dict[str, Any]:
    dataset = "" if attack == "none" else attack
    state = {"variant": variant, "model": model, "attack": attack, "dataset": dataset, "steps": steps, "metric": metric}
    return {**state, "mean": mean, "std": 0.01, "low": mean - 0.05, "high": mean + 0.05, "n": 240, "seeds": 2}


def values_of(*models: str) -> pd.DataFrame:
    """Two values of γ, of which one is fine-tuned for fewer steps; no interval of learnability."""
    rows = []
    for model in models:
        for variant, steps, after in (("0.005", 100, 0.3), ("0.01", 200, 0.1)):
            rows.append(value(variant, "none", 0, "ip", 0.06, model))
            for step in range(50, steps + 1, 50):
                rows.append(value(variant, "pages", step, "ip", after * step / steps, model))
            learnt = value(variant, "pages", steps, "learnability", 0.5, model)
            rows.append({**learnt, "std": np.nan, "low": np.nan, "high": np.nan})
    return pd.DataFrame(rows, columns=VALUE_COLUMNS)


def job_of(*models: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "title": "Damping & so on",
        "axis": "γ",
        "note": "Of one attack.",
        "checkpoints": False,
        "models": list(models),
        "order": ["base", "graddiff", "esd", "resalign"],
        "base": "base",
        "metrics": [["ip", METRICS["ip"]], ["learnability", LEARNABILITY]],
        "shown": ["ip", "learnability"],
        "attacks": [["pages", "pages"], ["bold", "bold"]],
        "report": SETTINGS,
    }
    return {**plain, **changes}


# --- states -----------------------------------------------------------------------------------------------------------


def test_the_last_step_is_each_variants_own() -> None:
    found = final_states(values_of("resalign"), "variant")
    ends = found[found["attack"] == "pages"].drop_duplicates(["variant", "steps"])
    assert list(zip(ends["variant"], ends["steps"], strict=True)) == [("0.005", 100), ("0.01", 200)]
    assert (found["attack"] == "none").sum() == 2


def test_checkpoints_begin_before_fine_tuning_for_every_attack() -> None:
    rows = [value("", "none", 0, "ip", 0.0)]
    rows += [value("", attack, steps, "ip", 0.1) for attack in ("pages", "bold") for steps in (100, 50)]
    found = by_steps(pd.DataFrame(rows, columns=VALUE_COLUMNS))
    assert list(found["variant"]) == ["0", "50", "50", "100", "100"]
    states = along(found)
    assert sorted(zip(states["attack"], states["dataset"], states["variant"], strict=True)) == [
        (attack, attack, steps) for attack in ("bold", "pages") for steps in ("0", "100", "50")
    ]


# --- tables and figures -----------------------------------------------------------------------------------------------


def test_variants_are_rows_and_states_are_columns() -> None:
    table = Ablation(job_of("resalign"), values_of("resalign")).table()
    assert [row.title for row in table.rows] == ["0.005", "0.01"]
    # Steps differ between the variants, so that no number of them is said.
    assert table.groups == [("Before fine-tuning", 1), ("After fine-tuning on pages", 2)]
    cells = [[cell and (cell.value, cell.interval, cell.best) for cell in row.cells] for row in table.rows]
    assert cells[0] == [("0.06", "[0.01, 0.11]", False), ("0.30", "[0.25, 0.35]", False), ("0.50", "", False)]
    assert cells[1][1] == ("0.10", "[0.05, 0.15]", True)


def test_a_model_has_the_colour_that_it_has_everywhere() -> None:
    settings = ReportConfig()
    for models in (("resalign",), ("esd", "resalign")):
        figure = Ablation(job_of(*models), values_of(*models)).figure()
        found = {str(line.get_color()) for line in figure.axes[0].get_lines()}
        assert found == {settings.palette[("graddiff", "esd", "resalign").index(model)] for model in models}
        markers = {str(line.get_marker()) for line in figure.axes[0].get_lines()} - {"None"}
        assert len(markers) == 2  # before and after: states of one model differ by markers and dashes


def test_several_models_are_told_apart() -> None:
    ablation = Ablation(job_of("esd", "resalign"), values_of("esd", "resalign"))
    assert [row.title for row in ablation.table().rows] == [
        "0.005, esd",
        "0.005, resalign",
        "0.01, esd",
        "0.01, resalign",
    ]
    labels = {text.get_text() for text in ablation.figure().axes[0].texts}
    assert labels == {f"{model} {state}" for model in ("esd", "resalign") for state in ("before", "after pages")}


def test_latex_has_what_the_table_has() -> None:
    text = to_latex(Ablation(job_of("resalign"), values_of("resalign")).table(), head="γ")
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"$\gamma$ & " in text
    assert r"0.01 & 0.06 [0.01, 0.11] & \textbf{0.10} [0.05, 0.15] & 0.50 \\" in text
    words = "Bold is the best of the variants, and each one that is not told apart from it (their intervals overlap)"
    assert words in text
    assert r"Damping \& so on. Of one attack. Each value" in text


def test_the_figure_has_a_line_a_state_at_every_variant() -> None:
    figure = Ablation(job_of("resalign"), values_of("resalign")).figure()
    first, second = figure.axes
    assert [tick.get_text() for tick in second.get_xticklabels()] == ["0.005", "0.01"]
    heights = {tuple(line.get_ydata()) for line in first.get_lines()}
    assert heights == {(0.06, 0.06), (0.3, 0.1)}
    assert second.get_xlabel() == "γ"
    # Learnability is of what was fine-tuned alone.
    assert {tuple(line.get_ydata()) for line in second.get_lines()} == {(0.5, 0.5)}


@pytest.mark.parametrize("name", ["table.csv", "table.tex", "figure.png", "figure.svg"])
def test_each_file_is_made_from_the_values_alone_with_equal_bytes(tmp_path: Path, name: str) -> None:
    write_csv(values_of("resalign"), tmp_path / "values.csv")
    made = []
    for folder in ("one", "two"):
        output = tmp_path / folder / name
        output.parent.mkdir()
        arguments = ["--job", json.dumps(job_of("resalign")), "--values", str(tmp_path / "values.csv")]
        main([*arguments, "--output", str(output)])
        assert [path.name for path in output.parent.iterdir()] == [name]
        made.append(output.read_bytes())
    assert made[0] == made[1]
    if name == "table.csv":
        table = pd.read_csv(tmp_path / "one" / name, dtype={"variant": str}, keep_default_na=False)
        assert list(table["variant"]) == ["0.005", "0.005", "0.005", "0.01", "0.01", "0.01"]
        assert set(table["attack"]) == {"none", "pages"}


def test_a_metric_that_was_measured_nowhere_is_no_empty_column() -> None:
    job = job_of("resalign", metrics=[["ip", METRICS["ip"]], ["us", {**METRICS["ip"]}]], shown=["ip", "us"])
    with pytest.raises(ValueError, match=r"metrics \['us'\] were measured in no state"):
        Ablation(job, values_of("resalign"))


# --- measuring --------------------------------------------------------------------------------------------------------


def measuring(folder: Path, thresholds: dict[str, float], **changes: Any) -> dict[str, Any]:
    """An ablation over the detector's threshold, on one study's scores."""
    study = write_study(folder, attacks=("pages-gentle",), seeds=(0, 1))
    variants = []
    for name, threshold in thresholds.items():
        rule = {"scorer": "net", "quantities": ["seven"], "threshold": threshold}
        part = {
            "models": study["models"],
            "attacks": [["pages-gentle", "pages"]],
            "base": "base",
            "heldout": {},
            "compared": {},
            "references": {},
            "rows": [row for row in study["rows"] if row["model"] == "resalign"],
            "sweeps": [],
            "main_attacks": None,
            "metrics": [["ip", {**METRICS["ip"], "rules": [rule]}]],
        }
        variants.append({"variant": name, "overrides": {}, "config_hash": name, "is_own": False, "measured": part})
    job = {"report": SETTINGS, "checkpoints": False, "models": ["resalign"], "variants": variants}
    return {**job, **changes}


def test_every_variant_is_measured_by_itself(tmp_path: Path) -> None:
    values, runs = measured(measuring(tmp_path, {"high": 2.0, "low": -1.0}))
    assert list(values.columns) == VALUE_COLUMNS
    assert list(runs.columns) == VARIANT_RUN_COLUMNS
    assert list(dict.fromkeys(values["variant"])) == ["high", "low"]
    # Nothing is above 2, everything is above -1.
    assert set(values.loc[values["variant"] == "high", "mean"]) == {0.0}
    assert set(values.loc[values["variant"] == "low", "mean"]) == {1.0}
    assert set(values["steps"]) == {0, 50, 200}
    assert len(runs) == 2 * 3 * 2


def test_checkpoints_are_the_variants_of_one_configuration(tmp_path: Path) -> None:
    job = measuring(tmp_path, {"": 0.5}, checkpoints=True)
    values, runs = measured(job)
    assert list(values["variant"]) == ["0", "50", "200"]
    assert set(runs["variant"]) == {"0", "50", "200"}
    found = described(job, list(values["variant"]))
    assert list(found) == ["0", "50", "200"]
    assert found["50"] == {"overrides": {}, "config_hash": "", "is_own": False}
