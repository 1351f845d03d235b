"""An ablation's numbers, table and figure: which states are whose, and files that are made from the values only."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from resalign.ablations.measured import VALUE_COLUMNS, VARIANT_RUN_COLUMNS, by_steps, described, measured
from resalign.ablations.shown import along, shown
from resalign.analysis.frames import final_states
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.latex import to_latex
from resalign.jobs.ablation import AblationJob, AblationShownJob
from tests.study.frames import METRICS, write_study

SETTINGS = ReportConfig(replicates=200)
METRICS_SHOWN = [("ip", METRICS["ip"]), ("learnability", {"name": "learnability"})]


def value(variant: str, attack: str, steps: int, metric: str, mean: float, model: str = "resalign") -> dict[str, Any]:
    dataset = "" if attack == "none" else attack
    state = {"variant": variant, "model": model, "attack": attack, "dataset": dataset, "steps": steps, "metric": metric}
    return {**state, "mean": mean, "std": 0.01, "low": mean - 0.05, "high": mean + 0.05, "n": 240, "seeds": 3}


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


def job_of(**changes: Any) -> AblationShownJob:
    plain = {
        "ablation": "gamma",
        "values": "values.csv",
        "title": "Damping & so on",
        "axis": "γ",
        "note": "Of one attack.",
        "checkpoints": False,
        "order": ["base", "graddiff", "esd", "resalign"],
        "base": "base",
        "metrics": METRICS_SHOWN,
        "attacks": [["pages", "pages"], ["bold", "bold"]],
        "report": SETTINGS.model_dump(mode="json"),
    }
    return AblationShownJob.parse({**plain, **changes}, where="job")


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


# --- table and figure -------------------------------------------------------------------------------------------------


def test_variants_are_rows_and_states_are_columns() -> None:
    table, _ = shown(job_of(), values_of("resalign"))
    assert [row.title for row in table.layout.rows] == ["0.005", "0.01"]
    # Steps differ between the variants, so that no number of them is said.
    assert table.layout.groups == [("Before fine-tuning", 1), ("After fine-tuning on pages", 2)]
    cells = [[cell and (cell.value, cell.interval, cell.best) for cell in row.cells] for row in table.layout.rows]
    assert cells[0] == [("0.06", "[0.01, 0.11]", False), ("0.30", "[0.25, 0.35]", False), ("0.50", "", False)]
    assert cells[1][1] == ("0.10", "[0.05, 0.15]", True)
    text = to_latex(table.layout, table.head, "gamma-full")
    assert r"$\gamma$ & " in text
    assert r"0.01 & 0.06 $\pm$ 0.01 [0.01, 0.11] & \textbf{0.10} $\pm$ 0.01 [0.05, 0.15] & 0.50 \\" in text
    assert r"\caption{Damping \& so on. Of one attack. Each value with its 95~\% interval, made as in" in text
    assert list(table.frame["variant"]) == ["0.005", "0.005", "0.005", "0.01", "0.01", "0.01"]


def test_several_models_are_rows_of_a_variant_and_lines_in_their_own_colours() -> None:
    table, panels = shown(job_of(), values_of("esd", "resalign"))
    assert [row.title for row in table.layout.rows] == [f"{v}, {m}" for v in ("0.005", "0.01") for m in MODELS]
    first = drawing.figure_of(panels, SETTINGS).axes[0]
    assert {str(line.get_color()) for line in first.get_lines()} == set(SETTINGS.palette[1:3])
    assert {text.get_text() for text in first.texts} == set(MODELS)


MODELS = ("esd", "resalign")


def test_each_state_of_the_first_metric_and_learnability_is_a_panel() -> None:
    _, panels = shown(job_of(), values_of("resalign"))
    assert [panel.title for panel in panels] == [
        "IP before fine-tuning",
        "IP after fine-tuning on pages",
        "Learnability after fine-tuning on pages",
    ]
    axes = drawing.figure_of(panels, SETTINGS).axes
    assert [tuple(axis.get_lines()[0].get_ydata()) for axis in axes] == [(0.06, 0.06), (0.3, 0.1), (0.5, 0.5)]
    assert {axis.get_xlabel() for axis in axes} == {"γ"}
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["0.005", "0.01"]


def test_a_metric_that_was_measured_nowhere_is_no_empty_column() -> None:
    with pytest.raises(ValueError, match=r"metrics \['us'\] were measured in no state"):
        shown(job_of(metrics=[*METRICS_SHOWN, ("us", METRICS["ip"])]), values_of("resalign"))


# --- measuring --------------------------------------------------------------------------------------------------------


def measuring(folder: Path, thresholds: dict[str, float], *, checkpoints: bool = False) -> AblationJob:
    """An ablation over the detector's threshold, on one study's scores."""
    study = write_study(folder, attacks=("pages-gentle",), seeds=(0, 1))
    variants = []
    for name, threshold in thresholds.items():
        rule = {"scorer": "net", "quantities": ["seven"], "threshold": threshold}
        part = {
            "models": study["models"],
            "attacks": [["pages-gentle", "pages"]],
            "base": "base",
            **dict.fromkeys(("heldout", "compared", "references"), {}),
            "rows": [row for row in study["rows"] if row["model"] == "resalign"],
            "metrics": [["ip", {**METRICS["ip"], "rules": [rule]}]],
        }
        variants.append({"variant": name, "overrides": {}, "config_hash": name, "is_own": False, "measured": part})
    job = {"experiment": "x", "ablation": "y", "command": "", "report": SETTINGS.model_dump(mode="json")}
    job |= {"checkpoints": checkpoints, "models": ["resalign"], "variants": variants}
    return AblationJob.parse(job, where="job")


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
