"""The measured theory of the tiny pipeline: the rules' own jobs, from weights to tables, text and figures."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from resalign.config.plan import Plan
from resalign.jobs import theory

from .conftest import Workshop
from .packed import SMALL, Packed


@pytest.fixture(scope="module")
def done(packed: Packed) -> tuple[Workshop, Path]:
    """Everything that the target makes, after the experiment's own stages."""
    return packed.workshop, packed.workshop.folder / theory.folder(packed.plan)


@pytest.mark.slow
def test_every_declared_file_is_written(done: tuple[Workshop, Path], whole_plan: Plan) -> None:
    shop, folder = done
    names = {path.relative_to(shop.folder).as_posix() for path in folder.rglob("*.*")}
    records = {f"{folder.relative_to(shop.folder)}/{part}{name}.json" for part in PARTS for name in RECORDS}
    assert names - records == {*theory.files(whole_plan), f"{theory.linear_model_folder(whole_plan)}/linear_model.csv"}
    assert records <= names


PARTS, RECORDS = ("", "linear-model/"), ("run", "timing", "hashes")


@pytest.mark.slow
def test_a_file_is_what_its_name_says(done: tuple[Workshop, Path]) -> None:
    folder = done[1]
    assert (folder / "theory.md").read_text().startswith("# Theory, measured")
    assert (folder / "linear_model.md").read_text().startswith("# The linear model")
    figures = theory.STATE_TABLES
    for name in (*figures, "linear_model"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    drawn = {name: (folder / f"{name}.svg").read_text() for name in figures}
    assert all("<svg" in text for text in drawn.values())
    assert len(set(drawn.values())) == len(figures)


@pytest.mark.slow
def test_every_model_and_fine_tuning_has_its_rows(done: tuple[Workshop, Path]) -> None:
    tables = {name: pd.read_csv(done[1] / f"{name}.csv") for name in (*theory.STATE_TABLES, "regained")}
    assert list(tables["sharpness"]["model"]) == ["base", "graddiff"]
    assert set(tables["sharpness"]["examples"]) == {8}
    keys = tables["displacement"][["model", "attack", "steps", "kind"]].agg(tuple, axis=1)
    expected = [("mine", 1, "real"), ("mine", 2, "real"), ("mine", 2, "isotropic")]
    assert list(keys) == [(model, *rest) for model in ("base", "graddiff") for rest in expected]
    assert len(tables["slices"]) == 2 * 2 * 3 * 2
    assert list(tables["slices"]) == ["model", "direction", "seed", "position", "quantity", "mean", "standard_error"]
    assert list(tables["regained"]["model"]) == ["base", "graddiff"]


@pytest.mark.slow
def test_a_displacement_is_from_this_model_and_not_from_the_base(done: tuple[Workshop, Path]) -> None:
    """Its first two Taylor terms give the measured change, which they would not from another start."""
    real = pd.read_csv(done[1] / "displacement.csv").query("kind == 'real'")
    assert (real["sigma"] > 0).all()
    assert (real["measured"].abs() > 1e-9).all()
    first = real[real["steps"] == 1]
    assert list(first["linear"] + first["quadratic"]) == pytest.approx(list(first["measured"]), rel=0.2)
    # The slice ends where the displacement does.
    slices = pd.read_csv(done[1] / "slices.csv").query("direction == 'mine' and position == 1")
    ends = slices[slices["quantity"] == "harmful_loss_change"]["mean"]
    # Both are differences of two float32 losses of about 1.
    assert list(ends) == pytest.approx(list(real[real["steps"] == 2]["measured"]), abs=1e-5)


@pytest.mark.slow
def test_every_model_sees_the_same_examples(done: tuple[Workshop, Path], whole_plan: Plan) -> None:
    """The unlearned model's fine-tuning ends elsewhere, and both were measured on the same loss: repeating repeats."""
    shop, _ = done
    run, state = list(theory.states(whole_plan).items())[1]
    before = {path.name: path.read_bytes() for path in (shop.folder / state.folder(0)).glob("*.csv")}
    again = shop.call("theory", theory.StateJob.of(whole_plan, run, 0), "again", seed=0)
    assert {path.name: path.read_bytes() for path in again.glob("*.csv")} == before
    assert len(before) == 3


def test_another_grid_of_the_linear_model_measures_no_network_again(
    tiny_plan: Callable[..., Plan], whole_plan: Plan
) -> None:
    other = tiny_plan(theory={**SMALL, "linear_model": {"overlaps": [0.2]}})
    assert list(theory.states(other)) == list(theory.states(whole_plan))
    more = tiny_plan(theory={**SMALL, "probes": 5})
    assert not set(theory.states(more)) & set(theory.states(whole_plan))


def test_a_job_tells_an_unlearned_model_its_own_weights_and_attacks(whole_plan: Plan) -> None:
    base, unlearned = (theory.StateJob.of(whole_plan, run, 0) for run in theory.states(whole_plan))
    assert base.weights is None
    assert "/unlearn/graddiff-" in str(unlearned.weights)
    assert "/attack/base.mine-" in base.attacks[0][2]
    assert "/attack/graddiff.mine-" in unlearned.attacks[0][2]
    assert base.forget == unlearned.forget
