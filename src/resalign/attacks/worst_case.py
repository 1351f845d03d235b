"""The worst case of another attack over learning rates and step counts, found by an attacker without any detector.

Every learning rate is run to the last step, and its weights are evaluated after each step count: a fine-tuning gives
as many candidates as it has checkpoints. A candidate's score is its denoising loss on ``harmful``, images of the
concept that it was not trained on: the lowest is the worst for the defence; ties go to the first. The grid is not
pruned on an early loss, so that the mean is over the same candidates for every model.

A kept step s holds the worst candidate of at most s steps, and the last step the winner of all. The history has each
candidate's ``harmful_error`` and the records of its own run by learning rate (``harmful_error_lr_1e-05``); at each s
the worst and the mean error, the winner's learning rate and steps, and the optimizer steps that the search took.

Deviation: a step count below the last is a stop along the way; a cosine schedule is that of the last. For an attack
that trains a LoRA only the winner's merged weights are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from resalign.attacks._fine_tuning import FineTuningConfig, StepsConfig
from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run, Save, check_architecture
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.lora_files import Lora
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import Params
from resalign.tensors.steps import DivergenceError

SEARCHED = ("steps", "checkpoints", "lr")


def _searchable(candidate: Any) -> Any:
    """The settings of an attack by its name, with every default but the searched settings filled in."""
    if not isinstance(candidate, dict):
        return candidate
    settings = dict(candidate)
    name = settings.pop("attack", "full")
    config_class = registry.config_class("attacks", name)
    if not issubclass(config_class, FineTuningConfig):
        raise ValueError(f"attack '{name}' has no learning rate of its own to search; name another one")
    if given := [key for key in SEARCHED if key in settings]:
        raise ValueError(f"{given} are searched; give steps, checkpoints and learning_rates beside 'candidate'")
    config = config_class.parse(settings, where=name)
    if "harmful" in config.image_sets:
        raise ValueError(f"attack '{name}' trains on `harmful`, by which candidates are judged; name another one")
    return config


def _resolved(candidate: FineTuningConfig) -> dict[str, Any]:
    """The inverse of :func:`_searchable`; it enters the run's name."""
    return {"attack": _name(candidate), **candidate.model_dump(mode="json", exclude=set(SEARCHED))}


def _name(candidate: FineTuningConfig) -> str:
    """The name of the attack that has these settings: its file's name."""
    return type(candidate).__module__.rsplit(".", 1)[-1]


Candidate = Annotated[
    FineTuningConfig, BeforeValidator(_searchable), PlainSerializer(_resolved), WithJsonSchema({"type": "object"})
]


class Config(StepsConfig):
    """The step counts are ``checkpoints`` and ``steps``; the rates are those that ResAlign simulates [Section 4.1]."""

    candidate: Candidate = Field({"attack": "full"}, validate_default=True, description="an attack and its settings")
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-6, 1e-5, 1e-4), min_length=1)
    budget: int = Field(600, gt=0, description="optimizer steps of all candidates together")
    harmful_batch_size: int = Field(64, gt=0, description="(image, noise, timestep) that judge all candidates alike")

    @model_validator(mode="after")
    def _stays_within_its_budget(self) -> Config:
        labels = [_label(lr) for lr in self.learning_rates]
        if len(set(labels)) < len(labels):
            raise ValueError(f"learning_rates must differ, got {labels}")
        if self.optimizer_steps > self.budget:
            raise ValueError(
                f"{len(labels)} learning rates of {self.steps} steps are {self.optimizer_steps} optimizer steps, and "
                f"budget is {self.budget}; search fewer or shorter ones, or raise it"
            )
        return self

    @property
    def image_sets(self) -> dict[str, bool]:
        """Image sets of the candidates, and the images that judge them."""
        return {**self.candidate.image_sets, "harmful": True}

    @property
    def encoding(self) -> dict[str, Any]:
        """That of the candidates."""
        return self.candidate.encoding

    @property
    def modules(self) -> tuple[str, ...]:
        """The module of the searched attack, with the modules that it loads by name."""
        return (type(self.candidate).__module__, *getattr(self.candidate, "modules", ()))

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps of all candidates together."""
        return len(self.learning_rates) * self.steps

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The step counts that are searched, the smallest first."""
        return (*sorted(set(self.checkpoints)), self.steps)

    def of(self, lr: float) -> FineTuningConfig:
        """The settings of the candidates of one learning rate."""
        return self.candidate.model_copy(update={"steps": self.steps, "checkpoints": self.checkpoints, "lr": lr})


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
    """Results of the search so far, saved between steps with the present candidate's state.

    Attributes:
        rows: Records of the finished learning rates: (learning rate, step, quantity, value).
        winners: Worst candidate by step count.
    """

    rows: list[tuple[float, int, str, float]] = field(default_factory=list)
    winners: dict[int, Winner] = field(default_factory=dict)

    def add(self, step_counts: tuple[int, ...], candidate: Winner) -> None:
        """Adds a candidate, the winner wherever its error is the lowest so far."""
        best = {s: self.winners[s].harmful_error if s in self.winners else math.inf for s in step_counts}
        beaten = [s for s in step_counts if s >= candidate.steps and candidate.harmful_error < best[s]]
        if beaten:
            candidate.weights = {n: tensor.to("cpu", copy=True) for n, tensor in candidate.weights.items()}
            self.winners |= dict.fromkeys(beaten, candidate)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {"rows": self.rows, "winners": {s: vars(winner) for s, winner in self.winners.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes a saved state in place of its own."""
        self.rows = [tuple(row) for row in state["rows"]]
        self.winners = {s: Winner(**winner) for s, winner in state["winners"].items()}


@dataclass(frozen=True)
class CandidateRun(Run):
    """The run of one learning rate, with its own history; its loops save the search, too."""

    lr: float = 0.0
    search: Search = field(default_factory=Search)

    def steps(self, steps: range, *, phase: str = "steps", **held: Any) -> Iterator[int]:
        """See :meth:`resalign.contracts.Run.steps`."""
        return super().steps(steps, phase=f"{_label(self.lr)}, {phase}", search=self.search, **held)


def start(config: Config, unlearned: Params, original: Params) -> Params:
    """The weights that the candidates begin with."""
    member = registry.member("attacks", _name(config.candidate))
    begun = getattr(member, "start", lambda _, unlearned, original: unlearned)
    return dict(begun(config.candidate, unlearned, original))


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Runs every candidate, then saves the winners; a resumed search continues with the interrupted learning rate.

    Raises:
        ConfigError: If there are no harmful images, the candidate does not support the model's architecture, or it
            trains more than the denoiser.
        DivergenceError: If a candidate diverges, or its error is not finite.
    """
    if data.harmful is None:
        raise ConfigError("attack 'worst_case' was given no harmful images to judge candidates by; give 'harmful'")
    member = registry.member("attacks", _name(config.candidate))
    check_architecture(member, loaded.architecture.name)
    batch = data.harmful.draw_stratified(config.harmful_batch_size, Run(seed=0).generator("attack", "harmful"))
    search, left = Search(), run.attempt.unfinished or ""
    at = next((i for i, lr in enumerate(config.learning_rates) if left.startswith(f"{_label(lr)}, ")), 0)
    for lr in config.learning_rates[at:]:
        own = CandidateRun(run.seed, progress=run.progress, attempt=run.attempt, kept=run.kept, lr=lr, search=search)

        def judge(steps: int, weights: Params, _lora: Lora | None = None, /, own: CandidateRun = own) -> None:
            error = _error(loaded, weights, batch, what=f"{_label(own.lr)} after {steps} steps")
            own.history.record(steps, harmful_error=error)
            heldout_loss = own.history.last("heldout_loss")
            search.add(config.step_counts, Winner(error, heldout_loss, own.lr, steps, dict(weights)))

        member.attack(loaded, data, config.of(lr), own, judge)
        search.rows += [(lr, *row) for row in own.history.rows]
    _record(config, search, run, _error(loaded, loaded.named(named_weights(loaded.denoiser)), batch, what="untouched"))
    for steps in config.step_counts:
        save(steps, search.winners[steps].weights)


def _error(loaded: LoadedPipeline, weights: Params, batch: NoisyBatch, *, what: str) -> float:
    """The denoising loss by which a candidate is judged; raises if it is not finite or cannot see the change."""
    prefix = f"{loaded.architecture.denoiser}."
    if unseen := [name for name in weights if not name.startswith(prefix)]:
        raise ConfigError(f"attack 'worst_case' judges only denoisers, its candidate trains {unseen[0]}; take another")
    with torch.no_grad():
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        error = denoising_loss(loaded.denoiser, own, batch).item()
    if not math.isfinite(error):
        raise DivergenceError(f"attack 'worst_case', {what}: the harmful error is {error}; lower learning_rates")
    return error


def _record(config: Config, search: Search, run: Run, untouched: float) -> None:
    """Records the candidates and the winners in the run's history."""
    for lr, step, quantity, value in search.rows:
        run.history.record(step, **{f"{quantity}_{_label(lr)}": value})
    if config.steps:
        heldout = next(value for _, step, quantity, value in search.rows if (step, quantity) == (0, "heldout_loss"))
        run.history.record(0, heldout_loss=heldout, harmful_error=untouched)
    for steps in config.step_counts:
        winner = search.winners[steps]
        errors = [value for _, at, quantity, value in search.rows if quantity == "harmful_error" and at <= steps]
        run.history.record(
            steps,
            heldout_loss=winner.heldout_loss,
            worst_harmful_error=winner.harmful_error,
            mean_harmful_error=sum(errors) / len(errors),
            winner_lr=winner.lr,
            winner_steps=winner.steps,
            optimizer_steps=len(config.learning_rates) * steps,
        )


def _label(lr: float) -> str:
    """A learning rate's name in quantities and loops, to nine digits as in a history."""
    return f"lr_{lr:.9g}"
