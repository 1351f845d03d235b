"""Inception-v3 features for FID and KID, by torch-fidelity.

Source: Heusel 2017, arXiv 1706.08500; the weights are the original TensorFlow graph's of 2015-12-05, converted by
torch-fidelity, whose resizing is TensorFlow 1's as well. Deviation: the released code of ResAlign takes another port
(T2IBenchmark).

An image leaves 2,048 numbers: 80 MB for 10,000 images in float32, 160 MB in the float64 of ``scores.parquet``. The rule
of 10 images a feature asks FID for 20,480; the paper's 10,000 need ``images_per_dimension: 4`` in the metric. A smaller
experiment may ask an earlier layer, which has fewer features: its FID is another quantity, and no paper's.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from resalign.config.strict import Strict
from resalign.lazy import torch
from resalign.scorers._heads import load_head, only_file, read_checked
from resalign.scorers._scorer import Scorer, feature_names

# Release v0.2.0 of torch-fidelity; the file's own name has the first 8 digits.
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Config(Strict):
    """Which weights.

    Attributes:
        folder: A folder with ``weights-inception-2015-12-05-6726825d.pth``.
        sha256: Of that file, which is not read unless it matches.
        features: Their number, which selects the layer: 2,048 after the last pooling, those of FID; or, averaged over
            the image, 64 after the first pooling, 192 after the second, 768 before the auxiliary classifier.
    """

    folder: str
    sha256: str = Field(WEIGHTS_SHA256, pattern="^[0-9a-f]{64}$")
    features: Literal[64, 192, 768, 2048] = 2048


def quantities(config: Config) -> tuple[str, ...]:
    """The features."""
    return feature_names(config.features)


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads the network; quantities are the features, ``f0000`` to ``f2047``."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unfilled(FeatureExtractorInceptionV3):
        """Without weights: torch-fidelity unpickles whatever it is given."""

        def load_state_dict(self, *_: Any, **__: Any) -> Any:
            return None

    path = only_file(folder, (".pth",))
    read_checked(path, config.sha256)
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Unfilled("inception", [str(config.features)], feature_extractor_weights_path=nothing)
    load_head(network, path)
    network.to(device)

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        with torch.no_grad():
            features: torch.Tensor = network(images.to(device))[0]
        return features.cpu()

    return Scorer(quantities(config), score)
