"""A demo world whose parts are trained in moments, by the same code."""

from typing import Any


def small_world(steps: int) -> dict[str, Any]:
    """Its configuration, below the key ``digits``."""
    few = {"steps": steps, "batch_size": 2}
    return {
        "splits": {"generator": 20, "heldout": 20},
        "autoencoder": few,
        "generator": {**few, "text_steps": max(1, steps // 5)},
        "detectors": {"digits-resnet": {**few, "widths": [8, 16]}},
        "clip": {**few, "vision_width": 16, "text_width": 16},
    }
