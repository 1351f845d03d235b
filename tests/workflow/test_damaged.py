"""Results that are damaged after they were made: what the next run plans, makes again, and refuses to read."""

import os
from pathlib import Path

import pytest
import yaml

from resalign.config.plan import load_plan

from .conftest import Checkout, copy_repository, write_tiny_experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """A working copy in which the images of a tiny model of its own were made and scored, and the folder of its run."""
    folder = copy_repository(tmp_path_factory.mktemp("damaged") / "repository")
    (folder / "mine").mkdir()
    (folder / "mine" / "prompts.csv").write_text("id,prompt,label\np0,a red two,two\np1,a blue two,two\n")
    demo = yaml.safe_load((folder / "config" / "demo.yaml").read_text())
    path = write_tiny_experiment(
        folder,
        prompts={name: {**entry, "source": "mine/prompts.csv"} for name, entry in demo["prompts"].items()},
        sampling={**demo["sampling"], "num_inference_steps": 2},
        tiers={"smoke": {"training_seeds": [0], "prompts": {name: {"images": 1} for name in demo["prompts"]}}},
    )
    plan = load_plan(path, {"tier": "smoke"})
    [run] = plan.sample.values()
    checkout = Checkout(folder, "config/tiny.yaml")
    finished = checkout.snakemake("--", f"{run.folder(0)}/smoke/images.csv")
    assert finished.returncode == 0, finished.stderr
    return checkout, run.folder(0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".png", ".csv")}


@pytest.mark.parametrize("damage", ["images", "list"])
def test_damaged_images_heal_on_the_next_run(sampled: tuple[Checkout, str], damage: str) -> None:
    checkout, run = sampled
    target, folder = f"{run}/smoke/images.csv", checkout.folder / run
    before = contents(folder)
    images = sorted((folder / "images").rglob("*.png"))
    if damage == "images":
        images[0].unlink()
        os.truncate(images[1], images[1].stat().st_size // 2)
    else:
        (folder / "smoke" / "hashes.json").write_text("{")
    untouched = images[-1].stat().st_mtime_ns
    planned = checkout.snakemake("--dry-run", "--rerun-incomplete", "--", target)
    assert "rule sample:" in planned.stdout
    assert "damaged: " in planned.stdout
    finished = checkout.snakemake("--rerun-incomplete", "--", target)
    assert finished.returncode == 0, finished.stderr
    assert contents(folder) == before
    assert images[-1].stat().st_mtime_ns == untouched  # it makes again what is damaged, and nothing else
    assert "Nothing to be done" in checkout.snakemake("--dry-run", "--", target).stdout


def test_a_flipped_bit_is_found_and_named(sampled: tuple[Checkout, str]) -> None:
    checkout, run = sampled
    image = sorted((checkout.folder / run / "images").rglob("*.png"))[0]
    before = image.read_bytes()
    image.write_bytes(before[:-20] + bytes([before[-20] ^ 4]) + before[-19:])
    planned = checkout.snakemake("--dry-run", "--", f"{run}/smoke/images.csv")
    assert "Nothing to be done" in planned.stdout  # no file is read whole before every run
    checked = checkout.script("scripts/check_results.py")
    assert checked.returncode == 1
    assert f"DAMAGED: {image.relative_to(checkout.folder)}: has sha256" in checked.stdout
    assert f"made by the job of {run}/smoke/run.json" in checked.stdout
    image.write_bytes(before)
    assert checkout.script("scripts/check_results.py").returncode == 0
