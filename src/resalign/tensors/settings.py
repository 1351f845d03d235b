"""Settings that a folder brings along, checked against lists of allowed settings before a library obeys them.

What names code, another network or another file is refused: the folder may be anybody's. Numbers and switches name
nothing and are left to the class that is built of them; text must stand under a key that this class, or a list here,
knows.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from resalign.hashes import verified
from resalign.lazy import open_clip, transformers
from resalign.tensors.weights import WeightsError, component_files

REMEDY = "fetch or convert it again"
SHOWN = 80  # characters of a name in an error
# What transformers, diffusers and open_clip obey wherever it stands, and what they would do [transformers 5.23,
# diffusers 0.42, open_clip 3.3]. Nothing but null, false or an empty value is let through.
CODE, FETCHED, OTHER = "names Python code to run", "may name code to be fetched", "names another network to be fetched"
OBEYED = {
    **dict.fromkeys(("auto_map", "custom_pipelines", "custom_generate"), CODE),
    "trust_remote_code": "lets code run that the folder brings along",
    "init_inputs": "is handed to a class whatever it is",
    **dict.fromkeys(("use_kernels", "kernel_config", "fusion_config", "distributed_config"), FETCHED),
    **dict.fromkeys(("attn_implementation", "experts_implementation"), FETCHED),
    **dict.fromkeys(("_attn_implementation", "_experts_implementation"), FETCHED),
    **dict.fromkeys(("_attn_implementation_internal", "_experts_implementation_internal"), FETCHED),
    "quantization_config": "has another library rebuild the network",
    **dict.fromkeys(("hf_model_name", "backbone", "backbone_config", "backbone_kwargs"), OTHER),
    **dict.fromkeys(("use_timm_backbone", "use_pretrained_backbone"), OTHER),
}
OWN_ATTENTION = ("eager", "sdpa")  # torch's, which are no code of anybody else's
# Words about a folder that nothing is looked up by.
DESCRIPTIVE = {
    *("_class_name", "_commit_hash", "_diffusers_version", "_name_or_path", "_processor_class", "_use_default_values"),
    *("_valid_processor_keys", "architectures", "dtype", "finetuning_task", "model_type", "name_or_path"),
    *("processor_class", "special_tokens_map_file", "torch_dtype", "transformers_version"),
}
# What save_pretrained, or an older one, writes beside the fields of a network's configuration.
BESIDE = {
    *("dense_act_fn", "down_ops", "out_features", "padding", "position_embedding_type", "prefix", "stage_names"),
    "task_specific_params",
}
LABELS = ("id2label", "label2id")  # whose keys are names of classes, or what people call them
TOKENIZER = {
    *("added_tokens_decoder", "additional_special_tokens", "backend", "chat_template", "errors", "model_input_names"),
    *("extra_special_tokens", "padding_side", "src_lang", "tgt_lang", "tokenizer_class", "truncation_side"),
    "truncation_strategy",
}
TOKENIZER_CLASSES = {
    *("BertTokenizer", "CLIPTokenizer", "GemmaTokenizer", "NllbTokenizer", "RobertaTokenizer", "SiglipTokenizer"),
    *("T5Tokenizer", "XLMRobertaTokenizer", "PreTrainedTokenizer", "TokenizersBackend"),
}
# The parameters that are text, of the schedulers that a pipeline may name.
SCHEDULER = {
    *("algorithm_type", "beta_schedule", "final_sigmas_type", "interpolation_type", "prediction_type", "solver_type"),
    *("sigma_schedule", "time_shift_type", "timestep_spacing", "timestep_type", "variance_type"),
}
# timm's networks come with settings of their own form, which name others to fetch.
NO_MODEL_TYPES = ("timm_backbone", "timm_wrapper")


def first_sentence(error: BaseException) -> str:
    """First sentence of a library's error, in one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__


def read_json(file: Path) -> dict[str, Any]:
    """A settings file of a folder.

    Raises:
        WeightsError: If it is missing, or no JSON object.
    """
    try:
        found = json.loads(verified(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: cannot be read ({first_sentence(error)}); {REMEDY}") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: holds no settings by name; {REMEDY}")
    return found


def check_settings(file: Path, settings: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuses settings that a library might obey as no number would be.

    Args:
        file: What they stand in.
        settings: They themselves.
        known: Keys whose values may be text.

    Raises:
        WeightsError: Naming file, key and remedy.
    """
    for key, value in _entries(settings):
        own = OWN_ATTENTION if "attn" in key else ()
        if key in OBEYED and value not in (None, False, "", [], {}, *own):
            raise _refused(file, key, OBEYED[key])
    for key, value in settings.items():
        if key not in known and key not in DESCRIPTIVE and key not in OBEYED and _has_text(value):
            file_named = " and may name a file" if key.endswith(("_file", "_files")) else ""
            raise _refused(file, key, f"is no setting that is known{file_named}")


def check_network(file: Path, network_class: Any) -> None:
    """Holds a network's ``config.json`` against the parameters of its class, and those of its parts.

    Args:
        file: The file.
        network_class: A class of diffusers or transformers, or one of transformers' Auto classes.

    Raises:
        WeightsError: If it names no class that may be built, or has a setting that no such class takes.
    """
    settings = read_json(file)
    if hasattr(network_class, "load_config"):
        return check_settings(file, settings, inspect.signature(network_class.__init__).parameters)
    model_type, config_class = settings.get("model_type"), getattr(network_class, "config_class", None)
    if config_class is None:
        config_class = _config_class(file, model_type, network_class._model_mapping._model_mapping)
        _check_class(file, settings, "image_processor_type", _image_processors())
    elif model_type != config_class.model_type and isinstance(model_type, str):  # a whole CLIP's, for its text encoder
        config_class = _config_class(file, model_type, transformers.CONFIG_MAPPING)
    _check_class(file, settings, "tokenizer_class", TOKENIZER_CLASSES)
    return _check_config(file, settings, config_class)


def check_shards(folder: Path, stem: str) -> None:
    """Raises WeightsError if the list of a network's shards names a file that is none of this folder's shards."""
    for suffix in (".safetensors", ".bin"):
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            weights, own = read_json(index).get("weight_map"), {f.name for f in component_files(folder, stem, suffix)}
            named = set(map(str, weights.values())) if isinstance(weights, dict) else {str(weights)}
            if not named <= own:
                raise WeightsError(
                    f"{index}: names {sorted(named - own)[0][:SHOWN]!r}, expected {sorted(own)}; {REMEDY}"
                )


def check_tokenizer(folder: Path) -> None:
    """Raises WeightsError if a tokenizer's settings name code, a class that is not listed, or other files."""
    file = folder / "config.json"
    if file.is_file():  # from which transformers infers a tokenizer's missing class
        settings = read_json(file)
        _check_class(file, settings, "tokenizer_class", TOKENIZER_CLASSES)
        _check_config(file, settings, _config_class(file, settings.get("model_type"), transformers.CONFIG_MAPPING))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            settings = read_json(folder / name)
            _check_class(folder / name, settings, "tokenizer_class", TOKENIZER_CLASSES)
            check_settings(folder / name, settings, TOKENIZER | {key for key in settings if key.endswith("_token")})


def check_processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The settings of image preprocessing, and their file; transformers prefers those of a processor.

    Raises:
        WeightsError: If there are none; if they name code, or a class that is not transformers'.
    """
    from transformers.processing_utils import ImagesKwargs

    file, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    nested = read_json(whole).get("image_processor") if whole.is_file() else None
    if nested is None and not file.is_file():
        raise WeightsError(f"{folder}: no {file.name}, which describes the preprocessing of images; fetch it too")
    file, settings = (file, read_json(file)) if nested is None else (whole, nested)
    if not isinstance(settings, dict):
        raise WeightsError(f"{file}: its image_processor holds no settings by name; {REMEDY}")
    names = _image_processors()
    extractors = {name.replace("ImageProcessor", "FeatureExtractor") for name in names}  # as older versions have it
    _check_class(file, settings, "image_processor_type", names | extractors)
    _check_class(file, settings, "feature_extractor_type", extractors)
    built = getattr(transformers, settings.get("image_processor_type") or "", None)
    known = getattr(built, "valid_kwargs", ImagesKwargs).__annotations__.keys()
    check_settings(file, settings, {*known, "image_processor_type", "feature_extractor_type"})
    return file, settings


def check_open_clip(file: Path) -> dict[str, Any]:
    """The settings of an open_clip folder.

    Raises:
        WeightsError: If a text tower or a tokenizer would be another library's, as the folder asks for it, or an image
            tower one of timm that timm does not have.
    """
    settings = read_json(file)
    model, preparation = (_part(file, settings, key) for key in ("model_cfg", "preprocess_cfg"))
    image, text, captions = (_part(file, model, key) for key in ("vision_cfg", "text_cfg", "multimodal_cfg"))
    tokenizer = _part(file, text, "tokenizer_kwargs")
    check_settings(file, settings, ("model_cfg", "preprocess_cfg"))
    check_settings(file, model, ("vision_cfg", "text_cfg", "multimodal_cfg"))
    check_settings(file, preparation, ("mode", "interpolation", "resize_mode"))
    for part, fields in ((image, "CLIPVisionCfg"), (text, "CLIPTextCfg"), (captions, "CLIPTextCfg")):
        check_settings(file, part, {field.name for field in dataclasses.fields(getattr(open_clip, fields))})
    for key in tokenizer.keys() - {"clean", "language", "strip_sep_token", "context_length"}:
        raise _refused(file, key, "is no setting of a tokenizer that is known")
    name = image.get("timm_model_name")
    if name is not None:
        import timm

        if not timm.is_model(str(name)):
            raise _refused(file, "timm_model_name", f"is {str(name)[:SHOWN]!r}, which is no network of timm's own")
    return settings


# --- allowed settings -------------------------------------------------------------------------------------------------


def _check_config(file: Path, settings: Mapping[str, Any], config_class: Any) -> None:
    """Holds settings against the fields of a configuration class of transformers, and those of its parts."""
    parts = {**config_class.sub_configs, **{f"{key}_dict": part for key, part in config_class.sub_configs.items()}}
    # save_pretrained writes _out_features without its underscore.
    fields = {field.name.lstrip("_") for field in dataclasses.fields(config_class)}
    generation = transformers.GenerationConfig._get_default_generation_params()
    classes = ("tokenizer_class", "image_processor_type")
    known = {*fields, *config_class.attribute_map, *generation, *parts, *BESIDE, *classes}
    check_settings(file, settings, known)
    for key in parts.keys() & settings.keys():
        found, part = settings[key], parts[key]
        if isinstance(found, dict):
            if not hasattr(part, "sub_configs"):  # AutoConfig: the class is the one that the settings name
                part = _config_class(file, found.get("model_type"), transformers.CONFIG_MAPPING)
            _check_config(file, found, part)


def _config_class(file: Path, model_type: Any, allowed: Collection[str]) -> Any:
    """The configuration class of a model type, of transformers' own."""
    if not isinstance(model_type, str) or model_type not in allowed or model_type in NO_MODEL_TYPES:
        said = f"its model_type is {str(model_type)[:SHOWN]!r}, which names no network that is loaded here"
        raise WeightsError(f"{file}: {said}; {REMEDY}, or give the network as an ONNX file")
    return transformers.CONFIG_MAPPING[model_type]


def _image_processors() -> set[str]:
    """Names of transformers' image processors; what it would find else under a name is any class of it."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    names = {name for classes in IMAGE_PROCESSOR_MAPPING_NAMES.values() for name in classes.values() if name}
    return names | {f"{name}Fast" for name in names}


def _check_class(file: Path, settings: Mapping[str, Any], key: str, allowed: Collection[str]) -> None:
    """Raises WeightsError if a key names a class that is not in a list; some have an older one with Fast at its end."""
    name = settings.get(key)
    if name is not None and (not isinstance(name, str) or not {name, name.removesuffix("Fast")} & set(allowed)):
        raise _refused(file, key, f"names {str(name)[:SHOWN]!r}, no class that is built here")


def _part(file: Path, settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The settings under a key, none if it is not there."""
    found = settings.get(key) or {}
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: '{key}' holds no settings by name; {REMEDY}")
    return found


def _entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Every value at any depth by its key, '' in a list, but for what classes are called."""
    waiting = [settings]
    while waiting:
        found = waiting.pop()
        entries = found.items() if isinstance(found, dict) else (("", value) for value in found)
        for key, value in entries:
            yield key, value
            if isinstance(value, dict | list) and key not in LABELS:
                waiting.append(value)


def _has_text(value: Any) -> bool:
    """Whether there is text in a value, at any depth; keys are none."""
    return any(isinstance(found, str) and found for _, found in _entries([value]))


def _refused(file: Path, key: str, reason: str) -> WeightsError:
    return WeightsError(
        f"{file}: {key[:SHOWN]!r} {reason}; take it out, or, where you trust the folder, load it with its own library "
        "and save it with save_pretrained"
    )
