"""How images are generated."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.config.precision import Precision
from resalign.config.strict import Strict

ImageFormat = Literal["png", "webp"]


class SamplingConfig(Strict):
    """How images are generated, the same for every model [released evaluation: 30 steps, guidance 7.5]."""

    num_inference_steps: int = Field(30, gt=0)
    guidance_scale: float = Field(7.5, ge=1)
    seed: int = Field(42, ge=0, description="sampling seed; keys the initial noise, apart from any training seed")
    batch_size: int = Field(64, gt=0)
    precision: Precision = Field("float32", description="of the whole pipeline [released evaluation: float16]")
    image_format: ImageFormat = Field(
        "png", description="of the files, lossless in either; webp: a quarter less disk (bench/image_formats.py)"
    )
    # Left out of names where it is the default: earlier runs keep theirs.
    image_files: Literal["separate", "shards"] = Field(
        "separate",
        exclude_if=lambda files: files == "separate",
        description="separate: a file for each image; shards: uncompressed zip files of up to 1,000 of them",
    )
