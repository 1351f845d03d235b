"""Functions that change a pipeline's weights: unlearning, and the fine-tuning that attacks it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.config.precision import TrainingPrecision
from resalign.config.strict import ConfigError, Strict
from resalign.contracts import Run
from resalign.data.overlap import check_apart
from resalign.data.prompts import Prompt
from resalign.diffusion.lora_files import Lora
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.models import Models, trainable_tensors
from resalign.diffusion.precision import training_precision
from resalign.lazy import diffusers, torch
from resalign.library.inputs import Images, Pipeline, captioned, open_pipeline
from resalign.library.training import run_attack, unlearned_weights
from resalign.tensors.weights import WeightsError
from resalign.tracking import tracked


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

    def run(self, seed: int, name: str) -> Run:
        """The run of a seed; ``name`` is its name for TensorBoard or Weights & Biases."""
        history = tracked(name)
        return Run(seed, history) if self.progress is None else Run(seed, history, progress=self.progress)


@dataclass
class Trained:
    """A pipeline and the weights that a method or an attack found.

    Attributes:
        models: The pipeline as it was before.
        config: The resolved settings.
        run: Seed and history.
        states: Changed weights by step, named ``component.parameter``.
    """

    models: Models
    config: Strict
    run: Run
    states: dict[int, Mapping[str, torch.Tensor]] = field(default_factory=dict)

    def pipeline(self, step: int | None = None) -> diffusers.DiffusionPipeline:
        """The pipeline with the weights of a step, the last by default; each call changes the same object."""
        put(self.models, self.states[max(self.states) if step is None else step])
        pipeline = self.models.pipeline
        denoiser = getattr(pipeline, self.models.architecture.denoiser)
        if denoiser.is_gradient_checkpointing:
            denoiser.disable_gradient_checkpointing()
        pipeline.set_progress_bar_config(disable=False)
        return pipeline


def unlearn(pipeline: Pipeline, method: str = "resalign", **arguments: Any) -> diffusers.DiffusionPipeline:
    """Unlearns a concept.

    Equal arguments and an equal seed give equal bits on one kind of machine with one number of threads. The given
    pipeline is not changed. Neither is its folder.

    Args:
        pipeline: A diffusers pipeline, or the folder of one.
        method: A member of :mod:`resalign.unlearning`, such as ``resalign``, ``esd`` or ``graddiff``.
        **arguments: ``forget``, ``retain`` and ``pool`` (image sets, as far as the method uses them: images of the
            concept, images to preserve, harmless images for simulated users; each a folder with a table of captions, a
            ``datasets.Dataset``, or pairs of a PIL image and its caption), ``prompts`` (texts that name the concept; by
            default the captions of ``forget``), ``seed`` (0), ``computing`` (a :class:`Computing`), and the method's
            own settings.

    Returns:
        A pipeline in float32, without a safety checker.

    Raises:
        ConfigError: If a setting or the method is unknown, or an image set is missing that the method uses.
        DataError: If an image set cannot be read.
        WeightsError: If the pipeline cannot be used.
        DivergenceError: If a loss or gradient is not finite.
    """
    return train_unlearned(pipeline, method, **arguments).pipeline()


def attack(pipeline: Pipeline, attack: str = "full", **arguments: Any) -> diffusers.DiffusionPipeline:
    """Fine-tunes a pipeline, as a user who downloads it might.

    The given pipeline is not changed; for seeds and bits see :func:`unlearn`.

    Args:
        pipeline: A diffusers pipeline, or the folder of one.
        attack: A member of :mod:`resalign.attacks` that changes weights, such as ``full`` or ``lora``.
        **arguments: ``train`` (image set to fine-tune on), ``heldout`` (images like it, for the held-out loss),
            ``prior`` and ``harmful`` (as far as the attack uses them), ``base`` (the pipeline before unlearning, for
            attacks that use its weights), ``seed`` (0), ``computing`` (a :class:`Computing`), and the attack's own
            settings. Image sets are as for :func:`unlearn`.

    Returns:
        A pipeline in float32, without a safety checker.

    Raises:
        ConfigError: If a setting or the attack is unknown, or the attack changes prompts instead of weights.
        DataError: If an image set cannot be read, or ``heldout`` shares images with ``train``.
        WeightsError: If the pipeline cannot be used.
        DivergenceError: If a loss or gradient is not finite.
    """
    return train_attacked(pipeline, attack, **arguments).pipeline()


def train_unlearned(
    pipeline: Pipeline,
    method: str,
    *,
    forget: Images | None = None,
    retain: Images | None = None,
    pool: Images | None = None,
    prompts: Sequence[str] = (),
    seed: int = 0,
    computing: Computing | None = None,
    **settings: Any,
) -> Trained:
    """See :func:`unlearn`; gives the weights too."""
    computing = computing or Computing()
    member = registry.member("unlearning", method)
    config = member.Config.parse(settings, where=f"method '{method}'")
    checkpoint = Path(settings["checkpoint"]) if "checkpoint" in settings else None
    if isinstance(prompts, str):
        raise ConfigError(f"prompts: expected a list of texts, got one text; give [{prompts!r}]")
    with _training(pipeline, computing) as models:
        with captioned({"forget": forget, "retain": retain, "pool": pool}, models.pixels) as images:
            run = computing.run(seed, f"unlearn/{method}/seed-{seed}")
            weights = unlearned_weights(
                models, member, config, images, run, prompts=tuple(prompts), checkpoint=checkpoint
            )
    return Trained(models, config, run, {0: weights})


def train_attacked(
    pipeline: Pipeline,
    attack: str,
    *,
    train: Images,
    heldout: Images,
    prior: Images | None = None,
    harmful: Images | None = None,
    base: Pipeline | None = None,
    seed: int = 0,
    computing: Computing | None = None,
    **settings: Any,
) -> Trained:
    """See :func:`attack`; gives the weights of every checkpoint."""
    computing = computing or Computing()
    member = registry.member("attacks", attack)
    config = member.Config.parse(settings, where=f"attack '{attack}'")
    states: dict[int, Mapping[str, torch.Tensor]] = {}

    def save(
        step: int, changed: Mapping[str, torch.Tensor], lora: Lora | None = None, attacked: Sequence[Prompt] = (), /
    ) -> None:
        states[step] = changed

    if "prompts" in member.Config.model_fields:
        raise ConfigError(f"attack '{attack}' changes prompts, not weights; run it in a workflow, under 'attacks'")
    with _training(pipeline, computing) as models:
        if hasattr(member, "start"):
            put(models, _started(models, partial(member.start, config), base, attack))
        sets = {"train": train, "heldout": heldout, "prior": prior, "harmful": harmful}
        with captioned(sets, models.pixels) as images:
            check_apart(images, label=f"attack '{attack}'")
            run = computing.run(seed, f"attack/{attack}/seed-{seed}")
            run_attack(models, member, config, images, run, save)
    return Trained(models, config, run, states)


def put(models: Models, weights: Mapping[str, torch.Tensor]) -> None:
    """Overwrites a pipeline's tensors, named ``component.parameter``."""
    tensors = trainable_tensors(models.pipeline)
    for name, value in weights.items():
        tensors[name].data.copy_(value)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Within the block torch uses deterministic algorithms only, as every stage of the workflow does."""
    # cuBLAS repeats its bits only with a workspace of fixed size; it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def _training(pipeline: Pipeline, computing: Computing) -> Iterator[Models]:
    """An opened pipeline, in the block's precision and micro-batches."""
    parts, precision = micro_batches(computing.micro_batch_size), training_precision(computing.precision)
    with deterministic(), parts, precision:
        yield open_pipeline(pipeline, device=computing.device, gradient_checkpointing=computing.gradient_checkpointing)


def _started(models: Models, start: Any, base: Pipeline | None, attack: str) -> dict[str, torch.Tensor]:
    """The weights that an attack begins with, made from the unlearned and the original ones where they differ."""
    if base is None:
        raise ConfigError(f"attack '{attack}' uses the weights before unlearning; give base, that pipeline")
    own = {name: tensor.detach() for name, tensor in trainable_tensors(models.pipeline).items()}
    original = {
        name: tensor.detach()
        for name, tensor in trainable_tensors(open_pipeline(base, device=str(models.device)).pipeline).items()
    }
    if {name: tensor.shape for name, tensor in own.items()} != {n: tensor.shape for n, tensor in original.items()}:
        raise WeightsError("base: its tensors are not those of the pipeline; give the pipeline that it was made from")
    differing = [name for name in own if not torch.equal(own[name], original[name])]
    started: dict[str, torch.Tensor] = start({n: own[n] for n in differing}, {n: original[n] for n in differing})
    return started
