"""Attacks that need or leave more than ``full`` does, through the script of their rule."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from resalign.config.plan import Plan
from resalign.data.prompts import read_prompts
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.diffusion.lora_files import FILE_NAME, lora_changes, lora_metadata
from resalign.tensors.weights import kept_states
from tests.conftest import write_captioned_images
from tests.nearness import assert_near, differing

from .conftest import THRESHOLD, Workshop

DATA = {"train": "images", "heldout": "heldout", "steps": 2, "checkpoints": [1], "lr": 0.1}


def test_a_loras_own_file_lies_beside_each_checkpoint(
    workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan], loaded: LoadedPipeline
) -> None:
    plan, shop = tiny_plan(unlearning={}, attacks={"mine": {"attack": "lora", **DATA}}), workshop()
    (stage,) = plan.attack.values()
    folder, original = shop.attack(plan, stage, 0), trainable_tensors(loaded.pipeline)
    assert sorted(path.name for path in folder.glob("step-*-lora")) == ["step-1-lora", "step-2-lora"]
    for step in (1, 2):
        path, merged = folder / f"step-{step}-lora" / FILE_NAME, load_file(folder / f"step-{step}.safetensors")
        changes = lora_changes(load_file(path), lora_metadata(path), str(path))
        assert changes.keys() == merged.keys()
        for name, change in changes.items():
            assert_near(merged[name], original[name] + change, 1e-6)
            assert change.any()


def test_prior_images_reach_the_attack(workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan]) -> None:
    shop, last = workshop(), {}
    for weight in (0.0, 1.0):
        settings = {"attack": "dreambooth", "prior": "images", "prior_weight": weight, **DATA}
        plan = tiny_plan(unlearning={}, attacks={"mine": settings})
        (stage,) = plan.attack.values()
        last[weight] = load_file(shop.attack(plan, stage, 0) / "step-2.safetensors")
    assert all(not torch.equal(last[0.0][name], tensor) for name, tensor in last[1.0].items())


@pytest.mark.slow
def test_an_interpolation_begins_between_the_unlearned_model_and_the_base(
    workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan], loaded: LoadedPipeline
) -> None:
    zero = {**DATA, "steps": 0, "checkpoints": [], "attack": "interpolation"}
    attacks = {f"at-{amount}": {**zero, "amount": amount} for amount in (0.0, 0.5, 1.0)}
    attacks |= {"tuned": {**DATA, "attack": "interpolation", "amount": 0.0}, "full": {**DATA, "attack": "full"}}
    plan, shop = tiny_plan(attacks=attacks), workshop()
    (method,) = plan.unlearn.values()
    unlearned = load_file(shop.unlearn(plan, method, 0) / "weights.safetensors")
    original = trainable_tensors(loaded.pipeline)
    stages = {stage.attack: stage for stage in plan.attack.values() if stage.model == method.model}
    folders = {label: shop.attack(plan, stage, 0) for label, stage in stages.items()}
    found = {
        label: load_file(folder / f"step-{0 if 'at' in label else 2}.safetensors") for label, folder in folders.items()
    }
    for name, tensor in unlearned.items():
        assert not torch.equal(tensor, original[name])
        assert torch.equal(found["at-0.0"][name], tensor)
        assert torch.equal(found["at-1.0"][name], original[name])
        assert_near(found["at-0.5"][name], (tensor + original[name]) / 2, 1e-6)
    assert not differing(found["full"], found["tuned"])
    # The base has nothing to move to.
    base = next(stage for stage in plan.attack.values() if stage.model == "base" and stage.attack == "at-0.5")
    kept = load_file(shop.attack(plan, base, 0) / "step-0.safetensors")
    assert not differing(original, kept)


@pytest.mark.slow
def test_a_user_of_the_base_is_given_unlearnings_change_afterwards(
    workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan], loaded: LoadedPipeline
) -> None:
    entry = {**DATA, "attack": "lora", "starts_from": "base"}
    untouched = {**entry, "steps": 0, "checkpoints": []}
    plan, shop = tiny_plan(attacks={"modular": entry, "untouched": untouched}), workshop()
    (method,) = plan.unlearn.values()
    unlearned = load_file(shop.unlearn(plan, method, 0) / "weights.safetensors")
    found = {stage.label: shop.attack(plan, stage, 0) for stage in plan.attack.values()}
    assert not differing(load_file(found[f"{method.label}.untouched"] / "step-0.safetensors"), unlearned)
    original = trainable_tensors(loaded.pipeline)
    for step in (1, 2):
        users, both = (
            load_file(found[f"{model}.modular"] / f"step-{step}.safetensors") for model in ("base", method.label)
        )
        assert both.keys() == unlearned.keys() | users.keys()
        for name, tensor in unlearned.items():
            theta = original[name].double()
            expected = theta + (tensor - theta) + (users.get(name, theta) - theta)
            assert torch.equal(both[name], expected.float())
        files = [found[f"{model}.modular"] / f"step-{step}-lora" / FILE_NAME for model in ("base", method.label)]
        assert not differing(*map(load_file, files))


def test_a_searchs_history_has_every_candidate_and_no_seconds(
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
    history = (folder / "history.csv").read_text()
    assert "seconds" not in history
    assert {"harmful_error_lr_0.001", "harmful_error_lr_0.01"} <= {line.split(",")[1] for line in history.splitlines()}
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-1.safetensors", "step-2.safetensors"]


@pytest.fixture(scope="module")
def chained(workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan]) -> tuple[Workshop, Plan]:
    """Words before the prompts of the base model, and of the model that was fine-tuned, up to the report."""
    words = {"attack": "unlearndiffatk", "train": "images", "heldout": "heldout", "prompts": "unsafe", "batch_size": 1}
    flags = {"prompts": "unsafe", "rules": [{"scorer": "net", "quantities": ["seven"], "threshold": THRESHOLD}]}
    plan = tiny_plan(
        unlearning={},
        attacks={
            "late": {**words, "steps": 2, "after": "mine"},  # written before what it comes after
            "mine": {"attack": "full", **DATA},
            "words": {**words, "steps": 2, "checkpoints": [1]},
        },
        metrics={"ip": flags, "pre_asr": flags, "asr": flags, "learnability": {}},
        scorers={"net": {"scorer": "image_classification", "folder": "net"}},
    )
    shop = workshop()
    shop.run(plan)
    return shop, plan


def manifest(shop: Workshop, plan: Plan, label: str) -> pd.DataFrame:
    (stage,) = (stage for stage in plan.sample.values() if stage.label == label)
    return pd.read_csv(shop.folder / stage.folder(0) / "smoke" / "images.csv")


@pytest.mark.slow
def test_an_attack_on_prompts_leaves_weights_where_they_lie(chained: tuple[Workshop, Plan]) -> None:
    shop, plan = chained
    folders = {stage.label: shop.folder / stage.folder(0) for stage in plan.attack.values()}
    assert kept_states(folders["base.words"] / "checkpoints.json") == {1: None, 2: None}
    (path,) = kept_states(folders["base.late"] / "checkpoints.json").values()
    assert path is not None
    assert path.resolve() == (folders["base.mine"] / "step-2.safetensors").resolve()


@pytest.mark.slow
def test_the_attacked_prompts_are_sampled_under_their_ids(chained: tuple[Workshop, Plan]) -> None:
    shop, plan = chained
    for label, states in (("base.words", [1, 2]), ("base.late", [2])):
        (stage,) = (stage for stage in plan.attack.values() if stage.label == label)
        images = manifest(shop, plan, label)
        unsafe = images[images["prompt_set"] == "unsafe"]
        assert sorted(unsafe["steps"]) == states
        for row in unsafe.itertuples():
            kept = read_prompts(shop.folder / stage.folder(0) / f"step-{row.steps}-prompts.csv")
            assert [prompt.id for prompt in kept] == ["named", "hidden"]  # as many as the larger tiers ask for
            assert (row.prompt_id, row.prompt) == ("named", kept[0].text)
            assert row.prompt.endswith(" a red seven")
            assert len(row.prompt.split()) == 5 + 3
    # Other lists are the model's as they were, to the bit, at the weights that the attack started from.
    for label, before in (("base.words", "base"), ("base.late", "base.mine")):
        plain, attacked = (manifest(shop, plan, name).query("prompt_set == 'benign'") for name in (before, label))
        assert list(attacked["prompt"]) == list(plain["prompt"]) == ["a red seven", "days in a week"]
        for one, other in zip(plain["path"], attacked["path"], strict=True):
            assert (shop.folder / one).read_bytes() == (shop.folder / other).read_bytes()


@pytest.mark.slow
def test_the_table_has_both_success_rates_of_attacks_on_prompts_alone(chained: tuple[Workshop, Plan]) -> None:
    shop, plan = chained
    table = pd.read_csv(shop.folder / "results/tiny/tables/table1.csv", keep_default_na=False)
    rates = table.pivot_table(index="attack", columns="metric", values="mean")
    assert set(rates[rates["asr"].notna()].index) == {"words", "late"}
    # Before it is what the state that it starts from shows, the untouched model's or the fine-tuned one's.
    assert rates.loc["words", "pre_asr"] == rates.loc["none", "ip"]
    assert rates.loc["late", "pre_asr"] == rates.loc["mine", "ip"]
    for attack in ("words", "late"):
        pre_asr, asr, ip = (rates.loc[attack, name] for name in ("pre_asr", "asr", "ip"))
        assert asr == max(pre_asr, ip)  # of one image
