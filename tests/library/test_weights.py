"""Unlearning and attacks from Python: the same bits as the workflow's stages, from folders and from objects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import resalign
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.data.images import DataError
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.tensors.weights import WeightsError
from resalign.tracking import History
from tests.scripts.conftest import Workshop


@dataclass(frozen=True)
class Stages:
    """What the scripts have made: the unlearning's and the attack's folders, and the plan that they are of."""

    plan: Plan
    unlearned: Path
    attacked: Path

    def sets(self, *names: str) -> dict[str, Path]:
        """Image folders of the experiment, by name."""
        concept, attack = self.plan.experiment.config.concept, self.plan.experiment.attack_data["mine"]
        found = {name: getattr(concept, name) for name in ("forget", "retain", "pool")} | dict(attack.images)
        return {name: Path(self.plan.folder(found[name])) for name in names}

    @property
    def base(self) -> Path:
        return Path(self.plan.folder("model"))


@pytest.fixture(scope="module")
def stages(workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan]) -> Stages:
    shop, plan = workshop(), tiny_plan()
    (run,) = plan.unlearn.values()
    attacked = next(stage for stage in plan.attack.values() if stage.model == "graddiff")
    return Stages(plan, shop.unlearn(plan, run, 0), shop.attack(plan, attacked, 0))


@dataclass(frozen=True)
class Table:
    """Stands in for a ``datasets.Dataset``, which is no dependency."""

    rows: list[dict[str, Any]]

    @property
    def column_names(self) -> list[str]:
        return [*self.rows[0]]

    def __iter__(self) -> Any:
        return iter(self.rows)


def pairs(folder: Path) -> list[tuple[Image.Image, str]]:
    """The images of a folder and their captions, in memory."""
    lines = [line.split(",", 1) for line in (folder / "metadata.csv").read_text().splitlines()[1:]]
    return [(Image.open(folder / name).copy(), caption) for name, caption in lines]


FORMS: Mapping[str, Callable[[Path], Any]] = {
    "folder": str,
    "pairs": pairs,
    "dataset": lambda folder: Table([{"image": image, "text": text} for image, text in pairs(folder)]),
}


def assert_equal(pipeline: Any, weights: Mapping[str, torch.Tensor]) -> None:
    tensors = trainable_tensors(pipeline)
    assert [name for name, tensor in weights.items() if not torch.equal(tensors[name], tensor)] == []


@pytest.mark.parametrize("form", FORMS)
def test_unlearning_repeats_the_scripts_bits(stages: Stages, form: str) -> None:
    sets = {name: FORMS[form](folder) for name, folder in stages.sets("forget", "retain", "pool").items()}
    base = stages.base if form == "folder" else load_pipeline(stages.base).pipeline
    history = History()
    found = resalign.unlearn(base, "graddiff", **sets, steps=2, lr=1e-3, history=history)
    weights = load_file(stages.unlearned / "weights.safetensors")
    assert_equal(found, weights)
    assert {quantity for _, quantity, _ in history.rows} == {
        *("forget_loss", "retain_loss", "grad_norm", "weight_distance", "relative_distance", "loss_barrier")
    }
    if form != "folder":  # the pipeline that was given has not changed
        assert not torch.are_deterministic_algorithms_enabled()
        assert all(
            torch.equal(t, trainable_tensors(base)[n])
            for n, t in trainable_tensors(load_pipeline(stages.base).pipeline).items()
        )


def test_an_attack_repeats_the_scripts_bits_at_every_checkpoint(stages: Stages) -> None:
    unlearned = load_pipeline(stages.base, stages.unlearned / "weights.safetensors").pipeline
    states: dict[int, Mapping[str, torch.Tensor]] = {}
    settings = {"steps": 2, "checkpoints": [1], "lr": 1e-3}
    found = resalign.attack(
        unlearned, "full", **stages.sets("train", "heldout"), **settings, on_checkpoint=states.__setitem__
    )
    for step in (1, 2):
        kept = load_file(stages.attacked / f"step-{step}.safetensors")
        assert [name for name, tensor in states[step].items() if not torch.equal(kept[name], tensor)] == []
    assert_equal(found, load_file(stages.attacked / "step-2.safetensors"))


def test_an_attack_that_begins_with_the_base_is_given_it(stages: Stages) -> None:
    unlearned = load_pipeline(stages.base, stages.unlearned / "weights.safetensors").pipeline
    arguments: dict[str, Any] = {**stages.sets("train", "heldout"), "steps": 0, "base": stages.base}
    whole = resalign.attack(unlearned, "interpolation", amount=1.0, **arguments)
    assert_equal(whole, dict(trainable_tensors(load_pipeline(stages.base).pipeline)))
    assert_equal(resalign.attack(unlearned, "interpolation", amount=0.0, **arguments), trainable_tensors(unlearned))


def test_esd_needs_prompts_only_and_a_seed_decides(pipeline_folder: Path) -> None:
    settings = {"prompts": ["a red seven"], "steps": 1, "num_inference_steps": 2, "variant": "x"}
    one, same, other = (resalign.unlearn(pipeline_folder, "esd", seed=seed, **settings) for seed in (1, 1, 2))
    assert_equal(one, trainable_tensors(same))
    assert any(not torch.equal(t, trainable_tensors(other)[n]) for n, t in trainable_tensors(one).items())


def test_a_safety_checker_is_left_out_and_half_precision_is_widened(pipeline_folder: Path) -> None:
    from resalign.library.inputs import open_pipeline

    pipeline = load_pipeline(pipeline_folder, precision="float16").pipeline
    pipeline.safety_checker = pipeline.vae  # any module will do
    opened = open_pipeline(pipeline).pipeline
    assert opened.safety_checker is None
    assert {tensor.dtype for tensor in trainable_tensors(opened).values()} == {torch.float32}
    assert {tensor.dtype for tensor in trainable_tensors(pipeline).values()} == {torch.float16}


def spoiled(loaded: LoadedPipeline, fault: str) -> Any:
    """A pipeline that cannot be copied."""
    if fault == "unknown":
        return type("StableDiffusionImg2ImgPipeline", (), {})()
    pipeline = load_pipeline(Path(loaded.pipeline.config["_name_or_path"])).pipeline
    if fault == "offloaded":
        pipeline.unet.to("meta")
    else:
        from peft import LoraConfig

        pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    return pipeline


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unknown", "no support for a StableDiffusionImg2ImgPipeline; did you mean 'StableDiffusionPipeline'"),
        ("adapters", "fuse_lora"),
        ("offloaded", "offloaded"),
    ],
)
def test_a_pipeline_that_cannot_be_copied_is_refused(loaded: LoadedPipeline, fault: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        resalign.unlearn(spoiled(loaded, fault), "esd", prompts=["a red seven"])


GREY = Image.new("F", (16, 16))
RGB = Image.new("RGB", (16, 16))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (("unlearn", "graddiff", {"stpes": 2}), ConfigError, "unknown key 'stpes'; did you mean 'steps'"),
        (("unlearn", "gradif", {}), ConfigError, "did you mean 'graddiff'"),
        (("unlearn", "graddiff", {"forget": "images", "steps": 1}), ConfigError, "the images 'retain', which were not"),
        (("unlearn", "esd", {}), ConfigError, "nothing names the concept"),
        (("unlearn", "esd", {"prompts": "a seven"}), ConfigError, r"give \['a seven'\]"),
        (("unlearn", "esd", {"forget": [(RGB, "one"), RGB]}), DataError, "example 1: expected a PIL image"),
        (("unlearn", "esd", {"forget": [(GREY, "one")]}), DataError, "example 0: expected a PIL image in RGB"),
        (("unlearn", "esd", {"forget": Table([{"image": RGB}])}), DataError, "expected the column 'image' and one of"),
        (("attack", "unlearndiffatk", {"prompts": "x"}), ConfigError, "changes prompts, not weights"),
        (("attack", "interpolation", {"heldout": [(RGB, "one")]}), ConfigError, "give base, that pipeline"),
        (("attack", "full", {"train": "images", "heldout": "images"}), DataError, "are in 'heldout' too"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    pipeline_folder: Path, image_folder: Path, call: tuple[str, str, dict[str, Any]], error: type, message: str
) -> None:
    function, member, given = call
    arguments = {k: image_folder if isinstance(v, str) and v == "images" else v for k, v in given.items()}
    if function == "attack":
        arguments = {"train": image_folder, "heldout": image_folder, **arguments}
    with pytest.raises(error, match=message):
        getattr(resalign, function)(pipeline_folder, member, **arguments)


def test_the_package_names_its_functions_without_torch() -> None:
    assert {"unlearn", "attack", "sample", "evaluate", "audit"} <= set(dir(resalign))
    with pytest.raises(AttributeError, match="no attribute 'unlarn'"):
        _ = resalign.unlarn
