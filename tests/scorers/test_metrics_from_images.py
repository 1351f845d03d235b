"""Metrics from pixels to number, scorer included, against formulas written out here in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image

from resalign.config import registry
from resalign.lazy import transformers
from resalign.metrics._flags import features
from resalign.scorers._scorer import Scorer
from tests.nearness import assert_near

Load = Callable[..., Scorer]
PROMPTS = ["a red two", "a blue three", "seven", "nothing", "one", "two"]
SUBJECTS = ["two", "seven", "two"]
REAL = ["two/0.png", "seven/0.png", "two/1.png"]


def frame_of(scorer: Scorer, images: torch.Tensor, prompts: list[str], **columns: Any) -> pd.DataFrame:
    values = scorer.score(images, prompts).double()
    names = [f"net.{quantity}" for quantity in scorer.quantities]
    return pd.DataFrame({**columns, **dict(zip(names, values.T, strict=True))})


def value(name: str, *frames: pd.DataFrame) -> Any:
    metric = registry.member("metrics", name)
    config = metric.Config.parse({"prompts": "p", "scorer": "net"}, where="test")
    return (metric.of_set if hasattr(metric, "of_set") else metric.per_image)(*frames, config)


def cosines(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(N, D) and (M, D) to (N, M)."""
    x, y = x.double(), y.double()
    return x @ y.T / (x.pow(2).sum(1).sqrt()[:, None] * y.pow(2).sum(1).sqrt())


def test_clip_score(load_scorer: Load, scorer_folder: Callable[[str], Any], images: torch.Tensor) -> None:
    folder = f"local-dir:{scorer_folder('clip')}"
    model = open_clip.create_model(folder).eval().double()
    with torch.no_grad():
        image = model.encode_image(images.double() / 255 * 2 - 1)
        text = model.encode_text(open_clip.get_tokenizer(folder)(PROMPTS))
    expected = 100 * cosines(image, text).diagonal()
    found = value("clip_score", frame_of(load_scorer("clip"), images, PROMPTS)).to_numpy()
    assert_near(found, expected, 1e-5)
    assert_near(found.mean(), expected.mean(), 1e-5, scale=expected)


def subject_similarity(x: torch.Tensor, y: torch.Tensor) -> float:
    table = cosines(x, y)
    two = (table[0, 0] + table[0, 2]) / 2, (table[2, 0] + table[2, 2]) / 2
    return float((two[0] + table[1, 1] + two[1]) / 3)


@pytest.mark.parametrize("name", ["clip_i", "dino"])
def test_subject_similarity(
    name: str, load_scorer: Load, scorer_folder: Callable[[str], Any], images: torch.Tensor
) -> None:
    pixels = images.double() / 255 * 2 - 1
    with torch.no_grad():
        if name == "clip_i":
            scorer = load_scorer("clip", features=True)
            embed = open_clip.create_model(f"local-dir:{scorer_folder('clip')}").eval().double().encode_image(pixels)
        else:
            scorer = load_scorer("dino")
            model = transformers.ViTModel.from_pretrained(scorer_folder("dino"), add_pooling_layer=False)
            embed = model.eval().double()(pixels).last_hidden_state[:, 0]
    generated = frame_of(scorer, images[:3], [""] * 3, label=SUBJECTS)
    real = frame_of(scorer, images[3:], [""] * 3, label="", prompt_id=REAL)
    assert value(name, generated, real) == pytest.approx(subject_similarity(embed[:3], embed[3:]), rel=1e-5)


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """FID in float64, with the nuclear norm of the cross products: tr((Σ₁Σ₂)^½) = ‖AᵀB‖₁ for Σ₁ = AAᵀ and Σ₂ = BBᵀ."""
    x, y = x.astype("float64"), y.astype("float64")
    a, b = ((v - v.mean(axis=0)) / np.sqrt(len(v) - 1) for v in (x, y))
    traces = (a**2).sum() + (b**2).sum() - 2 * np.linalg.norm(a @ b.T, "nuc")
    return float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + traces)


@pytest.mark.slow
def test_fid_of_image_files_by_torch_fidelitys_own_path(
    load_scorer: Load, scorer_folder: Callable[[str], Any], tmp_path: Path
) -> None:
    """Its own reading of files, network, statistics and distance against the scorer's features and the formula."""
    import torch_fidelity

    draw = torch.Generator().manual_seed(0)
    sets = [(torch.rand((12, 3, 40, 40), generator=draw) * scale).to(torch.uint8) for scale in (255, 160)]
    for index, images in enumerate(sets):
        (tmp_path / str(index)).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / str(index) / f"{number}.png")
    own = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "0"),
        input2=str(tmp_path / "1"),
        fid=True,
        cuda=False,
        verbose=False,
        batch_size=6,
        cache=False,
        save_cpu_ram=True,
        feature_extractor_weights_path=str(next(scorer_folder("inception").glob("*.pth"))),
    )["frechet_inception_distance"]
    scorer = load_scorer("inception")
    x, y = (features(frame_of(scorer, images, [""] * 12), "net", 0) for images in sets)
    assert own == pytest.approx(frechet(x, y), rel=1e-3)
