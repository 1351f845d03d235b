"""Attacks that need or leave more than ``full`` does, through the script of their rule."""

from collections.abc import Callable

import torch
from safetensors.torch import load_file

from resalign.config.plan import Plan
from resalign.diffusion.lora_files import FILE_NAME, lora_changes, lora_metadata
from resalign.diffusion.models import Models, trainable_tensors

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
