"""Functions that change a pipeline's weights: unlearning, and the fine-tuning that attacks it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.config.concept import ConceptPrompts
from resalign.config.precision import TrainingPrecision
from resalign.config.strict import ConfigError
from resalign.contracts import Run
from resalign.data.overlap import check_apart
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.precision import training_precision
from resalign.lazy import diffusers, torch
from resalign.library.inputs import Images, Pipeline, captioned, open_pipeline
from resalign.library.training import run_attack, unlearned_weights
from resalign.tensors.weights import WeightsError
from resalign.tracking import History, tracked


@dataclass(frozen=True)
class Computing:
    """Where and how a pipeline is trained; the workflow has the same choices under ``resources``.

    Attributes:
        device: By default a loaded pipeline's own device, or the CPU.
        precision: Of matrix products in training; weights, losses and updates are in float32.
        micro_batch_size: The most examples that a network sees at once; None for whole batches.
        gradient_checkpointing: Whether activations are computed again in backward passes, to save memory.
        progress: Wraps a range of steps in a progress bar; None for no bar.
    """

    device: str | None = None
    precision: TrainingPrecision = "float32"
    micro_batch_size: int | None = None
    gradient_checkpointing: bool = False
    progress: Any = None


def unlearn(
    pipeline: Pipeline,
    method: str = "resalign",
    *,
    forget: Images | None = None,
    retain: Images | None = None,
    pool: Images | None = None,
    prior: Images | None = None,
    prompts: Sequence[str] | Mapping[str, ConceptPrompts] = (),
    substitute: str = "",
    retain_prompts: Sequence[str] = (),
    masks: Path | None = None,
    seed: int = 0,
    computing: Computing | None = None,
    history: History | None = None,
    **settings: Any,
) -> diffusers.DiffusionPipeline:
    """Unlearns a concept.

    Equal arguments, the seed among them, give equal bits on one kind of machine with one number of threads. That number
    is torch's own, which the library leaves alone: call ``torch.set_num_threads(1)`` for the workflow's.

    Args:
        pipeline: A diffusers pipeline, or the folder of one; neither is changed.
        method: A member of :mod:`resalign.unlearning`, such as ``resalign``, ``esd`` or ``graddiff``.
        forget: Images of the concept: a folder with a table of captions, a ``datasets.Dataset`` with an image and a
            caption column, or pairs of a PIL image and its caption. Methods that use prompts only need no images.
        retain: Images that the model should keep drawing.
        pool: Harmless images that simulated users fine-tune on.
        prior: Images of what users personalise, at large, for methods that ask for them.
        prompts: Texts that name the concept, by default the captions of ``forget``; or several concepts by name.
        substitute: A text for what should be shown in its place, for methods that need one.
        retain_prompts: Texts that the model should keep, for methods that preserve without images.
        masks: A folder with a mask of the same name for each image of ``forget``: white where it shows the concept.
        seed: Training seed.
        computing: Where and how to train.
        history: Receives the quantities that the method records at each step.
        **settings: The method's own settings, as in a configuration.

    Returns:
        A new pipeline in float32, without a safety checker.

    Raises:
        ConfigError: If a setting or the method is unknown, or an image set is missing that the method uses.
        DataError: If an image set cannot be read.
        WeightsError: If the pipeline cannot be used.
        DivergenceError: If a loss or gradient is not finite.
    """
    member = registry.member("unlearning", method)
    config = member.Config.parse(settings, where=f"method '{method}'")
    checkpoint = Path(settings["checkpoint"]) if "checkpoint" in settings else None
    sets = {"forget": forget, "retain": retain, "pool": pool, "prior": prior}
    with _training(pipeline, computing) as loaded, captioned(sets, loaded.pixels) as images:
        run = _run(computing, seed, history or tracked(f"unlearn/{method}/seed-{seed}"))
        words: dict[str, Any] = {"concepts": _concepts(prompts, substitute)}
        words["retain_prompts"] = _texts("retain_prompts", retain_prompts)
        put(loaded, unlearned_weights(loaded, member, config, images, run, **words, masks=masks, checkpoint=checkpoint))
    return loaded.pipeline


def _concepts(prompts: Sequence[str] | Mapping[str, ConceptPrompts], substitute: str) -> tuple[ConceptPrompts, ...]:
    """One concept, or several."""
    if not isinstance(prompts, Mapping):
        return (ConceptPrompts(prompts=_texts("prompts", prompts), substitute=substitute),)
    if substitute:
        raise ConfigError("several concepts have a substitute each; leave out substitute")
    return tuple(prompts.values())


def _texts(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """A list of texts, and no single one, which would be taken for a list of letters."""
    if isinstance(texts, str):
        raise ConfigError(f"{name}: expected a list of texts, got one text; give [{texts!r}]")
    return tuple(texts)


def attack(
    pipeline: Pipeline,
    attack: str = "full",
    *,
    train: Images,
    heldout: Images,
    prior: Images | None = None,
    harmful: Images | None = None,
    base: Pipeline | None = None,
    seed: int = 0,
    computing: Computing | None = None,
    history: History | None = None,
    on_checkpoint: Callable[[int, Mapping[str, torch.Tensor]], None] | None = None,
    **settings: Any,
) -> diffusers.DiffusionPipeline:
    """Fine-tunes a pipeline, as a user who downloads it might; for image sets and bits see :func:`unlearn`.

    Args:
        pipeline: A diffusers pipeline, or the folder of one; neither is changed.
        attack: A member of :mod:`resalign.attacks` that changes weights, such as ``full`` or ``lora``.
        train: Images to fine-tune on.
        heldout: Images like them, for the held-out loss.
        prior: Images of the class at large, for attacks with prior preservation.
        harmful: Images of the concept, for attacks by somebody who has some.
        base: The pipeline before unlearning, for attacks that use its weights.
        seed: Training seed.
        computing: Where and how to train.
        history: Receives the quantities that the attack records.
        on_checkpoint: Called with the step and the changed weights at every checkpoint and at the end.
        **settings: The attack's own settings, as in a configuration.

    Returns:
        A new pipeline in float32, without a safety checker.

    Raises:
        ConfigError: If a setting or the attack is unknown, or the attack changes prompts instead of weights.
        DataError: If an image set cannot be read, or ``heldout`` shares images with another one.
        WeightsError: If the pipeline cannot be used.
        DivergenceError: If a loss or gradient is not finite.
    """
    member = registry.member("attacks", attack)
    config = member.Config.parse(settings, where=f"attack '{attack}'")
    if "prompts" in member.Config.model_fields:
        raise ConfigError(f"attack '{attack}' changes prompts, not weights; run it in a workflow, under 'attacks'")
    last: dict[str, torch.Tensor] = {}

    def save(step: int, changed: Mapping[str, torch.Tensor], *_: object) -> None:
        last.update(changed)
        if on_checkpoint:
            on_checkpoint(step, changed)

    sets = {"train": train, "heldout": heldout, "prior": prior, "harmful": harmful}
    with _training(pipeline, computing) as loaded, captioned(sets, loaded.pixels) as images:
        check_apart(images, label=f"attack '{attack}'")
        if hasattr(member, "start"):
            put(loaded, _started(loaded, partial(member.start, config), base, attack))
        run = _run(computing, seed, history or tracked(f"attack/{attack}/seed-{seed}"))
        run_attack(loaded, member, config, images, run, save)
        put(loaded, last)
    return loaded.pipeline


def put(loaded: LoadedPipeline, weights: Mapping[str, torch.Tensor]) -> None:
    """Overwrites a pipeline's tensors, named ``component.parameter``."""
    tensors = trainable_tensors(loaded.pipeline)
    for name, value in weights.items():
        tensors[name].data.copy_(value)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Within the block torch uses deterministic algorithms only, as every stage of the workflow does."""
    # cuBLAS repeats its bits only with a workspace of fixed size; it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    options: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), options.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    options.fill_uninitialized_memory = False  # of all memory before its use: it costs a write, and changes no result
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        options.fill_uninitialized_memory = before[1]


@contextlib.contextmanager
def _training(pipeline: Pipeline, computing: Computing | None) -> Iterator[LoadedPipeline]:
    """An opened pipeline, in the block's precision and micro-batches."""
    computing = computing or Computing()
    parts, precision = micro_batches(computing.micro_batch_size), training_precision(computing.precision)
    saving = computing.gradient_checkpointing
    with deterministic(), parts, precision:
        loaded = open_pipeline(pipeline, device=computing.device, gradient_checkpointing=saving)
        yield loaded
    if saving:
        getattr(loaded.pipeline, loaded.architecture.denoiser).disable_gradient_checkpointing()
    loaded.pipeline.set_progress_bar_config(disable=False)


def _run(computing: Computing | None, seed: int, history: History) -> Run:
    progress = computing.progress if computing else None
    return Run(seed, history) if progress is None else Run(seed, history, progress=progress)


def _started(loaded: LoadedPipeline, start: Any, base: Pipeline | None, attack: str) -> dict[str, torch.Tensor]:
    """The weights that an attack begins with, made from the unlearned and the original ones where they differ."""
    if base is None:
        raise ConfigError(f"attack '{attack}' uses the weights before unlearning; give base, that pipeline")
    own = {name: tensor.detach() for name, tensor in trainable_tensors(loaded.pipeline).items()}
    original = {
        name: tensor.detach()
        for name, tensor in trainable_tensors(open_pipeline(base, device=str(loaded.device)).pipeline).items()
    }
    if {name: tensor.shape for name, tensor in own.items()} != {n: tensor.shape for n, tensor in original.items()}:
        raise WeightsError("base: its tensors are not those of the pipeline; give the pipeline that it was made from")
    differing = [name for name in own if not torch.equal(own[name], original[name])]
    started: dict[str, torch.Tensor] = start({n: own[n] for n in differing}, {n: original[n] for n in differing})
    return started
