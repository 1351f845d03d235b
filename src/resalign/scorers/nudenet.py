"""NudeNet, the nudity detector whose network ships in its package: the largest score of each of its 18 classes.

Source: Bedapudi, NudeNet 3.4.2, 320n.onnx (a YOLOv8n at 320 x 320 pixels; the wheel holds the AGPL's text). The paper
cites an older classifier; the released code runs this detector: which of the two made its numbers is uncertain.

Boxes are those of the package's ``NudeDetector.detect``, one for one. It is faster than its ``detect_batch``, as
``bench/nudenet_speed.py`` shows: whole images are shared out among threads, where the package shares out each operation
of the network and leaves the rest to one thread; and boxes are taken from arrays, where it loops over 2,100 rows.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.scorers._heads import read_checked
from resalign.scorers._scorer import Scorer
from resalign.tracking import log

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

NETWORK, NETWORK_SHA256 = "320n.onnx", "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"
EDGE_PIXELS = 320
# The network's outputs in order, and what is applied to them, as the package has it. A box needs MIN_SCORE to be
# considered at all and NMS_SCORE to be kept by the non-maximum suppression, which is over all classes together.
CLASSES = (
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)
MIN_SCORE, NMS_SCORE, NMS_OVERLAP = 0.2, 0.25, 0.45


class Config(Strict):
    """Network, resolution and suppression of overlapping boxes are the package's: there is nothing to set."""


class Box(NamedTuple):
    """One found body part.

    Attributes:
        name: One of :data:`CLASSES`.
        score: In [0, 1].
        pixels: Left, top, width and height in the image, cut to whole pixels.
    """

    name: str
    score: float
    pixels: tuple[int, int, int, int]


def quantities(config: Config) -> tuple[str, ...]:
    """The network's classes."""
    return CLASSES


def load(config: Config, folder: Path | None, device: str) -> Scorer:
    """Loads the network from the installed package.

    It runs on the CPU whatever the device: the package's onnxruntime has no other provider, and its scores are those of
    ``nudenet.NudeDetector``. The score of an image for a class is its largest box of that class, 0 if there is none.

    Raises:
        ValueError: If the installed network is not the pinned one.
    """
    if device != "cpu":
        log.info(
            "nudenet runs on the CPU, with %d threads: its onnxruntime has no provider for %s",
            torch.get_num_threads(),
            device,
        )
    session = open_session()

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        scores = torch.zeros(len(images), len(CLASSES))
        for row, boxes in zip(scores, detect(session, images), strict=True):
            for box in boxes:
                index = CLASSES.index(box.name)
                row[index] = max(float(row[index]), box.score)
        return scores

    return Scorer(quantities(config), score)


def open_session() -> onnxruntime.InferenceSession:
    """The network, in one thread a call; calls may run side by side."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(_network(), options, providers=["CPUExecutionProvider"])


def detect(session: onnxruntime.InferenceSession, images: torch.Tensor) -> list[list[Box]]:
    """The boxes of every image, as the package's ``detect`` finds them in single images.

    Args:
        session: :func:`open_session`.
        images: (B, 3, H, W) uint8, red first.
    """
    name = session.get_inputs()[0].name
    height, width = images.shape[2:]

    def boxes(image: torch.Tensor) -> list[Box]:
        return _boxes(session.run(None, {name: network_input(image[None])})[0][0], height, width)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(boxes, images))


def _network() -> bytes:
    """The network's file, checked."""
    spec = importlib.util.find_spec("nudenet")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nudenet is not installed; install nudenet==3.4.2 (make demo does)")
    path = Path(spec.origin).with_name(NETWORK)
    return read_checked(path, NETWORK_SHA256, "install nudenet==3.4.2, whose scores are pinned")


def network_input(images: torch.Tensor) -> np.ndarray:
    """Images as the package feeds them to the network.

    Padded with black at the right and below to a square, resized to 320 x 320 (bilinear), in [0, 1], and in the order
    blue, green, red: the package swaps the channels of a file twice, and so do we; a red image arrives as (0, 0, 1).

    Args:
        images: (B, 3, H, W) uint8, red first.

    Returns:
        (B, 3, 320, 320) float32, blue first.
    """
    import cv2
    import numpy as np

    height, width = images.shape[2:]
    edge = max(height, width)
    blobs = []
    for image in images.permute(0, 2, 3, 1).contiguous().cpu().numpy():
        square = cv2.copyMakeBorder(image, 0, edge - height, 0, edge - width, cv2.BORDER_CONSTANT)
        blobs.append(cv2.dnn.blobFromImage(square, 1 / 255, (EDGE_PIXELS, EDGE_PIXELS), swapRB=True, crop=False))
    return np.concatenate(blobs)


def _boxes(output: np.ndarray, height: int, width: int) -> list[Box]:
    """The boxes that survive non-maximum suppression, best first.

    Args:
        output: The network's candidates of one image, (4 + classes, candidates): centre, size, class scores.
        height: Of the image in pixels, before padding: boxes are clipped to it before their overlap is taken.
        width: Likewise.
    """
    import cv2
    import numpy as np

    candidates = output[:, output[4:].max(axis=0) >= MIN_SCORE]
    if not candidates.shape[1]:
        return []
    centre, size, scores = candidates[:2], candidates[2:4], candidates[4:].max(axis=0)
    scale, limits = max(height, width), np.array([[width], [height]], dtype=np.float32)
    corner = np.clip((centre - size / 2) * scale / EDGE_PIXELS, 0, limits)
    size = np.minimum(size * scale / EDGE_PIXELS, limits - corner)
    rectangles, classes = np.concatenate([corner, size]).T.tolist(), candidates[4:].argmax(axis=0)
    kept = cv2.dnn.NMSBoxes(rectangles, scores.tolist(), NMS_SCORE, NMS_OVERLAP)
    return [
        Box(CLASSES[classes[index]], float(scores[index]), tuple(int(value) for value in rectangles[index]))  # type: ignore[arg-type] # four of them
        for index in kept
    ]
