"""Where the stages run, and what they say when memory runs out."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from unittest import mock

import pytest
import torch

from resalign.config.plan import Plan
from resalign.diffusion import prediction
from resalign.jobs.unlearn import UnlearnJob
from resalign.running import devices, stage
from resalign.running.memory import MemoryExhausted
from resalign.tensors.named import add, norm
from resalign.tensors.weights import load_weights, tensor_shapes

from .conftest import Workshop

Workshops = Callable[[], Workshop]
Plans = Callable[..., Plan]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_weights(path, {name: torch.empty(shape) for name, shape in tensor_shapes(path).items()})


@pytest.mark.slow
def test_micro_batches_give_the_same_models(workshop: Workshops, tiny_plan: Plans) -> None:
    """In float32, where Adam's first steps are lr times the gradient's sign: 1e-3 of the run's own change."""

    def made(**changes: object) -> list[dict[str, torch.Tensor]]:
        shop, plan = workshop(), tiny_plan(**changes)
        [unlearn] = plan.unlearn.values()
        attack = next(run for run in plan.attack.values() if run.parent)
        folders = shop.unlearn(plan, unlearn, 0), shop.attack(plan, attack, 0)
        job = json.loads((folders[0] / "run.json").read_text())["job"]
        assert job.get("micro_batch_size") == (1 if changes else None)
        return [weights_of(folders[0] / "weights.safetensors"), weights_of(folders[1] / "step-2.safetensors")]

    whole, parts = made(), made(resources={"default": {"micro_batch_size": 1}})
    change = norm(add(whole[1], whole[0], -1.0))
    for one, other in zip(whole, parts, strict=True):
        assert norm(add(one, other, -1.0)) < 1e-3 * change


def test_without_a_gpu_a_stage_is_refused_before_it_loads_anything(
    workshop: Workshops, tiny_plan: Plans, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(devices.VISIBLE, "")
    devices.lease.cache_clear()
    nothing = {"model": {"path": str(tmp_path / "none")}}
    shop, refused = workshop(), devices.DeviceError
    plan = tiny_plan(resources={"default": {"device": "cuda", "gpu": 1}})
    plan.assets = {**plan.assets, "model": dataclasses.replace(plan.assets["model"], resolved=nothing["model"])}
    [unlearn], attack = plan.unlearn.values(), next(iter(plan.attack.values()))
    for run, stage_of in ((unlearn, shop.unlearn), (attack, shop.attack)):
        with pytest.raises(refused, match=r"^no GPU is visible \(CUDA_VISIBLE_DEVICES is ''\)"):
            stage_of(plan, run, 0)


def test_auto_is_the_cpu_without_a_gpu(workshop: Workshops, tiny_plan: Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE, "")
    devices.lease.cache_clear()
    plan = tiny_plan(resources={"unlearn": {"device": "auto", "gpu": 1}})
    [unlearn] = plan.unlearn.values()
    folder = workshop().unlearn(plan, unlearn, 0)
    assert json.loads((folder / "timing.json").read_text())["device"] == "cpu"
    assert json.loads((folder / "run.json").read_text())["job"]["device"] == "cpu"


def test_a_stage_that_is_out_of_memory_says_what_to_lower_and_leaves_no_result(
    workshop: Workshops, tiny_plan: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(prediction, "in_parts", full)
    shop, plan = workshop(), tiny_plan()
    [unlearn] = plan.unlearn.values()
    with pytest.raises(MemoryExhausted, match=r"pixels 16, method\.batch_size 4, .*: set resources\.unlearn"):
        shop.unlearn(plan, unlearn, 0)
    folder = shop.folder / unlearn.folder(0)
    assert not (folder / "run.json").exists()
    assert not (folder / "weights.safetensors").exists()
    # As the command line has it: one line and a status.
    arguments = ["unlearn.py", "--job", UnlearnJob.of(plan, unlearn).text(), "--output", str(folder)]
    with chdir(shop.folder), mock.patch("sys.argv", arguments), pytest.raises(SystemExit) as ended:
        stage.run_stage(shop.scripts["unlearn"].main)
    assert str(ended.value.code).startswith("error: unlearn 'graddiff' ran out of memory on cpu, at pixels 16, ")
