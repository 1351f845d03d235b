"""Unlearned weights for others to load: a whole pipeline folder, or the difference from a named base."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resalign.diffusion.architectures import architecture_in
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.files import whole_folder
from resalign.hashes import file_hash
from resalign.lazy import torch
from resalign.tensors.pretrained import ENCODER_FILES, NETWORK_FILES
from resalign.tensors.weights import WeightsError, component_files, load_weights, save_weights

DELTA, MANIFEST = "delta.safetensors", "delta.json"
SETTINGS = (".json", ".txt", ".model")  # of a component, besides its weights; .model is SentencePiece's
# Parts of a pipeline that no image that is measured here depends on, and that many copies of a base lack.
NO_PART = ("safety_checker", "feature_extractor", "image_encoder")


def write_pipeline(base: Path, weights: Path, output: Path) -> None:
    """Writes a folder that diffusers loads: the base's files, with the changed components' weights replaced.

    Those are written in float32, in which they were trained. A component that the base's index lists but its folder
    lacks (usually the safety checker) is left out of the index. Equal input gives equal bytes.

    Args:
        base: The base model's pipeline folder.
        weights: A safetensors file of changed tensors, named ``component.parameter``.
        output: An empty or new folder.

    Raises:
        WeightsError: If weights and base do not fit, no tensor differs, or the folder has files.
    """
    _check_empty(output)
    loaded, changed = changed_tensors(base, weights)
    tensors = trainable_tensors(loaded.pipeline)
    for name, tensor in changed.items():
        tensors[name].data.copy_(tensor)
    replaced = {name.split(".")[0] for name in changed}
    present = list(_components(base))
    index = json.loads((base / "model_index.json").read_text(encoding="utf-8"))
    lacking = {name: [None, None] for name, value in index.items() if isinstance(value, list) and name not in present}
    unchecked = {"requires_safety_checker": False} if "safety_checker" in lacking else {}
    with whole_folder(output) as part:
        for component in present:
            (part / component).mkdir(parents=True)
            own = _settings(base / component) + ([] if component in replaced else _weights(base / component))
            for file in own:
                shutil.copyfile(file, part / component / file.name)
            if component in replaced:
                _save(getattr(loaded.pipeline, component), part / component)
        _write_json(part / "model_index.json", {**index, **lacking, **unchecked})


def write_delta(base: Path, weights: Path, output: Path, base_id: str) -> None:
    """Writes the tensors that differ from the base's, with the base's name and the hashes of its files.

    Args:
        base: The base model's pipeline folder.
        weights: A safetensors file of changed tensors.
        output: An empty or new folder.
        base_id: The base's name, for a reader.

    Raises:
        WeightsError: As :func:`write_pipeline`.
    """
    _check_empty(output)
    loaded, changed = changed_tensors(base, weights)
    with whole_folder(output) as part:
        save_weights(part / DELTA, changed)
        manifest = {
            "base": base_id,
            "base_sha256": base_hashes(base),
            "sha256": file_hash(part / DELTA),
            "tensors": len(changed),
            "of": len(trainable_tensors(loaded.pipeline)),
        }
        _write_json(part / MANIFEST, manifest)


def apply_delta(delta: Path, base: Path, output: Path) -> None:
    """Writes the whole pipeline of a delta and its base, byte-equal to :func:`write_pipeline`'s.

    Raises:
        WeightsError: If the delta is damaged, or the base is not the one that it was made from.
    """
    try:
        manifest = json.loads((delta / MANIFEST).read_text(encoding="utf-8"))
        sha256, wanted, base_id = manifest["sha256"], dict(manifest["base_sha256"]), manifest["base"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise WeightsError(f"{delta / MANIFEST}: cannot be read ({error!r}); export the delta again") from None
    if not (delta / DELTA).is_file() or file_hash(delta / DELTA) != sha256:
        raise WeightsError(f"{delta / DELTA}: not the file that {MANIFEST} describes (sha256); fetch it again")
    found = base_hashes(base)
    wrong = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if wrong:
        raise WeightsError(
            f"{base}: not the base of this delta, which is {base_id}: {len(wrong)} of {len(wanted)} files are "
            f"missing, others or too many, first {wrong[0]}; fetch that base, at that revision"
        )
    write_pipeline(base, delta / DELTA, output)


def changed_tensors(base: Path, weights: Path) -> tuple[LoadedPipeline, dict[str, torch.Tensor]]:
    """The loaded base, and the tensors of a weight file that differ from it in any bit.

    Raises:
        WeightsError: If there is none, or the file does not fit the base.
    """
    loaded = load_pipeline(base)
    own = trainable_tensors(loaded.pipeline)
    tensors = {name: tensor.to(own[name].dtype) for name, tensor in load_weights(weights, own).items()}
    changed = {name: tensor for name, tensor in tensors.items() if not _same_bits(tensor, own[name].detach())}
    if not changed:
        raise WeightsError(f"{weights}: holds only the base model's own weights; there is nothing to export")
    return loaded, changed


def base_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file of a pipeline folder that its images depend on, by ``component/file``."""
    files = {
        f"{component}/{file.name}": file
        for component in _components(folder)
        if component not in NO_PART
        for file in (*_settings(folder / component), *_weights(folder / component))
    }
    return {name: file_hash(file) for name, file in sorted(files.items())}


def _components(folder: Path) -> Iterator[str]:
    """Components that a pipeline's index lists and its folder contains."""
    _, named = architecture_in(folder)
    yield from (name for name, value in named.items() if any(value) and (folder / name).is_dir())


def _settings(component: Path) -> list[Path]:
    """A component's files besides weights; the index of shards goes with them."""
    return sorted(
        file for file in component.iterdir() if file.suffix in SETTINGS and not file.name.endswith(".index.json")
    )


def _weights(component: Path) -> list[Path]:
    """A component's weight files as they are loaded, no variants; none of a tokenizer or a scheduler."""
    found = []
    for stem in (NETWORK_FILES, ENCODER_FILES):
        files = component_files(component, stem)
        index = component / f"{stem}.safetensors.index.json"
        found += [*files, *([index] if len(files) > 1 else [])]
    return found


def _save(component: Any, folder: Path) -> None:
    """Writes only a component's weights: its own settings could name a path of this machine."""
    with tempfile.TemporaryDirectory() as place:
        component.save_pretrained(place, safe_serialization=True)
        for file in sorted(Path(place).iterdir()):
            if ".safetensors" in file.name:
                shutil.copyfile(file, folder / file.name)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _check_empty(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()):
        raise WeightsError(f"{output}: has files already; name an empty folder, or take them away")


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
