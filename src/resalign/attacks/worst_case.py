"""The worst case of another attack over learning rates and step counts, found by an attacker without any detector.

Every learning rate is run to the last step, and its weights are looked at after each step count: a fine-tuning is as
many candidates as it has checkpoints. A candidate is judged by its denoising loss on images of the concept that it was
not trained on, ``harmful``: the lowest is the worst for the defence, of equal ones the first. It is a plain grid:
nothing is pruned on an early loss, so that the mean over candidates is one over the same candidates for every model.

A kept step s stands for the worst candidate of at most s steps, the last one for the winner of all. The history has
each candidate's ``harmful_error``, and what its own run has recorded, by learning rate (``harmful_error_lr_1e-05``); at
each s the worst and the mean error, the winner's learning rate and steps, and the optimizer steps that the search took.
Seconds, which no two runs have alike, are in the job's timing.json, by learning rate.

Deviation: a step count below the last is a stop along the way; a cosine schedule is that of the last. Of an attack that
leaves a LoRA the winner's merged weights alone are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from pydantic import Field, field_validator, model_validator

from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run, Save, check_architecture
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.lora_files import Lora
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.fine_tuning import FineTuningConfig, StepsConfig
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.named import Named
from resalign.tensors.steps import DivergenceError

SEARCHED = ("steps", "checkpoints", "lr")


class Config(StepsConfig):
    """The step counts are ``checkpoints`` and ``steps``; the rates are those that ResAlign simulates [Section 4.1]."""

    candidate: dict[str, Any] = Field(
        {"attack": "full"}, validate_default=True, description="the attack that is searched, and its other settings"
    )
    lr: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-6, 1e-5, 1e-4), min_length=1)
    budget: int = Field(600, gt=0, description="optimizer steps of all candidates together")
    harmful_batch_size: int = Field(64, gt=0, description="(image, noise, timestep) that judge all candidates")

    @field_validator("candidate")
    @classmethod
    def _is_an_attack_with_one_rate(cls, candidate: dict[str, Any]) -> dict[str, Any]:
        """Fills in every default, so that a run is named by all that determines it."""
        settings = dict(candidate)
        name = settings.pop("attack", "full")
        config_class = registry.config_class("attacks", name)
        if not issubclass(config_class, FineTuningConfig):
            raise ValueError(f"attack '{name}' has no learning rate of its own to search; name another one")
        if given := [key for key in SEARCHED if key in settings]:
            raise ValueError(f"{given} are searched; give them beside 'candidate'")
        config = config_class.parse(settings, where=name)
        if "harmful" in config.image_sets:
            raise ValueError(f"attack '{name}' trains on `harmful`, by which candidates are judged; name another one")
        if getattr(config, "token", None):  # no caption of `harmful` need have it, and all candidates would be equal
            raise ValueError(f"attack '{name}' trains a token's embedding, which an error on `harmful` does not show")
        return {"attack": name, **config.model_dump(mode="json", exclude=set(SEARCHED))}

    @model_validator(mode="after")
    def _stays_within_its_budget(self) -> Config:
        if len({*map(_label, self.lr)}) < len(self.lr):
            raise ValueError(f"lr must differ, got {[*map(_label, self.lr)]}")
        if self.optimizer_steps > self.budget:
            raise ValueError(
                f"{len(self.lr)} learning rates of {self.steps} steps are {self.optimizer_steps} optimizer steps, and "
                f"budget is {self.budget}; search fewer or shorter ones, or raise it"
            )
        return self

    @property
    def image_sets(self) -> dict[str, bool]:
        """What the candidates use, and what judges them."""
        return {**self.of(self.lr[0]).image_sets, "harmful": True}

    @property
    def modules(self) -> tuple[str, ...]:
        """The module of the attack that is searched, and what it runs besides."""
        return (f"resalign.attacks.{self.candidate['attack']}", *getattr(self.of(self.lr[0]), "modules", ()))

    @property
    def optimizer_steps(self) -> int:
        """Of all candidates together."""
        return len(self.lr) * self.steps

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The step counts that are searched, the smallest first."""
        return (*sorted(set(self.checkpoints)), self.steps)

    def of(self, lr: float) -> FineTuningConfig:
        """The settings of the candidates of one learning rate."""
        settings = {**self.candidate, "steps": self.steps, "checkpoints": self.checkpoints, "lr": lr}
        name = settings.pop("attack")
        return cast("FineTuningConfig", registry.config_class("attacks", name).parse(settings, where=name))


@dataclass
class Winner:
    """The worst candidate so far of at most so many steps; its weights are copies on the CPU."""

    harmful_error: float
    heldout_loss: float
    lr: float
    steps: int
    weights: dict[str, torch.Tensor]


@dataclass
class Search:
    """What the search has found so far: saved between steps, beside what the present candidate trains.

    Attributes:
        errors: Candidates' errors, by learning rate and steps.
        rows: What the runs of the learning rates that are done have recorded: (learning rate, step, quantity, value).
        winners: By step count.
    """

    errors: dict[tuple[float, int], float] = field(default_factory=dict)
    rows: list[tuple[float, int, str, float]] = field(default_factory=list)
    winners: dict[int, Winner] = field(default_factory=dict)

    def add(self, step_counts: tuple[int, ...], candidate: Winner) -> None:
        """Takes a candidate in: the winner wherever its error is the lowest so far."""
        self.errors[candidate.lr, candidate.steps] = candidate.harmful_error
        best = {s: self.winners[s].harmful_error if s in self.winners else math.inf for s in step_counts}
        beaten = [s for s in step_counts if s >= candidate.steps and candidate.harmful_error < best[s]]
        if beaten:
            candidate.weights = {n: tensor.to("cpu", copy=True) for n, tensor in candidate.weights.items()}
            self.winners |= dict.fromkeys(beaten, candidate)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {
            "errors": [(*key, error) for key, error in self.errors.items()],
            "rows": self.rows,
            "winners": {s: vars(winner) for s, winner in self.winners.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a saved state in place of its own."""
        self.errors = {(lr, steps): error for lr, steps, error in state["errors"]}
        self.rows = [tuple(row) for row in state["rows"]]
        self.winners = {s: Winner(**winner) for s, winner in state["winners"].items()}


@dataclass(frozen=True)
class CandidateRun(Run):
    """The run of one learning rate, with a history of its own; its loops save the search, too."""

    lr: float = 0.0
    search: Search = field(default_factory=Search)

    def steps(self, steps: range, *, phase: str = "steps", **held: Any) -> Iterator[int]:
        """See :meth:`resalign.contracts.Run.steps`."""
        return super().steps(steps, phase=_phase(self.lr, phase), search=self.search, **held)


def start(config: Config, unlearned: Named, original: Named) -> Named:
    """What the candidates begin with."""
    begin = getattr(registry.member("attacks", config.candidate["attack"]), "start", lambda *_: unlearned)
    return cast("Named", begin(config.of(config.lr[0]), unlearned, original))


def attack(models: Models, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Runs every candidate, then keeps the winners; resumed, it goes on with the learning rate that it was at.

    Raises:
        ConfigError: If there are no harmful images, or the attack does not support the model's architecture.
        DivergenceError: If a candidate diverges, or its error is no number.
    """
    if data.harmful is None:
        raise ConfigError("attack 'worst_case' was given no harmful images to judge candidates by; give 'harmful'")
    member = registry.member("attacks", config.candidate["attack"])
    check_architecture(member, models.architecture.name)
    batch = data.harmful.draw_stratified(config.harmful_batch_size, Run(seed=0).generator("attack", "harmful"))
    prefix, search = f"{models.architecture.denoiser}.", Search()
    run.attempt.lap("before the search")
    for lr in _left(config.lr, run.attempt.unfinished):
        own = CandidateRun(run.seed, progress=run.progress, attempt=run.attempt, kept=run.kept, lr=lr, search=search)

        def judge(steps: int, weights: Named, _lora: Lora | None = None, /, own: CandidateRun = own) -> None:
            denoiser = {n.removeprefix(prefix): tensor for n, tensor in weights.items() if n.startswith(prefix)}
            error = _error(models, denoiser, batch, what=f"{_label(own.lr)} after {steps} steps")
            own.history.record(steps, harmful_error=error)
            heldout_loss = own.history.last("heldout_loss")
            search.add(config.step_counts, Winner(error, heldout_loss, own.lr, steps, dict(weights)))

        member.attack(models, data, config.of(lr), own, judge)
        search.rows += [(lr, *row) for row in own.history.rows]
        run.attempt.lap(_label(lr))
    _record(config, search, run, _error(models, named_weights(models.denoiser), batch, what="before any step"))
    for steps in config.step_counts:
        save(steps, search.winners[steps].weights)


def _left(rates: tuple[float, ...], unfinished: str | None) -> tuple[float, ...]:
    """The learning rates that are not done: an earlier attempt has left the first one of them at ``unfinished``."""
    at = [i for i, lr in enumerate(rates) if unfinished is not None and unfinished.startswith(_phase(lr, ""))]
    return rates[at[0] :] if at else rates


def _error(models: Models, weights: Named, batch: NoisyBatch, *, what: str) -> float:
    """The denoising loss by which a candidate is judged; DivergenceError if it is no number."""
    with torch.no_grad():
        error = denoising_loss(models.denoiser, weights, batch).item()
    if not math.isfinite(error):
        raise DivergenceError(f"attack 'worst_case', {what}: the harmful error is {error}; lower lr")
    return error


def _record(config: Config, search: Search, run: Run, untouched: float) -> None:
    """Writes what was searched, and what was found, into the run's history."""
    for lr, step, quantity, value in search.rows:
        run.history.record(step, **{f"{quantity}_{_label(lr)}": value})
    if config.steps:
        heldout = next(value for _, step, quantity, value in search.rows if (step, quantity) == (0, "heldout_loss"))
        run.history.record(0, heldout_loss=heldout, harmful_error=untouched)
    for steps in config.step_counts:
        winner = search.winners[steps]
        errors = [error for (_, taken), error in search.errors.items() if taken <= steps]
        run.history.record(
            steps,
            heldout_loss=winner.heldout_loss,
            worst_harmful_error=winner.harmful_error,
            mean_harmful_error=sum(errors) / len(errors),
            winner_lr=winner.lr,
            winner_steps=winner.steps,
            optimizer_steps=len(config.lr) * steps,
        )


def _phase(lr: float, phase: str) -> str:
    """A loop's name among those of all learning rates."""
    return f"{_label(lr)}, {phase}"


def _label(lr: float) -> str:
    """What a learning rate is called, in quantities and loops; nine digits, as a history has them."""
    return f"lr_{lr:.9g}"
