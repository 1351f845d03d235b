"""What a library would fill in unsaid is one error that names it; another form of a folder is the same network."""

import ast
import inspect
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from resalign.diffusion.loaded_pipeline import autoencoder_difference, check_pipeline_folder, load_pipeline
from resalign.lazy import diffusers, transformers
from resalign.scorers import clip, dino, image_classification, sd_safety_checker
from resalign.tensors.pretrained import OPEN_CLIP_NAMES, OPEN_CLIP_SUFFIXES, difference, load_network, load_tensors
from tests.json_files import edit_json
from tests.refusals import told
from tests.scorers.conftest import write_classifier, write_clip, write_dino, write_safety_checker

ROOT = Path(__file__).resolve().parents[2]
Edit = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def edited(file: Path, edit: Edit) -> None:
    save_file({name: t.contiguous() for name, t in edit(load_file(file)).items()}, file, {"format": "pt"})


def without(part: str) -> Edit:
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


def wrapped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def reshaped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = min(weights)
    return {**weights, first: torch.zeros(3, 1)}


# --- scorers ----------------------------------------------------------------------------------------------------------

SCORERS: dict[str, tuple[Any, Callable[[Path], Path], str, str]] = {
    "classifier": (image_classification, write_classifier, "model.safetensors", "classifier"),
    "dino": (dino, write_dino, "model.safetensors", "layernorm"),
    "safety checker": (sd_safety_checker, write_safety_checker, "model.safetensors", "visual_projection"),
    "clip": (clip, write_clip, "open_clip_model.safetensors", "ln_final"),
}


def loading(name: str, folder: Path) -> Callable[[], Any]:
    module = SCORERS[name][0]
    return lambda: module.load(module.Config(folder="x"), folder, "cpu")


@pytest.fixture(params=SCORERS)
def scorer(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[], Any], Path, str]:
    """How a scorer is loaded, its weight file, and a part of it."""
    _, write, name, part = SCORERS[request.param]
    folder = write(tmp_path)
    return loading(request.param, folder), folder / name, part


def test_a_network_that_is_not_whole(scorer: tuple[Callable[[], Any], Path, str]) -> None:
    load, file, part = scorer
    load()
    first = min(whole := load_file(file))
    edited(file, without(part))
    told(load, str(file.parent), "of the", part, "missing", "fetch or convert it again")
    save_file(reshaped(whole), file, {"format": "pt"})
    told(load, str(file.parent), f"{first}' has shape (3, 1), the network expects")
    file.unlink()
    told(load, str(file.parent), f"no {file.name}")


def test_all_names_with_a_wrappers_prefix(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path)
    edited(folder / "model.safetensors", wrapped)
    told(loading("classifier", folder), "are missing", "'module.", "a wrapper's 'module.'")


def test_open_clip_takes_the_prefix_off_itself(tmp_path: Path) -> None:
    folder, images = write_clip(tmp_path), torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32).to(torch.uint8)
    load = loading("clip", folder)
    before = load().score(images, ["a cat"])
    edited(folder / "open_clip_model.safetensors", wrapped)
    assert torch.equal(load().score(images, ["a cat"]), before)


def test_a_pickle_alone_names_the_remedy(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    remedy = "save_pretrained(folder, safe_serialization=True)"
    told(loading("classifier", folder), "found ['pytorch_model.bin']", remedy)


def test_open_clip_does_not_choose_between_checkpoints(tmp_path: Path) -> None:
    """It would take the first one and say so in a warning."""
    folder = write_clip(tmp_path)
    load = loading("clip", folder)
    shutil.copy(folder / "open_clip_model.safetensors", folder / "epoch_1.safetensors")
    load()  # it has a name of open_clip's own beside another one
    (folder / "open_clip_model.safetensors").rename(folder / "epoch_2.safetensors")
    told(load, str(folder), "several checkpoints, 'epoch_1.safetensors', 'epoch_2.safetensors'")
    (folder / "epoch_2.safetensors").unlink()
    load()


def test_the_names_that_open_clip_prefers_are_its_own() -> None:
    from open_clip import factory

    source = inspect.getsource(factory._find_checkpoint_in_dir)
    assert set(re.findall(r'"(\w+\.\w+)"', source)) == set(OPEN_CLIP_NAMES)
    assert set(re.findall(r"'\*(\.\w+)'", source)) == set(OPEN_CLIP_SUFFIXES)


def test_position_embeddings_are_not_stretched(tmp_path: Path) -> None:
    """open_clip resizes them without a word where its settings name another image size."""
    folder = write_clip(tmp_path)
    edit_json(folder / "open_clip_config.json", model_cfg__vision_cfg__image_size=64)
    expected = "'visual.positional_embedding' has shape (17, 16), the network expects (65, 16)"
    told(loading("clip", folder), expected)


def test_open_clip_must_be_told_how_images_are_prepared(tmp_path: Path) -> None:
    folder = write_clip(tmp_path)
    edit_json(folder / "open_clip_config.json", without=["preprocess_cfg"])
    told(loading("clip", folder), str(folder / "open_clip_config.json"), "['mean', 'std']", "a guess")


@pytest.mark.parametrize("lacking", ["size", "image_mean", "image_std", None])
def test_a_processor_is_not_guessed(tmp_path: Path, lacking: str | None) -> None:
    folder = write_classifier(tmp_path)
    file = folder / "preprocessor_config.json"
    edit_json(file, without=[lacking]) if lacking else file.unlink()
    expected = f"lacks ['{lacking}']" if lacking else "no preprocessor_config.json"
    told(loading("classifier", folder), str(folder), expected)


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_numbers_of_its_cast(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    _, write, file, _ = SCORERS[name]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scores = []
    for cast in (lambda t: t.to(dtype), lambda t: t.to(dtype).float()):
        place = tmp_path / f"{len(scores)}"
        place.mkdir()
        folder = write(place)
        edited(folder / file, lambda weights, cast=cast: {n: cast(t) for n, t in weights.items()})
        if (folder / "config.json").is_file():
            edit_json(folder / "config.json", dtype=str(dtype).split(".")[1])
        scores.append(loading(name, folder)().score(images, ["a cat", "a dog"]))
    assert scores[0].dtype == torch.float32
    assert torch.equal(*scores)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_layer_more_than_the_settings_say(tmp_path: Path) -> None:
    """The last layer of a network would be left out."""
    folder = write_dino(tmp_path)
    edit_json(folder / "config.json", num_hidden_layers=1)
    told(lambda: load_network(transformers.AutoModel, folder, may_lack=("pooler.",)), "not the network's", "layers.1.")


def test_a_head_that_is_not_asked_for_is_no_fault_and_a_value_that_is_not_finite_is(tmp_path: Path) -> None:
    folder = write_dino(tmp_path)
    load = lambda: load_network(transformers.AutoModel, folder, may_lack=("pooler.",))  # noqa: E731
    edited(folder / "model.safetensors", lambda weights: {**weights, "classifier.weight": torch.ones(2, 16)})
    assert not load().training
    edited(folder / "model.safetensors", lambda w: {**w, "layernorm.bias": w["layernorm.bias"] * torch.nan})
    told(load, "layernorm.bias", "not finite")


@pytest.mark.parametrize("config", ["[]", "{", '{"model_type": "vitt"}', '{"model_type": "vit", "hidden_size": "16"}'])
def test_settings_that_name_no_network(tmp_path: Path, config: str) -> None:
    folder = write_dino(tmp_path)
    (folder / "config.json").write_text(config)
    told(lambda: load_network(transformers.AutoModel, folder), str(folder), "fetch or convert it again")
    (folder / "adapter_config.json").write_text("{}")
    told(lambda: load_network(transformers.AutoModel, folder), str(folder), "merge it")


def test_plain_tensors_are_exactly_the_networks(tmp_path: Path) -> None:
    network, where = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)), tmp_path / "a.pt"
    whole = {name: tensor.clone() + 1 for name, tensor in network.state_dict().items()}
    load_tensors(network, {name: t for name, t in whole.items() if "num_batches" not in name}, where)
    assert torch.equal(network[0].weight, whole["0.weight"])
    told(
        lambda: load_tensors(network, wrapped(whole), where), str(where), "6 of the 7 tensors", "a wrapper's 'module.'"
    )
    told(lambda: load_tensors(network, {**whole, "x": torch.ones(1)}, where), "1 tensors are not the network's: 'x'")
    told(lambda: load_tensors(network, {**whole, "0.bias": torch.ones(2).to(torch.int8)}, where), "torch.int8")


# --- pipelines --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(pipeline_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline_folder, tmp_path / "pipeline"))


VAE = "vae/diffusion_pytorch_model.safetensors"
# The attention of autoencoders in diffusers before 0.18.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def old_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = tensor
    assert renamed.keys() != weights.keys()
    return renamed


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("edit", [without("bias"), wrapped, reshaped], ids=["no biases", "wrapped", "another shape"])
def test_pipelines_are_checked_by_their_headers(pipeline: Path, component: str, edit: Edit) -> None:
    [file] = (pipeline / component).glob("*.safetensors")
    edited(file, edit)
    told(lambda: check_pipeline_folder(pipeline), str(pipeline / component), "fetch or convert it again")
    told(lambda: load_pipeline(pipeline), str(pipeline / component), "fetch or convert it again")
    file.write_bytes(file.read_bytes()[:-50])
    for call in (check_pipeline_folder, load_pipeline):
        told(lambda call=call: call(pipeline), str(file), "truncated", "fetch or make it again")


def test_an_autoencoder_under_old_names_is_the_same(pipeline: Path, pipeline_folder: Path) -> None:
    edited(pipeline / VAE, old_names)
    assert autoencoder_difference(pipeline, pipeline_folder) is None
    check_pipeline_folder(pipeline)


def test_an_autoencoder_in_another_form_is_the_same(pipeline: Path, pipeline_folder: Path) -> None:
    network = load_network(diffusers.AutoencoderKL, pipeline / "vae")
    (pipeline / VAE).unlink()
    network.save_pretrained(pipeline / "vae", max_shard_size="10KB")
    assert len(list((pipeline / "vae").glob("*.safetensors"))) > 1
    assert autoencoder_difference(pipeline, pipeline_folder) is None
    for file in (pipeline / "vae").glob("*.safetensors*"):
        file.unlink()
    torch.save(network.state_dict(), pipeline / "vae" / "diffusion_pytorch_model.bin")
    assert autoencoder_difference(pipeline, pipeline_folder) is None
    edited_weights = {name: tensor.bfloat16() for name, tensor in network.state_dict().items()}
    torch.save(edited_weights, pipeline / "vae" / "diffusion_pytorch_model.bin")
    assert autoencoder_difference(pipeline, pipeline_folder) is None


def test_an_autoencoder_of_other_settings_is_another(pipeline: Path, pipeline_folder: Path) -> None:
    """The same tensors, and latents of another size."""
    file = pipeline / "vae" / "config.json"
    assert json.loads(file.read_text())["scaling_factor"] == 0.18215  # which diffusers takes where it is not said
    edit_json(file, without=["scaling_factor", "_diffusers_version"])
    assert autoencoder_difference(pipeline, pipeline_folder) is None
    edit_json(file, scaling_factor=0.5)
    assert autoencoder_difference(pipeline, pipeline_folder) == "setting 'scaling_factor'"


def test_a_rounding_is_no_difference_and_a_small_change_is() -> None:
    one, other = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    one.config = other.config = {}  # type: ignore[assignment]
    for dtype in (torch.float16, torch.bfloat16):
        other.load_state_dict({name: t.to(dtype) for name, t in one.state_dict().items()})
        assert difference(one, other) is None
    other.load_state_dict({name: t * (1 + 1e-4) for name, t in one.state_dict().items()})
    assert difference(one, other) == "tensor 'bias'"


@pytest.mark.parametrize("key", ["beta_start", "beta_end", "num_train_timesteps"])
def test_a_noise_schedule_is_not_guessed(pipeline: Path, key: str) -> None:
    file = pipeline / "scheduler" / "scheduler_config.json"
    edit_json(file, without=[key])
    for call in (check_pipeline_folder, load_pipeline):
        told(lambda call=call: call(pipeline), str(file), f"does not say ['{key}']", "a guess")


# --- the only reader --------------------------------------------------------------------------------------------------

LOADING = {
    "from_pretrained",
    "from_single_file",
    "load_state_dict",
    "create_model",
    "create_model_and_transforms",
    "create_model_from_pretrained",
    "load_checkpoint",
    "get_tokenizer",
    "load_file",
    "safe_open",
    "load_lora_weights",
    "load_adapter",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
}
READERS = {
    "src/resalign/tensors/weights.py": {"safe_open", "load_file", "torch.load"},
    "src/resalign/tensors/pretrained.py": {
        "from_pretrained",  # networks and processors
        "load_state_dict",
        "create_model_and_transforms",
        "load_checkpoint",
    },
    "src/resalign/tensors/tokenizers.py": {"from_pretrained", "get_tokenizer"},
    "src/resalign/diffusion/compvis.py": {"load_state_dict"},  # strictly, of tensors that are counted
    "src/resalign/diffusion/loaded_pipeline.py": {"from_pretrained"},  # a pipeline of parts that are loaded already
    # A job's own saved state, whose file has its hash in its name.
    "src/resalign/running/folder.py": {"torch.load"},
    "src/resalign/running/held.py": {"load_state_dict"},
    "src/resalign/bilevel/adaptation.py": {"load_state_dict"},  # an optimizer's own moments
    "src/resalign/tuning/searchers/_population.py": {"load_state_dict"},  # a search's own saved state
    "src/resalign/tuning/searchers/_sequential.py": {"load_state_dict"},
}


def loading_calls(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            yield from {called, called.split(".")[-1]} & LOADING


def test_weights_are_read_in_one_place() -> None:
    found: dict[str, set[str]] = {}
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")):
        calls = set(loading_calls(ast.parse(path.read_text(encoding="utf-8"))))
        if calls:
            found[str(path.relative_to(ROOT))] = calls
    assert found == READERS


def test_the_walk_sees_calls() -> None:
    tree = ast.parse("a = b.C.from_pretrained(x)\ntorch.load(y)\nload_file(z)\nother.load(z)")
    assert set(loading_calls(tree)) == {"from_pretrained", "torch.load", "load_file"}
