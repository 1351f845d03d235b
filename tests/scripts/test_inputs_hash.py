"""What tells a stage that its inputs are those of the attempt before."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from resalign import hashes
from resalign.config.plan import Plan
from resalign.running.folder import StateFolder
from resalign.running.stage import SMALL_BYTES, inputs_hash

from .conftest import Workshop

# No prompt is a path, whatever it looks like: a process's own folder, a name that no file system takes.
PROMPTS = ["/proc/self", "nude/" + "very " * 60, "images/metadata.csv"]


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """A scoring job's: a manifest, its image elsewhere, a network's folder."""
    images = tmp_path / "sample" / "images"
    images.mkdir(parents=True)
    (images / "0.png").write_bytes(bytes(10))
    manifest = tmp_path / "sample" / "smoke" / "images.csv"
    manifest.parent.mkdir()
    manifest.write_text(f"prompt_id,path\n0,{images / '0.png'}\n")
    network = tmp_path / "net"
    network.mkdir()
    (network / "run.json").write_text("{}")
    (network / "model.safetensors").write_bytes(bytes(SMALL_BYTES + 1))
    return [manifest, images / "0.png", network]


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def test_small_files_that_were_written_again_are_the_same_inputs(inputs: list[Path]) -> None:
    manifest, _, network = inputs
    before = inputs_hash(inputs)
    touch(manifest)
    touch(network / "run.json")
    for times in ("{}", '{"seconds": 1}'):
        (network / "timing.json").write_text(times)
        hashes.seal(network)
        assert inputs_hash(inputs) == before


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, lambda manifest: manifest.write_text(manifest.read_text().replace("0,", "1,", 1))),
        (1, lambda image: image.write_bytes(b"another one")),
        (2, lambda network: (network / "run.json").write_text("[]")),
        (2, lambda network: touch(network / "model.safetensors")),
    ],
    ids=["manifest", "image", "record", "weights"],
)
def test_other_contents_are_other_inputs(inputs: list[Path], place: int, change: Callable[[Path], object]) -> None:
    before = inputs_hash(inputs)
    change(inputs[place])
    assert inputs_hash(inputs) != before


@pytest.fixture
def _keeps_what_is_known_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an ended job leaves no fingerprint."""
    monkeypatch.setattr(StateFolder, "clear", lambda self: None)


def saved_fingerprint(folder: Path, output: Path) -> dict[str, object]:
    about = folder / "results" / ".state" / output.relative_to(folder / "results") / "about.json"
    found: dict[str, object] = json.loads(about.read_text())["fingerprint"]
    return found


@pytest.mark.usefixtures("_keeps_what_is_known_of_a_job")
def test_a_prompt_is_never_taken_for_a_path(workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan]) -> None:
    shop = workshop()
    concept = {"name": "the seven", "forget": "images", "retain": "retain", "pool": "pool"}
    plans = [tiny_plan(concept=concept | {"prompts": prompts}) for prompts in (PROMPTS, ["a red seven"])]
    with_slashes, plain = (
        saved_fingerprint(shop.folder, shop.unlearn(plan, next(iter(plan.unlearn.values())), 0)) for plan in plans
    )
    assert with_slashes["inputs"] == plain["inputs"]


@pytest.mark.usefixtures("_keeps_what_is_known_of_a_job")
def test_what_a_stage_reads_are_its_inputs(workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan]) -> None:
    """Other weights behind an equal list of checkpoints, another image behind an equal manifest: other inputs."""
    shop, plan = workshop(), tiny_plan()
    attack, unlearn = next(run for run in plan.attack.values() if run.parent), next(iter(plan.unlearn.values()))
    sample = next(run for run in plan.sample.values() if run.parent is attack)
    score = next(run for run in plan.score.values() if run.parent is sample)
    for run, make in ((unlearn, shop.unlearn), (attack, shop.attack), (sample, shop.sample), (score, shop.score)):
        make(plan, run, 0)
    read_by = {
        shop.folder / unlearn.folder(0) / "weights.safetensors": (attack, shop.attack),
        shop.folder / attack.folder(0) / "step-2.safetensors": (sample, shop.sample),
        next((shop.folder / sample.folder(0) / "images").rglob("*.png")): (score, shop.score),
    }
    for file, (run, make) in read_by.items():
        tier = "" if run is attack else f"/{plan.tier}"
        before = saved_fingerprint(shop.folder, shop.folder / f"{run.folder(0)}{tier}")
        rewrite(file, file.read_bytes() + bytes(1) if file.suffix == ".png" else perturbed(file))
        after = saved_fingerprint(shop.folder, make(plan, run, 0))
        assert {key for key in before if before[key] != after[key]} == {"inputs"}


def rewrite(file: Path, content: bytes) -> None:
    """Another content, as the file's own job would have written it."""
    before = hashes.file_hash(file)
    file.write_bytes(content)
    hashes.write(file.parent, (hashes.read(file.parent) or {}) | {file.name: hashes.Entry.of(file)})
    for manifest in file.parents[3].glob("*/images.csv"):
        place = file.relative_to(file.parents[3])
        manifest.write_text(manifest.read_text().replace(f"{place},{before}", f"{place},{hashes.file_hash(file)}"))
        hashes.seal(manifest.parent)


def perturbed(weights: Path) -> bytes:
    """A file of weights with another last byte."""
    content = weights.read_bytes()
    return content[:-1] + bytes([content[-1] ^ 1])
