"""Gives every image of one run its raw scores, by every scorer; no threshold is applied here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from resalign.config.captions import CAPTION_TABLES
from resalign.files import whole
from resalign.hashes import check_listed, verified
from resalign.jobs.score import ScoreJob
from resalign.lazy import torch
from resalign.library.scoring import distinct, read_pixels, real_images, score_batch
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running
from resalign.scorers._scorer import load_scorer


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
            columns.add([f"{label}.{quantity}" for quantity in scorer.quantities], len(frame))
            bar, starts = progress_bar(f"score {job.label} {label}"), range(0, len(frame), size)
            for start in attempt.steps(starts, phase=label, progress=bar, columns=columns):
                part = frame.iloc[start : start + size]
                images = torch.stack([read_pixels(Path(path), job.pixels) for path in part["path"]])
                for name, values in score_batch(label, scorer, images, list(part["prompt"])).items():
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
    return real_images(path.parent)


if __name__ == "__main__":
    run_stage(main)
