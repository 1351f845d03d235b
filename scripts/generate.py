"""Makes one image set from a list of prompts by the model before unlearning."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.config.experiment import SETS
from resalign.data.prompts import Prompt
from resalign.diffusion.models import load_models
from resalign.diffusion.sampling import sample_images
from resalign.stage import parse_arguments, progress_bar, run_stage, running


def main() -> None:
    """Command line of the rule generate."""
    arguments = parse_arguments(__doc__ or "")
    settings = dict(arguments.job["set"])
    name = settings.pop("name")
    config = registry.config_class(SETS, name).parse(settings, where=f"prepared.{arguments.job['name']}")
    with running(arguments):

        def draw(wanted: Sequence[tuple[Prompt, int]]) -> Iterator[bytes]:
            return drawn(config, wanted, arguments.job["device"], arguments.job["name"])

        registry.member(SETS, name).generate(config, arguments.output, draw)


def drawn(config: Any, wanted: Sequence[tuple[Prompt, int]], device: str, label: str) -> Iterator[bytes]:
    """PNG files of the wanted images, in batches of fixed composition."""
    from PIL import Image

    models = load_models(Path(config.model), device=device)
    for start in progress_bar(f"generate {label}")(range(0, len(wanted), config.batch_size)):
        images = sample_images(
            models,
            wanted[start : start + config.batch_size],
            sampling_seed=config.seed,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
        )
        for image in images:
            content = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, "PNG")
            yield content.getvalue()


if __name__ == "__main__":
    run_stage(main)
