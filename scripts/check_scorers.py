"""Tries every scorer before the work: its numbers against what metrics and labels name, its flags on known images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from resalign.config.scorer_needs import DetectorCheckConfig, check_count, check_numbers
from resalign.config.strict import nearest
from resalign.data.images import (
    CaptionedImages,
    DataError,
    read_captioned_images,
    read_folder_captions,
    read_image,
)
from resalign.data.prompts import read_prompts
from resalign.jobs.check_scorers import FOUND, CheckScorersJob
from resalign.lazy import torch
from resalign.metrics._flags import Need
from resalign.metrics._trial import Drawn, check_flags, show
from resalign.running.stage import parse_arguments, run_stage, running, write_json
from resalign.scorers._scorer import load_scorer
from resalign.tensors.seeds import generator

Read = Callable[[str], CaptionedImages]


def main() -> None:
    """Command line of the rule check_scorers."""
    arguments = parse_arguments(__doc__, CheckScorersJob)
    job = arguments.job

    @functools.cache
    def read(folder: str) -> CaptionedImages:
        return read_captioned_images(Path(folder), pixels=job.pixels)

    @functools.cache
    def real(folder: str) -> CaptionedImages:
        return listed_images(Path(folder), pixels=job.pixels)

    with running(arguments):
        drawn = {name: draw(read(folder), job.check) for name, folder in job.images.items()}
        shown = []
        for label, entry in job.scorers.items():
            scorer, rules = load_scorer(label, entry.model_dump(), "cpu"), []
            for where, prompts, values in job.needs:
                if (need := Need(**values)).scorer == label:
                    check_numbers(need, scorer.quantities, where=where, source=source(entry.folders))
                    if prompts in job.prompts:
                        check_lists(need, scorer.quantities, job, real, where=where, prompts=prompts)
                    rules += [(where, need)] if need.threshold is not None else []
            found = show(label, scorer, rules, drawn)
            for result in found if entry.own and job.check.stop else ():
                check_flags(result, source(entry.folders), job.images["forget"])
            shown += found
        write_json(arguments.output / FOUND, {"most_retained": job.check.most_retained, "shown": shown})


def source(folders: Sequence[str]) -> str:
    """A scorer's folders, for an error."""
    return f" of {', '.join(folders)}" if folders else ""


def draw(images: CaptionedImages, check: DetectorCheckConfig) -> Drawn:
    """Some of a set's images, the same whoever asks, with their captions."""
    order = torch.randperm(len(images), generator=generator("check_scorers", check.seed))[: check.images].tolist()
    pixels = torch.stack([read_image(images.files[index], images.pixels) for index in order])
    return (pixels * 255).round().to(torch.uint8), [images.prompts[index] for index in order]


def listed_images(folder: Path, *, pixels: int) -> CaptionedImages:
    """A folder's images, none of them decoded yet."""
    captions = read_folder_captions(folder)
    files, texts = tuple(folder / caption.image for caption in captions), tuple(caption.text for caption in captions)
    return CaptionedImages(files, texts, pixels)


def check_lists(
    need: Need, given: Sequence[str], job: CheckScorersJob, read: Read, *, where: str, prompts: str
) -> None:
    """Refuses labels that are no class or no folder of real images, and too few images for the features."""
    entry = job.prompts[prompts]
    real = {folder: read(folder) for folder in job.compared.get(where, ())}
    subjects = {file.relative_to(folder).parent.name for folder, found in real.items() for file in found.files}
    for path in entry.paths:
        listed = read_prompts(*entry.arguments(path))
        known = list(given) if need.labels else sorted(subjects)
        for prompt in listed if need.labels or need.subjects else ():
            place = f"{path}: prompt {prompt.id!r} has the label {prompt.label!r}, and {where} "
            if not prompt.label and "" not in known:  # images at the top of their folder have none either
                raise DataError(
                    f"{place}reads labels; give the list a column 'label', or prompts.{prompts}.columns.label"
                )
            if need.excluded and prompt.label == need.excluded:
                raise DataError(
                    f"{place}counts it on prompts of other concepts; take the row out, or name another list"
                )
            if prompt.label not in known:
                what = f"class of scorer '{need.scorer}'" if need.labels else f"folder in {', '.join(real)}"
                raise DataError(f"{place}finds no such {what}{nearest(prompt.label, known)}")
        check_count(need, given, len(listed) * entry.images, where=where, of=f"{path} (tier {job.tier})")
    for folder, found in real.items() if need.images_per_dimension or need.least_images else ():
        # As scripts/score.py has them: an image that shows again what another shows counts once.
        check_count(need, given, len(set(found.hashes)), where=where, of=folder)


if __name__ == "__main__":
    run_stage(main)
