"""The image store of one model state: PNG files that larger tiers extend, guarded by a fingerprint."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from resalign.data.prompts import Prompt
from resalign.files import remove_parts, whole
from resalign.lazy import torch
from resalign.tracking import log


@dataclass(frozen=True)
class ImageStore:
    """Images of one model state and prompt list, one file each, named by prompt and image index.

    The folder is no declared output of any rule, so that a failed or larger run finds what an earlier one has made.
    """

    folder: Path

    def open(self, fingerprint: dict[str, object]) -> None:
        """Keeps the images that are there if they were made from the same weights and settings, else starts afresh."""
        marker = self.folder / "fingerprint.json"
        wanted = json.dumps(fingerprint, sort_keys=True)
        if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
            remove_parts(self.folder)
            return
        if self.folder.exists():
            log.info("%s was made from other weights or settings; its images are made afresh", self.folder)
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        with whole(marker) as part:
            part.write_text(wanted, encoding="utf-8")

    def path(self, prompt: Prompt, index: int) -> Path:
        """Where an image lies; the prompt's text has a part in the name, for a list may change under its ids."""
        plain = prompt.id.replace("-", "").replace("_", "").isalnum()
        key = prompt.id if plain else hashlib.sha256(prompt.id.encode()).hexdigest()
        text = hashlib.sha256(prompt.text.encode()).hexdigest()[:8]
        return self.folder / f"{key}.{text}.{index}.png"

    def save(self, prompt: Prompt, index: int, image: torch.Tensor) -> None:
        """Writes an image (3, H, W), uint8, atomically: a killed run leaves no half of one."""
        from PIL import Image

        with whole(self.path(prompt, index)) as part:
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(part, format="PNG")


def folder_hash(folder: Path) -> str:
    """sha256 over the contents of a folder's weights and settings, by name; not over what a run writes about itself."""
    files = sorted(path for suffix in ("safetensors", "json", "txt") for path in folder.rglob(f"*.{suffix}"))
    own = [path for path in files if path.name not in ("run.json", "timing.json")]
    lines = [f"{path.relative_to(folder)} {file_hash(path)}" for path in own]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
