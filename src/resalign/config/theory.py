"""Settings of the measured theory: Proposition 1, loss slices, the linear model of resurgence."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from resalign.config.strict import Strict

Share = Annotated[float, Field(ge=0, le=1)]
Dimensions = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=2, max_length=2)]


class LinearModelConfig(Strict):
    """The grid on which Proposition 5.1 of the resurgence paper is compared with simulation, and its noise schedule."""

    dimension: int = Field(10, gt=1, description="d of W (d, d)")
    subspaces: tuple[Dimensions, ...] = Field(
        ((1, 1), (4, 4), (1, 2)), min_length=1, description="(dim C, dim S) of forgotten and fine-tuned subspace"
    )
    overlaps: tuple[Share, ...] = Field(
        (0.0, 0.01, 0.1, 0.5, 0.9, 1.0), min_length=1, description="cos² of every principal angle between C and S"
    )
    curvatures: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.1, 1.0, 10.0), min_length=1, description="variance of the data in C; it is 1 in all other directions"
    )
    positions: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 100, 300, 500, 700, 999), min_length=1, description="timesteps t of the schedule; α_t is its ᾱ"
    )
    # The schedule of Stable Diffusion v1.4's scheduler_config.json (scaled linear).
    train_timesteps: int = Field(1000, gt=1)
    beta_start: float = Field(0.00085, gt=0, lt=1)
    beta_end: float = Field(0.012, gt=0, lt=1)
    samples: int = Field(
        200, gt=0, description="examples, adjusted so that their second moments equal the population's"
    )
    descent_steps: int = Field(20, gt=0, description="T of the gradient descent")
    descent_share: float = Field(
        0.5, gt=0, lt=2, description="learning rate over 1/λ_max(2Σ_t); from 2 on descent diverges"
    )
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for forgotten, tuned in self.subspaces:
            if forgotten + tuned > self.dimension:
                raise ValueError(f"subspaces ({forgotten}, {tuned}) need a dimension of {forgotten + tuned} or more")
        if max(self.positions) >= self.train_timesteps:
            raise ValueError(f"positions must be below train_timesteps {self.train_timesteps}, got {self.positions}")
        if self.samples < 2 * self.dimension:
            raise ValueError(f"samples must be at least {2 * self.dimension}: fewer cannot have the wanted moments")
        return self


class TheoryConfig(Strict):
    """How sharpness, displacements and slices of the harmful loss are measured.

    L_harm is the mean over ``batches`` frozen batches of ``batch_size`` examples of ``concept.forget``, the same
    images, noise and timesteps for every model.
    """

    batch_size: int = Field(16, gt=0, description="examples in memory at once, their timesteps stratified")
    batches: int = Field(1, gt=0, description="frozen batches over whose mean the loss is taken")
    precision: Literal["float32", "float64"] = Field("float64", description="of weights, losses and their derivatives")
    hessian_products: Literal["exact", "finite_difference"] = Field("exact", description="see bilevel/hvp.py")
    probes: int = Field(24, ge=2, description="Rademacher vectors z of Tr H = E zᵀHz and ‖H‖_F² = E‖Hz‖²")
    displacement_pairs: int = Field(8, ge=2, description="isotropic directions, each taken forwards and backwards")
    slice_positions: tuple[float, ...] = Field(
        (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5), min_length=2, description="in lengths of the fine-tuning"
    )
    slice_directions: int = Field(1, gt=0, description="random directions beside each fine-tuning's")
    linear_model: LinearModelConfig = LinearModelConfig()
