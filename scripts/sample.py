"""Generates the images of one run: of a model before fine-tuning, or of every checkpoint of an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from resalign.config.closure import import_closure, source_hash
from resalign.data.images import DataError
from resalign.data.prompts import Prompt, counted_as, read_prompts, same_text
from resalign.diffusion.images import ImageStore, folder_hash
from resalign.diffusion.loaded_pipeline import apply_weights, load_pipeline
from resalign.diffusion.sampling import fill
from resalign.files import whole
from resalign.hashes import IMAGES, file_hash
from resalign.jobs.sample import SampledPrompts, SampleJob
from resalign.running.stage import parse_arguments, progress_bar, run_stage, running
from resalign.tensors.weights import kept_states
from resalign.tracking import log


def main() -> None:
    """Command line of the rule sample."""
    import pandas as pd

    arguments = parse_arguments(__doc__, SampleJob)
    job, output = arguments.job, arguments.output
    states = checkpoints(job)
    inputs: list[str | Path] = [*job.paths(), *(weights for weights in states.values() if weights)]
    with running(arguments, resumes="pieces", inputs=inputs) as attempt:
        prompts = {name: images_of(listed, where=f"prompts.{name}") for name, listed in job.prompts.items()}
        loaded = load_pipeline(Path(job.model), device=arguments.job.device, precision=job.sampling.precision)
        source, sampling = source_hash(import_closure("scripts/sample.py")), job.sampling.model_dump()
        origin = {"sampling": sampling, "model": folder_hash(Path(job.model)), "code": source}
        rows: list[dict[str, Any]] = []
        last = max(states)
        for steps, weights in sorted(states.items()):
            if weights is not None:
                apply_weights(loaded.pipeline, weights)
            for name, wanted in prompts.items():
                if steps == last or job.prompts[name].along_the_way:
                    store = ImageStore(output.parent / IMAGES / name / f"step-{steps}", job.sampling.image_format)
                    store.open({**origin, "weights": file_hash(weights) if weights else ""})
                    bar = progress_bar(f"sample {job.label} {name} step {steps}")
                    shown = wanted
                    if name == job.attacked_prompts:  # of an attack, which has checkpoints
                        shown = attacked_texts(wanted, Path(str(job.checkpoints)), steps)
                    fill(loaded, store, shown, sampling, partial(attempt.pieces, progress=bar))
                    if job.sampling.image_files == "shards":
                        store.pack()
                    rows += [
                        row(name, steps, prompt, counted, store.path(prompt, index), store.sha256(prompt, index))
                        for (prompt, index), counted in zip(shown, counted_as(wanted), strict=True)
                    ]
        with whole(output / "images.csv") as part:
            pd.DataFrame(rows).to_csv(part, index=False)


def images_of(listed: SampledPrompts, *, where: str) -> list[tuple[Prompt, int]]:
    """(prompt, image index) of every image that a prompt list asks for."""
    prompts = read_prompts(*listed.arguments(listed.path))
    texts = len({same_text(prompt.text) for prompt in prompts})
    if texts < len(prompts):
        log.warning(
            "%s: %d of %d prompts repeat a text; they count as images of it", where, len(prompts) - texts, len(prompts)
        )
    return [(prompt, index) for prompt in prompts for index in range(listed.images)]


def attacked_texts(wanted: Sequence[tuple[Prompt, int]], manifest: Path, steps: int) -> list[tuple[Prompt, int]]:
    """The same images of the prompts that an attack has made of them: ids, and so noise, stay as they are."""
    table = manifest.with_name(f"step-{steps}-prompts.csv")
    texts = {prompt.id: prompt.text for prompt in read_prompts(table)}
    missing = [prompt.id for prompt, _ in wanted if prompt.id not in texts]
    if missing:
        raise DataError(
            f"{table}: lacks prompt {missing[0]!r}, which is to be sampled; delete {manifest} to make it anew"
        )
    return [(replace(prompt, text=texts[prompt.id]), index) for prompt, index in wanted]


def checkpoints(job: SampleJob) -> dict[int, Path | None]:
    """Weight files by fine-tuning step; the base model has none of its own."""
    if job.checkpoints:
        return kept_states(Path(job.checkpoints))
    return {0: Path(job.weights) if job.weights else None}


def row(name: str, steps: int, prompt: Prompt, counted: tuple[str, int], path: Path, sha256: str) -> dict[str, Any]:
    """One line of the manifest; everything behind it counts prompts and images by the ids that stand here."""
    prompt_id, index = counted
    return {
        "prompt_set": name,
        "steps": steps,
        "prompt_id": prompt_id,
        "image_index": index,
        "prompt": prompt.text,
        "label": prompt.label,
        "path": str(path),
        "sha256": sha256,
    }


if __name__ == "__main__":
    run_stage(main)
