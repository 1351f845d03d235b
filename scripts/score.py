"""Gives every image of one run its raw scores, by every scorer; no threshold is applied here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from resalign.config.captions import CAPTION_TABLES
from resalign.data.image_files import open_image
from resalign.data.images import CaptionedImages, read_folder_captions, read_image
from resalign.files import whole
from resalign.hashes import check_listed, verified
from resalign.jobs.score import ScoreJob
from resalign.lazy import torch
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running
from resalign.scorers._scorer import load_scorer
from resalign.tracking import log


def main() -> None:
    """Command line of the rules score and score_reference."""
    import pandas as pd

    arguments = parse_arguments(__doc__, ScoreJob)
    job, output = arguments.job, arguments.output
    frame = read_manifest(Path(job.images))
    listed = () if "sha256" in frame else frame["path"]  # generated ones are held against their list
    with running(arguments, resumes="steps", inputs=[*job.paths(), *listed]) as attempt:
        for path, sha256 in zip(frame["path"], frame.get("sha256", ()), strict=False):  # real ones have none
            check_listed(Path(path), sha256, job.images)
        if job.pixels is not None:
            frame = distinct(frame, job.pixels)
        columns, size = Columns(), job.batch_size
        for label, entry in job.scorers.items():
            scorer = load_scorer(label, entry.model_dump(), arguments.job.device)
            names = [f"{label}.{quantity}" for quantity in scorer.quantities]
            columns.add(names, len(frame))
            bar, starts = progress_bar(f"score {job.label} {label}"), range(0, len(frame), size)
            for start in attempt.steps(starts, phase=label, progress=bar, columns=columns):
                part = frame.iloc[start : start + size]
                images = torch.stack([read_pixels(Path(path), job.pixels) for path in part["path"]])
                scores = scorer.score(images, list(part["prompt"])).double()
                if not torch.isfinite(scores).all():
                    raise FloatingPointError(f"scorer '{label}' gave values that are not finite")
                for name, values in zip(names, scores.T, strict=True):
                    columns.values[name][start : start + size] = values
        scored = pd.DataFrame({name: values.numpy() for name, values in columns.values.items()}, index=frame.index)
        with whole(output / "scores.parquet") as path:
            pd.concat([frame, scored], axis=1).to_parquet(path, index=False)


class Columns:
    """The raw scores so far, by column; it can be saved between batches, with columns that are complete already."""

    def __init__(self) -> None:
        """Has no column yet."""
        self.values: dict[str, torch.Tensor] = {}

    def add(self, names: list[str], images: int) -> None:
        """Adds columns of scores that are not yet known."""
        self.values |= {name: torch.full((images,), math.nan, dtype=torch.float64) for name in names}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The columns, for a saved state."""
        return self.values

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Takes a saved state's columns in place of its own."""
        self.values = dict(state)


def read_manifest(path: Path) -> Any:
    """The images to score: a manifest of generated ones, or a captioned folder of real ones, given by a table in it."""
    import pandas as pd

    if path.name not in CAPTION_TABLES:
        return pd.read_csv(verified(path), dtype={"prompt_id": str, "prompt": str, "label": str}, keep_default_na=False)
    captions = read_folder_captions(path.parent)
    return pd.DataFrame(
        {
            "prompt_set": "reference",
            "steps": 0,
            "prompt_id": [caption.image for caption in captions],
            "image_index": 0,
            "prompt": [caption.text for caption in captions],
            "label": "",
            "path": [str(path.parent / caption.image) for caption in captions],
        }
    )


def distinct(frame: Any, pixels: int) -> Any:
    """The real images without those that show again what an earlier one shows, pixel by pixel: once each they count."""
    images = CaptionedImages(tuple(map(Path, frame["path"])), tuple(frame["prompt"]), pixels)
    again = frame.assign(pixels=images.hashes).duplicated("pixels")
    if again.any():
        log.warning("%d of %d real images repeat an earlier one and count once", again.sum(), len(frame))
    return frame[~again].reset_index(drop=True)


def read_pixels(path: Path, pixels: int | None) -> torch.Tensor:
    """An image file as (3, H, W), uint8; a real one, with ``pixels``, as training reads it: upright and square."""
    if pixels is not None:
        return (read_image(path, pixels) * 255).round().to(torch.uint8)
    import numpy as np

    return torch.from_numpy(np.array(open_image(path))).permute(2, 0, 1)


if __name__ == "__main__":
    run_stage(main)
