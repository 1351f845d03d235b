"""Tiny pipelines of every known kind: real classes, random weights; 16 x 16 pixels, latents (4, 8, 8)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resalign.config import registry
from resalign.diffusion import architectures
from resalign.digits.tokenizer import VOCABULARY_SIZE, clip_tokenizer
from resalign.lazy import diffusers, torch, transformers

PIXELS = 16
TEXT_WIDTH = 16
MAX_TOKENS = 12
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def write_pipeline(kind: str, folder: Path) -> Path:
    """Writes the pipeline of a kind; see :data:`KINDS`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = _stable_diffusion_3(folder, with_t5=True) if kind == WITH_T5 else KINDS[kind](folder)
        pipeline.save_pretrained(folder)
    return folder


def _stable_diffusion(folder: Path, prediction_type: str = "epsilon") -> Any:
    return diffusers.StableDiffusionPipeline(
        unet=_unet(),
        vae=_vae(),
        text_encoder=transformers.CLIPTextModel(_text_config(layers=1)),
        tokenizer=clip_tokenizer(folder / "tokenizer", max_tokens=MAX_TOKENS),
        scheduler=diffusers.DPMSolverMultistepScheduler(**SCHEDULE, steps_offset=1, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_diffusion_xl(folder: Path) -> Any:
    time_ids = 6
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    size = {"projection_class_embeddings_input_dim": TEXT_WIDTH + time_ids * 8, "cross_attention_dim": 2 * TEXT_WIDTH}
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=transformers.CLIPTextModel(_text_config()),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_text_config()),
        tokenizer=clip_tokenizer(folder / "tokenizer", max_tokens=MAX_TOKENS),
        tokenizer_2=clip_tokenizer(folder / "tokenizer_2", max_tokens=MAX_TOKENS),
        unet=_unet(**added, **size),
        scheduler=diffusers.EulerDiscreteScheduler(**SCHEDULE, steps_offset=1),
        add_watermarker=False,
    )


def _stable_diffusion_3(folder: Path, *, with_t5: bool = False) -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=PIXELS // 2,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=8,
    )
    # So that a prompt matters, as in a trained model.
    for layer in (transformer.context_embedder, transformer.time_text_embed.text_embedder.linear_1):
        layer.weight.data *= 5
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(scaling_factor=0.2, shift_factor=0.06),
        text_encoder=transformers.CLIPTextModelWithProjection(_text_config()),
        tokenizer=clip_tokenizer(folder / "tokenizer", max_tokens=MAX_TOKENS),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_text_config()),
        tokenizer_2=clip_tokenizer(folder / "tokenizer_2", max_tokens=MAX_TOKENS),
        # Without them as memory-saving uses of it are.
        text_encoder_3=transformers.T5EncoderModel(_t5_config()) if with_t5 else None,
        tokenizer_3=_t5_tokenizer() if with_t5 else None,
    )


def _unet(**changes: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": PIXELS // 2,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 8,
            "cross_attention_dim": TEXT_WIDTH,
            "norm_num_groups": 4,
            **changes,
        }
    )


def _vae(**changes: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=PIXELS,
        **changes,
    )


def _text_config(layers: int = 2) -> Any:
    return transformers.CLIPTextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=TEXT_WIDTH,
    )


def _t5_config() -> Any:
    return transformers.T5Config(
        vocab_size=32,
        d_model=2 * TEXT_WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )


def _t5_tokenizer() -> Any:
    """A tokenizer of single letters."""
    from tokenizers import Tokenizer, models

    letters = [(letter, -1.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    model = models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], unk_id=2)
    return transformers.T5TokenizerFast(tokenizer_object=Tokenizer(model), extra_ids=0, model_max_length=256)


WITH_T5 = "stable_diffusion_3 with T5"
KINDS: dict[str, Callable[[Path], Any]] = {
    "stable_diffusion": _stable_diffusion,
    "v_prediction": lambda folder: _stable_diffusion(folder, "v_prediction"),
    "stable_diffusion_xl": _stable_diffusion_xl,
    "stable_diffusion_3": _stable_diffusion_3,
}
# For what takes long with each kind: one of them in `make test`, all in `make test-all`.
ONE_QUICKLY = [pytest.param(kind, marks=[pytest.mark.slow] if kind != "stable_diffusion" else []) for kind in KINDS]

# Of a contract suite: on every architecture, and on one, for what none changes. Both count from the same first one, so
# that pytest builds each pipeline once. The members that `v_prediction` matters to have tests of their own.
on_every_pipeline, on_one_pipeline = (
    pytest.mark.parametrize("pipeline_kind", kinds, indirect=True, scope="session")
    for kinds in ([kind for kind in ONE_QUICKLY if kind.values != ("v_prediction",)], ONE_QUICKLY[:1])
)


def check_declared(family: str, name: str, pipeline_kind: str) -> None:
    """Skips a test of a member on an architecture that it does not declare."""
    supported = getattr(registry.member(family, name), "ARCHITECTURES", architectures.NAMES)
    if pipeline_kind not in supported:
        pytest.skip(f"declares that it supports {list(supported)} alone")
