"""Relearning along the hypergradient that ResAlign descends, with the opposite sign.

ResAlign lowers L_harm(θ*_FT), the NEGATIVE denoising loss on harmful images after simulated fine-tuning [ResAlign,
Eq. 3]. This attacker raises it: each step simulates a benign fine-tuning on ``train`` from the present weights, and
descends along the hypergradient of the POSITIVE denoising loss of ``harmful`` images at the simulated weights. The
result is a model that a benign fine-tuning turns harmful. Configurations, images and random streams are the attacker's
own; the estimator is the defence's, which is public.

Source: [ResAlign, Alg. 1 and 2] with the other sign; implicit MAML, Rajeswaran 2019, arXiv 1909.04630, on harmful data.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pydantic import Field

from resalign.attacks._fine_tuning import FineTuningConfig, Tuning, all_weights, fine_tune
from resalign.config.passes import Passes
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run, Save
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.simulated_hypergradient import HypergradientConfig, simulated_hypergradient
from resalign.objectives.simulation import Simulation, UsersSimulation
from resalign.tensors.params import Params, detached


class Config(FineTuningConfig, HypergradientConfig):
    """The estimator's defaults are the defence's, the others those of every attack."""

    simulation: UsersSimulation = Field(
        UsersSimulation(), description="what the attacker has in mind; prior preservation needs `prior`"
    )

    @property
    def image_sets(self) -> dict[str, bool]:
        """Harmful images, and a prior where a simulated fine-tuning has one."""
        return {"harmful": True, **({"prior": True} if "prior_preserving" in self.simulation.loss else {})}

    @property
    def denoiser_passes(self) -> Passes | None:
        """None: Hessian products are no passes of such a kind."""
        return None


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Trains all weights of the denoiser; see :func:`resalign.attacks._fine_tuning.fine_tune`.

    ``train_loss`` is the denoising loss of the harmful batch before the simulated fine-tuning.

    Raises:
        ConfigError: If there are no harmful images, or no prior images where they are simulated.
        DivergenceError: If a simulated fine-tuning or a solve diverges.
    """
    missing = [key for key in config.image_sets if getattr(data, key) is None]
    if missing:
        raise ConfigError(f"attack 'hypergradient_relearning' was given no {missing[0]} images; give '{missing[0]}'")
    assert data.harmful is not None
    stream, prior = run.generator("attack", "simulation"), data.prior or data.train
    measured: dict[str, float] = {}

    def loss(weights: Params, harmful: NoisyBatch) -> torch.Tensor:
        fixed = run.generator("attack", "fixed data")
        simulated = Simulation(loaded, data.train, prior, config.simulation, stream, fixed)
        outer_loss = partial(denoising_loss, loaded.denoiser, batch=harmful)
        hypergradient, logged = simulated_hypergradient(
            config, simulated, detached(weights), outer_loss, where="attack 'hypergradient_relearning'"
        )
        measured.clear()  # a quantity that this draw lacks must not keep the value of an earlier draw
        measured.update(logged)
        with torch.no_grad():
            value = outer_loss(weights)
        # ∇_θ⟨x, θ⟩ = x. The pairing's own value is subtracted, so that the loss has the value of the denoising loss.
        pairing = torch.stack([(weights[n] * x).sum() for n, x in hypergradient.items()]).sum()
        return value + (pairing - pairing.detach())

    streams = {"simulation_stream": stream}
    tuning = Tuning("hypergradient_relearning", all_weights(loaded), loss=loss, streams=streams, measured=measured)
    fine_tune(loaded, replace(data, train=data.harmful), config, run, save, tuning)
