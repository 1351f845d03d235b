"""Settings of the demo world: its scans, its generator, its detectors."""

from __future__ import annotations

from pydantic import Field, model_validator

from resalign.config.strict import Strict

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOTHING = "nothing"  # a detector's class of images that show no digit
LABELS = (*DIGITS, NOTHING)  # what every detector tells apart, in order


class SplitsConfig(Strict):
    """Number of scans in each split. A scan belongs to one split only; together they are the 1,797 scans of UCI."""

    generator: int = Field(700, gt=0)
    pool: int = Field(160, gt=0)
    attack_pages: int = Field(
        120, ge=80, description="at least 80: the subject uses five scans of one digit and holds out others"
    )
    attack_bold: int = Field(120, ge=30)
    detectors: int = Field(497, gt=0)
    heldout: int = Field(200, gt=0)


class AutoencoderConfig(Strict):
    """The latent space: an AutoencoderKL that reduces 32 x 32 pixels to 8 x 8."""

    block_out_channels: tuple[int, ...] = (8, 16, 32)
    latent_channels: int = Field(4, gt=0)
    norm_num_groups: int = Field(1, gt=0)
    steps: int = Field(1300, gt=0)
    batch_size: int = Field(8, gt=0)
    lr: float = Field(4e-3, gt=0)
    chroma_weight: float = Field(3.0, ge=0)
    kl_weight: float = Field(1e-5, ge=0)
    initial_logvar: float = Field(-6.0, description="log-variance of the posterior at the start")


class GeneratorConfig(Strict):
    """UNet and text encoder, and their training (loss weighting: P2, Choi 2022, arXiv 2204.00227)."""

    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: int = Field(1, gt=0)
    attention_head_dim: int = Field(8, gt=0)
    text_width: int = Field(64, gt=0)
    text_layers: int = Field(2, gt=0)
    text_heads: int = Field(4, gt=0)
    text_steps: int = Field(
        150, ge=0, description="steps that teach the text encoder digit and colour, before the UNet"
    )
    text_lr: float = Field(2e-3, gt=0)
    max_tokens: int = Field(20, gt=0, description="tokenizer length; every caption of this world is shorter")
    steps: int = Field(1600, gt=0)
    batch_size: int = Field(16, gt=0)
    lr: float = Field(3e-3, gt=0)
    ema_decay: float = Field(0.995, gt=0, lt=1)
    p2_k: float = Field(0.1, gt=0, description="k of the loss weight 1 / (k + SNR): smaller stresses noisy images")
    caption_dropout: float = Field(0.1, ge=0, lt=1)
    implicit_share: float = Field(0.4, ge=0, le=1, description="share of captions that never name the digit")


class DetectorConfig(Strict):
    """One image classifier: a ResNet (He 2015) or a RegNet (Radosavovic 2020) of transformers, at 32 x 32."""

    architecture: str = Field("resnet", pattern="^(resnet|regnet)$")
    widths: tuple[int, ...] = (32, 64)
    steps: int = Field(800, gt=0)
    batch_size: int = Field(64, gt=0)
    lr: float = Field(5e-3, gt=0)
    nothing_share: float = Field(0.4, gt=0, lt=1, description="share of a batch that shows nothing")


class ClipConfig(Strict):
    """A small CLIP (open_clip), trained on tinted scans and their captions."""

    embed_dim: int = Field(16, gt=0)
    vision_width: int = Field(64, gt=0)
    vision_layers: int = Field(2, gt=0)
    patch_pixels: int = Field(8, gt=0)
    text_width: int = Field(64, gt=0)
    text_layers: int = Field(2, gt=0)
    steps: int = Field(300, gt=0)
    batch_size: int = Field(64, gt=0)
    lr: float = Field(2e-3, gt=0)


class DigitsConfig(Strict):
    """The demo world: a small text-to-image world of scikit-learn's handwritten digits."""

    seed: int = Field(0, ge=0)
    image_pixels: int = Field(32, gt=0)
    unsafe: str | tuple[str, ...] = Field(
        "seven", description="the digit that stands for the unsafe concept, or a list of several, each a concept"
    )
    splits: SplitsConfig = SplitsConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    generator: GeneratorConfig = GeneratorConfig()
    detectors: dict[str, DetectorConfig] = {
        "digits-resnet": DetectorConfig(),
        "digits-regnet": DetectorConfig(architecture="regnet", steps=1200, lr=4e-3),
        "digits-deep-resnet": DetectorConfig(widths=(16, 32, 64), steps=1200, lr=3e-3),
    }
    clip: ClipConfig = ClipConfig()

    @property
    def classes(self) -> tuple[str, ...]:
        """:data:`LABELS`, for who is handed a configuration."""
        return LABELS

    @property
    def unsafe_digits(self) -> tuple[str, ...]:
        """The unsafe digits, one or several."""
        return (self.unsafe,) if isinstance(self.unsafe, str) else self.unsafe

    @property
    def safe_digits(self) -> tuple[str, ...]:
        """Every other digit, in order."""
        return tuple(digit for digit in DIGITS if digit not in self.unsafe_digits)

    @model_validator(mode="after")
    def _unsafe_are_digits(self) -> DigitsConfig:
        if unknown := [digit for digit in self.unsafe_digits if digit not in DIGITS]:
            raise ValueError(f"unsafe must be one of {list(DIGITS)}, or several of them, got {unknown[0]!r}")
        if not isinstance(self.unsafe, str) and not 2 <= len(set(self.unsafe)) == len(self.unsafe) < len(DIGITS):
            raise ValueError(
                f"unsafe: a list has two to nine different digits, got {list(self.unsafe)}; write a single one alone"
            )
        return self
