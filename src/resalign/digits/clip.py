"""Trains the demo world's CLIP through open_clip, for the CLIP score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from resalign.config.digits import DigitsConfig
from resalign.digits.captions import explicit, implicit, name_of
from resalign.digits.scans import COLOURS, jitter, load_splits, tint
from resalign.digits.training import one_cycle, seeded
from resalign.lazy import open_clip, torch
from resalign.running.attempt import Attempt

CONTEXT_LENGTH = 20


def train_clip(config: DigitsConfig, output: Path, attempt: Attempt) -> None:
    """Trains a small CLIP on tinted scans and their captions (Radford 2021, arXiv 2103.00020).

    Args:
        config: The world; ``config.clip`` holds the numbers used here.
        output: Folder to write: ``open_clip_config.json`` and ``open_clip_model.safetensors``, as open_clip's own
            ``local-dir:`` loader reads them.
        attempt: Saves the training's state and goes on from it.
    """
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    settings = config.clip
    rng = seeded(config, "clip")
    architecture = _architecture(config)
    model = CLIP(**architecture)
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
    scans = load_splits(config)["detectors"]
    inks = np.array(list(COLOURS.values()), dtype=np.float32)
    for descend in one_cycle(model.parameters(), settings, attempt, "clip", model=model, rng=rng):
        # At most one example of each (digit, colour), so that no caption of the batch also fits another image.
        pairs = rng.permutation(10 * len(COLOURS))[: settings.batch_size]
        labels, colours = pairs // len(COLOURS), pairs % len(COLOURS)
        masks = np.stack([scans.masks[rng.choice(np.flatnonzero(scans.labels == label))] for label in labels])
        images = tint(jitter(masks, rng), inks[colours], np.zeros((len(pairs), 3), dtype=np.float32))
        texts = [_caption(label, colour, rng) for label, colour in zip(labels, colours, strict=True)]
        image_features, text_features, scale = model(torch.from_numpy(images) * 2 - 1, tokenizer(texts))
        logits = scale * image_features @ text_features.T
        target = torch.arange(len(pairs))
        descend(torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target))
    output.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, output / "open_clip_model.safetensors"
    )
    preprocess = {"size": config.image_pixels, "mean": [0.5] * 3, "std": [0.5] * 3}
    (output / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": preprocess}, indent=1), encoding="utf-8"
    )


def _architecture(config: DigitsConfig) -> dict[str, Any]:
    """The model's configuration in open_clip's own form."""
    settings = config.clip
    return {
        "embed_dim": settings.embed_dim,
        "vision_cfg": {
            "image_size": config.image_pixels,
            "layers": settings.vision_layers,
            "width": settings.vision_width,
            "head_width": 16,
            "patch_size": settings.patch_pixels,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": 49_408,
            "width": settings.text_width,
            "heads": 4,
            "layers": settings.text_layers,
        },
    }


def _caption(label: int, colour: int, rng: np.random.Generator) -> str:
    """A caption of either kind for one digit and colour."""
    write = implicit if rng.random() < 0.3 else explicit
    return str(rng.choice(write(name_of(int(label)), (list(COLOURS)[int(colour)],))))
