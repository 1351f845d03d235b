"""Facts of a card's model: its origin, and the sha256 of its files."""

from __future__ import annotations

import json
from pathlib import Path

from resalign.diffusion.forward_process import difference, forward_process_in
from resalign.diffusion.images import folder_hash
from resalign.diffusion.loaded_pipeline import autoencoder_difference
from resalign.disclosure import without_places
from resalign.hashes import RECORDS, file_hash, verified
from resalign.jobs.cards import CardSource


def describe(source: CardSource, base: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """The facts of one model, and what a reader must know because of them.

    Args:
        source: Of the model.
        base: The base model's pipeline folder.

    Returns:
        Facts by name, in the order shown; and caveats.
    """
    facts, caveats = _pipeline(Path(source.pipeline), base) if source.pipeline else _weights(source)
    facts = {name: without_places(value) for name, value in facts.items()}
    return {**facts, "base": f"{without_places(str(base))}, sha256 {folder_hash(base)}"}, caveats


def _pipeline(folder: Path, base: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """A pipeline that was sampled and attacked as it is, compared with the base part by part."""
    facts = {
        "what it is": "a diffusers pipeline folder, sampled and attacked as it is",
        "path": str(folder),
        "sha256 of weights and settings": folder_hash(folder),
    }
    parts = sorted({path.name for place in (folder, base) for path in place.iterdir() if path.is_dir()})
    same = {part: folder_hash(folder / part) == folder_hash(base / part) for part in parts}
    for part in parts:
        facts[part] = "the same files as the base's" if same[part] else "other files than the base's"
    caveats = []
    if not same["vae"]:
        other_network = autoencoder_difference(folder, base)
        facts["vae"] += f", and another network ({other_network})" if other_network else ", which hold the same network"
        if other_network:
            caveats.append(
                f"Its autoencoder is another one than the base's ({other_network}): learnability divides losses of two "
                "latent spaces here, and is no fair comparison."
            )
    other_process = difference(forward_process_in(folder), forward_process_in(base))
    if other_process:
        caveats.append(
            f"Its noise schedule is not the base's ({other_process}): learnability divides losses of two kinds here, "
            "and is no fair comparison."
        )
    return facts, tuple(caveats)


def _weights(source: CardSource) -> tuple[dict[str, str], tuple[str, ...]]:
    """Changed weights of the base model: a checkpoint, or what a method has made of it here."""
    settings = dict(source.method)
    name = settings.pop("name")
    if source.checkpoint is not None:
        path = Path(source.checkpoint)
        facts = {"what it is": "changed weights for the base model, taken as they are", "path": str(path)}
        inner = (file for file in path.rglob("*") if file.is_file() and file.name not in RECORDS)
        files = [path] if path.is_file() else sorted(inner)
        inside = path.parent if path.is_file() else path
        facts |= {f"sha256 of {file.relative_to(inside)}": file_hash(file) for file in files}
    else:
        facts = {"what it is": f"the base model, unlearned here by {name}", "settings": json.dumps(settings)}
    for seed, weights in source.weights.items():
        facts[f"sha256 of the weights in use, training seed {seed}"] = file_hash(verified(weights))
    return facts, ()
