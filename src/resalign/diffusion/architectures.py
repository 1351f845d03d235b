"""The supported families of diffusers pipelines, with their components and prompt embeddings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resalign.config.strict import nearest
from resalign.diffusion.conditioning import Conditioning
from resalign.lazy import diffusers, torch
from resalign.tensors.params import Params
from resalign.tensors.settings import SHOWN, check_settings, read_json
from resalign.tensors.weights import WeightsError


@dataclass(frozen=True)
class Architecture:
    """A family of pipelines.

    Attributes:
        name: The name by which methods declare support.
        pipeline: Its class in diffusers.
        denoiser: The component that predicts noise, velocity or flow.
        text_encoders: Class in transformers of each component that embeds text.
        without: Components that a pipeline of the family may lack; their embeddings are zeros then.
        settings: Arguments of ``from_pretrained``.
        vae_settings: Keys that the autoencoder's settings must have: for missing ones diffusers would take those of
            Stable Diffusion 1, whose own file lacks them.
        prompts: Number of prompts that ``encode_prompt`` takes: one for each of its tokenizers.
        pooled: The denoiser's name for pooled embeddings; None if it takes none.
        has_time_ids: Whether the denoiser takes the image's size and crop.
    """

    name: str
    pipeline: str
    denoiser: str
    text_encoders: Mapping[str, str]
    without: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    vae_settings: tuple[str, ...] = ()
    prompts: int = 1
    pooled: str | None = None
    has_time_ids: bool = False

    @property
    def trainable(self) -> tuple[str, ...]:
        """Components whose weights a method may change; the prefix of a tensor's name in a weight file."""
        return (self.denoiser, *self.text_encoders)

    def encode_prompts(
        self, pipeline: diffusers.DiffusionPipeline, prompts: Sequence[str], weights: Params | None = None
    ) -> Conditioning:
        """Embeds prompts as the pipeline itself does.

        Args:
            pipeline: The pipeline.
            prompts: B of them.
            weights: Weights that replace the text encoders' own, named ``component.parameter``; embeddings are
                differentiable only in them.
        """
        arguments = {
            "prompt": list(prompts),
            **{f"prompt_{number}": None for number in range(2, self.prompts + 1)},
            "device": pipeline.device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": False,
        }
        encoders = _text_encoders()({name: getattr(pipeline, name) for name in self.text_encoders})
        with torch.set_grad_enabled(weights is not None and torch.is_grad_enabled()):
            embeds, _, *pooled = torch.func.functional_call(
                encoders, dict(weights or {}), (pipeline.encode_prompt,), arguments
            )
        added = {self.pooled: pooled[0]} if self.pooled else {}
        if self.has_time_ids:
            edge = pipeline.default_sample_size * pipeline.vae_scale_factor  # training images are held to it, too
            # Original size, corner of the crop, size: of a whole square image [Podell 2023, arXiv 2307.01952, 2.2].
            time_ids = torch.tensor([edge, edge, 0, 0, edge, edge]).to(embeds)
            added["time_ids"] = time_ids.expand(len(prompts), -1)
        return Conditioning(embeds, added)

    def unconditional(self, pipeline: diffusers.DiffusionPipeline) -> Conditioning:
        """The pipeline's embedding of no prompt, in a batch of one."""
        empty = self.encode_prompts(pipeline, [""])
        if not pipeline.config.get("force_zeros_for_empty_prompt", False):
            return empty
        zeros = {n: t if n == "time_ids" else torch.zeros_like(t) for n, t in empty.added.items()}
        return Conditioning(torch.zeros_like(empty.encoder_hidden_states), zeros)

    def sampling_arguments(self, conditional: Conditioning, unconditional: Conditioning) -> dict[str, torch.Tensor]:
        """Embedded prompts as arguments of the pipeline's call, which adds the time ids itself."""
        arguments = {
            "prompt_embeds": conditional.encoder_hidden_states,
            "negative_prompt_embeds": unconditional.encoder_hidden_states,
        }
        if self.pooled:
            arguments["pooled_prompt_embeds"] = conditional.added[self.pooled]
            arguments["negative_pooled_prompt_embeds"] = unconditional.added[self.pooled]
        return arguments


@functools.cache  # and not at the module's top, which must not import torch
def _text_encoders() -> Callable[[Mapping[str, torch.nn.Module | None]], torch.nn.Module]:
    """A module of a pipeline's text encoders by name, through which a function can run with replaced weights."""

    class TextEncoders(torch.nn.Module):
        def __init__(self, encoders: Mapping[str, torch.nn.Module | None]) -> None:
            super().__init__()
            for name, encoder in encoders.items():
                self.add_module(name, encoder)

        def forward(self, call: Callable[..., Any], **arguments: Any) -> Any:
            return call(**arguments)

    return TextEncoders


# Image prompts are not supported.
NO_PART: dict[str, Any] = {"image_encoder": None, "feature_extractor": None}
ARCHITECTURES = (
    Architecture(
        name="stable_diffusion",  # 1.x and 2.x
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        text_encoders={"text_encoder": "CLIPTextModel"},
        settings={**NO_PART, "safety_checker": None, "requires_safety_checker": False},
    ),
    Architecture(
        name="stable_diffusion_xl",
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        text_encoders={"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"},
        settings={**NO_PART, "add_watermarker": False},
        vae_settings=("scaling_factor",),
        prompts=2,
        pooled="text_embeds",
        has_time_ids=True,
    ),
    Architecture(
        name="stable_diffusion_3",
        pipeline="StableDiffusion3Pipeline",
        denoiser="transformer",
        text_encoders={
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "text_encoder_3": "T5EncoderModel",
        },
        without=("text_encoder_3", "tokenizer_3"),
        settings=NO_PART,
        vae_settings=("scaling_factor", "shift_factor"),
        prompts=3,
        pooled="pooled_projections",
    ),
)
NAMES = tuple(architecture.name for architecture in ARCHITECTURES)
# The library and the classes of a pipeline's parts, by their names without a number; a scheduler is any of diffusers'.
CLASSES: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "transformer": ("diffusers", ("SD3Transformer2DModel",)),
    "vae": ("diffusers", ("AutoencoderKL",)),
    "text_encoder": ("transformers", ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")),
    "scheduler": ("diffusers", None),
}


def architecture_in(folder: Path) -> tuple[Architecture, dict[str, list[str | None]]]:
    """A pipeline folder's architecture, and its components as listed in ``model_index.json``.

    Raises:
        WeightsError: If the folder is not a supported pipeline, or a component's class is not in :data:`CLASSES`.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise WeightsError(
            f"{folder}: no diffusers pipeline here (model_index.json is missing); give a save_pretrained folder"
        )
    content = read_json(index)
    found, known = str(content.get("_class_name")), {a.pipeline: a for a in ARCHITECTURES}
    if found not in known:
        raise WeightsError(f"{index}: no support for pipeline {found[:SHOWN]!r}{nearest(found[:SHOWN], known)}")
    components = {name: value for name, value in content.items() if isinstance(value, list)}
    check_settings(index, {name: value for name, value in content.items() if name not in components}, ())
    for name, value in components.items():
        _check_class(index, name, value)
    return known[found], components


def _check_class(index: Path, name: str, value: list[Any]) -> None:
    """Refuses components of unknown classes: diffusers would import a module of any name from the folder."""
    role = name.rstrip("_0123456789")
    if value == [None, None] or role in ("safety_checker", "feature_extractor", "image_encoder"):
        return  # none of them is loaded
    library, classes = CLASSES.get(role, (None, ()))
    may_be = [[library, class_name] for class_name in classes or ()]
    is_scheduler = classes is None and value[:1] == [library] and str(value[-1]).isidentifier()
    if value not in may_be and not is_scheduler:
        expected = f"a class of {library}{f', one of {classes}' if classes else ''}" if library else "no such part"
        found = str(value[-1] if value else value)[:SHOWN]
        raise WeightsError(
            f"{index}: names {found!r} as {name[:SHOWN]!r}, expected {expected}; save the pipeline with its library's "
            "own classes"
        )


def architecture_of(pipeline: diffusers.DiffusionPipeline) -> Architecture:
    """A loaded pipeline's architecture."""
    return next(a for a in ARCHITECTURES if a.pipeline == type(pipeline).__name__)
