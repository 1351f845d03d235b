"""Files and settings as users get them wrong: each ends in one line that names file and remedy, before any training.

``pytest -rP tests/scripts/test_wrong_inputs.py`` prints what each of them is told.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from resalign.config import own_inputs
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.data.images import CaptionedImages, DataError, read_captioned_images
from resalign.jobs.check_scorers import CheckScorersJob
from resalign.jobs.sample import SampleJob
from resalign.metrics._flags import Need
from resalign.tensors.weights import WeightsError
from tests.json_files import edit_json
from tests.scorers.conftest import LABELS, onnx_weights
from tests.scorers.onnx_file import write_onnx

from .conftest import THRESHOLD, Workshop, load_script

RULE = {"scorer": "net", "quantities": ["seven"], "threshold": THRESHOLD}
FID = {"prompts": "benign", "scorer": "clip"}
WITH_FEATURES = {"scorers": {"clip": {"folder": "clip", "features": True}}}


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        told: Parts of the error, in order.
        spoil: What it does to the files.
        changes: To the configuration, by dotted key.
    """

    told: tuple[str, ...]
    spoil: Callable[[Path], object] = lambda folder: None
    changes: dict[str, Any] = field(default_factory=dict)


def without_vocabulary(folder: Path) -> None:
    """A tokenizer's settings alone."""
    for file in (folder / "model" / "tokenizer").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()


def edited(name: str, old: str, new: str) -> Callable[[Path], object]:
    """A text file with something else in it."""

    def spoil(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return spoil


def cut(name: str) -> Callable[[Path], object]:
    """A file that ends in its middle."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40])


def onnx(told: tuple[str, ...], settings: dict[str, Any] | None = None, **graph: Any) -> Case:
    """A detector as an ONNX file in the folder ``net``."""
    net = {"scorer": "onnx_classifier", "folder": "net", "classes": list(LABELS), "pixels": 32, **(settings or {})}
    return Case(told, lambda folder: write_onnx(folder / "net" / "model.onnx", *onnx_weights(), **graph), {"net": net})


def headless(folder: Path) -> None:
    """The classifier without its head."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "net" / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "net" / "model.safetensors", metadata={"format": "pt"})


def detector(changes: dict[str, Any], *told: str) -> Case:
    return Case(told, changes={"metrics.ip.rules": [{**RULE, **changes}]})


CASES = {
    # --- what metrics ask of scorers ---
    "class misspelt, of a folder": detector(
        {"quantities": ["sevn"]}, "metrics.ip: scorer 'net' of ", "net gives no 'sevn'; did you mean 'seven'? allowed: "
    ),
    "stand-in's class misspelt": Case(
        ("detector_audit.labels: scorer 'other' of ", "other gives no 'sevn'; did you mean 'seven'?"),
        lambda folder: shutil.copytree(folder / "net", folder / "other"),
        changes={
            "assets.other": {"path": "other"},
            "scorers.other": {"scorer": "image_classification", "folder": "other"},
            "detector_audit": {"labels": {"scorer": "other", "quantities": ["sevn"]}},
        },
    ),
    "classes without names": Case(
        ("net gives no 'seven'", "LABEL_0", "does not name its classes: give id2label in its config.json"),
        lambda folder: edit_json(
            folder / "net" / "config.json", without=["label2id"], id2label={str(i): f"LABEL_{i}" for i in range(4)}
        ),
    ),
    "a label that is no class": Case(
        ("prompts.csv: prompt 'hidden' has the label 'thre', and metrics.retained_accuracy", "did you mean 'three'?"),
        edited("prompts.csv", ",three", ",thre"),
    ),
    "a list without labels": Case(
        (
            "prompts.csv: prompt 'named' has the label ''",
            "give the list a column 'label', or prompts.benign.columns.label",
        ),
        lambda folder: (folder / "prompts.csv").write_text("id,prompt\nnamed,a red seven\nhidden,days in a week\n"),
    ),
    "the concept among retained prompts": Case(
        ("prompts.csv: prompt 'hidden' has the label 'three'", "take the row out, or name another list"),
        changes={"metrics.incidental_resurgence": {"prompts": "benign", "scorer": "net", "concept": "three"}},
    ),
    "a subject without real images": Case(
        ("prompts.csv: prompt 'named' has the label 'two'", "metrics.dino finds no such folder in ", "retain"),
        changes={"metrics.dino": FID, "reference": "retain", **WITH_FEATURES},
    ),
    # --- too few images ---
    "FID of CLIP, too few prompts": Case(
        (
            "metrics.fid: 2 images of ",
            "prompts.csv (tier smoke) are too few, 12 features need 120; give more, or lower",
        ),
        changes={"metrics.fid": FID, "reference": "retain", **WITH_FEATURES},
    ),
    "FID, too few real images": Case(
        ("metrics.fid: 2 images of ", "heldout are too few, 12 features need 12"),
        edited("prompts.csv", "hidden,", "".join(f"p{i},a blue two,two\n" for i in range(12)) + "hidden,"),
        changes={
            "metrics.fid": {**FID, "images_per_dimension": 1},
            "reference": "heldout",
            **{f"tiers.{tier}.prompts.benign": {"images": 1} for tier in ("smoke", "small", "paper")},
            **WITH_FEATURES,
        },
    ),
    "KID, a subset of more than all": Case(
        ("metrics.kid: 2 images of ", "prompts.csv (tier smoke) are too few, a subset has 1000; give more, or lower"),
        changes={"metrics.kid": FID, "reference": "retain", **WITH_FEATURES},
    ),
    # --- detectors that mean something else than is assumed ---
    "a detector that flags nothing of the concept": Case(
        (
            "metrics.ip: scorer 'net' of ",
            "flags none of 4 images of the concept in ",
            "images: the largest score of ['seven'] is 0.",
            "go on regardless with 'detector_check: {stop: false}'",
        ),
        changes={"metrics.ip.rules": [{**RULE, "threshold": 0.9}], "detector_check": {"images": 4}},
    ),
    "ONNX, a second softmax": onnx(
        ("net/model.onnx: its numbers lie between 0", "second one; set the scorer's key 'activation' to none"),
        {"activation": "softmax"},
        ends_in="Softmax",
    ),
    "ONNX, weights left behind": onnx(
        ("net/model.onnx: ", "net/weights.data", "with all files of its weights beside it"), weight_file="weights.data"
    ),
    "a detector's path misspelt": Case(
        ("nett: no such folder, and scorer 'net' loads it; correct the path, or put it there",),
        lambda folder: (folder / "net").rename(folder / "elsewhere"),
        {"assets.net": {"path": "nett"}},
    ),
    # --- images, prompts and the model, as they are checked beside ---
    "a broken image": Case(("images/0.png: ", "replace it or take its row out"), cut("images/0.png")),
    "an id twice": Case(("prompts.csv: id 'named' occurs 2 times",), edited("prompts.csv", "hidden,", "named,")),
    "a truncated model": Case(
        ("model/unet/diffusion_pytorch_model.safetensors: ", "truncated", "fetch or make it again"),
        cut("model/unet/diffusion_pytorch_model.safetensors"),
    ),
    "a classifier without its head": Case(("net", "classifier"), headless),
    "a tokenizer without vocabulary": Case(("model/tokenizer", "vocab"), without_vocabulary),
}


@pytest.fixture(scope="module")
def checks(scripts: dict[str, ModuleType]) -> dict[str, ModuleType]:
    return {**scripts, "check_inputs": load_script("check_inputs")}


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Plain values with others by dotted key; ``net`` is the detector, a mapping under ``scorers`` adds to what is."""
    values = json.loads(json.dumps(values))
    for key, value in changes.items():
        if key == "scorers":
            values["scorers"] |= value
            continue
        *parents, last = ["scorers", "net"] if key == "net" else key.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return values


def check(plan: Plan, shop: Workshop) -> None:
    """Every check that goes before training."""
    for file, found in own_inputs.records(plan).items():
        shop.call("check_inputs", json.dumps(found), str(Path(file).parent))
    shop.check_scorers(plan)
    shop.overlap(plan)


def own_world(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tiny experiment on copies of its files, under the names of their assets."""
    assets = {name: Path(asset["path"]) for name, asset in values["assets"].items()}
    for name, source in assets.items():
        if name == "prompts":
            shutil.copy(source / "prompts.csv", folder)
        else:
            shutil.copytree(source, folder / name)
    paths = {name: {"path": "." if name == "prompts" else name} for name in assets}
    return {**values, "assets": paths}


def made(case: Case, values: dict[str, Any], shop: Workshop) -> None:
    values = own_world(values, shop.folder)
    case.spoil(shop.folder)
    check(Plan(Experiment(changed(values, case.changes), where="mine.yaml")), shop)


def test_the_world_is_good_as_it_is(tiny_values: dict[str, Any], checks: dict[str, ModuleType], tmp_path: Path) -> None:
    made(Case(()), tiny_values, Workshop(tmp_path, checks))
    [found] = tmp_path.glob("results/inputs/*/detectors.json")
    assert json.loads(found.read_text())["shown"][0]["forget"]["images"] == 4


@pytest.mark.parametrize("name", CASES)
def test_it_ends_in_one_line_that_names_file_and_remedy(
    name: str, tiny_values: dict[str, Any], checks: dict[str, ModuleType], tmp_path: Path
) -> None:
    case = CASES[name]
    with pytest.raises((ConfigError, DataError, WeightsError)) as caught:
        made(case, tiny_values, Workshop(tmp_path, checks))
    message = str(caught.value).replace(f"{tmp_path}/", "")
    assert "\n" not in message
    place = 0
    for part in case.told:
        assert part in message[place:]
        place = message.index(part, place) + len(part)
    assert not (tmp_path / "results" / "runs").exists()
    print(f"| {name} | {message} |")  # noqa: T201 (the table that -rP prints)


def test_prompts_without_labels_are_good_where_images_have_no_subjects(
    tiny_values: dict[str, Any], checks: dict[str, ModuleType], tmp_path: Path
) -> None:
    """Table 2's lists have no labels: its metrics compare all pairs."""
    prompts, images = tmp_path / "dog.csv", Path(tiny_values["assets"]["heldout"]["path"])
    prompts.write_text("id,prompt\none,a dog\ntwo,a dog on a rock\n")
    lists = {"dog": {"paths": [str(prompts)], "columns": {}, "prompts": None, "images": 1}}
    compared = {"metrics.dino": [str(images)]}
    planned = CheckScorersJob.of(Plan(Experiment(tiny_values, where="mine.yaml"))).plain()
    job = CheckScorersJob.parse({**planned, "tier": "paper", "prompts": lists, "compared": compared}, where="job")
    need = Need("net", images_per_dimension=0, subjects=True)

    def read(folder: str) -> CaptionedImages:
        return read_captioned_images(Path(folder), pixels=8)

    checks["check_scorers"].check_lists(need, ["f000"], job, read, where="metrics.dino", prompts="dog")


def test_the_prompts_that_are_checked_are_those_that_are_sampled(tiny_values: dict[str, Any]) -> None:
    plan = Plan(Experiment(tiny_values, where="mine.yaml"))
    found = CheckScorersJob.of(plan).plain()["prompts"]
    sampled = SampleJob.of(plan, next(iter(plan.sample.values())), "0", plan.tier).plain()["prompts"]
    assert {name: entry.get("choice") for name, entry in found.items()} == {
        name: sampled[name].get("choice") for name in found
    }
