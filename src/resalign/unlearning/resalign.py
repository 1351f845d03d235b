"""ResAlign: unlearning that resists fine-tuning, by gradient descent through simulated fine-tunings.

Source: Li 2025, NeurIPS, Algorithms 1 and 2. The published configuration is the default; where the released code
differs (LoRA outer weights, AdamW, gradient clipping, truncation), a field selects it. Another harmful loss takes the
place of the negative denoising loss by ``harmful``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import FullRank, Parametrisation, Scope, lora, named_weights, select, vjp
from resalign.lazy import torch
from resalign.objectives.distillation import distillation_loss
from resalign.objectives.simulated_hypergradient import HypergradientConfig, simulated_hypergradient
from resalign.objectives.simulation import Simulation
from resalign.tensors.params import Params, add, detached, gradient
from resalign.tensors.steps import apply_gradients
from resalign.unlearning._harmful import HarmfulConfig, harmful_draws


class Config(HarmfulConfig, HypergradientConfig):
    """Published defaults [ResAlign, Section 4.1]; J is not published, 3 is the released code's."""

    steps: int = Field(120, gt=0, description="I, outer steps")
    lr: float = Field(2e-4, gt=0)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0, description="of the variables: the change of θ₀, or its low-rank factors")
    alpha: float = Field(1.0, ge=0, description="weight of the distillation term R")
    beta: float = Field(0.8, ge=0, description="weight of the harmful loss after simulated fine-tuning")
    draws: int = Field(3, gt=0, description="J, simulated fine-tunings in each outer step")
    batch_size: int = Field(1, gt=0)
    retain_batch_size: int = Field(4, gt=0)
    trained: Literal["full", "attention", "lora"] = "full"
    lora_rank: int = Field(4, gt=0)
    max_grad_norm: float | None = Field(0.2, gt=0)


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Algorithm 2.

    Returns:
        The changed weights, by their names in a weight file.

    Raises:
        DivergenceError: If a loss or gradient is not finite, or a solve diverges and ``on_divergence`` is ``raise``.
    """
    denoiser, original = loaded.denoiser, named_weights(loaded.denoiser)
    outer = _outer_parametrisation(config, original)
    variables = detached(outer.initial(original, run.generator("resalign", "outer")), requires_grad=True)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    optimizer = kinds[config.optimizer](list(variables.values()), lr=config.lr, weight_decay=config.weight_decay)
    stream, draw = run.generator("resalign", "batches"), harmful_draws(loaded, data, config, config.batch_size)
    for i in run.steps(range(config.steps), variables=variables, optimizer=optimizer, stream=stream):
        weights = outer.weights(original, variables)
        outer_loss = draw(weights, stream)
        retain_batch = data.retain.draw(config.retain_batch_size, stream)
        # (1 − β)∇L_harm(θ_i) + α∇R(θ_i) [Alg. 2, line 4]
        harmful = outer_loss(weights)
        retain = distillation_loss(denoiser, weights, original, retain_batch)
        total = gradient((1 - config.beta) * harmful + config.alpha * retain, variables)
        theta = detached(weights)
        for j in range(config.draws if config.beta else 0):
            # D_FT ∼ D, C ∼ π(C); θ* = Adapt(θ_i, D_FT, C); the hypergradient x_j [Alg. 2, lines 6 to 8]
            streams = run.generator("resalign", "simulation", i, j), run.generator("resalign", "fixed data")
            simulated = Simulation(denoiser, data.pool, data.retain, config.simulation, *streams)
            where = f"outer step {i}, draw {j}"
            estimate, logged = simulated_hypergradient(config, simulated, theta, outer_loss, where=where)
            total = add(total, vjp(outer, original, variables, estimate.value), config.beta / config.draws)
            run.history.record(i, **logged)
        for name, variable in variables.items():
            variable.grad = total[name]
        grad_norm = apply_gradients(optimizer, config.max_grad_norm, what=f"resalign at outer step {i}")
        losses = {config.harmful.quantity: harmful.item(), "retain_loss": retain.item()}
        run.history.record(i, **losses, grad_norm=grad_norm)
    final = detached(outer.weights(original, variables))
    return loaded.named({name: tensor for name, tensor in final.items() if not torch.equal(tensor, original[name])})


def _outer_parametrisation(config: Config, weights: Params) -> Parametrisation:
    """The trained weights; the low-rank initial deviations are the released code's."""
    if config.trained == "lora":
        return lora(weights, config.lora_rank, down_std=0.008, up_std=0.002)
    scope: Scope = "full" if config.trained == "full" else "attention"
    return FullRank(tuple(select(weights, scope)))
