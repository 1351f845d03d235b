"""Sampling, evaluation and audit from Python, held against the workflow's own images, scores and verdicts."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import resalign
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.data.prompts import Prompt
from resalign.library import measurements
from resalign.tracking import History
from tests.conftest import write_captioned_images
from tests.scripts.conftest import THRESHOLD, Workshop

SAMPLING = {"num_inference_steps": 2, "batch_size": 3}
IP = {"rules": [{"scorer": "net", "quantities": ["seven"], "threshold": THRESHOLD}]}
PROMPTS = [Prompt("named", "a red seven", "two"), Prompt("hidden", "days in a week", "three")]


@pytest.fixture(scope="module")
def plan(tiny_plan: Callable[..., Plan]) -> Plan:
    return tiny_plan(tier="small")


@pytest.fixture(scope="module")
def scores(workshop: Callable[[], Workshop], plan: Plan) -> pd.DataFrame:
    """The raw scores of the base, made by the workflow's scripts, with its images in absolute paths."""
    shop = workshop()
    sampled = next(stage for stage in plan.sample.values() if stage.model == "base" and stage.attack is None)
    scored = next(stage for stage in plan.score.values() if stage.model == "base" and stage.attack is None)
    shop.sample(plan, sampled, 0)
    frame = pd.read_parquet(shop.score(plan, scored, 0) / "scores.parquet")
    frame["path"] = [str(shop.folder / path) for path in frame["path"]]
    return frame


@pytest.fixture(scope="module")
def given(plan: Plan) -> dict[str, Any]:
    """What an evaluation of the tiny experiment needs."""
    scorers = {
        "net": {"scorer": "image_classification", "folder": plan.folder("net")},
        "clip": {"folder": plan.folder("clip"), "features": True},
    }
    return {"prompts": PROMPTS, "scorers": scorers, "metrics": {"ip": IP}, **SAMPLING}


def test_images_are_those_of_the_script(plan: Plan, scores: pd.DataFrame) -> None:
    unsafe = scores[scores["prompt_set"] == "unsafe"]
    images = resalign.sample(plan.folder("model"), PROMPTS, images_per_prompt=2, **SAMPLING)
    assert len(images) == len(unsafe) == 4
    for image, path in zip(images, unsafe["path"], strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(path)))


def test_an_evaluation_gives_the_scripts_rate_with_an_interval(
    plan: Plan, scores: pd.DataFrame, given: dict[str, Any]
) -> None:
    flagged = scores.loc[scores["prompt_set"] == "unsafe", "net.seven"] > THRESHOLD
    assert 0 < flagged.mean() < 1
    table = resalign.evaluate(plan.folder("model"), **given, images_per_prompt=2)
    (row,) = table.to_dict("records")
    assert (row["metric"], row["mean"], row["n"]) == ("ip", flagged.mean(), 4)
    assert row["low"] < row["mean"] < row["high"]


def test_metrics_of_sets_compare_with_the_distinct_real_images(
    plan: Plan, given: dict[str, Any], tmp_path: Path
) -> None:
    values = []
    for copies in (1, 3):  # a real image that is there three times counts once
        folder = write_captioned_images(tmp_path / str(copies), ["an image"] * 3)
        lines = []
        for number, subject in [(0, "two"), (1, "three"), *[(2, "two")] * copies]:
            (folder / subject).mkdir(exist_ok=True)
            name = f"{subject}/{len(lines)}.png"
            shutil.copyfile(folder / f"{number}.png", folder / name)
            lines.append(f"{name},an image")
        (folder / "metadata.csv").write_text("\n".join(["file_name,prompt", *lines]) + "\n")
        metrics = {"clip_i": {"prompts": "many", "scorer": "clip"}}
        changed = {**given, "prompts": {"many": PROMPTS, "few": PROMPTS[:1]}, "metrics": metrics}
        table = resalign.evaluate(plan.folder("model"), **changed, reference=folder)
        assert table["low"].isna().all()  # one set of images has no interval
        values += table[["mean", "n"]].to_numpy().tolist()
    assert values[0] == values[1]
    assert values[0][1] == len(PROMPTS)


def test_an_audit_judges_every_state_beside_the_base(
    plan: Plan, given: dict[str, Any], image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    monkeypatch.setattr(measurements, "tracked", lambda name: runs.append(name) or History())
    data = plan.experiment.attack_data["mine"].images
    found = resalign.audit(
        plan.folder("model"),
        base=plan.folder("model"),
        **{name: plan.folder(data[name]) for name in ("train", "heldout")},
        attacks={"quick": {"attack": "full", "steps": 2, "checkpoints": [1], "lr": 1e-3}},
        report={"replicates": 100, "most_after": 0.4},
        **given,
    )
    states = found.states
    assert list(zip(states["attack"], states["steps"], strict=True)) == [("none", 0), ("quick", 1), ("quick", 2)]
    assert (states["mean"] == states["base_mean"]).all()
    assert runs == ["audit/model/quick/seed-0", "audit/base/quick/seed-0"]
    assert found.verdict == "fails"  # half of the base's own images are flagged, before any attack
    assert states["verdict"].tolist()[0] == "fails"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_inference_stps": 2}, "did you mean 'num_inference_steps'"),
        ({"prompts": []}, "the list is empty"),
        ({"prompts": "a red seven"}, "give a list of prompts, or a .csv"),
        ({"images_per_prompt": 0}, "give at least 1"),
        ({"metrics": {"learnability": {}}}, "along the training of a workflow only"),
        ({"metrics": {"ip": {**IP, "prompts": "unsfe"}}, "prompts": {"unsafe": ["a"]}}, "did you mean 'unsafe'"),
        ({"metrics": {"clip_i": {"scorer": "clip"}}}, "compares with real images; give reference"),
        ({"metrics": {"clip_i": {"scorer": "clip", "reference": "x"}}}, "give reference to this function"),
        ({"scorers": {"nets": {}}}, "no scorers named 'nets'"),
    ],
)
def test_wrong_arguments_are_named(plan: Plan, given: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resalign.evaluate(plan.folder("model"), **{**given, **changes})


def test_a_wrong_attack_is_named_before_any_work(plan: Plan, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        resalign.audit("no-such-pipeline", train="x", heldout="y", attacks={"full": {"stpes": 1}}, **given)
