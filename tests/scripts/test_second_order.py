"""The audit of the tiny pipeline: its script on the rule's own job, with small grids."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from resalign.config.plan import Plan
from resalign.jobs import second_order
from resalign.theory.horizon import FORWARD, HorizonRow
from resalign.theory.second_order import UNROLLED, Row, SweepRow
from resalign.theory.second_order_tables import costs_table, horizon_tables, markdown_tables

from .conftest import Workshop, load_script

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "batch_size": 2,
    "lr": 0.02,
    "simulated_steps": [1, 2],
    "gammas": [0.01, 1.0],
    "solver_steps": [2, 3],
    "directions": 2,
    "sweep_simulated_steps": 2,
    "sweep_solver_steps": 3,
    "sweep_points": 3,
    "reference_steps": 4,
}
MINRES = {"name": "minres", "steps": 20}
SHORT: dict[str, Any] = {
    "batch_size": 2,
    "simulated_steps": [1, 2],
    "at": 2,
    "batch_sizes": [3],
    "solvers": ["identity", MINRES, "nystrom", "fisher"],
}


DRAWS = (0, 1)


@pytest.fixture(scope="module")
def audited(
    tiny_plan: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], tuple[Path, dict[str, Any]]]:
    plan = tiny_plan()
    job = second_order.DrawJob.of(plan).plain()
    job["audit"] |= SMALL
    job["horizon"] |= SHORT
    shown = second_order.SecondOrderJob.of(plan)
    shown = shown.model_copy(update={"draws": shown.draws[: len(DRAWS)]})

    def run() -> tuple[Path, dict[str, Any]]:
        scripts = {name: load_script(name) for name in ("second_order_draw", "second_order")}
        shop = Workshop(tmp_path_factory.mktemp("audit"), scripts)
        for draw in DRAWS:
            where = second_order.folder(plan, draw)
            shop.call("second_order_draw", json.dumps(job), where, seed=draw, modules=second_order.modules())
        return shop.call("second_order", shown, str(Path(second_order.folder(plan, 0)).parent)), job

    return run


@pytest.fixture(scope="module")
def done(audited: Callable[[], tuple[Path, dict[str, Any]]]) -> tuple[Path, dict[str, Any]]:
    return audited()


def test_everything_that_the_rules_declare_is_written(done: tuple[Path, dict[str, Any]]) -> None:
    records = {"run.json", "timing.json", "hashes.json"}
    tables = {f"{name}.csv" for name in second_order.TABLES}
    figures = {f"{name}.{suffix}" for name in second_order.FIGURES for suffix in ("png", "svg")}
    draws = {f"draw-{draw}" for draw in DRAWS}
    assert {path.name for path in done[0].iterdir()} == draws | tables | figures | records | {"costs.md", "table.md"}
    for draw in draws:
        assert {path.name for path in (done[0] / draw).iterdir()} == tables | records
        record = json.loads((done[0] / draw / "run.json").read_text())
        assert record["job"] == done[1]
        assert record["job"]["audit"]["sweep_to"] == 100.0  # the grids that were not changed are in the record too


def test_the_tables_are_the_draws_in_order(done: tuple[Path, dict[str, Any]]) -> None:
    for name in second_order.TABLES:
        parts = [(done[0] / f"draw-{draw}" / f"{name}.csv").read_text().splitlines() for draw in DRAWS]
        assert (done[0] / f"{name}.csv").read_text().splitlines() == parts[0] + parts[1][1:]


def test_the_tables_are_whole(done: tuple[Path, dict[str, Any]]) -> None:
    audit, sweep = (pd.read_csv(done[0] / f"{name}.csv") for name in ("audit", "gamma"))
    assert list(audit) == [field.name for field in dataclasses.fields(Row)]
    assert list(sweep) == [field.name for field in dataclasses.fields(SweepRow)]
    assert len(audit) == 2 * 2 * (2 + 4 * 4 * 2)
    assert len(sweep) == 2 * 3 * 5
    horizon, costs = (pd.read_csv(done[0] / f"{name}.csv") for name in ("horizon", "costs"))
    assert list(horizon) == [field.name for field in dataclasses.fields(HorizonRow)]
    # Two rules of γ by gradient descent and three by Adam; at one T another batch.
    assert len(horizon) == 2 * len(SHORT["solvers"]) * (2 * 5 + 1)
    assert list(costs["solver"]) == [UNROLLED, FORWARD, *horizon["solver"].drop_duplicates()] * 2
    assert (done[0] / "costs.md").read_text() == costs_table(costs)
    tables = markdown_tables(audit, sweep) + "\n" + horizon_tables(horizon)
    assert (done[0] / "table.md").read_text() == tables


def test_another_draw_rule_or_batch_is_another_estimate(done: tuple[Path, dict[str, Any]]) -> None:
    horizon = pd.read_csv(done[0] / "horizon.csv")
    own = horizon[(horizon["optimizer"] == "sgd") & (horizon["simulated_steps"] == 2) & (horizon["solver"] == "fisher")]
    assert own["relative_error"].nunique() == len(own) == 2 * 3
    converged = horizon[(horizon["optimizer"] == "sgd") & (horizon["batch"] == 0) & (horizon["solver"] == "minres 20")]
    assert (converged["relative_error"] < 0.5).all()


def test_the_two_references_agree_on_a_real_network(done: tuple[Path, dict[str, Any]]) -> None:
    audit = pd.read_csv(done[0] / "audit.csv")
    unrolled = audit[audit["estimator"] == "unrolled"]
    assert (unrolled["difference_error"] < 1e-4).all()  # the displacement's square, and rounding
    assert unrolled["difference_error"].nunique() == 4  # every draw and T was measured
    # A fine-tuning this small is nearly proximal: Eq. 6 at matched γ comes closer than first order, draw by draw.
    by_run = audit.set_index(["draw", "simulated_steps"])
    matched = by_run[(by_run["gamma_rule"] == "matched") & (by_run["estimator"] == "minres")]
    solved = matched.loc[matched["solver_steps"] == 3, "relative_error"]
    first = by_run.loc[by_run["estimator"] == "identity", "relative_error"]
    assert len(solved) == len(first) == 4
    assert (solved < 0.8 * first).all()


def test_the_same_job_gives_the_same_bytes(
    done: tuple[Path, dict[str, Any]], audited: Callable[[], tuple[Path, dict[str, Any]]]
) -> None:
    again = audited()[0]
    for name in ("audit.csv", "gamma.csv", "horizon.csv", "audit.svg", "gamma.png", "horizon.png", "run.json"):
        assert (again / name).read_bytes() == (done[0] / name).read_bytes(), name
