"""PGU: hardens an unlearned model by further unlearning that leaves every linear layer's outputs on retained inputs.

Source: Aladawi 2026, arXiv 2604.21041, of which the abstract was read; the projection is that of Hoang 2024, arXiv
2312.04095, and of gradient projection memory, Saha 2021, arXiv 2103.09762. For the inputs X (d_in, n) of a layer on
``retain``, U has the leading left singular vectors of X; every step ΔW becomes ΔW(I − UUᵀ), so that ΔW X = 0 as far
as U spans X. Only the weights of linear layers are trained.

Deviations: the step is projected and not the gradient, because Adam scales a gradient's elements and so leads out of
the subspace. The unlearning loss is named by ``harmful`` and need not be the base's, which may have none.
"""

from __future__ import annotations

import functools

from pydantic import Field

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import Scope, select
from resalign.diffusion.prediction import predict
from resalign.lazy import torch
from resalign.tensors.params import Params
from resalign.unlearning._base import Base, ComposedConfig, changed_weights, unlearned
from resalign.unlearning._descent import DescentConfig, Logged, descend, of_loss
from resalign.unlearning._harmful import Erasure, HarmfulConfig, HarmfulLoss, harmful_draws

# The default loss samples x_t by DDIM.
ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")


class Config(ComposedConfig, HarmfulConfig, DescentConfig):
    """This project's choices: the paper's settings were not at hand."""

    base: Base = Field({"method": "esd"}, validate_default=True, description="the method whose model is hardened")
    harmful: HarmfulLoss = Field(
        default_factory=Erasure, description="the loss that is descended: erasure, denoising or relabelling"
    )
    scope: Scope = "full"
    steps: int = Field(200, ge=0)
    lr: float = Field(1e-5, gt=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    batch_size: int = Field(1, gt=0)
    energy: float = Field(0.95, gt=0, le=1, description="share of the inputs' squared norm that U has to span")
    input_batches: int = Field(8, gt=0, description="batches of `retain` whose layer inputs are kept fixed")
    input_batch_size: int = Field(4, gt=0)

    def needs(self) -> tuple[str, ...]:
        """The base's needs and the loss's."""
        return tuple(dict.fromkeys((*ComposedConfig.needs(self), *HarmfulConfig.needs(self))))


def retained_subspaces(
    denoiser: torch.nn.Module,
    weights: Params,
    images: EncodedImages,
    *,
    energy: float,
    batches: int,
    batch_size: int,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """U of every linear layer, (d_in, rank), by the name of its weight.

    Args:
        denoiser: The network, whose forward hooks are used meanwhile.
        weights: θ, by name.
        images: Images with prompts, each batch stratified over the schedule.
        energy: The least share of ‖X‖² that ‖UᵀX‖² is.
        batches: Number of batches.
        batch_size: Images of each.
        generator: Draws them.
    """
    layers = linear_layers(denoiser)
    grams = {name: torch.zeros(layer.in_features, layer.in_features).double() for name, layer in layers.items()}

    def watch(name: str, layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double()
        grams[name] = grams[name].to(rows.device) + rows.T @ rows

    handles = [layer.register_forward_pre_hook(functools.partial(watch, name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for _ in range(batches):
                predict(denoiser, weights, images.draw_stratified(batch_size, generator))
    finally:
        for handle in handles:
            handle.remove()
    return {name: leading(gram, energy).to(weights[name]) for name, gram in grams.items()}


def leading(gram: torch.Tensor, energy: float) -> torch.Tensor:
    """The fewest leading eigenvectors (d, rank) of XXᵀ (d, d) whose eigenvalues have a share of its trace.

    Eigenvalues that are rounding errors count as zeros, so that a share of 1 gives the rank of X.
    """
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    values = torch.where(values > len(values) * torch.finfo(values.dtype).eps * values[0], values, 0.0)
    summed = values.cumsum(0)
    return vectors[:, summed - values < energy * summed[-1]]  # the sum of the larger ones is not yet enough


def linear_layers(denoiser: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """The network's linear layers by the names of their weights."""
    modules = denoiser.named_modules()
    return {f"{name}.weight": module for name, module in modules if isinstance(module, torch.nn.Linear)}


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """Descends the harmful loss from the base's model within what leaves the retained inputs' outputs alone.

    Returns:
        The changed weights, by their names in a weight file.

    Raises:
        ConfigError: If the base does not support the pipeline, or changes more than the denoiser.
        DivergenceError: If a gradient is not finite.
    """
    start, held = unlearned(loaded, data, config.base, run)
    draw = harmful_draws(loaded, data, config, config.batch_size)
    layers = linear_layers(loaded.denoiser)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        value = draw(weights, stream)(weights)
        return value, {config.harmful.quantity: value.item()}

    @functools.cache  # at the first step: before it, a resumed run has not yet the base's weights in `start`
    def subspaces() -> dict[str, torch.Tensor]:
        return retained_subspaces(
            loaded.denoiser,
            start,
            data.retain,
            energy=config.energy,
            batches=config.input_batches,
            batch_size=config.input_batch_size,
            generator=run.generator("pgu", "inputs"),
        )

    def project(variables: Params) -> None:
        """W ← W₀ + (W − W₀)(I − UUᵀ), which is every step's projection."""
        for name, variable in variables.items():
            moved, basis = variable - start[name], subspaces()[name]
            variable.copy_(start[name] + moved - (moved @ basis) @ basis.T)

    names = [name for name in select(start, config.scope) if name in layers]
    trained = descend(start, names, of_loss(loss), config, run, method="pgu", stepped=project, **held)
    return changed_weights(loaded, start, trained)
