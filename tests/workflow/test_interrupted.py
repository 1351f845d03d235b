"""Commands that are interrupted, and the same command again; what is said last."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resalign.config.plan import load_plan
from tests.conftest import write_captioned_images

from .conftest import Checkout, copy_repository, write_tiny_experiment

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


def interrupted(checkout: Checkout, target: str, stop: Callable[[int], None]) -> str:
    """What a command says that is stopped as soon as its job has taken a few steps."""
    checkpoint = checkout.folder / Path(target).parent / "step-2.safetensors"
    command = checkout.command("--", target)
    with subprocess.Popen(
        **command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        limit = time.monotonic() + 120
        while process.poll() is None and not checkpoint.exists() and time.monotonic() < limit:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()[0]
        stop(process.pid)
        output, _ = process.communicate(timeout=120)
    return str(output)


def ctrl_c(pid: int) -> None:
    """A terminal's: the shell, the job and Snakemake have it at once."""
    os.killpg(pid, signal.SIGINT)


def to_snakemake_alone(pid: int) -> None:
    """The job goes on to its end, and Snakemake takes no note of it."""
    os.kill(pid, signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [ctrl_c, to_snakemake_alone])
def test_the_same_command_goes_on(tiny: tuple[Checkout, str], stop: Callable[[int], None]) -> None:
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
    # On a busy machine the job may have ended before Snakemake took the signal, and then is noted as done.
    ended = {"Nothing to be done (all requested files are present and up to date)."} if stop is not ctrl_c else set()
    assert again.stderr.splitlines()[-1] in {f"attack: {Path(target).parent}/", *ended}


@pytest.mark.slow
def test_an_error_is_said_last_whatever_else_is_not(tiny: tuple[Checkout, str]) -> None:
    checkout, target = tiny
    (checkout.folder / "mine" / "train" / "0.png").write_text("no image")
    told = checkout.snakemake("--quiet", "all", "--", target)
    assert told.returncode == 1
    *_, said, where = told.stderr.splitlines()
    assert said.startswith("error: mine/train/0.png: "), told.stderr
    assert where.startswith("    log: logs/check_inputs/")
