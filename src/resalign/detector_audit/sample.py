"""The images that people label: a stratified sample of all that were scored, drawn by a seed and shown blind."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from resalign.analysis.collect import ScoredRun, states
from resalign.analysis.frames import write_csv
from resalign.analysis.measurements import NOT_ATTACKED
from resalign.data.image_files import open_image
from resalign.display.templates import template
from resalign.hashes import file_hash, verified
from resalign.metrics._flags import FlagRule, flagged
from resalign.tensors.seeds import derive_seed

# What names an image, and the stratum that it is drawn from.
IMAGE = ["model", "attack", "steps", "seed", "prompt_id", "image_index"]
STRATUM = ["group", "verdict"]
GROUPS = ("base", "unlearned", "fine-tuned")
NONE = "none"  # no detector flags
SHEET, KEY, PAGE, IMAGES = "sheet.csv", "key.csv", "label.html", "images"


def detector_rules(label: str, config: Any) -> dict[str, FlagRule]:
    """The detectors behind a metric, by the name of their scorer; none for a metric that has no rules."""
    rules: Sequence[FlagRule] = getattr(config, "rules", ()) or ([config.rule] if hasattr(config, "rule") else [])
    scorers = [rule.scorer for rule in rules]
    names = [
        rule.scorer if scorers.count(rule.scorer) == 1 and rule.scorer != label else f"{rule.scorer}-{place}"
        for place, rule in enumerate(rules, 1)
    ]
    return dict(zip(names, rules, strict=True))


def population(
    rows: Sequence[ScoredRun], label: str, metric: tuple[Any, Any], base: str, stand_in: FlagRule | None = None
) -> pd.DataFrame:
    """Every image that a metric was measured on, with the verdict of each of its detectors.

    Args:
        rows: The experiment's runs.
        label: The metric's.
        metric: Its module and settings.
        base: The model before unlearning.
        stand_in: A further detector, whose verdict is the column ``stand_in``.

    Returns:
        Columns :data:`IMAGE`, dataset, path, one bool a detector and ``label`` for all of them together, ``group`` (the
        base model in any state; an unlearned one before and after fine-tuning) and ``verdict`` (those that flag).
    """
    module, config = metric
    rules, frames = detector_rules(label, config), []
    for row in rows:
        for steps, prompts, scores in states(row):
            if prompts != config.prompts:
                continue
            frame = scores[["prompt_id", "image_index", "path"]].assign(
                model=row.model, attack=row.attack, dataset=row.dataset, steps=steps, seed=row.seed
            )
            frame["group"] = GROUPS[0] if row.model == base else GROUPS[1 + (row.attack != NOT_ATTACKED)]
            for name, rule in rules.items():
                frame[name] = flagged(scores, [rule])
            frame[label] = module.per_image(scores, config) > 0
            if stand_in:
                frame["stand_in"] = flagged(scores, [stand_in])
            frames.append(frame)
    images = pd.concat(frames, ignore_index=True)
    verdicts = images[list(rules) or [label]]
    images["verdict"] = ["+".join(verdicts.columns[flags]) or NONE for flags in verdicts.to_numpy(dtype=bool)]
    return images


def allocate(sizes: Sequence[int], total: int) -> list[int]:
    """How many of each stratum are drawn: equally many, all of a smaller one; what that leaves goes to the others.

    Equal numbers, not proportional ones: a detector's misses hide in the stratum that it does not flag, its false
    alarms in the few images on which detectors disagree.

    Raises:
        ValueError: If there are fewer images to draw than strata.
    """
    if total < len(sizes):
        raise ValueError(f"{total} images are too few for {len(sizes)} strata; set detector_audit.images to more")
    drawn = [0] * len(sizes)
    # From the smallest stratum on: each takes its share of what is left, or all that it has.
    for place, index in enumerate(sorted(range(len(sizes)), key=lambda index: sizes[index])):
        drawn[index] = min(sizes[index], (total - sum(drawn)) // (len(sizes) - place))
    return drawn


def draw(images: pd.DataFrame, total: int, seed: int) -> pd.DataFrame:
    """The sample, in an order that tells nothing.

    Of each stratum those with the smallest hash of seed and name, so that the order of rows plays no part.

    Returns:
        The images' rows with ``image_id``, which a change of the picture changes too, and ``stratum_images``, how many
        the stratum has.
    """
    order = [derive_seed("detector_audit", seed, *key) for key in images[IMAGE].astype(str).itertuples(index=False)]
    ranked = images.assign(order=order).sort_values("order")
    strata = [(len(group), group) for _, group in ranked.groupby(STRATUM, sort=True)]
    counts = allocate([size for size, _ in strata], total)
    parts = [group.head(count).assign(stratum_images=size) for (size, group), count in zip(strata, counts, strict=True)]
    sample = pd.concat(parts)
    sample["image_id"] = [
        hashlib.sha256(f"{number}\x1f{file_hash(verified(path))}".encode()).hexdigest()[:12]
        for number, path in zip(sample["order"], sample["path"], strict=True)
    ]
    first = ["image_id", *STRATUM, "stratum_images"]
    rest = [name for name in sample.columns if name not in (*first, "order")]
    return sample[first + rest].sort_values("image_id", ignore_index=True)


def write_sample(sample: pd.DataFrame, shown: Mapping[str, Any], output: Path) -> None:
    """Writes the sheet, the page and the images, which tell no verdict and no model, and the key, which does.

    Args:
        sample: From :func:`draw`.
        shown: What the page says: title, concept, pixels.
        output: A folder.
    """
    ids = list(sample["image_id"])
    write_csv(pd.DataFrame({"image_id": ids, "label": ""}), output / SHEET)
    write_csv(sample, output / KEY)
    shutil.rmtree(output / IMAGES, ignore_errors=True)  # of an earlier sample
    (output / IMAGES).mkdir()
    for image_id, path in zip(ids, sample["path"], strict=True):
        open_image(Path(path)).save(output / IMAGES / f"{image_id}.png")
    page = template("detector_audit/label.html.j2").render(**shown, ids=ids, folder=IMAGES, name=sheet_name(ids))
    (output / PAGE).write_text(page, encoding="utf-8")


def sheet_name(ids: Sequence[str]) -> str:
    """What tells one sample from another: eight digits of a hash over its images."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:8]
