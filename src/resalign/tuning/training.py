"""A method's training in segments: its state is taken out between steps, and may go on with other settings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from resalign.config.tuning import changed_settings
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.running.attempt import Attempt
from resalign.running.held import capture, capture_randomness, restore, restore_randomness
from resalign.tensors.params import Params

State = dict[str, Any]  # of a training, after some of its steps; plain values and tensors, which nobody changes
Values = dict[str, float]  # of the fields that are searched


class Segment(Attempt):
    """One segment of a training: its loops begin where a state was taken, and leave theirs.

    Attributes:
        state: After the last loop that has ended.
    """

    def __init__(self, state: State | None) -> None:
        """Goes on from a state, or begins."""
        super().__init__()
        self.state = state
        self._entered: list[str] = [*state["done"]] if state else []

    def steps(
        self, steps: range, *, phase: str = "steps", progress: Callable[[range], Iterable[int]] = iter, **held: Any
    ) -> Iterator[int]:
        """As :meth:`resalign.running.attempt.Attempt.steps`, of whose records ``history`` begins anew."""
        held.pop("history", None)
        if phase in self._entered:
            return
        position = 0
        if self.state and self.state["phase"] == phase:
            position = self.state["position"]
            _restore(held, self.state["held"])
            restore_randomness(self.state["randomness"])
        yield from progress(steps[position:])
        self.state = copy.deepcopy(
            {
                "phase": phase,
                "position": len(steps),
                "done": self._entered,
                "held": {name: capture(value) for name, value in held.items()},
                "randomness": capture_randomness(),
            }
        )
        self._entered = [*self._entered, phase]


def _restore(held: dict[str, Any], saved: dict[str, Any]) -> None:
    """Restores all but an optimizer's own settings: a saved rate would take the place of the one that is tried."""
    for name, value in held.items():
        settings = None
        if isinstance(value, torch.optim.Optimizer):
            settings = [{key: part for key, part in group.items() if key != "params"} for group in value.param_groups]
        restore(value, copy.deepcopy(saved[name]))
        for group, own in zip(value.param_groups if settings else (), settings or (), strict=True):
            group.update(own)


class Training:
    """A method on its data, with some settings free.

    Attributes:
        settings: The method's, resolved.
        steps: Of a whole training.
    """

    def __init__(
        self, loaded: LoadedPipeline, method: ModuleType, settings: dict[str, Any], data: UnlearningData, seed: int
    ) -> None:
        """Args: the pipeline, the method with its settings, what it trains on, and the training seed."""
        self._loaded, self._method, self.settings, self._data, self._seed = loaded, method, settings, data, seed
        self.steps = int(settings["steps"])

    def trained(self, values: Values, until: int, state: State | None = None) -> tuple[Params, State]:
        """The changed weights after so many steps, by their names in a weight file, and the state there.

        Args:
            values: Of the fields that are searched, from ``state`` on.
            until: Steps from the training's beginning.
            state: Where it goes on; None for its beginning.

        Raises:
            DivergenceError: If a gradient is not finite.
        """
        config = changed_settings({**self.settings, "steps": until}, values, where="tuning")
        segment = Segment(state)
        weights: Params = self._method.unlearn(self._loaded, self._data, config, Run(self._seed, attempt=segment))
        assert segment.state is not None, f"{self._method.__name__} has no loop of steps"
        return weights, segment.state
