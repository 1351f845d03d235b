"""Trainings in segments, and what judges them."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from resalign.config import registry
from resalign.config.passes import Passes
from resalign.config.strict import ConfigError
from resalign.contracts import UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.errors import DataError
from resalign.tensors.params import Params, add, dot, norm
from resalign.tensors.steps import DivergenceError
from resalign.tuning.training import Training
from resalign.tuning.validation import Config, Validation, held_out
from tests.accounting.test_passes import passes
from tests.example_config import smallest
from tests.unlearning.test_resalign_losses import exact  # noqa: F401

METHODS: dict[str, dict[str, Any]] = {
    "graddiff": {"alpha": 1.0},
    # A schedule over all steps.
    "resalign": {"alpha": {"start": 1.0, "end": 5.0}, "simulation": {"steps": [2], "lr": [1e-3]}},
    "advunlearn": {},
}
DRAW = {"lr": [1e-2], "steps": [2], "loss": ["denoising"], "adaptation": ["full"], "optimizer": ["sgd"]}
SMALL: dict[str, Any] = {"batch_size": 2, "retain_batch_size": 3, "simulation": {**DRAW, "batch_size": 2}}


def training(loaded: LoadedPipeline, data: UnlearningData, name: str, **settings: Any) -> Training:
    module = registry.member("unlearning", name)
    steps = {"steps": 4} if "steps" in module.Config.model_fields else {}
    config = smallest(module.Config, **{**METHODS.get(name, {}), **steps, **settings})
    return Training(loaded, module, {"name": name, **config.model_dump(mode="json")}, data, seed=0)


def apart(one: Params, other: Params) -> float:
    assert one.keys() == other.keys()
    return norm(add(one, other, -1.0))


@pytest.mark.parametrize("name", METHODS)
def test_segments_of_a_training_are_the_training(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, name: str
) -> None:
    found = training(loaded, unlearning_data, name)
    whole, _ = found.trained({}, 4)
    _, state = found.trained({}, 1)
    _, state = found.trained({}, 3, state)
    parts, _ = found.trained({}, 4, state)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    # Nobody changes a state: two trainings may go on from it.
    again, _ = found.trained({}, 4, state)
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_method_of_two_loops_is_refused(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    with pytest.raises(ConfigError, match="the method has two loops, saliency and steps"):
        training(loaded, unlearning_data, "salun").trained({}, 2)
    with pytest.raises(ConfigError, match="the method has no loop of steps"):
        training(loaded, unlearning_data, "uce").trained({}, 2)


def test_what_validation_does_not_see_is_refused(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    weights, _ = training(loaded, unlearning_data, "advunlearn").trained({}, 2)
    found = Validation(loaded, unlearning_data, Config.parse(SMALL, where="test"), seed=0)
    with pytest.raises(ConfigError, match="the method changes text_encoder.*, and validation sees the denoiser alone"):
        found(weights)


def test_a_loss_that_is_not_finite_is_a_divergence(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    found = Validation(loaded, unlearning_data, Config.parse(SMALL, where="test"), seed=0)
    huge = {name: tensor * 1e18 for name, tensor in named_weights(loaded.denoiser).items()}
    with pytest.raises(DivergenceError):
        found(loaded.named(huge))


def test_a_state_goes_on_with_other_settings(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    found = training(loaded, unlearning_data, "graddiff")
    half, state = found.trained({"lr": 1e-3}, 2)
    still, _ = found.trained({"lr": 1e-9}, 4, state)  # a saved optimizer has a rate of its own
    moved, _ = found.trained({"lr": 1e-3}, 4, state)
    assert apart(still, half) < 1e-3 * apart(moved, half)
    other, _ = found.trained({"lr": 1e-3, "alpha": 50.0}, 4, state)
    assert apart(other, moved) > 0.1 * apart(moved, half)


def test_validation_has_images_of_its_own(unlearning_data: UnlearningData) -> None:
    parts = held_out(unlearning_data, 0.25)
    for name in ("forget", "retain", "pool"):
        sets = [getattr(part, name) for part in (*parts, unlearning_data)]
        assert [len(images) for images in sets] == [3, 1, 4]
        shown = [{latent.numpy().tobytes() for latent in images.latents} for images in sets]
        assert shown[0] | shown[1] == shown[2]
        assert not shown[0] & shown[1]
    for part in parts:
        assert part.mosaic is not None
        assert part.masks is not None
        assert len(part.masks) == len(part.mosaic) == len(part.forget)
    indices = [row for row in range(4) if torch.equal(unlearning_data.forget.latents[row], parts[1].forget.latents[0])]
    assert unlearning_data.masks is not None
    assert parts[1].masks is not None
    assert torch.equal(parts[1].masks[0], unlearning_data.masks[indices[0]])


@pytest.mark.parametrize("harmful", ["relabelling", "denoising"])
@pytest.mark.parametrize("solver", ["identity", "minres"])
def test_what_a_validation_takes(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, harmful: str, solver: str
) -> None:
    more = {"solver": {"name": solver, "rtol": 0.0} if solver == "minres" else solver, "gamma": 0.01}
    config = Config.parse(
        {**SMALL, **more, "harmful": harmful, "hessian_products": "finite_difference", "max_residual": 1e9},
        where="test",
    )
    found = Validation(loaded, unlearning_data, config, seed=0)
    with passes(loaded.denoiser) as seen:
        value = found({})
        assert sum(seen, Passes()) == config.value_passes
        seen.clear()
        slope = found.slope({})
        assert sum(seen, Passes()) == config.slope_passes
    assert value == found({})  # equal draws at every call
    assert slope.keys() == named_weights(loaded.denoiser).keys()
    assert value.value == value.harmful + config.alpha * value.retained
    assert value.retained == 0  # of the original model


def test_the_slope_is_the_derivative_of_the_value(exact: tuple[LoadedPipeline, UnlearningData]) -> None:  # noqa: F811
    loaded, data = exact
    config = Config.parse({**SMALL, "through": "steps", "alpha": 3.0}, where="test")
    found, stream = Validation(loaded, data, config, seed=0), torch.Generator().manual_seed(0)
    original = named_weights(loaded.denoiser)
    theta = {n: t + 0.02 * torch.randn(t.shape, generator=stream).double() for n, t in original.items()}
    slope = found.slope(loaded.named(theta))
    random = {n: torch.randn(t.shape, generator=stream).double() for n, t in theta.items()}
    for direction in (slope, random):
        step = 1e-5 / norm(direction)
        ends = [found(loaded.named(add(theta, direction, sign * step))).value for sign in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(dot(slope, direction)), rel=1e-4)


def test_a_set_that_cannot_be_split_is_refused(unlearning_data: UnlearningData) -> None:
    with pytest.raises(DataError, match=r"0\.1 of the 4 images of 'forget' leaves 4 for training and 0 for validation"):
        held_out(unlearning_data, 0.1)


def test_a_validation_that_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match="harmful: erasure samples its images with the model that it judges"):
        Config.parse({"harmful": "erasure"}, where="test")


def test_masks_may_be_missing(unlearning_data: UnlearningData) -> None:
    parts = held_out(replace(unlearning_data, masks=None, mosaic=None), 0.5)
    assert [(part.masks, part.mosaic) for part in parts] == [(None, None)] * 2
