"""One image set of the demo world, before it is a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from resalign.digits.scans import BOLD_COLOURS, COLOURS, PAGES, Floats, Scans, tint

Names = npt.NDArray[np.str_]

EVERY_INK = {**COLOURS, **BOLD_COLOURS}
PLAIN = ""  # the generator's page, which captions do not name
PAPERS = {PLAIN: (0.0, 0.0, 0.0), **PAGES}


@dataclass(frozen=True)
class ImageSet:
    """Images with the names of their files and their captions.

    Attributes:
        names: File names without suffix, unique, N of them.
        images: (N, 3, H, W) in [0, 1].
        captions: N of them.
    """

    names: list[str]
    images: Floats
    captions: list[str]

    def write(self, folder: Path) -> None:
        """Writes PNG files and ``metadata.csv``, as :func:`resalign.data.images.read_captioned_images` has them."""
        import pandas as pd
        from PIL import Image

        folder.mkdir(parents=True, exist_ok=True)
        files = [f"{name}.png" for name in self.names]
        for file, image in zip(files, self.images, strict=True):
            Image.fromarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8)).save(folder / file)
        table = pd.DataFrame({"file_name": files, "prompt": self.captions})
        table.to_csv(folder / "metadata.csv", index=False)


def tinted(scans: Scans, inks: Names, pages: Names, captions: list[str]) -> ImageSet:
    """Each scan in its ink and on its page.

    Args:
        scans: N of them.
        inks: Names of EVERY_INK, (N,).
        pages: Names of PAPERS, (N,).
        captions: N of them.

    Returns:
        The set; files are named by their scan, and by ink and page besides where a scan is there several times.
    """
    names = [f"scan-{scan:04d}" for scan in scans.ids]
    if len(set(names)) < len(names):
        names = ["-".join(filter(None, parts)) for parts in zip(names, inks, pages, strict=True)]
    return ImageSet(names, tint(scans.masks, _rgb(EVERY_INK, inks), _rgb(PAPERS, pages)), captions)


def _rgb(colours: dict[str, tuple[float, float, float]], names: Names) -> Floats:
    """Colours by name, (N, 3)."""
    return np.array([colours[name] for name in names], dtype=np.float32)
