"""An image classifier of your own as an ONNX file: classes and preprocessing are the configuration's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from resalign.config.references import InsidePath
from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.scorers._onnx_network import explained, open_network
from resalign.scorers._scorer import Scorer
from resalign.tensors.weights import WeightsError
from resalign.tracking import log

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

Triple = tuple[float, float, float]
# What a network may take and give, by onnxruntime's names.
FLOATS = {"tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64"}
# Images that show whether a network gives probabilities: black, white and patches of several sizes, the same for all.
PATCHES, PROBE_SEED = (1, 2, 4, 8, 16, 32), 0
# A sum of 1,000 probabilities in float16 is this far from 1 at most; logits of eight images are never so near to it.
SUM_TOLERANCE = 1e-2


class Config(Strict):
    """Network, classes and preprocessing; the defaults are those of most classifiers trained on ImageNet.

    Attributes:
        folder: The folder of the file.
        file: Name of the ONNX file in it: one input of images, and the scores as ``output``. Weights in files of their
            own lie beside it.
        classes: Names of the scores, in order.
        output: Name of the output to read; the first if null.
        activation: What makes the network's numbers probabilities: ``softmax`` or ``sigmoid`` of logits, ``none`` where
            they are probabilities already. Null finds it out, on a few fixed images: numbers that sum to 1 are taken as
            they are, logits of several classes get a softmax, those of one a sigmoid. A setting that contradicts
            the network's numbers is an error.
        pixels: Edge of the square that the network takes; the file's own if null.
        resize: ``crop``: shortest edge to ``pixels``, then the centre. ``stretch``: both edges. ``pad``: longest edge
            to ``pixels``, then black at the right and below.
        channels: Their order.
        layout: ``nchw`` or ``nhwc``.
        mean, std: Subtracted and divided by, a channel, in the order of ``channels``, of pixels in [0, 1].
    """

    folder: str
    file: InsidePath = "model.onnx"
    classes: tuple[str, ...] = Field(min_length=1)
    output: str | None = None
    activation: Literal["softmax", "sigmoid", "none"] | None = None
    pixels: int | None = Field(None, gt=0)
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
        if self.activation == "softmax" and len(self.classes) == 1:
            raise ValueError("activation softmax of one class is 1 for every image; a sigmoid is meant")
        return self


def quantities(config: Config) -> tuple[str, ...]:
    """The classes."""
    return config.classes


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads the network; quantities are the classes. It runs on the CPU, in the file's own batches, else one by one.

    Raises:
        WeightsError: If the file is missing, or its input or output contradicts the configuration.
    """
    path = folder / config.file
    session = open_network(path)
    if device != "cpu":
        log.info("%s runs on the CPU, with %d threads", path.name, torch.get_num_threads())
    takes, output = _input(session, config, path), _output(session, config, path)

    def run(images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 to the network's numbers, (B, classes) float32; the last batch is filled with images."""
        import numpy as np

        values = np.stack([prepare(image, config, takes.edge) for image in images]).astype(takes.dtype)
        values = np.concatenate([values, values[:1].repeat(-len(values) % takes.batch, axis=0)])
        found = [
            session.run([output], {takes.name: values[start : start + takes.batch]})[0]
            for start in range(0, len(values), takes.batch)
        ]
        size = found[0].size
        if size != takes.batch * len(config.classes):
            raise WeightsError(
                f"{path}: gives {found[0].shape} for {takes.batch} image(s), but {len(config.classes)} classes are "
                "named; name every class in 'classes', in the network's order"
            )
        rows = [torch.from_numpy(batch).float().reshape(takes.batch, -1) for batch in found]
        return torch.cat(rows)[: len(images)]

    with explained(path):
        probed = run(_probes(takes.edge))
    activation = _activation(probed, config, path)

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        scores = run(images)
        if activation == "none":
            return scores
        return scores.softmax(dim=1) if activation == "softmax" else scores.sigmoid()

    return Scorer(quantities(config), score)


@dataclass(frozen=True)
class _Input:
    """The network's input: its name, images a batch, their edge in pixels, and the type of a number."""

    name: str
    batch: int
    edge: int
    dtype: str


def _input(session: onnxruntime.InferenceSession, config: Config, path: Path) -> _Input:
    """The one input, held against the configuration."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise WeightsError(f"{path}: has the inputs {[i.name for i in inputs]}; export it with one, of images")
    [takes] = inputs
    if takes.type not in FLOATS:
        raise WeightsError(f"{path}: input '{takes.name}' is {takes.type}; export it with one of {list(FLOATS)}")
    # A size that the file leaves open is a name or None there.
    shape = [size if isinstance(size, int) and size > 0 else None for size in takes.shape]
    if len(shape) != 4:
        raise WeightsError(f"{path}: input '{takes.name}' has the shape {takes.shape}; expected four sizes, of images")
    channels, *edges = (shape[1], *shape[2:]) if config.layout == "nchw" else (shape[3], *shape[1:3])
    if channels not in (None, 3):
        raise WeightsError(
            f"{path}: input '{takes.name}' of shape {takes.shape} has {channels} channels by layout {config.layout}; "
            "three are given: set the scorer's key 'layout', or export it for colour images"
        )
    found = {edge for edge in edges if edge is not None}
    if len(found | ({config.pixels} if config.pixels else set())) > 1:
        raise WeightsError(
            f"{path}: input '{takes.name}' of shape {takes.shape} takes no square of {config.pixels or sorted(found)} "
            "pixels; leave the scorer's key 'pixels' out, or export it for a square"
        )
    edge = config.pixels or next(iter(found), None)
    if edge is None:
        raise WeightsError(f"{path}: input '{takes.name}' takes any size; give the scorer's key 'pixels'")
    return _Input(takes.name, shape[0] or 1, edge, FLOATS[takes.type])


def _output(session: onnxruntime.InferenceSession, config: Config, path: Path) -> str:
    """The name of the output that is read."""
    outputs = {output.name: output.type for output in session.get_outputs()}
    name = config.output or next(iter(outputs))
    if name not in outputs:
        raise WeightsError(f"{path}: no output named '{name}'; it has {list(outputs)}")
    if outputs[name] not in FLOATS:
        raise WeightsError(
            f"{path}: output '{name}' is {outputs[name]}, no scores; give the scorer's key 'output' one of {outputs}"
        )
    return name


def _probes(edge: int) -> torch.Tensor:
    """Black, white and patches of several sizes, (8, 3, edge, edge) uint8."""
    draw = torch.Generator().manual_seed(PROBE_SEED)
    plain = [torch.full((3, edge, edge), value, dtype=torch.uint8) for value in (0, 255)]
    patches = [
        torch.randint(0, 256, (3, edge // size + 1, edge // size + 1), generator=draw, dtype=torch.uint8)
        .repeat_interleave(size, dim=1)
        .repeat_interleave(size, dim=2)[:, :edge, :edge]
        for size in PATCHES
    ]
    return torch.stack([*plain, *patches])


def _activation(found: torch.Tensor, config: Config, path: Path) -> Literal["softmax", "sigmoid", "none"]:
    """The activation to apply, from the network's numbers for the probes, (8, classes), and the configuration."""
    if not torch.isfinite(found).all():
        raise WeightsError(f"{path}: gives numbers that are not finite; check the export, and mean and std")
    between = f"its numbers lie between {found.min():.3g} and {found.max():.3g}"
    if found.min() < 0 or found.max() > 1 + SUM_TOLERANCE:
        if config.activation == "none":
            raise WeightsError(
                f"{path}: gives no probabilities, {between}; leave the scorer's key 'activation' out, or set it to "
                "softmax or sigmoid"
            )
        return config.activation or ("softmax" if len(config.classes) > 1 else "sigmoid")
    sums_to_1 = bool(((found.sum(dim=1) - 1).abs() <= SUM_TOLERANCE).all())
    if config.activation == "none" or (config.activation is None and sums_to_1 and len(config.classes) > 1):
        return "none"
    seem = "are probabilities already" if sums_to_1 else "seem to be probabilities of their own"
    raise WeightsError(
        f"{path}: {between} and {seem}, so that {config.activation or 'an activation'} would be a second one; "
        "set the scorer's key 'activation' to none"
    )


def prepare(image: torch.Tensor, config: Config, edge: int) -> np.ndarray:
    """An image as the network takes it.

    Args:
        image: (3, H, W) uint8, red first.
        config: Settings.
        edge: Of the square, in pixels.

    Returns:
        (3, edge, edge), or (edge, edge, 3), float32.
    """
    import numpy as np
    from torchvision.transforms import functional

    picture: Any = functional.to_pil_image(image.cpu())
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
