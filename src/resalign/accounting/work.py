"""The jobs that an experiment, or an ablation of it, plans: their steps and images, and what they keep on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from resalign import shards
from resalign.accounting.rates import ESTIMATED, GRADIENT, Rates, rate_of, seconds_of
from resalign.config.ablations import Ablations
from resalign.config.experiment import Member
from resalign.config.passes import Passes
from resalign.config.plan import Plan, Stage
from resalign.config.shape import NOT_ATTACKED, PromptCount
from resalign.jobs import prune
from resalign.jobs.ablation import AblationJob
from resalign.jobs.digits import digits_parts

STAGES = ("assets", "unlearn", "attack", "sample", "score")  # in the order of the table
# A pass with a gradient whose activations are computed again: one more forward [Chen 2016, arXiv 1604.06174], which
# is a third of forward and backward.
RECOMPUTED = 4 / 3


@dataclass(frozen=True)
class Hours:
    """Device hours of one kind of device.

    Attributes:
        device: Which.
        hours: How many.
        is_measured: Whether such jobs were measured, with these numbers of examples in a step.
        source: Where the seconds come from, in words.
    """

    device: str
    hours: float
    is_measured: bool
    source: str


@dataclass(frozen=True)
class Work:
    """Jobs of one stage and one member.

    Attributes:
        stage, member: What works.
        jobs: How many there are.
        units: Their steps, images or assets; None where only the inputs give the number.
        passes: Of the denoiser in all of them; None where the member does not say.
        kept: States of the model, assets or images that they leave; None where only the inputs give the number.
    """

    stage: str
    member: str
    jobs: int
    units: int | None
    passes: Passes | None = None
    kept: int | None = 0

    def hours(self, rates: Rates) -> Hours | None:
        """Measured hours, else those that follow from the number of passes; None if they cannot be known."""
        rate = rate_of(rates, self.stage, self.member)
        if self.units is None:
            return None
        starts, own = self.jobs * rate.start_seconds, seconds_of(rates, self.passes)
        a_unit = str(self.passes and self.passes * (1 / max(1, self.units)))
        if rate.seconds is None:
            if own is None:
                return None
            return Hours(rates[GRADIENT].device, (starts + own) / 3600, False, f"a step is {a_unit}")
        seconds, is_measured = self.units * rate.seconds, not rate.source.startswith(ESTIMATED)
        source = rate.source.removeprefix(ESTIMATED)
        usual = seconds_of(rates, rate.passes and rate.passes * self.units)
        if own and usual and own != usual:
            seconds, is_measured = seconds * own / usual, False
            source = f"{a_unit} in place of {rate.passes}: {source}"
        return Hours(rate.device, (starts + seconds) / 3600, is_measured, source)

    def size_bytes(self, rates: Rates) -> float | None:
        """Bytes of what is kept; None if they cannot be known."""
        size = rate_of(rates, self.stage, self.member).size_bytes
        if self.kept == 0:
            return 0.0
        return None if self.kept is None or size is None else self.kept * size

    def __add__(self, other: Work) -> Work:
        """The jobs of both, which are of one stage and member."""
        units = None if self.units is None or other.units is None else self.units + other.units
        passes = None if self.passes is None or other.passes is None else self.passes + other.passes
        kept = None if self.kept is None or other.kept is None else self.kept + other.kept
        return Work(self.stage, self.member, self.jobs + other.jobs, units, passes, kept)


def planned_work(plan: Plan) -> list[Work]:
    """All jobs that train, sample or score, and those that make the demo's own assets; a row for each member."""
    parts = (Work("assets", part, 1, 1, kept=1) for part in digits_parts(plan).values())
    return _by_member([*parts, *_jobs(plan, plan.score.values()).values()])


def added_work(ablations: Ablations, name: str) -> list[Work]:
    """What an ablation adds to the experiment's own jobs, whichever others are run; a row for each member."""
    own, added = _jobs(ablations.plan, ablations.plan.score.values()), dict[str, Work]()
    for job, variant in zip(AblationJob.of(ablations, name).variants, ablations.variants(name).values(), strict=True):
        states = {(row.model, row.attack) for row in job.measured.rows}
        scores = [s for s in variant.plan.score.values() if (s.model, s.attack or NOT_ATTACKED) in states]
        added |= _jobs(variant.plan, scores)
    return _by_member(work for folder, work in added.items() if folder not in own)


def _by_member(jobs: Iterable[Work]) -> list[Work]:
    found: dict[tuple[str, str], Work] = {}
    for work in jobs:
        key = (work.stage, work.member)
        found[key] = found[key] + work if key in found else work
    return sorted(found.values(), key=lambda work: STAGES.index(work.stage))


def _jobs(plan: Plan, scores: Iterable[Stage]) -> dict[str, Work]:
    """The jobs of some states from training to scores, each by its folder."""
    found: dict[str, Work] = {}
    for score in scores:
        for stage in _with_parents(score):
            tier = f"/{plan.tier}" if stage.stage in ("sample", "score") else ""
            found |= {stage.folder(seed) + tier: _job(plan, stage) for seed in plan.seeds(stage)}
    return found


def _with_parents(stage: Stage | None) -> Iterator[Stage]:
    while stage:
        yield stage
        stage = stage.parent


def _job(plan: Plan, stage: Stage) -> Work:
    """One job of a stage."""
    experiment = plan.experiment
    if stage.stage == "unlearn":
        member = experiment.unlearning[stage.model]
        return _training(plan, "unlearn", member, getattr(member.config, "steps", 0), 1)
    if stage.stage == "attack":
        member = experiment.attacks[stage.attack or ""]
        # A search takes the steps of all its candidates; an attack on prompts takes its steps for each prompt.
        steps = getattr(member.config, "optimizer_steps", getattr(member.config, "steps", 1))
        attacked = plan.attacked_prompts(stage.attack)
        prompts = plan.most_prompts(attacked) if attacked else 1
        return _training(plan, "attack", member, prompts and steps * prompts, _states(plan, stage))
    images, sampling = _images(plan, stage), experiment.config.sampling
    if stage.stage == "score":
        return Work("score", "images", 1, images, kept=images)
    a_step = 2 if sampling.guidance_scale > 1 else 1  # with the prompt and without
    passes = images and Passes(forward=a_step * sampling.num_inference_steps) * images
    return Work("sample", f"{sampling.image_format} images", 1, images, passes or None, images)


def _training(plan: Plan, stage: str, member: Member, steps: int | None, states: int) -> Work:
    """One job that trains; its configuration may say how many passes a step takes."""
    passes: Passes | None = getattr(member.config, "denoiser_passes", None)
    resources = plan.experiment.resources(stage)
    if passes and (resources.gradient_checkpointing or resources.micro_batch_size):
        passes = replace(passes, gradient=passes.gradient * RECOMPUTED)
    return Work(stage, member.name, 1, steps, None if passes is None or steps is None else passes * steps, states)


def _states(plan: Plan, stage: Stage) -> int:
    """States of the model that a run leaves or samples: its last, and those along the way."""
    config = plan.experiment.attacks[stage.attack].config if stage.attack else None
    return 1 + len(getattr(config, "checkpoints", ()))


def _images(plan: Plan, stage: Stage) -> int | None:
    """Images of one run; None if a prompt list gives their number."""
    images = 0
    for _, count, states in _sampled(plan, stage):
        if count.prompts is None:
            return None
        images += count.prompts * count.images * states
    return images


def _sampled(plan: Plan, stage: Stage) -> Iterator[tuple[str, PromptCount, int]]:
    """(prompt list, how much of it, states that are sampled on it) of one run."""
    for name, prompts in plan.experiment.config.prompts.items():
        if prompts.source_after(stage.attack) is not None:
            yield name, plan.experiment.tier.prompts[name], _states(plan, stage) if prompts.along_the_way else 1


def image_files(plan: Plan) -> tuple[int, int, int] | None:
    """How many files hold all images, how many more a job has that samples, and how many images the page shows.

    None if a prompt list gives their number.
    """
    config, files, more, shown = plan.experiment.config, 0, 0, 0
    in_a_file = shards.MOST_FILES if config.sampling.image_files == "shards" else 1
    for stage in plan.sample.values():
        for seed in plan.seeds(stage):
            on_page = prune.shown(plan, seed)
            for name, count, states in _sampled(plan, stage):
                if count.prompts is None:
                    return None
                files += states * math.ceil(count.prompts * count.images / in_a_file)
                more = max(more, count.prompts * count.images if in_a_file > 1 else 0)
                if name in on_page:
                    shown += states * min(count.prompts, config.report.gallery_prompts)
    return files, more, shown
