"""A released checkpoint from its file to the attacked model, through the scripts of the rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from resalign.config import own_inputs
from resalign.config.plan import Plan
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.jobs.unlearn import UnlearnJob
from resalign.tensors.weights import WeightsError
from tests.nearness import differing

from .conftest import Workshop, load_script


@pytest.fixture
def planned(tiny_plan: Callable[..., Plan], tmp_path: Path) -> Callable[..., Plan]:
    """The tiny plan with one method, which imports what lies below ``mine``."""
    assets = tiny_plan().experiment.config.model_dump(mode="json")["assets"]
    own = {name: {"path": asset["path"]} for name, asset in assets.items()} | {"mine": {"path": str(tmp_path)}}

    def plan(**settings: Any) -> Plan:
        return tiny_plan(assets=own, unlearning={"released": {"method": "imported", **settings}})

    return plan


def checked(plan: Plan, folder: Path) -> dict[str, Any]:
    """The rule that checks the user's own inputs, and the job that it was given."""
    found = own_inputs.found(plan, "released")
    shop = Workshop(folder, {"check_inputs": load_script("check_inputs")})
    shop.call("check_inputs", json.dumps(found), "results/inputs")
    return found


def test_a_text_encoder_outlasts_an_attack(
    planned: Callable[..., Plan], workshop: Callable[[], Workshop], loaded: LoadedPipeline, tmp_path: Path
) -> None:
    moved = {f"text_model.{n}": t * 1.1 for n, t in named_weights(loaded.pipeline.text_encoder).items()}
    safetensors.torch.save_file(moved, tmp_path / "model.safetensors")
    plan, shop = planned(checkpoint="mine"), workshop()
    checked(plan, shop.folder)
    (unlearn,) = plan.unlearn.values()
    written = safetensors.torch.load_file(shop.unlearn(plan, unlearn, 0) / "weights.safetensors")
    expected = {f"text_encoder.{n.removeprefix('text_model.')}": t for n, t in moved.items()}
    assert written.keys() == expected.keys()
    assert not differing(written, expected)
    attack = next(stage for stage in plan.attack.values() if stage.parent)
    for path in shop.attack(plan, attack, 0).glob("step-*.safetensors"):
        attacked = safetensors.torch.load_file(path)
        assert any(name.startswith("unet.") for name in attacked)
        assert not differing(attacked, expected), path.name


def test_a_checkpoint_is_held_against_the_model_before_any_work(
    planned: Callable[..., Plan], loaded: LoadedPipeline, tmp_path: Path
) -> None:
    torch.save({"unet": {"conv_in.bias": torch.zeros(8)}}, tmp_path / "part.pt")
    found = checked(planned(checkpoint="mine/part.pt", covers="some"), tmp_path)
    assert found["checkpoints"] == [[str(tmp_path / "part.pt"), found["pipelines"][0], "some"]]
    with pytest.raises(WeightsError, match="set covers: some"):
        checked(planned(checkpoint="mine/part.pt"), tmp_path)


@pytest.mark.parametrize(
    "name", ["higher_safety.pt", "diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
)
def test_a_checkpoints_change_is_noticed(planned: Callable[..., Plan], tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    plan = planned(checkpoint="mine")
    assert str(tmp_path / name) in UnlearnJob.of(plan, next(iter(plan.unlearn.values()))).inputs()
