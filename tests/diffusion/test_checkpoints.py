"""Released checkpoints in every form in which they are published: what is taken, and what is refused in which words."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import safetensors.torch
import torch

from resalign.diffusion.checkpoints import Checkpoint, Covers, check_checkpoint, read_checkpoint
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.diffusion.parametrisation import named_weights
from resalign.tensors.weights import WeightsError, load_pickled
from tests.nearness import assert_near, differing
from tests.pipelines import KINDS, WITH_T5

Weights = dict[str, torch.Tensor]
CROSS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
LORA_FILE = "pytorch_lora_weights.safetensors"
SOME: dict[str, Any] = {"covers": "some"}


@pytest.fixture(scope="module")
def moved(loaded: LoadedPipeline) -> Weights:
    """A UNet's state dict that differs from the base model's everywhere, by an amount of its own in each tensor."""
    return {n: t + 0.01 * (k + 1) for k, (n, t) in enumerate(named_weights(loaded.denoiser).items())}


@pytest.fixture(scope="module")
def moved_text(loaded: LoadedPipeline) -> Weights:
    return {n: t - 0.02 for n, t in named_weights(loaded.pipeline.text_encoder).items()}


@pytest.fixture
def read(loaded: LoadedPipeline, pipeline_folder: Path) -> Callable[..., Checkpoint]:
    """Reads a checkpoint after the check that loads nothing, which must take what is taken."""

    def reading(path: Path, covers: Covers = "all", **settings: Any) -> Checkpoint:
        check_checkpoint(path, pipeline_folder, covers)
        return read_checkpoint(path, loaded.pipeline, covers=covers, **settings)

    return reading


@pytest.fixture
def refused(loaded: LoadedPipeline, pipeline_folder: Path) -> Callable[..., str]:
    """The words with which reading a checkpoint fails, and already the check of headers where those can tell."""

    def refusing(path: Path, *expected: str, by_header: bool = True, **settings: Any) -> str:
        with pytest.raises(WeightsError) as caught:
            read_checkpoint(path, loaded.pipeline, **settings)
        message = str(caught.value)
        assert "\n" not in message
        for part in (str(path), *expected):
            assert part in message
        covers = settings.get("covers", "all")
        if by_header:
            with pytest.raises(WeightsError, match=re.escape(message)):
                check_checkpoint(path, pipeline_folder, covers)
        else:
            check_checkpoint(path, pipeline_folder, covers)
        return message

    return refusing


def full(weights: Weights, component: str = "unet") -> Weights:
    return {f"{component}.{n}": t for n, t in weights.items()}


def assert_same_bits(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    assert {n: t.dtype for n, t in found.items()} == {n: t.dtype for n, t in expected.items()}
    assert not differing(found, expected)


def saved(path: Path, content: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(
            {n: t.clone(memory_format=torch.contiguous_format) for n, t in content.items()}, path, **options
        )
    else:
        torch.save(content, path, **options)
    return path


# --- state dicts ------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[Weights], Any]] = {
    "as it is": lambda w: w,
    "parameters": lambda w: {n: torch.nn.Parameter(t) for n, t in w.items()},
    "state_dict beside a training's state": lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"lr": 0.1}},
    "by component": lambda w: {"unet": w},
    "unet. in front": lambda w: {f"unet.{n}": t for n, t in w.items()},
    "model. in front": lambda w: {f"model.{n}": t for n, t in w.items()},
    "both": lambda w: {"state_dict": {f"module.unet.{n}": t for n, t in w.items()}},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_state_dict_keeps_its_bits(
    tmp_path: Path, moved: Weights, read: Callable[..., Checkpoint], form: str, suffix: str
) -> None:
    found = read(saved(tmp_path / f"released{suffix}", FORMS[form](moved)))
    assert_same_bits(found.weights, full(moved))
    assert found.differing == len(moved)
    assert found.share == 1.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("old.pt", {"_use_new_zipfile_serialization": False}),  # torch's first format
        ("weights.safetensors", {}),
        ("diffusers-nudity-ESDu1-UNET.pt", {}),
    ],
)
def test_a_folder_with_one_file(
    tmp_path: Path, moved: Weights, read: Callable[..., Checkpoint], name: str, options: dict[str, Any]
) -> None:
    saved(tmp_path / name, moved, **options)
    (tmp_path / "run.json").write_text("{}")
    assert_same_bits(read(tmp_path).weights, full(moved))


def test_a_weight_file_of_ones_own(
    tmp_path: Path, moved: Weights, moved_text: Weights, read: Callable[..., Checkpoint]
) -> None:
    expected = full(moved) | full(moved_text, "text_encoder")
    assert_same_bits(read(saved(tmp_path / "weights.safetensors", expected)).weights, expected)


def test_halves_become_the_models_dtype(tmp_path: Path, moved: Weights, read: Callable[..., Checkpoint]) -> None:
    path = saved(tmp_path / "released.pt", {n: t.half() for n, t in moved.items()})
    assert_same_bits(read(path).weights, full({n: t.half().float() for n, t in moved.items()}))


def test_tensors_that_share_memory_are_parted(tmp_path: Path, moved: Weights, read: Callable[..., Checkpoint]) -> None:
    flat = torch.cat([t.flatten() for t in moved.values()])
    parts = flat.split([t.numel() for t in moved.values()])
    shared = {n: part.view(t.shape) for (n, t), part in zip(moved.items(), parts, strict=True)}
    weights = read(saved(tmp_path / "released.pt", shared)).weights
    assert_same_bits(weights, full(moved))
    assert len({t.untyped_storage().data_ptr() for t in weights.values()}) == len(weights)


def test_the_base_model_is_left_alone(loaded: LoadedPipeline, tmp_path: Path, moved: Weights) -> None:
    before = {n: t.detach().clone() for n, t in trainable_tensors(loaded.pipeline).items()}
    read_checkpoint(saved(tmp_path / "released.pt", moved), loaded.pipeline)
    assert not differing(before, trainable_tensors(loaded.pipeline))


# --- a part only ------------------------------------------------------------------------------------------------------


def test_a_part_is_taken_where_it_is_announced(
    tmp_path: Path, moved: Weights, read: Callable[..., Checkpoint], refused: Callable[..., str]
) -> None:
    part = {n: moved[n] for n in moved if ".attn2.to_k" in n or ".attn2.to_v" in n}
    path = saved(tmp_path / "uce.safetensors", part)
    found = read(path, "some")
    assert_same_bits(found.weights, full(part))
    assert found.share == pytest.approx(len(part) / len(moved))
    message = f"holds {len(part)} of the {len(moved)} tensors of unet ({len(part) / len(moved):.1%}), not 'unet."
    refused(path, message, "set covers: some")


def test_how_many_differ_is_counted(
    loaded: LoadedPipeline, tmp_path: Path, moved: Weights, read: Callable[..., Checkpoint]
) -> None:
    edited = {**named_weights(loaded.denoiser), CROSS: moved[CROSS]}
    found = read(saved(tmp_path / "released.pt", edited))
    assert found.differing == 1
    assert len(found.weights) == len(moved)


# --- folders of pipelines and components ------------------------------------------------------------------------------


@pytest.fixture
def pipeline_copy(pipeline_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline_folder, tmp_path / "pipeline"))


def test_of_a_pipeline_all_that_differs_is_taken(
    pipeline_copy: Path, moved: Weights, moved_text: Weights, read: Callable[..., Checkpoint]
) -> None:
    for stem in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        (pipeline_copy / f"{stem}.safetensors").unlink()
    saved(pipeline_copy / "unet" / "diffusion_pytorch_model.bin", moved)
    saved(pipeline_copy / "text_encoder" / "pytorch_model.bin", moved_text)
    assert_same_bits(read(pipeline_copy).weights, full(moved) | full(moved_text, "text_encoder"))


def test_half_of_the_base_model_is_the_base_model(
    loaded: LoadedPipeline, pipeline_copy: Path, moved: Weights, read: Callable[..., Checkpoint]
) -> None:
    saved(pipeline_copy / "unet" / "diffusion_pytorch_model.safetensors", moved)
    text = named_weights(loaded.pipeline.text_encoder)
    saved(pipeline_copy / "text_encoder" / "model.safetensors", {n: t.half() for n, t in text.items()})
    loaded.pipeline.vae.save_pretrained(pipeline_copy / "vae")
    half = {n: t.half() for n, t in loaded.pipeline.vae.state_dict().items()}
    saved(pipeline_copy / "vae" / "diffusion_pytorch_model.safetensors", half)
    assert read(pipeline_copy).weights.keys() == full(moved).keys()


@pytest.mark.parametrize("prefix", ["", "text_model."])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_text_encoder_alone(
    tmp_path: Path, moved_text: Weights, read: Callable[..., Checkpoint], prefix: str, name: str
) -> None:
    # AdvUnlearn's: a folder nudity_unlearned, in the names of transformers before 5, with the position ids of old.
    released = {f"{prefix}{n}": t for n, t in moved_text.items()}
    released[f"{prefix}embeddings.position_ids"] = torch.arange(12)[None]
    saved(tmp_path / "nudity_unlearned" / name, released)
    (tmp_path / "nudity_unlearned" / "config.json").write_text("{}")
    found = read(tmp_path / "nudity_unlearned")
    assert_same_bits(found.weights, full(moved_text, "text_encoder"))
    assert found.share == 1.0


def test_a_component_in_shards(tmp_path: Path, moved: Weights, read: Callable[..., Checkpoint]) -> None:
    names = list(moved)
    for number, part in enumerate((names[:50], names[50:]), 1):
        name = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        saved(tmp_path / "unet" / name, {n: moved[n] for n in part})
    assert_same_bits(read(tmp_path).weights, full(moved))
    assert_same_bits(read(tmp_path / "unet").weights, full(moved))


def test_a_base_model_of_older_names_is_held_against(
    loaded: LoadedPipeline, pipeline_copy: Path, tmp_path: Path, moved_text: Weights
) -> None:
    # SD v1.4's own file has the prefix and the position ids.
    text = {f"text_model.{n}": t for n, t in named_weights(loaded.pipeline.text_encoder).items()}
    text["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    saved(pipeline_copy / "text_encoder" / "model.safetensors", text)
    for prefix in ("", "text_model."):
        released = {f"{prefix}{n}": t for n, t in moved_text.items()}
        check_checkpoint(saved(tmp_path / f"a{prefix}" / "model.safetensors", released), pipeline_copy)


# --- LoRA -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(loaded: LoadedPipeline) -> diffusers.UNet2DConditionModel:
    """A UNet with a LoRA of several ranks and α, on a convolution too."""
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["to_q", "to_k", "to_out.0", "conv_in"],
        rank_pattern={"to_k": 2},
        alpha_pattern={"to_k": 5},
        init_lora_weights=False,
    )
    unet = copy.deepcopy(loaded.denoiser)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        unet.add_adapter(config, adapter_name="default")
    return unet


def write_lora(folder: Path, unet: Any) -> Path:
    """The file that diffusers' own training scripts write."""
    diffusers.StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=peft.get_peft_model_state_dict(unet),
        unet_lora_adapter_metadata=json.loads(json.dumps(unet.peft_config["default"].to_dict(), default=list)),
    )
    return folder


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("writer", ["pipeline", "unet"])
def test_a_lora_is_merged_as_diffusers_merges_it(
    tmp_path: Path, adapted: Any, read: Callable[..., Checkpoint], scale: float, writer: str
) -> None:
    if writer == "pipeline":
        write_lora(tmp_path, adapted)
    else:
        adapted.save_lora_adapter(tmp_path)
    found = read(tmp_path, "some", lora_scale=scale)
    adapted.fuse_lora(lora_scale=scale)
    adapted.unload_lora()
    merged = named_weights(adapted)
    assert found.differing == len(found.weights) == sum(n.endswith(LORA_ENDS) for n in merged)
    for name, tensor in found.weights.items():
        assert_near(tensor, merged[name.removeprefix("unet.")], 1e-6)


LORA_ENDS = ("to_q.weight", "to_k.weight", "to_out.0.weight", "conv_in.weight")


@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora.down", "lora.up"), ("processor",)])
@pytest.mark.parametrize("alpha", [None, 3.0])
def test_a_lora_is_the_formula(
    loaded: LoadedPipeline, tmp_path: Path, read: Callable[..., Checkpoint], names: tuple[str, ...], alpha: float | None
) -> None:
    base, generator = named_weights(loaded.denoiser)[CROSS], torch.Generator().manual_seed(0)
    down = torch.randn((2, base.shape[1]), generator=generator)
    up = torch.randn((base.shape[0], 2), generator=generator)
    layer = f"unet.{CROSS.removesuffix('.weight')}"
    if names == ("processor",):
        old = layer.replace("attn2.to_k", "attn2.processor.to_k_lora")
        tensors = {f"{old}.down.weight": down, f"{old}.up.weight": up}
    else:
        tensors = {f"{layer}.{names[0]}.weight": down, f"{layer}.{names[1]}.weight": up}
    if alpha is not None:
        tensors[f"{layer}.alpha"] = torch.tensor(alpha)
    found = read(saved(tmp_path / LORA_FILE, tensors), "some", lora_scale=0.7)
    expected = base.double() + 0.7 * (alpha or 2.0) / 2 * up.double() @ down.double()
    assert list(found.weights) == [f"unet.{CROSS}"]
    assert_near(found.weights[f"unet.{CROSS}"].double(), expected, 1e-6)
    assert (expected - base).abs().max() > 0.1


def test_a_rank_stabilised_lora(loaded: LoadedPipeline, tmp_path: Path, read: Callable[..., Checkpoint]) -> None:
    unet = copy.deepcopy(loaded.denoiser)
    unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=3, target_modules=["to_q"], use_rslora=True))
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    found = read(write_lora(tmp_path, unet), "some")
    unet.fuse_lora()
    unet.unload_lora()
    for name, tensor in found.weights.items():
        assert_near(tensor, named_weights(unet)[name.removeprefix("unet.")], 1e-6)


def test_a_lora_of_both_components(loaded: LoadedPipeline, tmp_path: Path, read: Callable[..., Checkpoint]) -> None:
    ones = {"lora_A": torch.ones(1, 16), "lora_B": torch.ones(16, 1)}
    query = "encoder.layers.0.self_attn.q_proj"
    tensors = {f"text_encoder.text_model.{query}.{end}.weight": t for end, t in ones.items()}
    layer = CROSS.removesuffix(".weight")
    tensors |= {f"unet.{layer}.{end}.weight": t for end, t in ones.items()}
    found = read(saved(tmp_path / LORA_FILE, tensors), "some").weights
    base = trainable_tensors(loaded.pipeline)
    assert found.keys() == {f"text_encoder.{query}.weight", f"unet.{CROSS}"}
    for name, tensor in found.items():
        assert_near(tensor, base[name] + 1, 1e-6)


def lora_of(layer: str, down: tuple[int, ...], up: tuple[int, ...]) -> Weights:
    return {f"{layer}.lora_A.weight": torch.ones(down), f"{layer}.lora_B.weight": torch.ones(up)}


GOOD = lora_of(CROSS.removesuffix(".weight"), (2, 16), (16, 2))
LORAS: dict[str, tuple[Weights, dict[str, Any], str]] = {
    "unknown layer": (lora_of("mid_block.to_x", (2, 16), (16, 2)), {}, "no tensor named 'unet.mid_block.to_x.weight'"),
    "shape": (lora_of(CROSS.removesuffix(".weight"), (2, 8), (16, 2)), {}, "has shape (16, 8), the model expects (16,"),
    "rank": (lora_of(CROSS.removesuffix(".weight"), (2, 16), (16, 3)), {}, "have shapes [(2, 16), (16, 3)]"),
    "half": ({n: t for n, t in GOOD.items() if "lora_A" in n}, {}, "have shapes [(2, 16), None]"),
    "Kohya's": ({"lora_unet_down_blocks_1.lora_down.weight": torch.ones(2, 16)}, {}, "Kohya's format"),
    "peft's": ({f"base_model.model.{n}": t for n, t in GOOD.items()}, {}, "adapter_config.json"),
    "DoRA": ({**GOOD, "conv_in.lora_magnitude_vector": torch.ones(8)}, {}, "no part of a plain LoRA"),
    "DoRA by metadata": (GOOD, {"use_dora": True, "lora_alpha": 2}, "a DoRA"),
    "no α": (GOOD, {"r": 2}, "its metadata has no lora_alpha"),
    "α twice": ({**GOOD, f"{CROSS.removesuffix('.weight')}.alpha": torch.tensor(2.0)}, {"lora_alpha": 2}, "remove one"),
}


@pytest.mark.parametrize("kind", LORAS)
def test_a_lora_that_cannot_be_merged(tmp_path: Path, refused: Callable[..., str], kind: str) -> None:
    tensors, config, message = LORAS[kind]
    metadata = {"lora_adapter_metadata": json.dumps(config)} if config else None
    refused(saved(tmp_path / LORA_FILE, tensors, metadata=metadata), message, covers="some")


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 10_000], ids=range(4))
def test_a_lora_with_broken_metadata(tmp_path: Path, refused: Callable[..., str], text: str) -> None:
    path = saved(tmp_path / LORA_FILE, GOOD, metadata={"lora_adapter_metadata": text})
    refused(path, "'lora_adapter_metadata' is no JSON object", covers="some")


# --- what is refused --------------------------------------------------------------------------------------------------


def without_first(value: float) -> Callable[[Weights], Weights]:
    """float64 weights with one value that is not finite as float32."""

    def change(weights: Weights) -> Weights:
        wrong = {n: t.double() for n, t in weights.items()}
        wrong["conv_in.bias"][2] = value
        return wrong

    return change


def misnamed(weights: Weights) -> Weights:
    return {n.replace("attn2.to_k", "attn2.to_key"): t for n, t in weights.items()}


def one_prefixed(weights: Weights) -> Weights:
    first = next(iter(weights))
    return {f"model.{first}": weights[first], **{n: t for n, t in weights.items() if n != first}}


def ldm(prefix: str) -> Callable[[Weights], Any]:
    names = f"{prefix}input_blocks.0.0.bias", f"{prefix}out.2.bias"
    return lambda _: {"state_dict": dict.fromkeys(names, torch.ones(8))}


MISNAMED = f"'unet.{CROSS.replace('to_k', 'to_key')}', the nearest is 'unet.{CROSS}'"
NOT_DENSE = "give dense weights that are not quantized"
VALUES: dict[str, Any] = {"by_header": False}
# File, what is in it, what the refusal says, whether it is seen by names and shapes already, and settings.
REFUSED: list[tuple[str, Callable[[Weights], Any], tuple[str, ...], dict[str, Any]]] = [
    ("a.pt", misnamed, (MISNAMED, "names are unknown"), {}),
    ("a.safetensors", misnamed, (MISNAMED, "names are unknown"), {}),
    ("a.pt", one_prefixed, ("'unet.model.", ": the model has no tensor named", "1 of "), {}),
    (
        "a.pt",
        lambda w: {**w, "conv_in.bias": torch.zeros(3)},
        ("'unet.conv_in.bias' has shape (3,), the model expects (8,); 1 of",),
        {},
    ),
    *(
        ("a.pt", without_first(value), ("'unet.conv_in.bias'", "not finite"), VALUES)
        for value in (float("nan"), float("inf"), 1e300)
    ),
    ("a.pt", lambda w: {**w, CROSS: w[CROSS].to(torch.int8)}, (f"'{CROSS}' is torch.int8", NOT_DENSE), {}),
    ("a.pt", lambda w: {**w, CROSS: w[CROSS].to_sparse()}, ("torch.sparse_coo", NOT_DENSE), {}),
    ("a.pt", lambda w: {**w, CROSS: w[CROSS].to("meta")}, ("on meta", NOT_DENSE), {}),
    ("a.safetensors", lambda w: {**w, CROSS: w[CROSS].to(torch.int8)}, (f"'{CROSS}' is torch.int8",), VALUES),
    *(
        ("a.pt", ldm(prefix), (f"'{prefix}input_blocks.0.0.bias'", "resalign convert FILE"), SOME)
        for prefix in ("model.diffusion_model.", "diffusion_model.", "")
    ),
    ("a.pt", lambda _: [torch.ones(2)], ("expected named tensors, got list",), {}),
    ("a.pt", lambda _: {"epoch": 3, "weights": {}}, ("entry 'epoch' is a int, expected tensors",), {}),
    ("a.pt", lambda _: {"unet": {}, "epoch": 3}, ("entry 'unet' is a dict, expected tensors",), {}),
    ("a.pt", lambda _: {}, ("holds no tensors",), {}),
    ("a.pt", lambda _: {"state_dict": {}}, ("holds no tensors",), {}),
    ("a.pt", lambda w: w, ("holds no LoRA", "lora_scale 0.5"), {**VALUES, "lora_scale": 0.5}),
    (LORA_FILE, lambda _: GOOD, ("holds 1 of the ", "set covers: some"), {}),
    (LORA_FILE, lambda _: {n: 0 * t for n, t in GOOD.items()}, ("the base model's own weights",), {**VALUES, **SOME}),
]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(("file", "content", "expected", "settings"), REFUSED)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path,
    moved: Weights,
    refused: Callable[..., str],
    file: str,
    content: Callable[[Weights], Any],
    expected: tuple[str, ...],
    settings: dict[str, Any],
) -> None:
    refused(saved(tmp_path / file, content(moved)), *expected, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, None], ids=str)
def test_the_base_model_itself(
    loaded: LoadedPipeline,
    pipeline_folder: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    dtype: torch.dtype | None,
) -> None:
    if dtype:
        own = {n: t.to(dtype) for n, t in named_weights(loaded.denoiser).items()}
    path = saved(tmp_path / "a.pt", own) if dtype else pipeline_folder
    refused(path, "the base model's own weights", by_header=False)


def test_an_autoencoder_of_its_own(
    loaded: LoadedPipeline,
    pipeline_copy: Path,
    moved: Weights,
    read: Callable[..., Checkpoint],
    refused: Callable[..., str],
) -> None:
    saved(pipeline_copy / "unet" / "diffusion_pytorch_model.safetensors", moved)
    vae = {n: t + 0.5 for n, t in loaded.pipeline.vae.state_dict().items()}
    saved(pipeline_copy / "vae" / "diffusion_pytorch_model.safetensors", vae)
    refused(pipeline_copy, "its autoencoder is not the base model's", by_header=False)
    assert_same_bits(read(pipeline_copy / "unet").weights, full(moved))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_with_a_wrong_byte_is_read_or_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.pt", {"a.weight": torch.ones(3)}, _use_new_zipfile_serialization=False).read_bytes()
    refusals = 0
    for position in range(0, 600, 2):
        (tmp_path / "b.pt").write_bytes(whole[:position] + b"\xe2" + whole[position + 1 :])
        try:
            load_pickled(tmp_path / "b.pt")
        except WeightsError:
            refusals += 1
    assert refusals > 100


def test_a_path_that_does_not_tell_one_checkpoint(
    tmp_path: Path, pipeline_copy: Path, moved: Weights, refused: Callable[..., str]
) -> None:
    refused(tmp_path / "nothing", "no such checkpoint")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "expected one weight file", "found []")
    for name in ("higher_safety.pt", "higher_utility.pt"):
        saved(tmp_path / "two" / name, moved)
    refused(tmp_path / "two", "found ['higher_safety.pt', 'higher_utility.pt']", "asset/file")
    saved(tmp_path / "hub" / "nudity_unlearned" / "model.safetensors", moved)
    refused(tmp_path / "hub", "one of its folders: ['nudity_unlearned']")
    saved(tmp_path / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors", moved)
    refused(tmp_path / "unet", "has 1 of 2 shards")
    saved(pipeline_copy / LORA_FILE, GOOD)
    refused(pipeline_copy, "and a LoRA beside them")
    (tmp_path / "a.txt").write_text("weights")
    refused(tmp_path / "a.txt", "no weight file; expected one of .safetensors")


# --- every kind of pipeline -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipeline_kind", [*KINDS, WITH_T5], indirect=True, scope="session")
def test_a_whole_pipeline_of_every_kind(loaded: LoadedPipeline, pipeline_folder: Path, tmp_path: Path) -> None:
    """Files hold more than parameters: a transformer's table of positions, T5's tied embedding."""
    copy = shutil.copytree(pipeline_folder, tmp_path / "pipeline")
    changed = {}
    for name in loaded.architecture.trainable:
        part = getattr(loaded.pipeline, name)
        if part is None:
            continue
        stem = "diffusion_pytorch_model" if name == loaded.architecture.denoiser else "model"
        parameters = dict(part.named_parameters())
        tensors = {n: t + 0.01 if n in parameters else t for n, t in part.state_dict().items()}
        if "encoder.embed_tokens.weight" in tensors:  # as torch.save writes it
            tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
        safetensors.torch.save_file(
            {n: t.contiguous() for n, t in tensors.items()}, copy / name / f"{stem}.safetensors"
        )
        changed |= {f"{name}.{n}": tensors[n] for n in parameters}
    found = read_checkpoint(copy, loaded.pipeline)
    assert_same_bits(found.weights, changed)


@pytest.mark.parametrize("pipeline_kind", ["stable_diffusion_3"], indirect=True, scope="session")
def test_a_buffer_of_its_own(loaded: LoadedPipeline, pipeline_folder: Path, tmp_path: Path) -> None:
    tensors = {n: t + 0.01 for n, t in loaded.denoiser.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "transformer.safetensors")
    with pytest.raises(WeightsError, match=r"'transformer\.pos_embed\.pos_embed' is no parameter, and another"):
        read_checkpoint(tmp_path / "transformer.safetensors", loaded.pipeline)


@pytest.mark.parametrize("pipeline_kind", [WITH_T5], indirect=True, scope="session")
def test_two_values_of_one_tied_parameter(loaded: LoadedPipeline, tmp_path: Path) -> None:
    tensors = {n: t.clone() for n, t in loaded.pipeline.text_encoder_3.state_dict().items()}
    tensors["shared.weight"] += 0.01  # and its second name has the base model's value still
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"'text_encoder_3\.encoder\.embed_tokens\.weight' is no parameter"):
        read_checkpoint(tmp_path / "model.safetensors", loaded.pipeline)


def test_a_noise_schedule_of_its_own(pipeline_copy: Path, moved: Weights, refused: Callable[..., str]) -> None:
    safetensors.torch.save_file(moved, pipeline_copy / "unet" / "diffusion_pytorch_model.safetensors")
    file = pipeline_copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "v_prediction"}))
    refused(pipeline_copy, "its noise schedule is not the base model's", "epsilon", "v_prediction", by_header=False)
