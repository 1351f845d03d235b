"""Commands that are interrupted, and the same command again; what is said last."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from resalign.config.plan import load_plan
from tests.conftest import write_captioned_images

from .conftest import Checkout, copy_repository, write_tiny_experiment

PATIENCE_SECONDS = 600  # of a busy machine; nothing waits for as long as that
# Long enough to be interrupted, with a checkpoint early on.
ATTACK = {"train": "mine/train", "heldout": "mine/heldout", "steps": 200, "checkpoints": [2], "lr": 1e-4}


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Checkout, str]:
    """A working copy with a tiny model of its own, and the target of its one long job: an attack on the model."""
    folder = copy_repository(tmp_path / "repository")
    for name, seed in (("train", 0), ("heldout", 1)):
        write_captioned_images(folder / "mine" / name, ("a red two", "a blue two"), seed=seed)
    path = write_tiny_experiment(folder, attacks={"long": ATTACK})
    plan = load_plan(path, {"tier": "smoke"})
    [attack] = plan.attack.values()
    return Checkout(folder, "config/tiny.yaml"), f"{attack.folder(0)}/checkpoints.json"


def interrupted(checkout: Checkout, target: str, stop: Callable[[int, Path], None]) -> str:
    """What a command says that is stopped as soon as its job has taken a few steps."""
    checkpoint, said = checkout.folder / Path(target).parent / "step-2.safetensors", checkout.folder / "said.txt"
    with (
        said.open("w") as stream,
        subprocess.Popen(
            **checkout.command("--", target), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        until(lambda: checkpoint.exists() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        stop(process.pid, said)
        process.wait(PATIENCE_SECONDS)
    return said.read_text()


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def ctrl_c(pid: int, said: Path) -> None:
    """A terminal's: the shell, the job and Snakemake have it at once."""
    os.killpg(pid, signal.SIGINT)


def to_snakemake_alone(pid: int, said: Path) -> None:
    """The job goes on to its end, and Snakemake takes no note of it: the job waits until Snakemake has the signal."""
    [job] = [child for child in psutil.Process(pid).children(recursive=True) if "scripts/attack.py" in child.cmdline()]
    job.suspend()
    try:
        os.kill(pid, signal.SIGINT)
        until(lambda: "Terminating processes on user request" in said.read_text())
    finally:
        job.resume()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [ctrl_c, to_snakemake_alone])
def test_the_same_command_goes_on(tiny: tuple[Checkout, str], stop: Callable[[int, Path], None]) -> None:
    checkout, target = tiny
    output = interrupted(checkout, target, stop)
    assert "Traceback" not in output
    log = f"logs/{Path(target).parent.relative_to('results/runs')}.log"
    if stop is ctrl_c:
        *_, said, where = output.splitlines()
        assert said.startswith("stopped: stopped by SIGINT: saved after steps ")
        assert where == f"    log: {log}"
        assert [path.name for path in (checkout.folder / target).parent.iterdir()] == ["step-2.safetensors"]
    again = checkout.snakemake("--", target)
    assert again.returncode == 0, again.stderr
    assert "attempt 2 goes on" in (checkout.folder / log).read_text() or stop is to_snakemake_alone
    assert again.stderr.splitlines()[-1] == f"attack: {Path(target).parent}/"


@pytest.mark.slow
def test_an_error_is_said_last_whatever_else_is_not(tiny: tuple[Checkout, str]) -> None:
    checkout, target = tiny
    (checkout.folder / "mine" / "train" / "0.png").write_text("no image")
    told = checkout.snakemake("--quiet", "all", "--", target)
    assert told.returncode == 1
    *_, said, where = told.stderr.splitlines()
    assert said.startswith("error: mine/train/0.png: "), told.stderr
    assert where.startswith("    log: logs/check_inputs/")
