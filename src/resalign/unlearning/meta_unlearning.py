"""Meta-Unlearning: any unlearning method, hardened by the gradients of a copy that a malicious user has fine-tuned.

Source: Gao 2025, arXiv 2410.12777. The objective is the released code's: the base's gradient, plus γ₁₁∇L(θ; retain) +
γ₁₂∇L(θ; pool) − γ₂₁∇L(θ'; forget) − γ₂₂∇L(θ'; pool) − γ₂₃∇L(θ'; retain), where L is the denoising loss and θ' is θ
after M steps of fine-tuning on the concept. First order: the gradients at θ' are applied to θ. The γ₂₂ term is the
method's idea: related benign concepts are lost with a malicious fine-tuning.

Deviations: gradients are means over a batch, where the release sums over all batches of a set. The benign sets are not
published: ``retain`` stands for unrelated concepts and ``pool`` for related ones. The adversary trains on one half of
``forget``, and the term at θ' is taken on the other. γ₂ is the paper's for ESD-u at η = 1, and γ₁ its equal.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from resalign.bilevel.adaptation import adapt
from resalign.config.strict import Strict
from resalign.contracts import Run, UnlearningData, check_architecture
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, select
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss, repeated_loss
from resalign.tensors.params import Params, add, detached, gradient, zeros_like
from resalign.unlearning._base import (
    Base,
    ComposedConfig,
    changed_weights,
    is_descended,
    module_of,
    unlearned,
    with_descent,
)
from resalign.unlearning._descent import DescentConfig, Gradient, JointRun, Logged, descend


class Config(ComposedConfig, DescentConfig):
    """Published defaults for ESD; steps, rate and optimizer are also those of a base that is descended jointly."""

    steps: int = Field(1000, ge=0)
    lr: float = Field(1e-5, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(1e-4, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    base: Base = Field(
        {"method": "esd"},
        validate_default=True,
        description="a method and its settings; one that descends step by step is descended jointly, others run first",
    )
    scope: Scope = Field("full", description="what is trained after a base that ran first")
    batch_size: int = Field(1, gt=0, description="images of each term and of each step of the adversary")
    gamma_11: float = Field(0.05, ge=0, description="weight of ∇L(θ; retain), which preserves")
    gamma_12: float = Field(0.05, ge=0, description="weight of ∇L(θ; pool), which preserves")
    gamma_21: float = Field(0.05, ge=0, description="weight of −∇L(θ'; forget)")
    gamma_22: float = Field(0.05, ge=0, description="weight of −∇L(θ'; pool): related concepts self-destruct")
    gamma_23: float = Field(0.05, ge=0, description="weight of −∇L(θ'; retain)")
    inner_steps: int = Field(1, ge=0, description="M, steps of the simulated malicious fine-tuning")
    inner_lr: float | None = Field(None, gt=0, description="its learning rate; null for lr")
    inner_optimizer: Literal["sgd", "adam", "adamw"] = "adamw"

    @property
    def gammas(self) -> tuple[float, ...]:
        """The weights of the five terms."""
        return self.gamma_11, self.gamma_12, self.gamma_21, self.gamma_22, self.gamma_23

    @field_validator("base")
    @classmethod
    def _descends_jointly(cls, base: Strict, info: ValidationInfo) -> Strict:
        return with_descent(base, info.data) if is_descended(base) else base


def meta_gradient(loaded: LoadedPipeline, data: UnlearningData, config: Config) -> Gradient:
    """The five weighted gradients without the base's; a term of weight 0 is not computed, and draws no batch."""
    attacked, tested = data.forget.halves()
    at_theta = ((config.gamma_11, data.retain), (config.gamma_12, data.pool))
    at_tuned = ((-config.gamma_21, tested), (-config.gamma_22, data.pool), (-config.gamma_23, data.retain))

    def terms(weights: Params, variables: Params, weighted: Any, stream: torch.Generator) -> tuple[Params, float]:
        total = torch.zeros(())
        for weight, images in weighted:
            if weight:
                batch = images.draw(config.batch_size, stream)
                total = total + weight * denoising_loss(loaded.denoiser, weights, batch)
        return (gradient(total, variables) if total.requires_grad else zeros_like(variables)), total.item()

    def step_gradient(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
        here: Params = zeros_like(variables)
        logged: dict[str, float] = {}
        if any(config.gammas[:2]):
            here, logged["preservation_loss"] = terms(weights, variables, at_theta, stream)
        if not any(config.gammas[2:]):
            return here, logged
        tuned, _ = adapt(
            lambda _: repeated_loss(denoising_loss, loaded, [attacked.draw(config.batch_size, stream)]),
            weights,
            lr=config.inner_lr or config.lr,
            steps=config.inner_steps,
            optimizer=config.inner_optimizer,
        )
        leaves = detached({name: tuned[name] for name in variables}, requires_grad=True)
        there, logged["tuned_loss"] = terms({**tuned, **leaves}, leaves, at_tuned, stream)
        return add(here, there), logged

    return step_gradient


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends the base's gradient and the meta terms together, or the meta terms alone after the base.

    Returns:
        The changed weights, by their names in a weight file.

    Raises:
        ConfigError: If the base does not support the pipeline, or changes more than the denoiser before this one.
        DivergenceError: If the simulated fine-tuning or a gradient is not finite.
    """
    second = meta_gradient(loaded, data, config)
    if is_descended(config.base):
        module, stream = module_of(config.base), run.generator("meta_unlearning")
        check_architecture(module, loaded.architecture.name)
        joint = JointRun(**vars(run), second=second, second_stream=stream)
        weights: dict[str, torch.Tensor] = module.unlearn(loaded, data, config.base, joint)
        return weights
    start, held = unlearned(loaded, data, config.base, run)
    if not any(config.gammas):  # a weight decay of nothing but the base's weights is none of the method
        return changed_weights(loaded, start, {})
    names = select(start, config.scope)
    trained = descend(start, names, second, config, run, method="meta_unlearning", **held)
    return changed_weights(loaded, start, trained)
