"""The training of a stage, from image sets to changed weights; the workflow's scripts and the library share it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from resalign.config.concept import IMAGE_SETS, ConceptPrompts, needs_of
from resalign.config.strict import ConfigError, Strict
from resalign.contracts import AttackData, Run, Save, UnlearningData, check_architecture
from resalign.data.images import CaptionedImages, mosaic, read_masks
from resalign.data.prompts import Prompt
from resalign.diffusion.batches import EncodedImages, encode
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.objectives.displacement import displacement
from resalign.tensors.params import Params

ATTACK_SETS = ("train", "heldout", "prior", "harmful")  # the last two for some attacks only


class NotGiven:
    """Takes the place of an image set that was not given: the first use of it is an error."""

    def __init__(self, name: str, user: str) -> None:
        """Remembers the set's ``name``, and the ``user`` that the error names."""
        self._message = f"{user} uses the images '{name}', which were not given; give {name}"

    def __getattr__(self, attribute: str) -> NoReturn:
        """Raises ConfigError, whatever is asked for."""
        raise ConfigError(self._message)

    def __len__(self) -> int:
        """Raises ConfigError."""
        raise ConfigError(self._message)


def unlearned_weights(
    loaded: LoadedPipeline,
    method: ModuleType,
    config: Strict,
    images: Mapping[str, CaptionedImages],
    run: Run,
    *,
    concepts: Sequence[ConceptPrompts] = (),
    retain_prompts: Sequence[str] = (),
    masks: Path | None = None,
    checkpoint: Path | None = None,
) -> dict[str, torch.Tensor]:
    """Encodes the image sets and runs an unlearning method on them.

    Args:
        loaded: The pipeline; its own weights stay as they are.
        method: A member of :mod:`resalign.unlearning`.
        config: The method's settings.
        images: Image sets by name, some of :data:`resalign.config.concept.IMAGE_SETS` and ``prior``; a method that
            uses another one fails.
        run: Seed and records.
        concepts: The concepts in words; a single one without prompts takes the captions of ``forget``.
        retain_prompts: Prompts that the model should keep.
        masks: A folder with an image for each of ``forget``, of the same name: white where it shows the concept.
        checkpoint: A released weight file or folder, for the method ``imported``.

    Returns:
        The changed weights, by their names in a weight file. How far they are from the original ones is recorded as
        the last step's, where there are images to retain.

    Raises:
        ConfigError: If the method does not support the pipeline, or uses images that are not given.
    """
    words: dict[str, Any] = {
        "concepts": concepts,
        "retain_prompts": retain_prompts,
        "masks": masks,
        "checkpoint": checkpoint,
    }
    data = unlearning_data(loaded, method, config, images, run, **words)
    weights: dict[str, torch.Tensor] = method.unlearn(loaded, data, config, run)
    if "retain" in images:
        run.history.record(run.history.last_step, **displacement(loaded, weights, data.retain))
    return weights


def unlearning_data(
    loaded: LoadedPipeline,
    method: ModuleType,
    config: Strict,
    images: Mapping[str, CaptionedImages],
    run: Run,
    *,
    concepts: Sequence[ConceptPrompts] = (),
    retain_prompts: Sequence[str] = (),
    masks: Path | None = None,
    checkpoint: Path | None = None,
) -> UnlearningData:
    """What a method is handed; arguments and errors are those of :func:`unlearned_weights`."""
    check_architecture(method, loaded.architecture.name)
    name = f"method '{method.__name__.rpartition('.')[2]}'"
    if not (any(concept.prompts for concept in concepts) or "forget" in images or checkpoint):
        raise ConfigError(f"{name}: nothing names the concept; give prompts, or the images forget")
    if len(concepts) > 1 and not all(concept.prompts for concept in concepts):
        raise ConfigError(f"{name}: each of several concepts needs prompts of its own")
    sets = {key: encode(loaded, images[key], run.generator("encode", key)) for key in images}
    given: dict[str, Any] = {key: sets[key] if key in sets else NotGiven(key, name) for key in IMAGE_SETS}
    captions = tuple(sorted(set(images["forget"].prompts))) if "forget" in images else ()
    words = [c if c.prompts else ConceptPrompts(prompts=captions, substitute=c.substitute) for c in concepts]
    data = UnlearningData(
        **given,
        concepts=tuple(words) or (ConceptPrompts(prompts=captions),),
        retain_prompts=tuple(retain_prompts),
        checkpoint=checkpoint,
        prior=sets.get("prior"),
    )
    _check_needs(name, needs_of(config), data, masks)
    return replace(data, **_optional(loaded, config, images, masks, run))


def _optional(
    loaded: LoadedPipeline, config: Any, images: Mapping[str, CaptionedImages], masks: Path | None, run: Run
) -> dict[str, Any]:
    """The mosaics and masks of ``forget``, those that a method needs."""
    found: dict[str, Any] = {}
    needs = needs_of(config)
    if "mosaic" in needs:  # encoded with the noise of its image: the two differ by the mosaic alone
        coarsened = functools.partial(mosaic, tiles=config.mosaic_tiles)
        found["mosaic"] = encode(loaded, images["forget"], run.generator("encode", "forget"), coarsened)
    if "masks" in needs and masks is not None:
        found["masks"] = read_masks(masks, images["forget"], loaded.latent_shape[-1])
    return found


def _check_needs(name: str, needs: Sequence[str], data: UnlearningData, masks: Path | None) -> None:
    """Raises ConfigError if something of :data:`resalign.config.concept.OPTIONAL` is missing that a method needs."""
    there = {
        "substitute": all(concept.substitute for concept in data.concepts),
        "retain_prompts": bool(data.retain_prompts),
        "mosaic": isinstance(data.forget, EncodedImages),
        "masks": masks is not None and isinstance(data.forget, EncodedImages),
        "prior": data.prior is not None,
    }
    if lacking := [need for need in needs if not there[need]]:
        raise ConfigError(f"{name} needs {', '.join(lacking)}; give {'it' if len(lacking) == 1 else 'them'}")


def run_attack(
    loaded: LoadedPipeline,
    member: ModuleType,
    config: Any,
    images: Mapping[str, CaptionedImages],
    run: Run,
    save: Save,
    *,
    prompts: Sequence[Prompt] = (),
    unlearned: Params | None = None,
) -> None:
    """Encodes the image sets and runs an attack on them.

    Args:
        loaded: The pipeline under attack; its own weights stay as they are.
        member: A member of :mod:`resalign.attacks`.
        config: The attack's settings.
        images: Image sets by name, ``train`` and ``heldout`` and some others of :data:`ATTACK_SETS`.
        run: Seed and records.
        save: Receives the weights of every checkpoint; see :class:`resalign.contracts.Save`.
        prompts: The prompts that an attack on prompts changes.
        unlearned: See :class:`resalign.contracts.AttackData`.

    Raises:
        ConfigError: If the attack does not support the pipeline.
    """
    check_architecture(member, loaded.architecture.name)
    # Held-out latents are the same for every seed and model, as the noise of the held-out loss is. So are harmful ones,
    # by which a search is judged.
    fixed = Run(seed=0)
    streams = {name: fixed if name in ("heldout", "harmful") else run for name in ATTACK_SETS}
    own = getattr(config, "encoding", {})  # of an attack that trains on images
    encoding: dict[str, Any] = {name: own if name in ("train", "prior") else {} for name in ATTACK_SETS}
    sets = {
        name: encode(loaded, images[name], streams[name].generator("encode", name), **encoding[name])
        for name in ATTACK_SETS
        if name in images
    }
    member.attack(loaded, AttackData(**sets, prompts=tuple(prompts), unlearned=unlearned or {}), config, run, save)
