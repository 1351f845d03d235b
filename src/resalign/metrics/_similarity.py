"""How like the generated images of a subject are to its real ones."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from resalign.metrics._flags import features

if TYPE_CHECKING:
    import pandas as pd


def mean_pairwise_cosine(scores: pd.DataFrame, reference: pd.DataFrame, scorer: str) -> float:
    """The mean cosine of each generated image's features and each real image's of the same subject.

    Every generated image counts the same, however many real images its subject has. A generated image's subject is its
    prompt's label; a real image's is the folder that it lies in: ``dog`` for ``dog/00.jpg``, none at the top.

    Args:
        scores: The generated images, with features of ``scorer``.
        reference: The real images, likewise.
        scorer: Label of a scorer that keeps features.

    Raises:
        ValueError: If a subject has no real image.
    """
    import numpy as np

    generated, real = (features(frame, scorer, 0).astype("float64") for frame in (scores, reference))
    generated, real = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (generated, real))
    folders = np.array([_folder(name) for name in reference["prompt_id"]])
    labels = scores["label"].to_numpy()
    values = np.empty(len(generated))
    for subject in sorted(set(labels)):
        own = folders == subject
        if not own.any():
            raise ValueError(
                f"no reference image of subject {subject!r}; the folders there are {sorted(set(folders.tolist()))}"
            )
        values[labels == subject] = generated[labels == subject] @ real[own].mean(axis=0)
    return float(values.mean())


def _folder(name: str) -> str:
    return PurePosixPath(name).parent.name
