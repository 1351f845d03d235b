import math

import pandas as pd
import pytest

from resalign.analysis.frames import long_table
from resalign.analysis.measurements import Measurements
from resalign.analysis.pareto import PARETO_COLUMNS, pareto_table, weighed_metrics
from resalign.display import drawing
from resalign.display.pareto_panel import pareto_panel
from tests.analysis.experiment import METRICS, SETTINGS, make_measurements, run_row


def flags(share: float) -> list[float]:
    return [1.0] * round(20 * share) + [0.0] * round(20 * (1 - share))


def experiment(
    models: dict[str, tuple[tuple[float, float], float, tuple[float, float] | None]], **changes: object
) -> Measurements:
    """Of each model: IP after two attacks, retained accuracy before, learnability of two attacks."""
    images, runs = [], []
    for model, (after, before, learnt) in models.items():
        states = [("none", "", 0, "retained_accuracy", before)]
        for attack, share in zip(("pages", "bold"), after, strict=True):
            states += [(attack, attack, 10, "ip", 0.5), (attack, attack, 20, "ip", share)]
        for attack, dataset, steps, metric, share in states:
            state = {"model": model, "attack": attack, "dataset": dataset, "steps": steps, "metric": metric}
            images += [
                {**state, "seed": 0, "prompt_id": f"p{place:02d}", "image_index": 0, "value": value}
                for place, value in enumerate(flags(share))
            ]
        for attack, value in zip(("pages", "bold"), learnt or (), strict=bool(learnt)):
            runs += [
                run_row(model, "learnability", value + 0.1 * seed, seed, attack=attack, dataset=attack, steps=20)
                for seed in range(2)
            ]
    frame = pd.DataFrame(runs, columns=list(make_measurements().runs.columns))
    return make_measurements(images=pd.DataFrame(images), runs=frame, **changes)


def points(measurements: Measurements) -> pd.DataFrame:
    weighed = weighed_metrics(measurements)
    return pareto_table(long_table(measurements, SETTINGS), measurements, SETTINGS, weighed).set_index("model")


MODELS = {
    "base": ((0.9, 0.7), 0.95, (0.6, 0.4)),
    "graddiff": ((0.3, 0.2), 0.8, (0.5, 0.3)),
    "esd": ((0.2, 0.2), 0.8, (0.5, 0.3)),
    "resalign": ((0.0, 0.1), 0.8, (0.5, 0.2)),
}


def test_values_are_means_over_attacks_after_the_last_step():
    found = points(experiment(MODELS))
    assert list(found.reset_index().columns) == PARETO_COLUMNS
    assert found["safety"].tolist() == pytest.approx([0.8, 0.25, 0.2, 0.05])
    assert found["utility"].tolist() == pytest.approx([0.95, 0.8, 0.8, 0.8])
    assert found["learnability"].tolist() == pytest.approx([0.55, 0.45, 0.45, 0.4])
    assert (found["safety_low"] <= found["safety"]).all()
    assert (found["safety"] <= found["safety_high"]).all()
    assert found["learnability_low"].notna().all()


def test_a_model_is_dominated_by_one_that_is_no_worse_in_any_and_better_in_one():
    # ESD is safer than GradDiff at equal utility and learnability; ResAlign is safer but has learnt less.
    assert points(experiment(MODELS))["dominated_by"].to_dict() == {
        "base": "",
        "graddiff": "esd",
        "esd": "",
        "resalign": "",
    }


def test_equal_models_do_not_dominate_each_other_and_directions_count():
    models = {"base": MODELS["base"], "esd": MODELS["esd"], "resalign": MODELS["esd"]}
    assert set(points(experiment(models))["dominated_by"]) == {""}
    worse = {**models, "resalign": ((0.2, 0.2), 0.7, (0.5, 0.3)), "graddiff": ((0.2, 0.2), 0.8, (0.4, 0.3))}
    found = points(experiment(worse))["dominated_by"]
    assert (found["resalign"], found["graddiff"], found["esd"]) == ("esd", "esd", "")


def test_without_learnability_two_metrics_are_weighed():
    metrics = {name: info for name, info in METRICS.items() if info.group != "learnability"}
    models = {model: (after, before, None) for model, (after, before, _) in MODELS.items()}
    measurements = experiment(models, metrics=metrics)
    found = points(measurements)
    assert found["learnability"].map(math.isnan).all()
    assert found["dominated_by"].tolist() == ["", "esd resalign", "resalign", ""]
    panel = pareto_panel(found.reset_index(), measurements, SETTINGS, weighed_metrics(measurements))
    assert panel.title == "Estimates on the front: Base, ResAlign"
    assert drawing.figure_of([panel], SETTINGS).axes


def test_without_utility_there_is_no_front():
    plain = experiment(MODELS)
    images = plain.images[plain.images["metric"] == "ip"]
    metrics = {name: info for name, info in METRICS.items() if info.group != "utility"}
    assert points(make_measurements(images=images, runs=plain.runs, metrics=metrics)).empty


def test_a_model_without_one_of_the_metrics_is_left_out():
    models = {**MODELS, "esd": (MODELS["esd"][0], MODELS["esd"][1], None)}
    assert list(points(experiment(models)).index) == ["base", "graddiff", "resalign"]
