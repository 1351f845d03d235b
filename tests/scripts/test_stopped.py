"""Stages that are killed, and what is left of them: the results of an undisturbed run, to the byte."""

import json
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from resalign.config.plan import Plan
from resalign.jobs.attack import AttackJob
from resalign.jobs.sample import SampleJob
from resalign.jobs.score import ScoreJob
from resalign.jobs.unlearn import UnlearnJob
from tests.digits.small_world import small_world

from .conftest import Workshop
from .stage_process import ROOT, StageProcess

pytestmark = pytest.mark.slow

KILLS = 3
# The demo world's own trainings go through the same loop; they are as many processes again.
KILLS_OF_DIGITS, STEPS_OF_DIGITS = 1, 20
STEPS = 60
# Saved after every step, however long saving takes: these steps take milliseconds, real ones seconds to minutes.
EVERY_STEP = {"SAVE_INTERVAL_SECONDS": 0.0}
OF_ITS_DAY = {"timing.json", "hashes.json"}


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in OF_ITS_DAY]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def plan(tiny_plan: Callable[..., Plan]) -> Plan:
    long = {"steps": STEPS, "lr": 1e-4}
    attack = {**long, "train": "images", "heldout": "heldout", "checkpoints": [STEPS // 3]}
    sampling = {"num_inference_steps": 2, "batch_size": 1}
    counts = {"unsafe": {"prompts": 2, "images": STEPS // 4}, "benign": {"prompts": 2, "images": STEPS // 3}}
    tier = {"training_seeds": [0], "prompts": counts}
    return tiny_plan(
        unlearning={"graddiff": long},
        attacks={"mine": attack},
        sampling=sampling,
        tiers=dict.fromkeys(("smoke", "small", "paper"), tier),
        scoring_batch_size=1,
    )


@pytest.fixture(scope="module")
def shop(workshop: Callable[[], Workshop]) -> Workshop:
    """A workshop in which :func:`undisturbed` runs what a stage reads before that stage."""
    return workshop()


def command(stage: str, plan: Plan) -> tuple[list[str], str]:
    """A stage's command line and output folder."""
    if stage.startswith("digits"):
        return digits_command(stage)
    first = {name: next(iter(getattr(plan, name).values())) for name in ("unlearn", "attack", "sample", "score")}[stage]
    seed, tier = "0", plan.tier
    job, output = {
        "unlearn": lambda: (UnlearnJob.of(plan, first), first.folder(seed)),
        "attack": lambda: (AttackJob.of(plan, first, seed), first.folder(seed)),
        "sample": lambda: (SampleJob.of(plan, first, seed, tier), f"{first.folder(seed)}/{tier}"),
        "score": lambda: (ScoreJob.of(plan, first, seed, tier), f"{first.folder(seed)}/{tier}"),
    }[stage]()
    return [f"scripts/{stage}.py", "--job", job.text(), "--output", output, "--modules", *first.modules], output


def digits_command(stage: str) -> tuple[list[str], str]:
    """The training of one part of a small demo world."""
    part = {"digits-model": "model", "digits-autoencoder": "autoencoder"}.get(stage, stage)
    output = f"results/assets/{stage}"
    job = {
        "part": part.removeprefix("digits-") if part == "digits-clip" else part,
        "digits": small_world(STEPS_OF_DIGITS),
    }
    job["autoencoder"] = "results/assets/digits-autoencoder" if part == "model" else None
    return ["scripts/digits.py", "--job", json.dumps(job), "--output", output], output


STAGES = ("unlearn", "attack", "sample", "score", "digits-autoencoder", "digits-model", "digits-resnet", "digits-clip")
READ = {"score": "sample", "digits-model": "digits-autoencoder"}
BOTH_SIGNALS = [(stage, number) for stage in STAGES[:4] for number in (signal.SIGKILL, signal.SIGTERM)]


@pytest.fixture(scope="module")
def undisturbed(shop: Workshop, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], StageProcess]:
    """A stage's one attempt without any disturbance, its results beside it; made when it is first asked for."""
    made: dict[str, StageProcess] = {}

    def run(stage: str) -> StageProcess:
        if stage not in made:
            if stage in READ:
                run(READ[stage])
            folder = tmp_path_factory.mktemp("undisturbed")
            process = fresh(stage, shop, plan, folder)
            assert process.finish() == 0, process.log
            made[stage] = process
        return made[stage]

    return run


def fresh(stage: str, shop: Workshop, plan: Plan, folder: Path) -> StageProcess:
    """A stage that has not begun, in the workshop; what an earlier test left of it is gone."""
    arguments, output = command(stage, plan)
    inner = Path(output).relative_to("results")
    for left in (output, f"results/.state/{inner}", f"{Path(output).parent}/images"):
        shutil.rmtree(shop.folder / left, ignore_errors=True)
    return StageProcess(arguments, shop.folder, folder / stage, EVERY_STEP)


def results(stage: str, shop: Workshop, plan: Plan) -> dict[str, bytes]:
    """A stage's output, with the images that a sampling run makes beside it."""
    output = shop.folder / command(stage, plan)[1]
    return files(output.parent if stage == "sample" else output)


def declared(stage: str) -> set[str]:
    """Names of the files that the stage's rule declares: where one is left by a stopped job, it looks finished."""
    name = "digits" if stage.startswith("digits") else stage
    text = (ROOT / "workflow" / "rules" / f"{name}.smk").read_text()
    [_, outputs, *_] = re.split(r"^ +output:\n|^ +log:\n", text, flags=re.MULTILINE)
    found = set(re.findall(r'/([\w.]+)"', outputs))
    assert {"run.json", "timing.json"} <= found
    return found


@pytest.mark.parametrize(
    ("stage", "signal_number"), [*BOTH_SIGNALS, *((stage, signal.SIGKILL) for stage in STAGES[4:])]
)
def test_a_stage_that_is_stopped_again_and_again_ends_as_if_it_had_not_been(
    stage: str,
    signal_number: signal.Signals,
    shop: Workshop,
    plan: Plan,
    undisturbed: Callable[[str], StageProcess],
    tmp_path: Path,
) -> None:
    whole = undisturbed(stage)
    expected = results(stage, shop, plan)
    process, draw = fresh(stage, shop, plan, tmp_path), random.Random(f"{stage} {signal_number}")
    kills = KILLS_OF_DIGITS if stage.startswith("digits") else KILLS
    for _ in range(kills):
        # A part of what so many attempts may take each, the first ones at the start-up too, and a moment within a step.
        steps = draw.randrange(round(0.9 * whole.steps / kills))
        process.interrupt(signal_number, steps, delay_seconds=draw.uniform(0, 0.02))
        left = {path.name for path in (shop.folder / command(stage, plan)[1]).glob("*")}
        assert not left & declared(stage), "declared outputs are written last"
    assert process.finish() == 0, process.log
    stopped = {-9} if signal_number == signal.SIGKILL else {128 + 15, -15}
    assert set(process.status[:-1]) <= stopped, process.log
    found = results(stage, shop, plan)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    # A kill costs the step that it falls into.
    assert 0 <= process.steps - whole.steps <= (kills if signal_number == signal.SIGKILL else 0)
