"""What a folder says of itself: released folders' own settings are taken, what names code or another file is not."""

import ast
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resalign.diffusion.architectures import architecture_in
from resalign.diffusion.forward_process import forward_process_in
from resalign.lazy import diffusers, transformers
from resalign.tensors.settings import (
    OBEYED,
    SCHEDULER,
    check_network,
    check_open_clip,
    check_processor,
    check_settings,
    check_shards,
    check_tokenizer,
    read_json,
)
from resalign.tensors.weights import WeightsError
from tests.refusals import told

ROOT = Path(__file__).resolve().parents[2]


def write(file: Path, settings: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings))
    return file


# --- released folders -------------------------------------------------------------------------------------------------

# As released files have them, without the numbers that say nothing here. Of transformers before 5 they hold every
# setting of generation, of which none is a network's.
GENERATION = {
    **{"bad_words_ids": None, "decoder_start_token_id": None, "exponential_decay_length_penalty": None, "prefix": None},
    **{"diversity_penalty": 0.0, "do_sample": False, "finetuning_task": None, "max_length": 20, "pruned_heads": {}},
    **{"task_specific_params": None, "tf_legacy_loss": False, "tie_encoder_decoder": False, "tokenizer_class": None},
    **{"add_cross_attention": False, "cross_attention_hidden_size": None, "torchscript": False, "typical_p": 1.0},
    **{"use_bfloat16": False, "transformers_version": "4.21.0.dev0", "id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
}
TEXT = {"_name_or_path": "", "architectures": None, "hidden_act": "quick_gelu", "hidden_size": 768, **GENERATION}
NETWORKS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "Stable Diffusion 1.4's text encoder": (
        lambda: transformers.CLIPTextModel,
        {
            **{"_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "dropout": 0.0},
            **{"hidden_act": "quick_gelu", "model_type": "clip_text_model", "torch_dtype": "float32"},
        },
    ),
    "CLIP ViT-L/14": (
        lambda: transformers.CLIPTextModel,
        {
            **{"_name_or_path": "clip-vit-large-patch14/", "architectures": ["CLIPModel"], "dtype": "float32"},
            **{
                "model_type": "clip",
                "text_config": {**TEXT, "model_type": "clip_text_model"},
                "torch_dtype": "float32",
            },
            **{"text_config_dict": {"hidden_size": 768}, "vision_config_dict": {"hidden_size": 1024, "patch_size": 14}},
            "vision_config": {**TEXT, "model_type": "clip_vision_model"},
        },
    ),
    "Stable Diffusion 3's T5": (
        lambda: transformers.T5EncoderModel,
        {
            **{"_name_or_path": "google/t5-v1_1-xxl", "architectures": ["T5EncoderModel"], "dense_act_fn": "gelu_new"},
            **{"feed_forward_proj": "gated-gelu", "is_gated_act": True, "model_type": "t5", "output_past": True},
        },
    ),
    "a vision transformer of AutoTrain": (
        lambda: transformers.AutoModelForImageClassification,
        {
            **{"_name_or_path": "google/vit-base", "_num_labels": 2, "model_type": "vit", "padding": "max_length"},
            **{"id2label": {"0": "normal", "1": "nsfw"}, "label2id": {"normal": "0", "auto_map": "1"}},
            **{"problem_type": "single_label_classification", "hidden_act": "gelu", "torch_dtype": "float32"},
            "_attn_implementation_autoset": True,
        },
    ),
    "DINO": (
        lambda: transformers.AutoModel,
        {"architectures": ["ViTModel"], "model_type": "vit", "hidden_act": "gelu", "transformers_version": "4.11.0"},
    ),
    "Stable Diffusion 1.4's UNet": (
        lambda: diffusers.UNet2DConditionModel,
        {
            **{"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.2.2", "act_fn": "silu"},
            **{"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "sample_size": 64},
        },
    ),
    "Stable Diffusion XL's UNet": (
        lambda: diffusers.UNet2DConditionModel,
        {
            **{"_name_or_path": "unet", "addition_embed_type": "text_time", "attention_type": "default"},
            **{"class_embed_type": None, "mid_block_type": "UNetMidBlock2DCrossAttn", "num_class_embeds": None},
            **{"resnet_time_scale_shift": "default", "time_embedding_type": "positional", "upcast_attention": None},
        },
    ),
    "an autoencoder": (
        lambda: diffusers.AutoencoderKL,
        {"_class_name": "AutoencoderKL", "_name_or_path": "vae", "force_upcast": True, "latents_mean": None},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_released_networks(tmp_path: Path, name: str) -> None:
    network_class, settings = NETWORKS[name]
    check_network(write(tmp_path / "config.json", settings), network_class())


def test_the_released_safety_checker_and_schedule(tmp_path: Path) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    settings = {**NETWORKS["CLIP ViT-L/14"][1], "_commit_hash": "4bb648a", "architectures": ["SafetyChecker"]}
    check_network(write(tmp_path / "config.json", settings), StableDiffusionSafetyChecker)
    settings = {
        **{"_class_name": "PNDMScheduler", "_use_default_values": ["timestep_spacing"], "trained_betas": None},
        **{"beta_schedule": "scaled_linear", "final_sigmas_type": "zero", "interpolation_type": "linear"},
    }
    check_settings(Path("scheduler_config.json"), settings, SCHEDULER)
    file = write(tmp_path / "scheduler" / "scheduler_config.json", {"beta_schedule": "linear", "module": "code"})
    told(lambda: forward_process_in(tmp_path), str(file), "'module' is no setting that is known")


@pytest.mark.parametrize("model_type", ["convnext", "dinov2", "levit", "resnet", "siglip", "swin", "vit"])
def test_what_save_pretrained_writes(tmp_path: Path, model_type: str) -> None:
    transformers.CONFIG_MAPPING[model_type]().save_pretrained(tmp_path)
    check_network(tmp_path / "config.json", transformers.AutoModelForImageClassification)


TOKEN = {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False, "normalized": True}


def test_released_tokenizers(tmp_path: Path) -> None:
    clip = {
        **{
            "add_prefix_space": False,
            "bos_token": TOKEN,
            "do_lower_case": True,
            "errors": "replace",
            "unk_token": TOKEN,
        },
        **{"model_max_length": 77, "name_or_path": "./tokenizer/", "pad_token": "<|endoftext|>"},
        **{"special_tokens_map_file": "./special_tokens_map.json", "tokenizer_class": "CLIPTokenizer"},
        "added_tokens_decoder": {"49406": {"content": "<|startoftext|>", "special": True}},
    }
    t5 = {
        **{"additional_special_tokens": ["<extra_id_0>"], "eos_token": "</s>", "extra_ids": 100, "legacy": True},
        **{"sp_model_kwargs": {}, "tokenizer_class": "T5TokenizerFast", "clean_up_tokenization_spaces": True},
    }
    for name, settings in {"clip": clip, "t5": t5}.items():
        write(tmp_path / name / "tokenizer_config.json", settings)
        write(tmp_path / name / "special_tokens_map.json", {"bos_token": TOKEN, "pad_token": "<|endoftext|>"})
        check_tokenizer(tmp_path / name)


def test_released_preparations_of_images(tmp_path: Path) -> None:
    older = {"feature_extractor_type": "ViTFeatureExtractor", "image_mean": [0.5] * 3, "resample": 2, "size": 224}
    newer = {
        **{"_valid_processor_keys": ["images"], "image_processor_type": "CLIPImageProcessor", "size": {"height": 224}},
        **{"data_format": "channels_first", "processor_class": "CLIPProcessor"},
    }
    oldest = {**older, "image_processor_type": "CLIPFeatureExtractor"}
    for settings in (oldest, older, newer, {**newer, "image_processor_type": "ViTImageProcessorFast"}):
        file = write(tmp_path / "preprocessor_config.json", settings)
        assert check_processor(tmp_path) == (file, settings)


INDEXES: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {
        **{"feature_extractor": ["transformers", "CLIPFeatureExtractor"], "scheduler": ["diffusers", "PNDMScheduler"]},
        **{
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        **{"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]},
        **{"unet": ["diffusers", "UNet2DConditionModel"], "_diffusers_version": "0.2.2"},
    },
    "StableDiffusionXLPipeline": {
        **{"force_zeros_for_empty_prompt": True, "scheduler": ["diffusers", "EulerDiscreteScheduler"]},
        **{"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "_name_or_path": "sdxl"},
        **{"tokenizer_2": ["transformers", "CLIPTokenizer"], "feature_extractor": [None, None]},
    },
    "StableDiffusion3Pipeline": {
        **{"text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer_3": ["transformers", "T5TokenizerFast"]},
        **{"transformer": ["diffusers", "SD3Transformer2DModel"], "image_encoder": [None, None]},
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    },
}


@pytest.mark.parametrize("name", INDEXES)
def test_released_pipelines(tmp_path: Path, name: str) -> None:
    write(tmp_path / "model_index.json", {"_class_name": name, **INDEXES[name]})
    architecture, components = architecture_in(tmp_path)
    assert architecture.pipeline == name
    assert components == {key: value for key, value in INDEXES[name].items() if isinstance(value, list)}


def test_released_open_clips(tmp_path: Path) -> None:
    preparation = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    image = {
        "image_size": 224,
        "timm_model_name": "vit_base_patch16_siglip_224",
        "timm_pool": "map",
        "timm_proj": "none",
    }
    text = {
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "pool_type": "last",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }
    model = {"embed_dim": 768, "init_logit_bias": -10, "custom_text": True, "vision_cfg": image, "text_cfg": text}
    settings = {"model_cfg": model, "preprocess_cfg": preparation}
    assert check_open_clip(write(tmp_path / "open_clip_config.json", settings)) == settings


# --- what is refused --------------------------------------------------------------------------------------------------

CODE = {"AutoModel": "code.Model", "AutoConfig": "code.Config"}
VIT = {"model_type": "vit"}


@pytest.mark.parametrize("key", OBEYED)
def test_what_a_library_would_obey(tmp_path: Path, key: str) -> None:
    """However deep it stands, and whatever network it is."""
    for settings in ({**VIT, key: CODE}, {**VIT, "rope_parameters": {"x": [{key: True}]}}):
        file = write(tmp_path / "config.json", settings)
        for network_class in (transformers.AutoModel, diffusers.AutoencoderKL):
            call = functools.partial(check_network, file, network_class)
            told(call, str(file), f"'{key}'", OBEYED[key], "take it out")


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "my_own"},
        {"model_type": ["vit"]},
        {},
        {"architecture": "hf-hub:a/b", "pretrained_cfg": {"url": "x"}},  # timm's, which has no model_type
        {"model_type": "timm_wrapper", "architecture": "resnet18"},
        {**VIT, "hidden_size": 8, "weights_at": "../elsewhere"},
        {**VIT, "image_processor_type": "AutoModel"},
        {**VIT, "tokenizer_class": "AutoModel"},
        {"model_type": "clip", "vision_config": {"my_key": "text"}},
        {"model_type": "clip", "text_config_dict": {"my_key": "text"}},
    ],
    ids=str,
)
def test_networks_that_nobody_knows(tmp_path: Path, settings: dict[str, Any]) -> None:
    file = write(tmp_path / "config.json", settings)
    told(lambda: check_network(file, transformers.AutoModelForImageClassification), str(file))


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": ["code.Tokenizer", None]},
        {"init_inputs": ["/etc/passwd"]},
        {"vocab_file": "../vocab.json"},
        {"tokenizer_file": "/elsewhere/tokenizer.json"},
        {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]},
        {"gguf_file": "model.gguf"},
        {"sp_model_kwargs": {"model_file": "/elsewhere"}},
        {"tokenizer_class": "AutoModel"},
        {"tokenizer_class": "pipeline"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_tokenizers_that_ask_for_more(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    file = write(tmp_path / name, settings)
    told(lambda: check_tokenizer(tmp_path), str(file), f"'{next(iter(settings))}'", "take it out")
    file.unlink()
    file = write(tmp_path / "config.json", {**VIT, "auto_map": {"AutoTokenizer": ["code.T", None]}})
    told(lambda: check_tokenizer(tmp_path), str(file), "names Python code to run")


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": {"AutoImageProcessor": "code.P"}},
        {"image_processor_type": "AutoModel"},
        {"image_processor_type": "Pipeline"},
        {"feature_extractor_type": "AutoFeatureExtractor"},
        {"image_processor_type": "CLIPImageProcessor", "my_file": "x"},
    ],
    ids=str,
)
def test_preparations_that_ask_for_more(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Also where transformers takes them from a processor's file instead."""
    file = write(tmp_path / "preprocessor_config.json", settings)
    told(lambda: check_processor(tmp_path), str(file), "take it out")
    write(file, {"image_processor_type": "CLIPImageProcessor"})
    nested = write(tmp_path / "processor_config.json", {"image_processor": settings})
    told(lambda: check_processor(tmp_path), str(nested), "take it out")


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("text_cfg", {"hf_model_name": "a/b"}),
        ("text_cfg", {"hf_tokenizer_name": "a/b", "tokenizer_kwargs": {"trust_remote_code": True}}),
        ("text_cfg", {"tokenizer_kwargs": {"code_revision": "main"}}),
        ("text_cfg", {"tokenizer_kwargs": {"use_fast": False}}),
        ("vision_cfg", {"timm_model_name": "hf-hub:a/b"}),
        ("vision_cfg", {"timm_model_name": "local-dir:/elsewhere"}),
        ("vision_cfg", {"weights": "elsewhere.pt"}),
        ("multimodal_cfg", {"hf_model_name": "a/b"}),
    ],
    ids=str,
)
def test_open_clips_that_ask_for_more(tmp_path: Path, part: str, settings: dict[str, Any]) -> None:
    file = write(tmp_path / "open_clip_config.json", {"model_cfg": {part: settings}})
    told(lambda: check_open_clip(file), str(file), "take it out")


@pytest.mark.parametrize(
    "part",
    [
        {"unet": ["code", "UNet2DConditionModel"]},
        {"unet": ["diffusers", "AutoModel"]},
        {"vae": ["diffusers.utils", "AutoencoderKL"]},
        {"tokenizer": ["transformers", "AutoTokenizer"]},
        {"text_encoder": ["transformers", "pipeline"]},
        {"scheduler": ["code", "DDIMScheduler"]},
        {"scheduler": ["diffusers", "utils.code"]},
        {"my_part": ["diffusers", "AutoencoderKL"]},
        {"custom_pipeline": "elsewhere"},
        {"auto_map": {"DiffusionPipeline": "code.P"}},
    ],
    ids=str,
)
def test_pipelines_of_others_classes(tmp_path: Path, part: dict[str, Any]) -> None:
    file = write(tmp_path / "model_index.json", {"_class_name": "StableDiffusionPipeline", **part})
    told(lambda: architecture_in(tmp_path), str(file), next(iter(part)))


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/elsewhere.safetensors", "model.safetensors/../x", 7])
def test_shards_elsewhere(tmp_path: Path, name: Any) -> None:
    file = write(tmp_path / "model.safetensors.index.json", {"weight_map": {"weight": name}})
    told(lambda: check_shards(tmp_path, "model"), str(file), repr(str(name)))
    write(file, {"weight_map": [name]})
    told(lambda: check_shards(tmp_path, "model"), str(file))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "{", "\xff"])
def test_no_settings_at_all(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text, encoding="latin-1")
    told(lambda: read_json(file), str(file), "fetch or convert it again")


# --- every call -------------------------------------------------------------------------------------------------------

LOCAL = {"local_files_only": True, "trust_remote_code": False}
CALLS = ("from_pretrained", "get_tokenizer", "create_model_and_transforms")
# It takes neither, and open_clip asks no other library where neither a text tower nor weights are asked for.
WITHOUT = {"open_clip.create_model_and_transforms"}


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls that load, each with what it passes by name, or as ``**name`` in the same function."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        dicts = [node for node in ast.walk(function) if isinstance(node, ast.Dict) and None not in node.keys]
        named = {ast.unparse(key): value for node in dicts for key, value in zip(node.keys, node.values, strict=True)}
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in CALLS:
                passed = {f"'{keyword.arg}'": keyword.value for keyword in node.keywords if keyword.arg}
                both = {**(named if any(k.arg is None for k in node.keywords) else {}), **passed}
                found = {k.strip("'"): v.value for k, v in both.items() if isinstance(v, ast.Constant)}
                yield ast.unparse(node.func), found


def test_every_load_is_local_and_runs_no_code_of_a_folder() -> None:
    found = [
        (path.name, called, {key: passed.get(key) for key in LOCAL})
        for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py"))
        for called, passed in calls(ast.parse(path.read_text(encoding="utf-8")))
        if called not in WITHOUT
    ]
    assert len(found) >= 5
    assert [entry for entry in found if entry[2] != LOCAL] == []


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_attention_of_torchs_own_is_no_code_of_anybody_elses(key: str) -> None:
    for value in ("sdpa", "eager", None):
        check_settings(Path("config.json"), {key: value}, ())
    with pytest.raises(WeightsError, match="may name code to be fetched"):
        check_settings(Path("config.json"), {key: "somebody/kernel"}, ())
