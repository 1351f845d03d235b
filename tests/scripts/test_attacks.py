"""Attacks that need or leave more than ``full`` does, through the script of their rule."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from resalign.config.plan import Plan
from resalign.diffusion.lora_files import FILE_NAME, lora_changes, lora_metadata
from resalign.diffusion.models import Models, trainable_tensors
from tests.conftest import write_captioned_images

from .conftest import Workshop

DATA = {"train": "images", "heldout": "heldout", "steps": 2, "checkpoints": [1], "lr": 0.1}


def test_a_loras_own_file_lies_beside_each_checkpoint(
    workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan], models: Models
) -> None:
    plan, shop = tiny_plan(unlearning={}, attacks={"mine": {"attack": "lora", **DATA}}), workshop()
    (stage,) = plan.attack.values()
    folder, original = shop.attack(plan, stage, 0), trainable_tensors(models.pipeline)
    assert sorted(path.name for path in folder.glob("step-*-lora")) == ["step-1-lora", "step-2-lora"]
    for step in (1, 2):
        path, merged = folder / f"step-{step}-lora" / FILE_NAME, load_file(folder / f"step-{step}.safetensors")
        changes = lora_changes(load_file(path), lora_metadata(path), str(path))
        assert changes.keys() == merged.keys()
        for name, change in changes.items():
            torch.testing.assert_close(merged[name], original[name] + change, rtol=0, atol=1e-6)
            assert change.any()


def test_prior_images_reach_the_attack(workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan]) -> None:
    shop, last = workshop(), {}
    for weight in (0.0, 1.0):
        settings = {"attack": "dreambooth", "prior": "images", "prior_weight": weight, **DATA}
        plan = tiny_plan(unlearning={}, attacks={"mine": settings})
        (stage,) = plan.attack.values()
        last[weight] = load_file(shop.attack(plan, stage, 0) / "step-2.safetensors")
    assert all(not torch.equal(last[0.0][name], tensor) for name, tensor in last[1.0].items())


def test_an_interpolation_begins_between_the_unlearned_model_and_the_base(
    workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan], models: Models
) -> None:
    zero = {**DATA, "steps": 0, "checkpoints": [], "attack": "interpolation"}
    attacks = {f"at-{amount}": {**zero, "amount": amount} for amount in (0.0, 0.5, 1.0)}
    attacks |= {"tuned": {**DATA, "attack": "interpolation", "amount": 0.0}, "full": {**DATA, "attack": "full"}}
    plan, shop = tiny_plan(attacks=attacks), workshop()
    (method,) = plan.unlearn.values()
    unlearned = load_file(shop.unlearn(plan, method, 0) / "weights.safetensors")
    original = trainable_tensors(models.pipeline)
    stages = {stage.attack: stage for stage in plan.attack.values() if stage.model == method.model}
    folders = {label: shop.attack(plan, stage, 0) for label, stage in stages.items()}
    found = {
        label: load_file(folder / f"step-{0 if 'at' in label else 2}.safetensors") for label, folder in folders.items()
    }
    for name, tensor in unlearned.items():
        assert not torch.equal(tensor, original[name])
        assert torch.equal(found["at-0.0"][name], tensor)
        assert torch.equal(found["at-1.0"][name], original[name])
        torch.testing.assert_close(found["at-0.5"][name], (tensor + original[name]) / 2, rtol=0, atol=1e-6)
    assert all(torch.equal(tensor, found["full"][name]) for name, tensor in found["tuned"].items())
    # The base has nothing to move to.
    base = next(stage for stage in plan.attack.values() if stage.model == "base" and stage.attack == "at-0.5")
    kept = load_file(shop.attack(plan, base, 0) / "step-0.safetensors")
    assert all(torch.equal(tensor, original[name]) for name, tensor in kept.items())


def test_a_search_reports_its_seconds_apart_from_its_history(
    workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    harmful = write_captioned_images(tmp_path / "harmful", ("a seven",), seed=2)
    assets = {name: asset.resolved for name, asset in tiny_plan().assets.items()} | {"harmful": {"path": str(harmful)}}
    data = {key: value for key, value in DATA.items() if key != "lr"}
    searched = {"learning_rates": [1e-3, 1e-2], "harmful_batch_size": 4}
    settings = {**data, "attack": "worst_case", "harmful": "harmful", **searched}
    plan, shop = tiny_plan(unlearning={}, attacks={"worst": settings}, assets=assets), workshop()
    (stage,) = plan.attack.values()
    folder = shop.attack(plan, stage, 0)
    laps = json.loads((folder / "timing.json").read_text())["laps_seconds"]
    assert list(laps) == ["before the search", "lr_0.001", "lr_0.01"]
    assert all(seconds > 0 for seconds in laps.values())
    history = (folder / "history.csv").read_text()
    assert "seconds" not in history
    assert {"harmful_error_lr_0.001", "harmful_error_lr_0.01"} <= {line.split(",")[1] for line in history.splitlines()}
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-1.safetensors", "step-2.safetensors"]
