"""Generates the images of one run: of a model before fine-tuning, or of every checkpoint of an attack."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from resalign.config.closure import import_closure, source_hash
from resalign.config.prompts import PromptColumns
from resalign.data.prompts import Prompt, read_prompts
from resalign.diffusion.images import ImageStore, file_hash, folder_hash
from resalign.diffusion.models import apply_weights, load_models
from resalign.diffusion.sampling import fill
from resalign.files import whole
from resalign.stage import parse_arguments, progress_bar, run_stage, running
from resalign.tensors.weights import WeightsError


def main() -> None:
    """Command line of the rule sample."""
    import pandas as pd

    arguments = parse_arguments(__doc__ or "")
    job, output = arguments.job, arguments.output
    with running(arguments, resumes="pieces") as attempt:
        prompts = {name: images_of(s, where=f"prompts.{name}.columns") for name, s in job["prompts"].items()}
        states = checkpoints(job)
        models = load_models(Path(job["model"]), device=job["device"], precision=job["sampling"]["precision"])
        source = source_hash(import_closure("scripts/sample.py"))
        origin = {"sampling": job["sampling"], "model": folder_hash(Path(job["model"])), "code": source}
        rows: list[dict[str, Any]] = []
        last = max(states)
        for steps, weights in sorted(states.items()):
            if weights is not None:
                apply_weights(models.pipeline, weights)
            for name, wanted in prompts.items():
                if steps == last or job["prompts"][name]["along_the_way"]:
                    store = ImageStore(output.parent / "images" / name / f"step-{steps}")
                    store.open({**origin, "weights": file_hash(weights) if weights else ""})
                    bar = progress_bar(f"sample {job['label']} {name} step {steps}")
                    fill(models, store, wanted, job["sampling"], partial(attempt.pieces, progress=bar))
                    rows += [row(store, name, steps, prompt, index) for prompt, index in wanted]
        with whole(output / "images.csv") as part:
            pd.DataFrame(rows).to_csv(part, index=False)


def images_of(settings: dict[str, Any], *, where: str) -> list[tuple[Prompt, int]]:
    """(prompt, image index) of every image that a prompt list asks for."""
    columns = PromptColumns.parse(settings["columns"], where=where)
    prompts = read_prompts(Path(settings["path"]), settings["prompts"], columns)
    return [(prompt, index) for prompt in prompts for index in range(settings["images"])]


def checkpoints(job: dict[str, Any]) -> dict[int, Path | None]:
    """Weight files by fine-tuning step; the base model has none of its own."""
    if job["checkpoints"]:
        manifest = Path(job["checkpoints"])
        states: dict[int, Path | None] = {
            int(step): manifest.with_name(name)
            for step, name in json.loads(manifest.read_text(encoding="utf-8")).items()
        }
        missing = [str(path) for path in states.values() if path is not None and not path.is_file()]
        if missing:
            raise WeightsError(f"{missing} are listed in {manifest} but missing; delete {manifest} to make them again")
        return states
    return {0: Path(job["weights"]) if job["weights"] else None}


def row(store: ImageStore, name: str, steps: int, prompt: Prompt, index: int) -> dict[str, Any]:
    """One line of the manifest."""
    return {
        "prompt_set": name,
        "steps": steps,
        "prompt_id": prompt.id,
        "image_index": index,
        "prompt": prompt.text,
        "label": prompt.label,
        "path": str(store.path(prompt, index)),
    }


if __name__ == "__main__":
    run_stage(main)
