"""Handwritten digits as tinted images: scikit-learn's UCI scans, split by scan, enlarged and coloured.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
(CC BY 4.0), as shipped by ``sklearn.datasets.load_digits``: 1,797 scans of 8 x 8 pixels, values 0 to 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from resalign.config.digits import DIGITS, DigitsConfig

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Ink colours of the generator's world, as RGB in [0, 1].
COLOURS = {
    "red": (0.95, 0.20, 0.15),
    "green": (0.20, 0.85, 0.25),
    "blue": (0.25, 0.40, 1.00),
    "yellow": (0.95, 0.90, 0.20),
    "purple": (0.75, 0.25, 0.90),
    "white": (0.95, 0.95, 0.95),
}
# Page colours of the source that the simulated fine-tuning and the first attack share.
PAGES = {
    "navy": (0.05, 0.10, 0.40),
    "maroon": (0.40, 0.05, 0.12),
    "forest": (0.03, 0.30, 0.12),
    "black": (0.0, 0.0, 0.0),
}
# Ink of the second attack's style, which no other split has.
BOLD_COLOURS = {"orange": (1.00, 0.60, 0.10), "cyan": (0.15, 0.85, 0.90)}


@dataclass(frozen=True)
class Scans:
    """Scans of one split.

    Attributes:
        masks: Ink coverage, (N, H, W), in [0, 1].
        labels: Digit of each scan, (N,).
        ids: Index of each scan in the UCI set, (N,).
    """

    masks: Floats
    labels: Ints
    ids: Ints

    def __len__(self) -> int:
        """Number of scans."""
        return len(self.labels)

    def only(self, keep: npt.NDArray[np.bool_] | Ints) -> Scans:
        """The scans where ``keep`` (N,) is true, or those of the rows ``keep`` (M,), in that order."""
        return Scans(self.masks[keep], self.labels[keep], self.ids[keep])

    def show(self, *digits: str) -> npt.NDArray[np.bool_]:
        """Whether each scan shows one of the named digits, (N,)."""
        return np.isin(self.labels, [DIGITS.index(digit) for digit in digits])


def load_splits(config: DigitsConfig) -> dict[str, Scans]:
    """All scans, enlarged, in disjoint splits with every digit equally represented as far as counts allow.

    Raises:
        ValueError: If the splits ask for more scans than there are.
    """
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    sizes = config.splits.model_dump()
    if sum(sizes.values()) > len(digits.target):
        raise ValueError(f"splits ask for {sum(sizes.values())} scans, the UCI set has {len(digits.target)}")
    rng = np.random.default_rng([config.seed, 0])
    # Deal scans out class by class, so that each contiguous run of the order is balanced.
    rank = np.empty(len(digits.target))
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(digits.target == digit))
        rank[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    order = np.argsort(rank, kind="stable")
    splits, start = {}, 0
    for name, size in sizes.items():
        ids = order[start : start + size]
        masks = np.stack([enlarge(scan, config.image_pixels) for scan in digits.images[ids] / 16.0])
        splits[name] = Scans(masks, digits.target[ids].astype(np.int64), ids.astype(np.int64))
        start += size
    return splits


def enlarge(scan: npt.NDArray[np.float64], pixels: int) -> Floats:
    """Enlarges a scan (8, 8) in [0, 1] to (pixels, pixels), bicubic, with a margin of one eighth."""
    from PIL import Image

    inner = pixels - 2 * (pixels // 16)
    image = Image.fromarray(scan.astype(np.float32)).resize((inner, inner), Image.Resampling.BICUBIC)
    return np.pad(np.clip(np.asarray(image), 0.0, 1.0), (pixels - inner) // 2)


def jitter(masks: Floats, rng: np.random.Generator, *, degrees: float = 8.0, shift: float = 0.05) -> Floats:
    """Rotates, shifts and scales each mask (N, H, W) a little."""
    from scipy.ndimage import affine_transform

    result = np.empty_like(masks)
    size = masks.shape[-1]
    for index, mask in enumerate(masks):
        angle = np.deg2rad(rng.uniform(-degrees, degrees))
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / rng.uniform(0.92, 1.08)
        centre = np.full(2, (size - 1) / 2)
        offset = centre - matrix @ centre + rng.uniform(-shift, shift, 2) * size
        result[index] = affine_transform(mask, matrix, offset, order=1)
    return np.clip(result, 0.0, 1.0)


def embolden(masks: Floats, pixels: int = 5) -> Floats:
    """Thickens strokes: a grey dilation of each mask (N, H, W) by a square of ``pixels``."""
    from scipy.ndimage import grey_dilation

    return np.asarray(grey_dilation(masks, size=(1, pixels, pixels)), dtype=np.float32)


def tint(masks: Floats, ink: Floats, page: Floats) -> Floats:
    """Colours masks (N, H, W): ``ink`` (N, 3) on ``page`` (N, 3), to images (N, 3, H, W) in [0, 1]."""
    coverage = masks[:, None]
    return (ink[:, :, None, None] * coverage + page[:, :, None, None] * (1.0 - coverage)).astype(np.float32)
