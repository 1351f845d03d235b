"""Functions that measure a pipeline: sample it, evaluate it, and audit it under attacks."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resalign.analysis.measurements import IMAGE_COLUMNS, NOT_ATTACKED, RUN_COLUMNS, Measurements, MetricInfo
from resalign.config import registry
from resalign.config.experiment import Member
from resalign.config.report import ReportConfig
from resalign.config.sampling import SamplingConfig
from resalign.config.strict import ConfigError, nearest
from resalign.data.prompts import Prompt, counted_as
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.sampling import sample_images
from resalign.lazy import torch
from resalign.library.inputs import Images, Pipeline, Prompts, image_folder, open_pipeline, prompt_list
from resalign.library.scoring import distinct, read_pixels, real_images, score_batch
from resalign.library.weights import Computing, attack, deterministic, put
from resalign.scorers._scorer import load_scorer
from resalign.tracking import tracked

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image as PillowImage

MODEL, BASE, DATASET = "model", "base", "train"  # names in the frames
LIST = "prompts"  # name of a prompt list that has none
CONSTANT = ["dataset", "seeds", "least", "most"]  # what verdicts on one seed do not need


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit.

    Attributes:
        verdict: ``holds``, ``fails`` or ``not shown``: the worst verdict of all states.
        states: One row per safety metric and state: attack, steps, metric, mean, low, high, n, regained, verdict, and
            base_mean, base_low, base_high where a base was given.
    """

    verdict: str
    states: pd.DataFrame


def sample(
    pipeline: Pipeline, prompts: Prompts, *, images_per_prompt: int = 1, device: str | None = None, **sampling: Any
) -> list[PillowImage]:
    """Draws images, each from noise that its prompt's id and its index decide: two models get equal noise.

    Args:
        pipeline: A diffusers pipeline, or the folder of one; it is not changed.
        prompts: Texts, or a file of prompts.
        images_per_prompt: How many images of each prompt.
        device: By default a loaded pipeline's own device, or the CPU.
        **sampling: Settings of ``sampling`` in a configuration, such as ``num_inference_steps`` and ``seed``.

    Returns:
        The images of the first prompt, then those of the second, and so on.

    Raises:
        ConfigError: If a setting is unknown.
        DivergenceError: If an image is not finite.
    """
    from PIL import Image

    config = SamplingConfig.parse(sampling, where="sampling")
    loaded = open_pipeline(pipeline, device=device, precision=config.precision)
    wanted = _wanted(prompts, images_per_prompt)
    with deterministic():
        return [
            Image.fromarray(image.permute(1, 2, 0).numpy())
            for _, images in _drawn(loaded, wanted, config)
            for image in images
        ]


def evaluate(
    pipeline: Pipeline,
    *,
    prompts: Prompts | Mapping[str, Prompts],
    scorers: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, Any]],
    images_per_prompt: int = 1,
    reference: Images | None = None,
    device: str | None = None,
    report: Mapping[str, Any] | None = None,
    **sampling: Any,
) -> pd.DataFrame:
    """Samples a pipeline on prompts, scores its images, and gives every metric with its interval.

    Args:
        pipeline: A diffusers pipeline, or the folder of one; it is not changed.
        prompts: Texts or a file of prompts; or several lists by name, which metrics name as ``prompts``.
        scorers: Scorers by label, as in a configuration, with paths in place of assets:
            ``{"mine": {"scorer": "image_classification", "folder": "path/to/classifier"}}``.
        metrics: Metrics by label, as in a configuration: ``{"ip": {"rules": [{"scorer": "mine", "quantities":
            ["seven"]}]}}``. ``prompts`` may be left out where there is one list.
        images_per_prompt: How many images of each prompt.
        reference: Real images, for metrics that compare with some.
        device: By default a loaded pipeline's own device, or the CPU.
        report: Settings of ``report`` in a configuration, such as ``confidence``.
        **sampling: Settings of ``sampling`` in a configuration, such as ``num_inference_steps`` and ``seed``.

    Returns:
        Columns metric, mean, low, high (NaN where one set of images has no interval) and n (images).

    Raises:
        ConfigError: If a setting or a name is unknown, or a metric is of attacks only.
        DataError: If prompts or images cannot be read.
        WeightsError: If the pipeline or a scorer cannot be loaded.
    """
    from resalign.analysis.frames import long_table

    settings = ReportConfig.parse(dict(report or {}), where="report")
    given: dict[str, Any] = {"prompts": prompts, "scorers": scorers, "metrics": metrics, "reference": reference}
    measure = _Measure(**given, images_per_prompt=images_per_prompt, device=device, **sampling)
    measurements = measure.measurements([measure.state(measure.opened(pipeline), MODEL)], [], [MODEL])
    return long_table(measurements, settings)[["metric", "mean", "low", "high", "n"]]


def audit(
    pipeline: Pipeline,
    *,
    train: Images,
    heldout: Images,
    attacks: Mapping[str, Mapping[str, Any]],
    base: Pipeline | None = None,
    seed: int = 0,
    computing: Computing | None = None,
    report: Mapping[str, Any] | None = None,
    **evaluation: Any,
) -> Audit:
    """Evaluates a pipeline before and along attacks, and judges whether its safety rates hold.

    A rate holds if the upper end of its interval is at most ``report["most_after"]``; see
    :func:`resalign.analysis.verdicts.judge`.

    Args:
        pipeline: The pipeline to audit, or its folder; neither is changed.
        train: Image set that the attacks fine-tune on; see :func:`resalign.library.weights.unlearn`.
        heldout: Images like those, for the held-out loss.
        attacks: Settings of each attack by label, which is the attack's name unless ``attack`` gives it:
            ``{"full": {"steps": 200, "checkpoints": [50]}, "gentle": {"attack": "full", "lr": 1e-6}}``.
        base: The pipeline before unlearning, to be attacked and evaluated too; None to leave it out.
        seed: Training seed of the attacks.
        computing: Where and how to train and sample.
        report: Settings of ``report`` in a configuration.
        **evaluation: Further arguments of :func:`evaluate`. At least one metric must be a safety metric.

    Raises:
        ConfigError: If a setting or a name is unknown.
        DataError: If prompts or images cannot be read.
        DivergenceError: If a loss or gradient is not finite.
    """
    from resalign.analysis.frames import long_table
    from resalign.analysis.verdicts import judge, overall

    computing, settings = computing or Computing(), ReportConfig.parse(dict(report or {}), where="report")
    measure = _Measure(device=computing.device, **evaluation)
    entries = {label: {"attack": label, **entry} for label, entry in attacks.items()}
    for entry in entries.values():  # before any long work
        own = {key: value for key, value in entry.items() if key != "attack"}
        registry.config_class("attacks", entry["attack"]).parse(own, where=f"attack '{entry['attack']}'")
    pipelines, frames = {MODEL: pipeline, **({} if base is None else {BASE: base})}, []
    sets = {"train": train, "heldout": heldout, "base": base}
    for name, given in pipelines.items():
        frames.append(measure.state(measure.opened(given), name))
        for label, entry in entries.items():
            states: dict[int, Mapping[str, torch.Tensor]] = {}
            history = tracked(f"audit/{name}/{label}/seed-{seed}")
            save = states.__setitem__
            attack(given, **entry, **sets, seed=seed, computing=computing, history=history, on_checkpoint=save)
            loaded = measure.opened(given)
            for step, weights in sorted(states.items()):
                put(loaded, weights)
                frames.append(measure.state(loaded, name, label, DATASET, step))
    measurements = measure.measurements(frames, [*entries], [*pipelines])
    judged = judge(long_table(measurements, settings), measurements, MODEL, settings.most_after)
    shown = [name for name in map(str, judged) if base is not None or not name.startswith("base_")]
    return Audit(overall(judged), judged[shown].drop(columns=CONSTANT).reset_index(drop=True))


class _Measure:
    """The prompts, scorers and metrics by which states of a pipeline are measured."""

    def __init__(
        self,
        *,
        prompts: Prompts | Mapping[str, Prompts],
        scorers: Mapping[str, Mapping[str, Any]],
        metrics: Mapping[str, Mapping[str, Any]],
        images_per_prompt: int = 1,
        reference: Images | None = None,
        device: str | None = None,
        **sampling: Any,
    ) -> None:
        """Validates every setting, then loads the scorers; the arguments are those of :func:`evaluate`."""
        self.sampling = SamplingConfig.parse(sampling, where="sampling")
        lists = prompts if isinstance(prompts, Mapping) else {LIST: prompts}
        self.wanted = {name: _wanted(given, images_per_prompt) for name, given in lists.items()}
        self.metrics = {label: self._metric(label, dict(entry)) for label, entry in metrics.items()}
        entries = {label: _scorer_entry(label, dict(entry)) for label, entry in scorers.items()}
        self.scorers = {label: load_scorer(label, entry, device or "cpu") for label, entry in entries.items()}
        self.reference, self.device, self.pixels = reference, device, 0

    def _metric(self, label: str, entry: dict[str, Any]) -> tuple[Any, Any, MetricInfo]:
        """A metric's module, settings and description."""
        module = registry.member("metrics", entry.pop("metric", label))
        if not (hasattr(module, "per_image") or hasattr(module, "of_set")):
            raise ConfigError(f"metrics.{label}: is measured along the training of a workflow only; leave it out")
        if len(self.wanted) == 1:
            entry.setdefault("prompts", next(iter(self.wanted)))
        config = module.Config.parse(entry, where=f"metrics.{label}")
        if config.prompts not in self.wanted:
            raise ConfigError(
                f"metrics.{label}: no prompt list '{config.prompts}'{nearest(config.prompts, self.wanted)}"
            )
        if getattr(config, "reference", None):
            raise ConfigError(
                f"metrics.{label}: a reference of its own is for workflows; give reference to this function"
            )
        return module, config, MetricInfo.of(module, label, config.prompts)

    def opened(self, pipeline: Pipeline) -> LoadedPipeline:
        """A pipeline to sample from."""
        return open_pipeline(pipeline, device=self.device, precision=self.sampling.precision)

    def state(
        self, loaded: LoadedPipeline, model: str, attack: str = NOT_ATTACKED, dataset: str = "", steps: int = 0
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Values of one state of a pipeline: those of single images, and those of sets."""
        import pandas as pd

        names: dict[str, Any] = {"model": model, "attack": attack, "dataset": dataset, "steps": steps, "seed": 0}
        self.pixels = loaded.pixels
        with deterministic():
            scores = {name: self._scores(loaded, wanted) for name, wanted in self.wanted.items()}
        images, runs = [], []
        for label, (module, config, _) in self.metrics.items():
            own = scores[config.prompts]
            if hasattr(module, "per_image"):
                value = module.per_image(own, config)
                images.append(
                    own[["prompt_id", "image_index"]].assign(value=value.astype(float), metric=label, **names)
                )
            else:
                value = float(module.of_set(own, self.reference_scores, config))
                runs.append({**names, "metric": label, "value": value, "n": len(own)})
        return pd.concat(images, ignore_index=True) if images else pd.DataFrame(), pd.DataFrame(runs)

    def _scores(self, loaded: LoadedPipeline, wanted: Sequence[tuple[Prompt, int]]) -> pd.DataFrame:
        """Raw scores, one row per image."""
        import pandas as pd

        parts = [
            self._scored(images, [prompt.text for prompt, _ in batch])
            for batch, images in _drawn(loaded, wanted, self.sampling)
        ]
        counted = counted_as(wanted)
        return pd.concat(parts, ignore_index=True).assign(
            prompt_id=[name for name, _ in counted],
            image_index=[index for _, index in counted],
            prompt=[prompt.text for prompt, _ in wanted],
            label=[prompt.label for prompt, _ in wanted],
        )

    @functools.cached_property
    def reference_scores(self) -> pd.DataFrame:
        """Raw scores of the distinct real images, read at the size of the images that were sampled last."""
        import pandas as pd

        if self.reference is None:
            raise ConfigError("a metric compares with real images; give reference")
        size = self.sampling.batch_size
        with tempfile.TemporaryDirectory(prefix="resalign-") as place:
            folder = image_folder("reference", self.reference, Path(place) / "reference")
            frame, parts = distinct(real_images(folder), self.pixels), []
            for batch in (frame.iloc[start : start + size] for start in range(0, len(frame), size)):
                images = torch.stack([read_pixels(Path(path), self.pixels) for path in batch["path"]])
                parts.append(self._scored(images, list(batch["prompt"])))
        return pd.concat([frame, pd.concat(parts, ignore_index=True)], axis=1)

    def _scored(self, images: torch.Tensor, prompts: list[str]) -> pd.DataFrame:
        """Raw scores of a batch by every scorer."""
        import pandas as pd

        columns: dict[str, torch.Tensor] = {}
        for label, scorer in self.scorers.items():
            columns |= score_batch(label, scorer, images, prompts)
        return pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=range(len(images)))

    def measurements(
        self, frames: Sequence[tuple[pd.DataFrame, pd.DataFrame]], attacks: Sequence[str], models: Sequence[str]
    ) -> Measurements:
        """The values of several states."""
        import pandas as pd

        images, runs = (
            pd.concat(parts, ignore_index=True) if (parts := [part for part in kind if len(part)]) else None
            for kind in zip(*frames, strict=True)
        )
        return Measurements(
            images=pd.DataFrame(columns=list(IMAGE_COLUMNS)) if images is None else images,
            runs=pd.DataFrame(columns=list(RUN_COLUMNS)) if runs is None else runs,
            metrics={label: info for label, (_, _, info) in self.metrics.items()},
            models=tuple(models),
            attacks=dict.fromkeys(attacks, DATASET),
            base=models[-1],
        )


def _wanted(prompts: Prompts, images_per_prompt: int) -> list[tuple[Prompt, int]]:
    """(prompt, image index) of every image."""
    if images_per_prompt < 1:
        raise ConfigError(f"images_per_prompt: got {images_per_prompt}; give at least 1")
    return [(prompt, index) for prompt in prompt_list(prompts) for index in range(images_per_prompt)]


def _drawn(
    loaded: LoadedPipeline, wanted: Sequence[tuple[Prompt, int]], config: SamplingConfig
) -> Iterator[tuple[Sequence[tuple[Prompt, int]], torch.Tensor]]:
    """The images in batches, (B, 3, H, W) uint8, each with what it shows."""
    for start in range(0, len(wanted), config.batch_size):
        batch = wanted[start : start + config.batch_size]
        yield (
            batch,
            sample_images(
                loaded,
                batch,
                sampling_seed=config.seed,
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
            ),
        )


def _scorer_entry(label: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A scorer as :func:`load_scorer` takes it, with the folders that its settings name."""
    name = entry.pop("scorer", label)
    member = Member("scorers", name, registry.config_class("scorers", name).parse(entry, where=f"scorers.{label}"))
    folders = member.assets
    return {
        "settings": member.resolved(),
        "folder": folders if len(folders) > 1 else next(iter(folders.values()), None),
    }
