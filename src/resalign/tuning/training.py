"""A method's training in segments: its state is taken out between steps, and may go on with other settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from resalign.config.strict import ConfigError
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
    """One segment of a training: its loop begins where a state was taken, and ends early.

    A schedule over all steps is the whole training's: the method is told their number.

    Attributes:
        state: Where the training begins; at the end of the loop, where it ended; on the CPU.
    """

    def __init__(self, state: State | None, until: int) -> None:
        """Goes on from a state, or begins, up to so many steps from the training's beginning."""
        super().__init__()
        self.state, self._until, self._phase = state, until, ""

    def steps(
        self, steps: range, *, phase: str = "steps", progress: Callable[[range], Iterable[int]] = iter, **held: Any
    ) -> Iterator[int]:
        """As :meth:`resalign.running.attempt.Attempt.steps`, of whose records ``history`` begins anew.

        Raises:
            ConfigError: If the method has a second loop, of which it is not known how many steps to take.
        """
        if self._phase:
            raise ConfigError(f"tuning: the method has two loops, {self._phase} and {phase}; take one that has one")
        self._phase = phase
        held.pop("history", None)
        position = 0
        if self.state:
            position = self.state["position"]
            _restore(held, self.state["held"])
            restore_randomness(self.state["randomness"])
        end = min(self._until, len(steps))
        yield from progress(steps[position:end])
        taken = {name: capture(value) for name, value in held.items()}
        self.state = _copied({"position": end, "held": taken, "randomness": capture_randomness()})


def _copied(value: Any) -> Any:
    """A captured state's own copy, on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list | tuple) else value


def _restore(held: dict[str, Any], saved: dict[str, Any]) -> None:
    """Restores all but an optimizer's own settings: a saved rate would take the place of the one that is tried."""
    for name, value in held.items():
        settings = None
        if isinstance(value, torch.optim.Optimizer):
            settings = [{key: part for key, part in group.items() if key != "params"} for group in value.param_groups]
        restore(value, _copied(saved[name]))
        for group, own in zip(value.param_groups if settings else (), settings or (), strict=True):
            group.update(own)


class Training:
    """A method on its data, with some settings free.

    Attributes:
        settings: The method's, resolved.
    """

    def __init__(
        self, loaded: LoadedPipeline, method: ModuleType, settings: dict[str, Any], data: UnlearningData, seed: int
    ) -> None:
        """Args: the pipeline, the method with its settings, what it trains on, and the training seed."""
        self._loaded, self._method, self.settings, self._data, self._seed = loaded, method, settings, data, seed

    def trained(self, values: Values, until: int, state: State | None = None) -> tuple[Params, State]:
        """The changed weights after so many steps, by their names in a weight file, and the state there.

        Args:
            values: Of the fields that are searched, from ``state`` on.
            until: Steps from the training's beginning.
            state: Where it goes on; None for its beginning.

        Raises:
            ConfigError: If the method has not one loop of steps.
            DivergenceError: If a gradient is not finite.
        """
        config = changed_settings(self.settings, values, where="tuning")
        segment = Segment(state, until)
        weights: Params = self._method.unlearn(self._loaded, self._data, config, Run(self._seed, attempt=segment))
        if segment.state is None or segment.state is state:
            raise ConfigError("tuning: the method has no loop of steps; take one that has")
        return weights, segment.state
