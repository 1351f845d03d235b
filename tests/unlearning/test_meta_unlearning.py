"""Meta-Unlearning: its base where every γ is 0, its five terms in closed form, its first order against unrolling."""

from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.config import registry
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion import architectures
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.running.attempt import Attempt
from resalign.tensors.params import detached
from resalign.unlearning import _base, advunlearn, meta_unlearning, stereo
from tests.example_config import smallest
from tests.nearness import assert_near, differing
from tests.stopping import stopped_after_a_step
from tests.weight_names import of_denoiser

from .linear_model import NAME, columns, linear_data, linear_pipeline, slope

GAMMAS = ("gamma_11", "gamma_12", "gamma_21", "gamma_22", "gamma_23")
OFF: dict[str, Any] = dict.fromkeys(GAMMAS, 0.0)
DESCENT = {"steps": 2, "lr": 1e-3, "optimizer": "adam", "weight_decay": 0.0, "max_grad_norm": 1.0}
IMPORTED = {"method": "imported", "checkpoint": "x"}


def config_of(**settings: Any) -> meta_unlearning.Config:
    return meta_unlearning.Config.parse({**DESCENT, **settings}, where="test")


def trained(
    loaded: LoadedPipeline, data: UnlearningData, attempt: Attempt | None = None, **settings: Any
) -> dict[str, torch.Tensor]:
    run = Run(0, attempt=attempt or Attempt())
    return of_denoiser(loaded, meta_unlearning.unlearn(loaded, data, config_of(**settings), run))


def is_joint(name: str) -> bool:
    """Whether a method can be descended jointly on the tiny pipeline."""
    module = registry.member("unlearning", name)
    return _base.is_descended(smallest(module.Config)) and "stable_diffusion" in getattr(
        module, "ARCHITECTURES", architectures.NAMES
    )


# --- composition ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in registry.members("unlearning") if is_joint(name)])
def test_without_gammas_it_is_its_base_bit_for_bit_and_with_them_it_is_not(
    name: str, loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    module = registry.member("unlearning", name)
    own = {**smallest(module.Config).model_dump(mode="json"), **DESCENT}
    alone = of_denoiser(loaded, module.unlearn(loaded, unlearning_data, module.Config.parse(own, where="test"), Run(0)))
    base = {"method": name, **own}
    assert not differing(trained(loaded, unlearning_data, base=base, **OFF), alone)
    hardened = trained(loaded, unlearning_data, base=base)
    assert hardened.keys() == alone.keys()
    assert differing(hardened, alone)


def test_after_a_base_without_steps_the_terms_are_descended_alone(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = named_weights(loaded.denoiser)
    moved = {name: tensor + 0.01 for name, tensor in original.items()}  # the checkpoint of the fixture
    assert not differing(trained(loaded, unlearning_data, base=IMPORTED, **OFF), moved)
    # One step of plain descent in the preservation term moves along its negative gradient at the BASE's weights.
    plain: dict[str, Any] = {"steps": 1, "lr": 1.0, "optimizer": "sgd", "max_grad_norm": None}
    found = trained(loaded, unlearning_data, base=IMPORTED, **{**plain, **OFF, "gamma_11": 0.5})
    config = config_of(base=IMPORTED, **{**OFF, "gamma_11": 0.5})
    leaves = detached(moved, requires_grad=True)
    stream = Run(0).generator("meta_unlearning")
    direction, _ = meta_unlearning.meta_gradient(loaded, unlearning_data, config)(leaves, leaves, stream)
    expected = {name: moved[name] - direction[name] for name in moved}
    assert_near(found, expected, 1e-6)
    assert differing(found, moved)


def test_a_base_of_several_loops_runs_first(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    settings = smallest(stereo.Config).model_dump(mode="json")
    changed = stereo.unlearn(loaded, unlearning_data, stereo.Config.parse(settings, where="test"), Run(0))
    erased, base = of_denoiser(loaded, changed), {"method": "stereo", **settings}
    assert not differing(trained(loaded, unlearning_data, base=base, **OFF), erased)
    hardened = trained(loaded, unlearning_data, base=base, steps=1, lr=1e-9)
    assert_near({name: hardened[name] for name in erased}, erased, 1e-6)
    assert differing({name: hardened[name] for name in erased}, erased)


def test_a_base_that_trains_the_text_encoder_is_refused(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    base = {"method": "advunlearn", **smallest(advunlearn.Config).model_dump(mode="json")}
    with pytest.raises(ConfigError, match=r"base 'advunlearn' changes text_encoder\."):
        trained(loaded, unlearning_data, base=base)


@pytest.mark.parametrize("base", [IMPORTED, {"method": "graddiff", "batch_size": 2}], ids=["alone", "jointly"])
def test_a_stopped_run_goes_on_to_equal_bits(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path, base: dict[str, Any]
) -> None:
    whole = trained(loaded, unlearning_data, base=base)
    resumed = stopped_after_a_step(
        tmp_path, lambda attempt: trained(loaded, unlearning_data, attempt=attempt, base=base)
    )
    assert not differing(resumed, whole)


def test_a_joint_base_descends_with_the_methods_settings() -> None:
    config = config_of(base={"method": "esd", "variant": "x", "lr": 1e-3})
    descent = {key: getattr(config.base, key) for key in DESCENT}
    assert descent == DESCENT
    assert meta_unlearning.Config.parse(config.model_dump(mode="json"), where="again") == config
    with pytest.raises(ConfigError, match=r"key 'base': the base is descended together .*\['lr', 'steps'\]"):
        config_of(base={"method": "esd", "lr": 1e-2, "steps": 7})
    first = config_of(base={"method": "resalign", "lr": 1e-2, "steps": 7}).base
    assert (first.lr, first.steps) == (1e-2, 7)  # type: ignore[attr-defined]


# --- the terms --------------------------------------------------------------------------------------------------------


def direction_of(**settings: Any) -> tuple[torch.Tensor, list[Any], torch.Tensor]:
    """The direction on the linear model; the batches in the order of the terms, with the inner ones; the matrix."""
    loaded, data = linear_pipeline(), linear_data()
    config = config_of(base=IMPORTED, batch_size=2, inner_optimizer="sgd", inner_lr=0.2, **settings)
    weights = detached(named_weights(loaded.denoiser), requires_grad=True)
    stream = Run(0).generator("test")
    found, _ = meta_unlearning.meta_gradient(loaded, data, config)(weights, weights, stream)
    again, (attacked, tested) = Run(0).generator("test"), data.forget.halves()
    sets = [data.retain, data.pool, *[attacked] * config.inner_steps, tested, data.pool, data.retain]
    return found[NAME], [images.draw(2, again) for images in sets], weights[NAME].detach()


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_direction_is_the_five_weighted_gradients(steps: int) -> None:
    gammas = dict(zip(GAMMAS, (0.3, 0.5, 0.7, 1.1, 1.3), strict=True))
    found, batches, matrix = direction_of(inner_steps=steps, **gammas)
    tuned = matrix
    for batch in batches[2 : 2 + steps]:
        tuned = tuned - 0.2 * slope(tuned, batch)
    here = 0.3 * slope(matrix, batches[0]) + 0.5 * slope(matrix, batches[1])
    there = sum(g * slope(tuned, batch) for g, batch in zip((0.7, 1.1, 1.3), batches[-3:], strict=True))
    assert_near(found, here - there, 1e-12)
    if not steps:
        assert torch.equal(tuned, matrix)


def test_the_first_order_departs_from_unrolling_with_the_number_of_inner_steps() -> None:
    errors = []
    for steps in (0, 1, 5):
        only = {**OFF, "gamma_11": 1e-9, "gamma_12": 1e-9, "gamma_21": 1.0, "gamma_22": 1e-9, "gamma_23": 1e-9}
        found, batches, matrix = direction_of(inner_steps=steps, **only)
        leaf = matrix.clone().requires_grad_()
        tuned = leaf
        for batch in batches[2 : 2 + steps]:
            x, n = columns(batch)
            loss = (tuned @ x - n).square().mean()
            tuned = tuned - 0.2 * torch.autograd.grad(loss, tuned, create_graph=True)[0]
        x, n = columns(batches[2 + steps])
        exact = -torch.autograd.grad((tuned @ x - n).square().mean(), leaf)[0]
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[0] < 1e-7
    assert 0.01 < errors[1] < errors[2] / 2
