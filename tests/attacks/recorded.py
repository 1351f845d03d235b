"""One attack as the tests run it: a few steps on the tiny pipeline, with everything that it saved."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from resalign.contracts import AttackData, Run
from resalign.data.prompts import Prompt
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.lora_files import Lora
from resalign.diffusion.parametrisation import named_weights
from resalign.lazy import torch
from resalign.running.attempt import Attempt
from resalign.tensors.params import Params, add
from tests.example_config import smallest
from tests.weight_names import of_denoiser


@dataclass
class Recorded:
    """The weights, prompts and LoRAs that an attack saved, by step, with its run."""

    loaded: LoadedPipeline
    run: Run
    saved: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    prompts: dict[int, tuple[Prompt, ...]] = field(default_factory=dict)
    loras: list[Lora] = field(default_factory=list)

    def save(self, step: int, weights: Params, lora: Lora | None = None, prompts: Sequence[Prompt] = (), /) -> None:
        self.saved[step], self.prompts[step] = dict(weights), tuple(prompts)
        self.loras += [lora] if lora else []

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The last saved weights, by their names in a weight file."""
        return self.saved[max(self.saved)]

    @property
    def denoiser(self) -> dict[str, torch.Tensor]:
        """The last saved weights, by the denoiser's own names."""
        return of_denoiser(self.loaded, self.weights)

    @property
    def moved(self) -> dict[str, torch.Tensor]:
        """How far the attack has moved the denoiser's weights."""
        return add(self.denoiser, named_weights(self.loaded.denoiser), -1.0)

    def history(self, quantity: str) -> dict[int, float]:
        return {step: value for step, name, value in self.run.history.rows if name == quantity}


def attacked(
    module: ModuleType,
    loaded: LoadedPipeline,
    data: AttackData,
    run: Run | None = None,
    *,
    attempt: Attempt | None = None,
    **settings: Any,
) -> Recorded:
    """Runs an attack at the smallest settings that it accepts, and those given."""
    recorded = Recorded(loaded, run or Run(0, attempt=attempt or Attempt()))
    module.attack(loaded, data, smallest(module.Config, **settings), recorded.run, recorded.save)
    return recorded
