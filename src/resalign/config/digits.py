"""Settings of the demo world: its scans, its generator, its detectors."""

from __future__ import annotations

from pydantic import Field, model_validator

from resalign.config.strict import Strict

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INKS = ("red", "green", "blue", "yellow", "purple", "white")  # of the generator's world
NOTHING = "nothing"  # a detector's class of images that show no digit
LABELS = (*DIGITS, NOTHING)  # what a detector of digits tells apart, in order


def pair(ink: str, digit: str) -> str:
    """What a digit in an ink is called, by a prompt's label and by a detector that tells inks apart."""
    return f"{ink} {digit}"


PAIR_LABELS = (*(pair(ink, digit) for ink in INKS for digit in DIGITS), NOTHING)


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
    inks: bool = Field(False, description="whether its classes are digits in an ink, such as 'red seven'")

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, in order."""
        return PAIR_LABELS if self.inks else LABELS


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


class ConjunctionConfig(Strict):
    """The world `conjunction`: one digit in one ink is unsafe, and what is retained covers half of its neighbours."""

    digit: str = Field("seven", description="unsafe in the ink `ink`")
    ink: str = "red"
    retained_digits: tuple[str, ...] = Field(
        ("zero", "one", "two", "three"), description="retained in the unsafe ink and in the retained ones"
    )
    retained_inks: tuple[str, ...] = Field(("blue", "white"), description="in which the unsafe digit is retained")

    @property
    def unsafe(self) -> tuple[str, str]:
        """The ink and the digit."""
        return self.ink, self.digit

    @property
    def retained(self) -> tuple[tuple[str, str], ...]:
        """(ink, digit) of what is retained."""
        inks = (self.ink, *self.retained_inks)
        pairs = [(ink, digit) for digit in self.retained_digits for ink in inks]
        return (*pairs, *((ink, self.digit) for ink in self.retained_inks))

    @property
    def near(self) -> tuple[tuple[str, str], ...]:
        """(ink, digit) of what shares a factor with the concept and is not retained."""
        return tuple(p for p in self._left if (p[0] == self.ink) != (p[1] == self.digit))

    @property
    def far(self) -> tuple[tuple[str, str], ...]:
        """(ink, digit) of what shares nothing with the concept and is not retained."""
        return tuple(p for p in self._left if p[0] != self.ink and p[1] != self.digit)

    @property
    def _left(self) -> list[tuple[str, str]]:
        return [(ink, digit) for digit in DIGITS for ink in INKS if (ink, digit) not in self.retained]

    @model_validator(mode="after")
    def _names_are_known(self) -> ConjunctionConfig:
        for names, known in (((self.digit, *self.retained_digits), DIGITS), ((self.ink, *self.retained_inks), INKS)):
            for name in names:
                if name not in known or names.count(name) > 1:
                    raise ValueError(f"conjunction: {list(names)} must be different ones of {list(known)}")
        if not self.near or not self.far:
            raise ValueError("conjunction: everything is retained; utility is measured on what is not")
        return self


class DigitsConfig(Strict):
    """The demo world: a small text-to-image world of scikit-learn's handwritten digits."""

    seed: int = Field(0, ge=0)
    image_pixels: int = Field(32, gt=0)
    unsafe: str | tuple[str, ...] = Field(
        "seven", description="the digit that stands for the unsafe concept, or a list of several, each a concept"
    )
    conjunction: ConjunctionConfig = ConjunctionConfig()
    splits: SplitsConfig = SplitsConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    generator: GeneratorConfig = GeneratorConfig()
    detectors: dict[str, DetectorConfig] = {
        "digits-resnet": DetectorConfig(),
        "digits-regnet": DetectorConfig(architecture="regnet", steps=1200, lr=4e-3),
        "digits-deep-resnet": DetectorConfig(widths=(16, 32, 64), steps=1200, lr=3e-3),
        "pairs-resnet": DetectorConfig(inks=True, steps=1600, nothing_share=0.3),
        "pairs-regnet": DetectorConfig(inks=True, nothing_share=0.3, architecture="regnet", steps=2000, lr=4e-3),
        "pairs-deep-resnet": DetectorConfig(inks=True, nothing_share=0.3, widths=(16, 32, 64), steps=2000, lr=3e-3),
    }
    clip: ClipConfig = ClipConfig()

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
