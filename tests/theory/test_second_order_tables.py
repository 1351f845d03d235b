"""The committed audit: its README's tables are its files', its figures mark what went wrong."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resalign.config.report import ReportConfig
from resalign.theory.horizon import Config as HorizonConfig
from resalign.theory.horizon import HorizonRow
from resalign.theory.second_order import FIRST_ORDER, Config, Row, SweepRow
from resalign.theory.second_order_figures import ELSEWHERE_RESIDUAL, audit_figure, gamma_figure
from resalign.theory.second_order_tables import TITLES, costs_table, horizon_tables, markdown_tables

STUDY = Path(__file__).resolve().parents[2] / "docs" / "studies" / "second-order"
CONFIG = Config()


@pytest.fixture(scope="module")
def audit() -> pd.DataFrame:
    return pd.read_csv(STUDY / "audit.csv")


@pytest.fixture(scope="module")
def sweep() -> pd.DataFrame:
    return pd.read_csv(STUDY / "gamma.csv")


def marked(axis: Axes, marker: str) -> int:
    """How many points a panel shows with a marker; a point that is NaN is not shown."""
    lines = [line for line in axis.get_lines() if line.get_marker() == marker]
    return sum(int(pd.Series(line.get_ydata()).notna().sum()) for line in lines)


# --- the committed files ----------------------------------------------------------------------------------------------


def test_the_readmes_tables_are_the_files(audit: pd.DataFrame, sweep: pd.DataFrame) -> None:
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    assert markdown_tables(audit, sweep) in text


def test_the_horizons_tables_are_the_files() -> None:
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    horizon, costs = (pd.read_csv(STUDY / f"{name}.csv") for name in ("horizon", "costs"))
    assert horizon_tables(horizon) in text
    assert costs_table(costs) in text
    config = HorizonConfig()
    assert list(horizon) == [field.name for field in dataclasses.fields(HorizonRow)]
    a_step = {"sgd": 2, "adam": 1 + len(config.gammas)}
    rows = sum(a_step[name] for name in config.rates) * len(config.simulated_steps) + len(config.batch_sizes)
    assert len(horizon) == len(CONFIG.draws) * len(config.solvers) * rows
    # The page's words: with Adam no estimate is better than none, by gradient descent MINRES is.
    own = horizon[(horizon["batch"] == 0) & (horizon["simulated_steps"] >= 10)]
    means = own.groupby(["optimizer", "gamma_rule", "gamma", "solver", "simulated_steps"])["relative_error"].mean()
    assert means["adam", "fixed", 0.1].min() > 0.99
    assert means["sgd", "matched"].xs("minres 20", level="solver").max() < 0.36


def test_the_files_are_the_default_grids(audit: pd.DataFrame, sweep: pd.DataFrame) -> None:
    assert list(audit) == [field.name for field in dataclasses.fields(Row)]
    assert list(sweep) == [field.name for field in dataclasses.fields(SweepRow)]
    a_step = 2 + len(CONFIG.solvers) * (2 + len(CONFIG.gammas)) * len(CONFIG.solver_steps)
    assert len(audit) == len(CONFIG.draws) * len(CONFIG.simulated_steps) * a_step
    assert len(sweep) == len(CONFIG.draws) * CONFIG.sweep_points * (1 + len(CONFIG.solvers))
    assert sorted(set(sweep["gamma"])) == pytest.approx(CONFIG.sweep_gammas, rel=1e-7)
    assert set(audit["lr"]) == {CONFIG.lr}


# --- tables and figures -----------------------------------------------------------------------------------------------


def test_the_tables_say_what_diverged_and_what_gave_up(audit: pd.DataFrame, sweep: pd.DataFrame) -> None:
    broken = audit.copy()
    at = (broken["estimator"] == "minres") & (broken["gamma_rule"] == "matched") & (broken["draw"] == 0)
    broken.loc[at, "state"] = "raised"
    broken.loc[at, ["cosine", "relative_error", "difference_error", "relative_residual"]] = float("nan")
    text = markdown_tables(broken, sweep)
    lines = [line for line in text.splitlines() if f"| {TITLES['minres']} |" in line]
    assert lines
    assert all("raised 1" in line for line in lines)
    printed = [line for line in text.splitlines() if f"| {TITLES['richardson_printed']} |" in line]
    assert all("diverged" in line or "✗" in line for line in printed)
    assert "nan" not in text


def test_every_diverged_point_is_a_cross(audit: pd.DataFrame, sweep: pd.DataFrame) -> None:
    panel = gamma_figure(sweep, ReportConfig()).get_axes()[0]
    worst = sweep[sweep["estimator"] != FIRST_ORDER].groupby(["estimator", "gamma"])
    raised = worst["state"].agg(lambda states: "raised" in set(states))
    diverged = worst["state"].agg(lambda states: "diverged" in set(states)) & ~raised
    elsewhere = (worst["printed_residual"].max() < ELSEWHERE_RESIDUAL) & diverged
    assert elsewhere.sum() > 0
    assert set(elsewhere[elsewhere].index.get_level_values("estimator")) == {"richardson_printed"}
    assert (marked(panel, "v"), marked(panel, "X")) == (raised.sum(), diverged.sum() - elsewhere.sum())
    # A solver's own points have its own marker; the printed iteration's other solution has a hollow one.
    hollow = [
        line for line in panel.get_lines() if line.get_marker() == "D" and line.get_markerfacecolor() == "#fefefe"
    ]
    assert [len(line.get_ydata()) for line in hollow] == [elsewhere.sum()]


def test_nothing_is_drawn_outside_the_panels(audit: pd.DataFrame, sweep: pd.DataFrame) -> None:
    for figure in (audit_figure(audit, sweep, ReportConfig()), gamma_figure(sweep, ReportConfig())):
        assert isinstance(figure, Figure)
        for axis in figure.get_axes():
            low, high = axis.get_ylim()
            for line in axis.get_lines():
                if line.get_marker() not in ("None", ""):
                    values = pd.Series(line.get_ydata()).dropna()
                    assert values.between(low, high).all(), axis.get_title()
