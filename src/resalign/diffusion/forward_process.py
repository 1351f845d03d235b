"""The forward process: noisy latents with a network's timesteps and targets, and what its prediction says of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resalign.lazy import diffusers, torch
from resalign.tensors.settings import SCHEDULER, check_settings, read_json
from resalign.tensors.weights import WeightsError

PREDICTIONS = ("epsilon", "v_prediction")


def forward_process_of(pipeline: diffusers.DiffusionPipeline) -> diffusers.SchedulerMixin:
    """A pipeline's noise schedule, for training: a separate scheduler, since sampling changes the pipeline's."""
    scheduler = pipeline.scheduler
    return _forward_process(type(scheduler).__name__, scheduler.config, str(pipeline.config._name_or_path))


def forward_process_in(folder: Path) -> diffusers.SchedulerMixin:
    """The noise schedule of a pipeline folder, from its settings alone.

    Raises:
        WeightsError: If they are missing, or the process is not supported.
    """
    file = folder / "scheduler" / "scheduler_config.json"
    config = read_json(file)
    check_settings(file, config, SCHEDULER)
    return _forward_process(str(config.get("_class_name")), config, str(file))


def difference(one: diffusers.SchedulerMixin, other: diffusers.SchedulerMixin) -> str | None:
    """How two noise schedules differ; None if they are the same."""
    if type(one) is not type(other):
        return "one is a flow, the other a diffusion"
    if one.config.get("prediction_type") != other.config.get("prediction_type"):
        return f"one predicts {one.config.prediction_type}, the other {other.config.prediction_type}"
    noise = [s.alphas_cumprod if isinstance(s, diffusers.DDPMScheduler) else s.sigmas for s in (one, other)]
    return None if torch.equal(*noise) else "their amounts of noise differ"


def _forward_process(class_name: str, config: Mapping[str, Any], where: str) -> diffusers.SchedulerMixin:
    """A flow's own scheduler, or else a DDPMScheduler.

    A multistep sampler's ``add_noise`` counts timesteps backwards until ``set_timesteps`` has been called.
    """
    if class_name == "FlowMatchEulerDiscreteScheduler":
        _check_said(config, ("num_train_timesteps", "shift"), where)
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    # Other flows, and EDM's continuous noise, have no β; DDPMScheduler would take its own defaults.
    if "beta_schedule" not in config:
        raise WeightsError(
            f"{where}: no support for the noise schedule of {class_name}; supported are schedulers with a "
            "'beta_schedule' (PNDM, DDIM, DPMSolverMultistep, Euler, …) and FlowMatchEulerDiscreteScheduler"
        )
    ends = () if config.get("trained_betas") else ("beta_start", "beta_end")
    _check_said(config, ("num_train_timesteps", *ends), where)
    found = diffusers.DDPMScheduler.from_config(config)
    if found.config.prediction_type not in PREDICTIONS:
        raise WeightsError(f"{where}: scheduler predicts '{found.config.prediction_type}'; supported: {PREDICTIONS}")
    return found


def _check_said(config: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Raises WeightsError if a scheduler's settings lack a key of its noise, which diffusers would fill in."""
    lacking = [key for key in keys if config.get(key) is None]
    if lacking:
        raise WeightsError(f"{where}: does not say {lacking}; a default would be a guess: fetch the original file")


def noised(
    noise_scheduler: diffusers.SchedulerMixin, latents: torch.Tensor, noise: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy latents, the timesteps as the network takes them, and its target.

    Args:
        noise_scheduler: The forward process; see :func:`forward_process_of`.
        latents: x, (B, C, h, w).
        noise: ε, (B, C, h, w).
        positions: Places in the schedule, (B,), integer: 0 is the least noise.

    Raises:
        ValueError: If the scheduler predicts anything but noise, velocity or flow.
    """
    if isinstance(noise_scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        # x_t = (1 − σ)x + σε with the target ε − x [rectified flow; Esser 2024, arXiv 2403.03206, Section 3].
        sigmas = noise_scheduler.sigmas.flip(0).to(latents)[positions.to(latents.device)]
        share = sigmas[:, None, None, None]
        timesteps = sigmas * noise_scheduler.config.num_train_timesteps
        return (1 - share) * latents + share * noise, timesteps, noise - latents
    timesteps = positions.to(latents.device)
    noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
    kind = noise_scheduler.config.prediction_type
    if kind == "epsilon":
        return noisy_latents, timesteps, noise
    if kind == "v_prediction":
        return noisy_latents, timesteps, noise_scheduler.get_velocity(latents, noise, timesteps)
    raise ValueError(f"scheduler predicts {kind!r}; supported: {PREDICTIONS} and flow matching")


def levels(noise_scheduler: diffusers.SchedulerMixin, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """α_t and σ_t of x_t = α_t x + σ_t ε, each (B, 1, 1, 1), at timesteps (B,) as the network takes them."""
    if isinstance(noise_scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        sigma = (timesteps / noise_scheduler.config.num_train_timesteps)[:, None, None, None]
        return 1 - sigma, sigma
    cumulative = noise_scheduler.alphas_cumprod.to(timesteps.device)[timesteps][:, None, None, None]
    return cumulative.sqrt(), (1 - cumulative).sqrt()


def clean_and_noise(
    noise_scheduler: diffusers.SchedulerMixin,
    noisy_latents: torch.Tensor,
    timesteps: torch.Tensor,
    prediction: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """x̂₀ and ε̂, (B, C, h, w) each, by which a network's prediction (B, C, h, w) explains x_t = α_t x̂₀ + σ_t ε̂.

    Of the target of :func:`noised` they are the latents and the noise. Of a noise prediction x̂₀ has the factor 1/α_t,
    14.6 at the last step of Stable Diffusion's schedule.
    """
    alpha, sigma = levels(noise_scheduler, timesteps)
    if isinstance(noise_scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        return noisy_latents - sigma * prediction, noisy_latents + alpha * prediction
    if noise_scheduler.config.prediction_type == "v_prediction":
        return alpha * noisy_latents - sigma * prediction, sigma * noisy_latents + alpha * prediction
    return (noisy_latents - sigma * prediction) / alpha, prediction
