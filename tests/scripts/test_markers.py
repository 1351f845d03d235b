"""No folder that a user can name has code of its own run: each is tried through the real stages, and leaves no marker.

``pytest -rP tests/scripts/test_markers.py`` prints what was tried and what was said of it.
"""

import copy
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from resalign.config import own_inputs
from resalign.config.experiment import BASE, Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.data.images import DataError
from resalign.jobs.prepare import PrepareJob
from resalign.lazy import transformers
from resalign.tensors.weights import WeightsError
from tests.scorers.conftest import FOLDERS, write_classifier

from .conftest import ROOT, Workshop, load_script
from .markers import ATTEMPTS, CLASS, OWN, Attempt, Trap, says, sha256
from .test_wrong_inputs import changed, own_world

Call = Callable[[], object]
REFUSALS = (ConfigError, DataError, WeightsError)


@pytest.fixture(scope="module")
def stages(scripts: dict[str, ModuleType]) -> dict[str, ModuleType]:
    return {**scripts, **{name: load_script(name) for name in ("check_inputs", "prepare", "fetch")}}


@pytest.fixture(scope="module")
def world(
    tiny_values: dict[str, Any], stages: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The tiny experiment's own files, and the base model's images of it."""
    folder = tmp_path_factory.mktemp("world")
    values = own_world(tiny_values, folder)
    plan = Plan(Experiment(values, where="mine.yaml"))
    [stage] = [stage for stage in plan.sample.values() if stage.label == BASE]
    Workshop(folder, stages).sample(plan, stage, 0)
    return folder, values


def model(plan: Plan, shop: Workshop) -> tuple[Call, ...]:
    """The check before any work, and a stage that loads all of a pipeline."""
    [stage] = [stage for stage in plan.sample.values() if stage.label == BASE]
    return *checks(plan, shop), lambda: shop.sample(plan, stage, 0)


def checks(plan: Plan, shop: Workshop, of: str = BASE) -> tuple[Call, ...]:
    found = own_inputs.found(plan, of)
    return (lambda: shop.call("check_inputs", json.dumps(found), "results/inputs"),)


def scorer(plan: Plan, shop: Workshop) -> tuple[Call, ...]:
    [stage] = [stage for stage in plan.score.values() if stage.label == BASE]
    return lambda: shop.check_scorers(plan), lambda: shop.score(plan, stage, 0)


def checkpoint(plan: Plan, shop: Workshop) -> tuple[Call, ...]:
    [stage] = plan.unlearn.values()
    return *checks(plan, shop, "released"), lambda: shop.unlearn(plan, stage, 0)


def prepared(plan: Plan, shop: Workshop) -> tuple[Call, ...]:
    return (lambda: shop.call("prepare", PrepareJob.of(plan, "mine"), "results/mine"),)


def fetched(plan: Plan, shop: Workshop) -> tuple[Call, ...]:
    job = {"asset": "mine", "origin": {"url": "https://a.example/weights.pt"}}
    return (lambda: shop.call("fetch", json.dumps(job), "results/mine"),)


STAGES: dict[str, Callable[[Plan, Workshop], tuple[Call, ...]]] = {
    **{"model": model, "scorer": scorer, "checkpoint": checkpoint, "set": prepared, "images": checks},
    "fetch": fetched,
}


def told(call: Call) -> str:
    """What a stage says; nothing where it goes through."""
    try:
        call()
    except REFUSALS as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if a.slow else []) for name, a in ATTEMPTS.items()]
)
def test_no_code_of_a_folder_runs(
    name: str,
    world: tuple[Path, dict[str, Any]],
    stages: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempt, folder, trap = ATTEMPTS[name], tmp_path / "world", Trap(tmp_path / "marker")
    shutil.copytree(world[0], folder, copy_function=os.link)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    # Where transformers would put the code that it is allowed to run.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("RESALIGN_ASSET_ROOT", str(folder / "mirror"))
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    where = folder / attempt.where
    if not where.suffix:
        where.mkdir(parents=True, exist_ok=True)
        trap.lay(where)
    trap.lay(folder)
    attempt.plant(where, trap)
    said = run(attempt, world[1], Workshop(folder, stages))
    assert not trap.marker.exists()
    assert asked == []
    assert not attempt.refused or all(said), "a stage went through"
    assert "\n" not in "".join(said)
    for message in dict.fromkeys(filter(None, said)) or ["runs; nothing of it is read"]:
        print(f"| {attempt.kind} | {attempt.how} | {message.replace(f'{tmp_path}/', '')} |")  # noqa: T201 (for -rP)


def run(attempt: Attempt, values: dict[str, Any], shop: Workshop) -> list[str]:
    """What each stage that reads the folder says."""
    if attempt.stage == "archive":
        with pytest.raises(SystemExit) as ended, mock.patch.object(sys, "argv", ["", str(shop.folder / attempt.where)]):
            load_script("verify").main()
        return [str(ended.value)]
    if attempt.stage == "configuration":
        return [told(lambda: Experiment.read(shop.folder / attempt.where))]
    changes = copy.deepcopy(attempt.changes)
    if file := changes.pop("sha256_of", None):
        changes["scorers.own"] = {**changes["scorers.own"], "sha256": sha256(shop.folder / "own" / file)}
    by_key = {key: value for key, value in changes.items() if key != "scorers.own"}
    own = {"scorers": {"own": changes["scorers.own"]}} if "scorers.own" in changes else {}
    try:
        plan = Plan(Experiment(changed(values, {**own, **by_key}), where="mine.yaml"))
    except ConfigError as error:
        return [str(error)]
    return [told(call) for call in STAGES[attempt.stage](plan, shop)]


def test_every_kind_of_folder_is_tried() -> None:
    scorers = {attempt.changes.get("scorers.own", {}).get("scorer") for attempt in ATTEMPTS.values()}
    # What the experiment has already is spoilt in place; a zero-shot classifier has a CLIP's folder.
    assert {name for name, folder in FOLDERS.items() if folder} <= scorers | {
        "clip",
        "image_classification",
        "zero_shot_clip",
    }
    assert len(ATTEMPTS) >= 80


# --- that the trap works ----------------------------------------------------------------------------------------------


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    trap = Trap(tmp_path / "marker")
    (tmp_path / "net").mkdir()
    trap.lay(tmp_path / "net")
    return trap


def test_each_form_leaves_a_marker_where_it_is_obeyed(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Python, and by the library itself, told to obey the folder."""
    pickle.loads(pickle.dumps(trap))
    assert trap.marker.exists()
    trap.marker.unlink()
    monkeypatch.syspath_prepend(trap.marker.parent / "net")
    importlib.import_module(OWN)
    monkeypatch.delitem(sys.modules, OWN)
    assert trap.marker.exists()
    trap.marker.unlink()
    folder = write_classifier(trap.marker.parent / "net")
    says("config.json", model_type="own", auto_map=CLASS)(folder, trap)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(trap.marker.parent / "modules"))
    with pytest.raises(AttributeError, match="has no attribute 'Own'"):
        transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert trap.marker.exists()


@pytest.mark.slow
def test_a_process_of_its_own_in_the_folder(world: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Python looks for some modules by itself: not where a stage works."""
    folder, trap = Path(shutil.copytree(world[0], tmp_path / "world")), Trap(tmp_path / "marker")
    for place in (folder, *folder.iterdir()):
        if place.is_dir():
            trap.lay(place)
    job = json.dumps(own_inputs.found(Plan(Experiment(world[1], where="mine.yaml")), BASE))
    command = [sys.executable, str(ROOT / "scripts" / "check_inputs.py"), "--job", "-", "--output", "results/inputs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(command, input=job, cwd=folder, text=True, env=environment, check=True)
    assert (folder / "results" / "inputs").is_dir()
    assert not trap.marker.exists()


# --- standard input ---------------------------------------------------------------------------------------------------

ASKING = """
from resalign.jobs.job import Job
from resalign.running.stage import parse_arguments, run_stage

class Asking(Job):
    a: int

def main():
    assert parse_arguments("", Asking).job.a == 1
    try:
        print("answered", input("run the custom code? [y/N] "))
    except EOFError:
        print("nobody answers")

if __name__ == "__main__":
    run_stage(main)
"""


@pytest.mark.parametrize("job", ["-", '{"a": 1}'])
def test_nobody_can_answer_a_library(tmp_path: Path, job: str) -> None:
    (tmp_path / "asking.py").write_text(ASKING)
    command = [sys.executable, str(tmp_path / "asking.py"), "--job", job, "--output", str(tmp_path)]
    given = '{"a": 1}' if job == "-" else "y\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    found = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.endswith("nobody answers\n")
