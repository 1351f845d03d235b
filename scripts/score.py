"""Gives every image of one run its raw scores, by every scorer; no threshold is applied here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.lazy import torch
from resalign.stage import parse_arguments, progress_bar, run_stage, running

# Images read and scored at once; it moves no score by more than rounding.
BATCH = 60


def main() -> None:
    """Command line of the rules score and score_reference."""
    import pandas as pd

    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    with running(arguments):
        frame = read_manifest(Path(job["images"]))
        columns: dict[str, Any] = {}
        for label, entry in job["scorers"].items():
            settings = dict(entry["settings"])
            module = registry.member("scorers", settings.pop("name"))
            folder = Path(entry["folder"]) if entry["folder"] else None
            scorer = module.load(module.Config.parse(settings, where=label), folder, job["device"])
            values = []
            for start in progress_bar(f"score {job['label']} {label}")(range(0, len(frame), BATCH)):
                part = frame.iloc[start : start + BATCH]
                images = torch.stack([read_pixels(Path(path)) for path in part["path"]])
                values.append(scorer.score(images, list(part["prompt"])))
            scores = torch.cat(values).double()
            if not torch.isfinite(scores).all():
                raise FloatingPointError(f"scorer '{label}' gave values that are not finite")
            for index, quantity in enumerate(scorer.quantities):
                columns[f"{label}.{quantity}"] = scores[:, index].numpy()
        result = pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)
        result.to_parquet(output / "scores.parquet", index=False)


def read_manifest(path: Path) -> Any:
    """The images to score: a manifest of generated ones, or a captioned folder of real ones."""
    import pandas as pd

    frame = pd.read_csv(path, dtype={"prompt_id": str, "prompt": str, "label": str}, keep_default_na=False)
    if path.name == "metadata.csv":
        paths = [str(path.with_name(name)) for name in frame["file_name"]]
        frame = pd.DataFrame(
            {
                "prompt_set": "reference",
                "steps": 0,
                "prompt_id": frame["file_name"],
                "image_index": 0,
                "prompt": frame["prompt"],
                "label": "",
                "path": paths,
            }
        )
    return frame


def read_pixels(path: Path) -> torch.Tensor:
    """An image file as (3, H, W), uint8."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


if __name__ == "__main__":
    run_stage(main)
