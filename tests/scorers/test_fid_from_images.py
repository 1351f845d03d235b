"""FID from image files to number by torch-fidelity itself, against the scorer and a formula written out in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from resalign.metrics._flags import features
from resalign.scorers._scorer import Scorer

Load = Callable[..., Scorer]


def frame_of(scorer: Scorer, images: torch.Tensor) -> pd.DataFrame:
    values = scorer.score(images, [""] * len(images)).double()
    return pd.DataFrame(values.numpy(), columns=[f"net.{quantity}" for quantity in scorer.quantities])


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
    x, y = (features(frame_of(scorer, images), "net", 0) for images in sets)
    assert own == pytest.approx(frechet(x, y), rel=1e-3)
