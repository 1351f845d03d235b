"""Trains the demo world's image classifiers; each knows a class for images that show nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from resalign.config.digits import DIGITS, INKS, NOTHING, DetectorConfig, DigitsConfig
from resalign.digits.autoencoder import random_colours, random_tints, varied_strokes
from resalign.digits.scans import COLOURS, PAGES, Floats, Ints, Scans, jitter, load_splits, tint
from resalign.digits.training import one_cycle, random_stream, seeded
from resalign.lazy import torch, transformers
from resalign.running.attempt import Attempt

# Held-out images of noise, and as many of blends.
NOTHING_IMAGES = 500


def train_detector(config: DigitsConfig, name: str, output: Path, attempt: Attempt) -> dict[str, float]:
    """Trains one detector and writes it as a transformers image-classification folder.

    Args:
        config: The world; ``config.detectors[name]`` holds the numbers used here.
        name: Which detector. Each has a seed and augmentations of its own, so that their errors are their own.
        output: Folder to write.
        attempt: Saves the training's state and goes on from it.

    Returns:
        Its accuracy on the held-out scans, and the share of held-out noise and blends that it calls nothing.
    """
    settings = config.detectors[name]
    rng = seeded(config, "detector", name)
    model = _network(settings)
    splits = load_splits(config)
    empty = round(settings.batch_size * settings.nothing_share)
    for descend in one_cycle(model.parameters(), settings, attempt, name, max_norm=None, model=model, rng=rng):
        draw = inked_pairs if settings.inks else labelled_tints
        images, labels = draw(splits["detectors"], settings.batch_size - empty, rng)
        images = np.concatenate([images, show_nothing(splits["detectors"], empty, rng, inks=settings.inks)])
        labels = np.concatenate([labels, np.full(empty, settings.labels.index(NOTHING))])
        logits = model(torch.from_numpy(degrade(images, rng)) * 2 - 1).logits
        descend(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=0.05))
    model.eval()
    model.save_pretrained(output)
    processor = transformers.ConvNextImageProcessor(
        size={"shortest_edge": config.image_pixels}, crop_pct=1.0, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(output)
    return _heldout_scores(model, settings, splits["heldout"], random_stream(config, "heldout"))


def labelled_tints(scans: Scans, count: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Scans in random inks and pages, (count, 3, H, W) in [0, 1], and their digits (count,)."""
    picked = scans.only(rng.integers(0, len(scans), count))
    images = np.concatenate([random_tints(picked.only(np.arange(count) == i), 1, rng) for i in range(count)])
    return images, picked.labels


def inked_pairs(scans: Scans, count: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Scans in the generator's inks, each a little off, (count, 3, H, W) in [0, 1], and their PAIR_LABELS (count,)."""
    picked, inks = scans.only(rng.integers(0, len(scans), count)), rng.integers(0, len(INKS), count)
    masks = varied_strokes(picked.masks, rng)
    page = rng.uniform(0.0, 0.45, (count, 3)) * (rng.random((count, 1)) > 0.5)
    return tint(masks, near_inks(inks, rng), page.astype(np.float32)), inks * len(DIGITS) + picked.labels


def near_inks(inks: Ints, rng: np.random.Generator) -> Floats:
    """The generator's inks by number (count,), each a little off: (count, 3) in [0, 1]."""
    exact = np.array([COLOURS[INKS[ink]] for ink in inks])
    return np.clip(exact + rng.normal(0, 0.06, exact.shape), 0, 1).astype(np.float32)


def show_nothing(scans: Scans, count: int, rng: np.random.Generator, *, inks: bool = False) -> Floats:
    """Images that show no digit, (count, 3, H, W) in [0, 1]: noise of several grains, blends, patches, blanks.

    With ``inks``, blends are in the generator's inks: by its colour a detector of inks would know a blend otherwise.
    """
    makers = (_inked_blends if inks else _blends, _noise, _shuffled, _blanks)
    kinds = rng.choice(len(makers), count, p=(0.55, 0.15, 0.15, 0.15))  # blends are the hard ones
    images = [makers[kind](scans, 1, rng) for kind in kinds]
    return np.concatenate(images).astype(np.float32)


def degrade(images: Floats, rng: np.random.Generator) -> Floats:
    """A little blur and pixel noise, as a decoder leaves; (N, 3, H, W) in [0, 1]."""
    from scipy.ndimage import gaussian_filter

    blurred = [
        gaussian_filter(image, (0, s, s)) for image, s in zip(images, rng.uniform(0, 0.8, len(images)), strict=True)
    ]
    noise = rng.normal(0, 1, images.shape) * rng.uniform(0, 0.08, (len(images), 1, 1, 1))
    return np.clip(np.stack(blurred) + noise, 0, 1).astype(np.float32)


def _network(settings: DetectorConfig) -> transformers.PreTrainedModel:
    """An untrained classifier over its labels."""
    names = dict(enumerate(settings.labels))
    common = {"num_labels": len(names), "id2label": names, "label2id": {v: k for k, v in names.items()}}
    width, *_ = widths = list(settings.widths)
    common |= {"embedding_size": width, "hidden_sizes": widths, "depths": [1] * len(widths)}
    if settings.architecture == "resnet":
        return transformers.ResNetForImageClassification(transformers.ResNetConfig(layer_type="basic", **common))
    return transformers.RegNetForImageClassification(transformers.RegNetConfig(groups_width=width // 2, **common))


def _noise(scans: Scans, count: int, rng: np.random.Generator) -> Floats:
    """Coloured noise of a random grain, (count, 3, H, W)."""
    from scipy.ndimage import zoom

    size = scans.masks.shape[-1]
    images = []
    for _ in range(count):
        cells = int(rng.choice([4, 8, 16, size]))
        cell = rng.normal(rng.uniform(0, 0.6), rng.uniform(0.1, 0.5), (3, cells, cells))
        images.append(zoom(cell, (1, size / cells, size / cells), order=int(rng.integers(0, 2))))
    return np.clip(np.stack(images), 0, 1).astype(np.float32)


def _blends(scans: Scans, count: int, rng: np.random.Generator, colours: Floats | None = None) -> Floats:
    """Two to four digits of different classes laid over one another in one ink, (count, 3, H, W); None: of any hue."""
    masks = []
    for _ in range(count):
        digits = rng.choice(10, int(rng.integers(2, 5)), replace=False)
        layers = jitter(
            np.stack([scans.masks[rng.choice(np.flatnonzero(scans.labels == digit))] for digit in digits]), rng
        )
        masks.append(layers.mean(axis=0) if rng.random() < 0.5 else layers.max(axis=0))
    page = rng.uniform(0.0, 0.4, (count, 3)) * (rng.random((count, 1)) > 0.5)
    colours = random_colours(count, rng) if colours is None else colours
    return tint(np.stack(masks), colours, page.astype(np.float32))


def _inked_blends(scans: Scans, count: int, rng: np.random.Generator) -> Floats:
    return _blends(scans, count, rng, near_inks(rng.integers(0, len(INKS), count), rng))


def _shuffled(scans: Scans, count: int, rng: np.random.Generator) -> Floats:
    """Tinted digits cut into sixteen tiles in random order, (count, 3, H, W)."""
    images = random_tints(scans, count, rng)
    tile = images.shape[-1] // 4
    tiles = images.reshape(count, 3, 4, tile, 4, tile).transpose(0, 2, 4, 1, 3, 5).reshape(count, 16, 3, tile, tile)
    shuffled = np.stack([row[rng.permutation(16)] for row in tiles])
    return shuffled.reshape(count, 4, 4, 3, tile, tile).transpose(0, 3, 1, 4, 2, 5).reshape(images.shape)


def _blanks(scans: Scans, count: int, rng: np.random.Generator) -> Floats:
    """One faint colour all over, or a digit too faint to read, (count, 3, H, W)."""
    from scipy.ndimage import gaussian_filter

    page = rng.uniform(0, 0.6, (count, 3, 1, 1)) * np.ones((1, 1, *scans.masks.shape[-2:]))
    smear = gaussian_filter(random_tints(scans, count, rng), (0, 0, 5, 5)) * (rng.random((count, 1, 1, 1)) < 0.5)
    return np.clip(page * 0.5 + smear, 0, 1).astype(np.float32)


def _heldout_scores(
    model: transformers.PreTrainedModel, settings: DetectorConfig, scans: Scans, rng: np.random.Generator
) -> dict[str, float]:
    """Accuracy on held-out scans in the generator's style and on pages; noise and blends called nothing."""
    labels = np.repeat(scans.labels, 3)
    masks = np.repeat(scans.masks, 3, axis=0)
    chosen = rng.integers(0, len(COLOURS), len(masks))
    labels = chosen * len(DIGITS) + labels if settings.inks else labels
    inks = np.array(list(COLOURS.values()), dtype=np.float32)[chosen]
    pages = np.array(list(PAGES.values()), dtype=np.float32)[rng.integers(0, len(PAGES), len(masks))]
    blends, nothing = _inked_blends if settings.inks else _blends, settings.labels.index(NOTHING)
    batches = {
        "heldout_accuracy": (tint(masks, inks, np.zeros_like(pages)), labels),
        "heldout_pages_accuracy": (tint(masks, inks, pages), labels),
        "noise_called_nothing": (_noise(scans, NOTHING_IMAGES, rng), nothing),
        "blends_called_nothing": (blends(scans, NOTHING_IMAGES, rng), nothing),
    }
    with torch.no_grad():
        predicted = {
            name: model(torch.from_numpy(x) * 2 - 1).logits.argmax(-1).numpy() for name, (x, _) in batches.items()
        }
    rates = {name: float((predicted[name] == expected).mean()) for name, (_, expected) in batches.items()}
    return {**rates, "heldout_scans": len(scans), "nothing_images": 2 * NOTHING_IMAGES}
