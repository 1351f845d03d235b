"""The forward process: what noise makes of latents, and what a network should say of it."""

from __future__ import annotations

from resalign.lazy import diffusers, torch


def forward_process_of(pipeline: diffusers.DiffusionPipeline) -> diffusers.SchedulerMixin:
    """A pipeline's noise schedule, for training.

    A flow's own scheduler, new, since sampling changes it; else a DDPMScheduler: a multistep sampler's ``add_noise``
    counts timesteps backwards until ``set_timesteps`` has been called.
    """
    config = pipeline.scheduler.config
    if isinstance(pipeline.scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    return diffusers.DDPMScheduler.from_config(config)


def noised(
    noise_scheduler: diffusers.SchedulerMixin, latents: torch.Tensor, noise: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy latents, the timesteps that the network is told, and its target.

    Args:
        noise_scheduler: The forward process; see :func:`forward_process_of`.
        latents: x, (B, C, h, w).
        noise: ε, (B, C, h, w).
        positions: Places in the schedule, (B,), integer: 0 is the least noise.

    Raises:
        ValueError: If the scheduler predicts something else than noise, velocity or flow.
    """
    if isinstance(noise_scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        # x_t = (1 − σ)x + σε with the target ε − x [rectified flow; Esser 2024, arXiv 2403.03206, Eq. 13].
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
    raise ValueError(f"scheduler predicts {kind!r}; supported: 'epsilon', 'v_prediction', flow matching")
