"""The forms in which images, prompts and pipelines may be given, as the rest of the package reads them."""

from __future__ import annotations

import contextlib
import copy
import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resalign.config.precision import Precision
from resalign.config.strict import ConfigError, nearest
from resalign.data.images import CaptionedImages, read_captioned_images
from resalign.data.prompts import Prompt, read_prompts
from resalign.diffusion.architectures import ARCHITECTURES
from resalign.diffusion.forward_process import forward_process_of
from resalign.diffusion.gradient_checkpointing import checkpointed
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.errors import DataError
from resalign.lazy import torch
from resalign.tensors.weights import WeightsError

CAPTIONS = ("prompt", "text", "caption")  # columns that may hold an image's caption, as in a folder's table
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # Pillow's, which a PNG file holds without loss
# Parts that are not used here: one blackens images that are to be measured, the others belong to image prompts.
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")

# A folder as `save_pretrained` writes it, or a loaded pipeline.
Pipeline = Any
# A folder with a table of captions, a `datasets.Dataset` with an image and a caption column, or (image, caption) pairs.
Images = Any
# A file of prompts, or the prompts themselves.
Prompts = str | Path | Sequence[str | Prompt]


def open_pipeline(
    pipeline: Pipeline,
    *,
    device: str | None = None,
    precision: Precision = "float32",
    gradient_checkpointing: bool = False,
) -> LoadedPipeline:
    """A pipeline to work on: loaded from its folder, or a copy of a loaded one, which is not changed.

    The copy has no safety checker.

    Args:
        pipeline: The folder or the loaded pipeline.
        device: Where to put it; by default the CPU for a folder, and its own device for a loaded pipeline.
        precision: See :func:`resalign.diffusion.loaded_pipeline.load_pipeline`.
        gradient_checkpointing: As there.

    Raises:
        WeightsError: If it is of an unknown kind, has adapters, or is offloaded.
    """
    if isinstance(pipeline, str | Path):
        return load_pipeline(
            Path(pipeline), device=device or "cpu", precision=precision, gradient_checkpointing=gradient_checkpointing
        )
    kind, known = type(pipeline).__name__, {architecture.pipeline: architecture for architecture in ARCHITECTURES}
    if kind not in known:
        raise WeightsError(f"no support for a {kind}{nearest(kind, known)}")
    tensors = trainable_tensors(pipeline)
    if any("lora_" in name or ".base_layer." in name for name in tensors):
        raise WeightsError("the pipeline has LoRA adapters; call fuse_lora() and unload_lora_weights() first")
    if any(tensor.is_meta for tensor in tensors.values()):
        raise WeightsError("the pipeline's weights are offloaded; load it without offloading")
    parts = {name: part for name, part in pipeline.components.items() if name not in LEFT_OUT}
    lacking = {name: None for name in LEFT_OUT if name in pipeline.components}
    settings = {key: value for key, value in known[kind].settings.items() if key not in LEFT_OUT}
    # Tokenizers are shared: none of them is changed here, and copying one takes seconds.
    own = {name: part if name.startswith("tokenizer") else copy.deepcopy(part) for name, part in parts.items()}
    copied = type(pipeline)(**own, **lacking, **settings)
    copied.register_to_config(_name_or_path=pipeline.config.get("_name_or_path", ""))
    for name in parts:
        part = getattr(copied, name)
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
            if part.dtype != getattr(torch, precision):  # diffusers' own method warns of what does not matter here
                torch.nn.Module.to(part, getattr(torch, precision))
    copied.set_progress_bar_config(disable=True)
    copied.to(device or pipeline.device)
    if gradient_checkpointing:
        getattr(copied, known[kind].denoiser).enable_gradient_checkpointing(checkpointed)
    return LoadedPipeline(copied, forward_process_of(copied))


@contextlib.contextmanager
def captioned(images: Mapping[str, Images | None], pixels: int) -> Iterator[dict[str, CaptionedImages]]:
    """Image sets in any form, read as folders are; images in memory are in temporary files within the block.

    Args:
        images: Sets by name; None for one that is not given.
        pixels: Edge of the square that images are resized and cropped to.

    Raises:
        DataError: Naming the set, and what is wrong with it.
    """
    with tempfile.TemporaryDirectory(prefix="resalign-") as place:
        yield {
            name: read_captioned_images(image_folder(name, given, Path(place) / name), pixels=pixels)
            for name, given in images.items()
            if given is not None
        }


def image_folder(name: str, images: Images, place: Path) -> Path:
    """A set's own folder, or one at ``place`` that its images are written to; ``name`` is for errors."""
    from PIL import ImageOps

    if isinstance(images, str | Path):
        return Path(images)
    place.mkdir()
    with (place / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("file_name", "prompt"))
        for number, (image, caption) in enumerate(_pairs(name, images)):
            if getattr(image, "mode", None) not in MODES or not isinstance(caption, str):
                got = f"{type(image).__name__} {getattr(image, 'mode', '')}".strip(), type(caption).__name__
                raise DataError(f"{name}: example {number}: expected a PIL image in RGB and its caption, got {got}")
            ImageOps.exif_transpose(image).save(place / f"{number}.png")
            table.writerow((f"{number}.png", caption))
    return place


def _pairs(name: str, images: Images) -> Iterator[tuple[Any, Any]]:
    """(image, caption) of each example; whatever is no pair has no caption."""
    columns = getattr(images, "column_names", None)
    if columns is None:
        for pair in images:
            yield (pair[0], pair[1]) if isinstance(pair, tuple | list) and len(pair) == 2 else (pair, None)
        return
    captions = [column for column in CAPTIONS if column in columns]
    if "image" not in columns or len(captions) != 1:
        raise DataError(f"{name}: expected the column 'image' and one of {list(CAPTIONS)}, got {list(columns)}")
    for row in images:
        yield row["image"], row[captions[0]]


def prompt_list(prompts: Prompts) -> list[Prompt]:
    """Prompts in any form; texts are numbered, as the lines of a ``.txt`` file are.

    Raises:
        DataError: If a file cannot be read.
        ConfigError: If there are none.
    """
    if isinstance(prompts, str | Path):
        if not Path(prompts).suffix:
            raise ConfigError(f"prompts: got {str(prompts)!r}; give a list of prompts, or a .csv, .jsonl or .txt file")
        return read_prompts(Path(prompts))
    if not prompts:
        raise ConfigError("prompts: the list is empty; give at least one prompt")
    width = len(str(len(prompts) - 1))
    return [p if isinstance(p, Prompt) else Prompt(f"{number:0{width}d}", p) for number, p in enumerate(prompts)]
