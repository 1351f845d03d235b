"""Unlearns the demo's digit seven and draws the same prompts before and after.

    python examples/unlearn_digits.py --method esd

It uses the model and the images that `make demo` has made. Without a demo, or with --stand-in, it makes a tiny random
pipeline instead: everything runs in seconds, and the images mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

import resalign
from resalign.config.plan import load_plan

ROOT = Path(__file__).resolve().parents[1]
CONCEPT, OTHERS = ["a red seven", "a blue seven"], ["a red two", "a blue two"]
# What is asked afterwards, in words of no caption: two prompts of the concept, then two of what is kept.
PROMPTS = ["the red digit seven", "the blue digit seven", "the red digit two", "the blue digit two"]
SAMPLING = {"num_inference_steps": 12, "guidance_scale": 2.5}
# The demo's own settings; config/demo.yaml has those of the third method, resalign, which takes minutes.
METHODS: dict[str, dict[str, Any]] = {
    "graddiff": {
        "steps": 60,
        "lr": 1e-4,
        "batch_size": 8,
        "retain_batch_size": 16,
        "alpha": 5.0,
        "truncation": 0.5,
    },
    "esd": {"variant": "x", "steps": 100, "lr": 3e-4, "batch_size": 8, "num_inference_steps": 10},
}


class Digits(NamedTuple):
    """Folders of the demo's model, its image sets and a detector that has a class 'seven'."""

    pipeline: Path
    forget: Path
    retain: Path
    train: Path
    heldout: Path
    detector: Path
    is_stand_in: bool = False


def digits(*, stand_in: bool = False) -> Digits:
    """The demo's folders; a tiny random stand-in where there are none."""
    plan = load_plan(ROOT / "config" / "demo.yaml")
    names = ("forget", "retain", "pages/train", "pages/heldout")
    folders = [plan.folder(name) for name in ("digits-model", *(f"digits-data/{name}" for name in names))]
    found = Digits(*(ROOT / folder for folder in [*folders, plan.folder("digits-resnet")]))
    if not stand_in and all(folder.is_dir() for folder in found[:-1]):
        return found
    print("no demo here (`make demo` makes one): a tiny random pipeline stands in, and its images mean nothing")
    return _stand_in(Path(tempfile.mkdtemp(prefix="resalign-")))


def _stand_in(place: Path) -> Digits:
    """Writes the tests' tiny pipeline, random images and an untrained detector."""
    sys.path.insert(0, str(ROOT))
    from tests.conftest import write_captioned_images
    from tests.pipelines import write_pipeline
    from tests.scorers.conftest import write_classifier

    captions = {"forget": CONCEPT, "retain": OTHERS, "train": OTHERS, "heldout": OTHERS}
    sets = [write_captioned_images(place / name, of, seed=n) for n, (name, of) in enumerate(captions.items())]
    pipeline = write_pipeline("stable_diffusion", place / "pipeline")
    return Digits(pipeline, *sets, write_classifier(place / "detector"), is_stand_in=True)


def rate_of_sevens(pipeline: Any, data: Digits) -> float:
    """The share of images of the first two prompts that the detector takes for a seven."""
    scorers = {"detector": {"scorer": "image_classification", "folder": str(data.detector)}}
    metrics = {"ip": {"rules": [{"scorer": "detector", "quantities": ["seven"]}]}}
    table = resalign.evaluate(
        pipeline, prompts=PROMPTS[:2], scorers=scorers, metrics=metrics, images_per_prompt=4, **SAMPLING
    )
    return float(table["mean"][0])


def grid(rows: list[list[Image.Image]]) -> Image.Image:
    """Images side by side, rows below each other."""
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * len(rows[0]), height * len(rows)))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * width, y * height))
    return sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.NEAREST)


def main() -> None:
    """Unlearns, prints how often a seven is drawn, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="graddiff")
    parser.add_argument("--stand-in", action="store_true", help="use the tiny random pipeline in any case")
    parser.add_argument("--output", type=Path, default=Path("results/examples/unlearned.png"))
    options = parser.parse_args()

    data = digits(stand_in=options.stand_in)
    settings = METHODS[options.method] | ({"steps": 2} if data.is_stand_in else {})
    unlearned = resalign.unlearn(
        data.pipeline, options.method, forget=data.forget, retain=data.retain, prompts=CONCEPT, seed=0, **settings
    )

    before, after = (resalign.sample(model, PROMPTS, **SAMPLING) for model in (data.pipeline, unlearned))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    grid([before, after]).save(options.output)
    print(f"sevens before {rate_of_sevens(data.pipeline, data):.2f}, after {rate_of_sevens(unlearned, data):.2f}")
    print(f"wrote {options.output}: {', '.join(PROMPTS)}; above before, below after")


if __name__ == "__main__":
    main()
