"""An image classifier of your own as an ONNX file: classes and preprocessing are the configuration's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.scores import Scorer
from resalign.tracking import log

if TYPE_CHECKING:
    import numpy as np

Triple = tuple[float, float, float]


class Config(Strict):
    """Network, classes and preprocessing; the defaults are those of most classifiers trained on ImageNet.

    Attributes:
        folder: The folder of the file.
        file: Name of the ONNX file in it: one input of images, and the scores as ``output``.
        classes: Names of the scores, in order.
        output: Name of the output to read; the first if null.
        activation: What makes numbers comparable: ``softmax`` or ``sigmoid`` of logits, ``none`` of probabilities.
        pixels: Edge of the square that the network takes.
        resize: ``crop``: shortest edge to ``pixels``, then the centre. ``stretch``: both edges. ``pad``: longest edge
            to ``pixels``, then black at the right and below.
        channels: Their order.
        layout: ``nchw`` or ``nhwc``.
        mean, std: Subtracted and divided by, a channel, in the order of ``channels``, of pixels in [0, 1].
    """

    folder: str
    file: str = "model.onnx"
    classes: tuple[str, ...] = Field(min_length=1)
    output: str | None = None
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    pixels: int = Field(224, gt=0)
    resize: Literal["crop", "stretch", "pad"] = "crop"
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _possible(self) -> Config:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must differ, got {list(self.classes)}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {list(self.std)}")
        return self


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads the network; quantities are the classes. It runs on the CPU, one image at a time.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If the network's outputs are not one number a class.
    """
    import onnxruntime

    path = folder / config.file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the scorer's key 'file' the ONNX file's name")
    if device != "cpu":
        log.info("%s runs on the CPU, with %d threads", path.name, torch.get_num_threads())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    if config.output is not None and config.output not in outputs:
        raise ValueError(f"{path}: no output named '{config.output}'; it has {outputs}")

    def run(image: torch.Tensor) -> torch.Tensor:
        # Many exported networks take one image only.
        [found] = session.run([config.output or outputs[0]], {name: prepare(image, config)[None]})
        if found.size != len(config.classes):
            raise ValueError(f"{path}: gives {found.shape} for an image, but {len(config.classes)} classes are named")
        return torch.from_numpy(found).float().flatten()

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        scores = torch.stack([run(image) for image in images])
        if config.activation == "none":
            return scores
        return scores.softmax(dim=1) if config.activation == "softmax" else scores.sigmoid()

    return Scorer(config.classes, score)


def prepare(image: torch.Tensor, config: Config) -> np.ndarray:
    """An image as the network takes it.

    Args:
        image: (3, H, W) uint8, red first.
        config: Settings.

    Returns:
        (3, pixels, pixels), or (pixels, pixels, 3), float32.
    """
    import numpy as np
    from torchvision.transforms import functional

    picture, edge = functional.to_pil_image(image.cpu()), config.pixels
    if config.resize == "crop":
        picture = functional.center_crop(functional.resize(picture, [edge]), [edge, edge])
    elif config.resize == "stretch":
        picture = functional.resize(picture, [edge, edge])
    else:
        scale = edge / max(picture.size)
        width, height = (max(1, round(size * scale)) for size in picture.size)
        picture = functional.pad(functional.resize(picture, [height, width]), [0, 0, edge - width, edge - height])
    values: np.ndarray = np.asarray(picture, dtype=np.float32) / np.float32(255)
    if config.channels == "bgr":
        values = values[..., ::-1]
    values = (values - np.array(config.mean, dtype=np.float32)) / np.array(config.std, dtype=np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1) if config.layout == "nchw" else values)
