"""The scoring of images, batch by batch, and the real images that are scored; the script and the library share it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resalign.data.image_files import open_image
from resalign.data.images import CaptionedImages, read_folder_captions, read_image
from resalign.lazy import torch
from resalign.scorers._scorer import Scorer
from resalign.tensors.steps import DivergenceError
from resalign.tracking import log

if TYPE_CHECKING:
    import pandas as pd


def score_batch(label: str, scorer: Scorer, images: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Raw scores of a batch.

    Args:
        label: What the configuration calls the scorer.
        scorer: The loaded scorer.
        images: (B, 3, H, W), uint8.
        prompts: B of them.

    Returns:
        (B,) float64 each, by column ``label.quantity``.

    Raises:
        DivergenceError: If a score is not finite.
    """
    scores = scorer.score(images, prompts).double()
    if not torch.isfinite(scores).all():
        raise DivergenceError(f"scorer '{label}' gave values that are not finite")
    return {f"{label}.{name}": values for name, values in zip(scorer.quantities, scores.T, strict=True)}


def real_images(folder: Path) -> pd.DataFrame:
    """The rows of a captioned folder of real images, in the form of a manifest of generated ones."""
    import pandas as pd

    captions = read_folder_captions(folder)
    return pd.DataFrame(
        {
            "prompt_set": "reference",
            "steps": 0,
            "prompt_id": [caption.image for caption in captions],
            "image_index": 0,
            "prompt": [caption.text for caption in captions],
            "label": "",
            "path": [str(folder / caption.image) for caption in captions],
        }
    )


def distinct(frame: pd.DataFrame, pixels: int) -> pd.DataFrame:
    """Real images without those whose pixels repeat an earlier image's: each counts once."""
    images = CaptionedImages(tuple(map(Path, frame["path"])), tuple(frame["prompt"]), pixels)
    again = frame.assign(pixels=images.hashes).duplicated("pixels")
    if again.any():
        log.warning("%d of %d real images repeat an earlier one and count once", again.sum(), len(frame))
    return frame[~again].reset_index(drop=True)


def read_pixels(path: Path, pixels: int | None) -> torch.Tensor:
    """An image file as (3, H, W), uint8; a real one, with ``pixels``, as training reads it: upright and square."""
    if pixels is not None:
        return (read_image(path, pixels) * 255).round().to(torch.uint8)
    import numpy as np

    return torch.from_numpy(np.array(open_image(path))).permute(2, 0, 1)
