"""The image store of one model state: files that larger tiers extend, guarded by a fingerprint and by hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resalign import hashes, shards
from resalign.config.sampling import ImageFormat
from resalign.data.prompts import Prompt
from resalign.files import remove_parts, whole
from resalign.lazy import torch
from resalign.tracking import log

# What Pillow is asked for. Of lossless WebP's methods 1 takes half as long again as PNG and leaves .77 of its bytes; 4,
# Pillow's own choice, takes more than twice as long for .74 (bench/image_formats.py).
ENCODERS: dict[ImageFormat, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "lossless": True, "method": 1},
}


@dataclass(frozen=True)
class ImageStore:
    """Images of one model state and prompt list, named by prompt and image index, in files of their own or in shards.

    The folder is not a declared output of any rule, so that a failed or larger run finds the images of an earlier one.
    An image counts as made if it is listed with the hash of its bytes.

    Attributes:
        folder: The folder of the images.
        format: Of the files; a key of :data:`ENCODERS`.
        made: Valid files by name, images in shards by ``<shard>/<name>``.
        lost: Listed files that are missing or damaged; they stay listed, since jobs of other tiers may read them.
        packed: Names of images in shards as they are listed, by the image's own.
    """

    folder: Path
    format: ImageFormat = "png"
    made: dict[str, hashes.Entry] = field(default_factory=dict)
    lost: dict[str, hashes.Entry] = field(default_factory=dict)
    packed: dict[str, str] = field(default_factory=dict)

    def open(self, fingerprint: dict[str, object]) -> None:
        """Keeps the images that are there if they were made from the same weights and settings, else starts afresh."""
        marker = self.folder / "fingerprint.json"
        wanted = json.dumps(fingerprint, sort_keys=True).encode()
        listed = self._listed()
        if listed.get(marker.name) == hashes.Entry.of(wanted) or (
            marker.is_file() and marker.read_bytes() == wanted and marker.name not in listed
        ):
            remove_parts(self.folder)
            self._write(marker, wanted)
            self._take_up(listed)
            return
        if self.folder.exists():
            log.info("%s was made from other weights or settings; its images are made afresh", self.folder)
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self._write(marker, wanted)

    def _write(self, marker: Path, fingerprint: bytes) -> None:
        with whole(marker) as part:
            part.write_bytes(fingerprint)
        self.made[marker.name] = hashes.Entry.of(fingerprint)

    def _listed(self) -> dict[str, hashes.Entry]:
        """The files that earlier jobs have listed."""
        try:
            return hashes.read(self.folder) or {}
        except hashes.DamagedError as error:
            log.warning("%s; its images are made again", error)
            return {}

    def _take_up(self, listed: dict[str, hashes.Entry]) -> None:
        """Sorts the listed images into valid and lost ones, and removes what a killed job has packed by half."""
        for name, entry in listed.items():
            path = self.folder / name
            if hashes.difference(path, entry) is None:
                self.made[name] = entry
                if path.parent != self.folder:
                    self.packed[path.name] = name
            else:
                log.warning("%s: is missing or not what was made; it is made again where it is asked for", path)
                self.lost[name] = entry
        known = {shards.holder(self.folder / name) for name in (*self.made, *self.lost)}
        for path in list(self.folder.iterdir()):
            if path.name in self.packed or (path.suffix == shards.SUFFIX and path not in known):
                path.unlink()

    def has(self, prompt: Prompt, index: int) -> bool:
        """Whether an image is made."""
        return self._name(prompt, index) in self.made

    def sha256(self, prompt: Prompt, index: int) -> str:
        """Of an image that is made."""
        return self.made[self._name(prompt, index)].sha256

    def path(self, prompt: Prompt, index: int) -> Path:
        """An image's path, in its shard once it is packed."""
        return self.folder / self._name(prompt, index)

    def _name(self, prompt: Prompt, index: int) -> str:
        """As it is listed; it includes the prompt's text, since a list may change the text of an id."""
        plain = prompt.id.replace("-", "").replace("_", "").isalnum()
        key = prompt.id if plain else hashlib.sha256(prompt.id.encode()).hexdigest()
        text = hashlib.sha256(prompt.text.encode()).hexdigest()[:8]
        name = f"{key}.{text}.{index}.{self.format}"
        return self.packed.get(name, name)

    def save(self, prompt: Prompt, index: int, image: torch.Tensor) -> None:
        """Writes an image (3, H, W), uint8, atomically: a killed run leaves no half of one."""
        from PIL import Image

        path = self.path(prompt, index)
        with whole(path) as part:
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(part, **ENCODERS[self.format])
        self.made[path.name] = hashes.Entry.of(path)

    def list_made(self) -> None:
        """Lists the images that are made, so that the next job finds them."""
        again = {Path(name).name for name in self.made}
        lost = {name: entry for name, entry in self.lost.items() if Path(name).name not in again}
        hashes.write(self.folder, {**lost, **self.made})

    def pack(self) -> None:
        """Moves the images that are files of their own into new shards.

        At any moment each image is listed once, and its bytes are there: a job that is killed loses none.
        """
        loose = sorted(name for name in self.made if name.endswith(f".{self.format}") and "/" not in name)
        taken = [int(Path(name).parent.stem) for name in (*self.made, *self.lost) if "/" in name]
        for number, start in enumerate(range(0, len(loose), shards.MOST_FILES), max(taken, default=0) + 1):
            names, shard = loose[start : start + shards.MOST_FILES], f"{number:04d}{shards.SUFFIX}"
            shards.write(self.folder / shard, [self.folder / name for name in names])
            for name in names:
                self.packed[name] = f"{shard}/{name}"
                self.made[self.packed[name]] = self.made.pop(name)
            self.list_made()
            for name in names:
                (self.folder / name).unlink()

    def drop(self, names: Collection[str]) -> int:
        """Removes images by their names; returns the bytes that it has freed.

        The list comes first: a job that is killed leaves files that nobody reads, and the next call removes them.
        """
        remove_parts(self.folder)
        if (listed := hashes.read(self.folder)) is None:
            raise hashes.DamagedError(f"{self.folder}: has no {hashes.NAME}; run Snakemake with --forcerun sample")
        hashes.write(self.folder, {name: entry for name, entry in listed.items() if Path(name).name not in names})
        freed = 0
        for path in list(self.folder.iterdir()):
            if path.suffix == shards.SUFFIX:
                freed += shards.drop(path, names)
            elif path.name in names:
                freed += path.stat().st_size
                path.unlink()
        return freed


def folder_hash(folder: Path) -> str:
    """sha256 over a folder's weights and settings by name, without a run's own records."""
    files = sorted(path for suffix in ("safetensors", "json", "txt") for path in folder.rglob(f"*.{suffix}"))
    own = [path for path in files if path.name not in hashes.RECORDS]
    lines = [f"{path.relative_to(folder)} {hashes.file_hash(path)}" for path in own]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
