"""A member that says how often a step runs the denoiser says what its steps do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch

from resalign.accounting.rates import RATES, read_rates
from resalign.config import registry
from resalign.config.passes import Passes
from resalign.contracts import AttackData, Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.sampling import partial_sample
from resalign.unlearning import _harmful, _partial_sampling
from tests.example_config import smallest


def counted(family: str) -> list[str]:
    configs = {name: smallest(registry.config_class(family, name)) for name in registry.members(family)}
    # ResAlign has a test of its own: an exact product with the Hessian is no pass that can be counted.
    return [name for name, config in configs.items() if name != "resalign" and getattr(config, "denoiser_passes", None)]


# Settings under which a formula has other terms.
UNLEARNING = [
    *((name, {}) for name in counted("unlearning")),
    ("esd", {"erase_from": "a red two", "batch_size": 2}),
    ("esd", {"negative_guidance": 0.0}),
    ("advunlearn", {"warm_up": 1, "batch_size": 2}),
    ("advunlearn", {"warm_up": 5, "retain_weight": 0.0}),
    ("graddiff", {"retain_loss": "denoising"}),
    ("lcfdsd", {"contrast": "detached", "batch_size": 2}),
]


@contextmanager
def passes(denoiser: torch.nn.Module) -> Iterator[list[Passes]]:
    """The passes within the block."""
    found: list[Passes] = []

    def note(_: torch.nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        examples = len(arguments[0])
        found.append(Passes(gradient=examples) if output.sample.requires_grad else Passes(forward=examples))

    hook = denoiser.register_forward_hook(note)
    try:
        yield found
    finally:
        hook.remove()


def sampled_in_the_mean(found: list[Passes]) -> Callable[..., Any]:
    """Partial sampling that counts the mean of the random number of steps, in place of the one that is drawn."""

    def sample(*arguments: Any, **settings: Any) -> Any:
        before = len(found)
        sampled = partial_sample(*arguments, **settings)
        del found[before:]
        found.extend([Passes(forward=settings["num_inference_steps"] - 1)] * len(sampled[0]))
        return sampled

    return sample


@pytest.mark.parametrize(("name", "settings"), UNLEARNING)
def test_a_methods_passes(
    name: str,
    settings: dict[str, Any],
    loaded: LoadedPipeline,
    unlearning_data: UnlearningData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = registry.member("unlearning", name)
    config: Any = smallest(module.Config, **{"steps": 2, **settings})
    with passes(loaded.denoiser) as found:
        monkeypatch.setattr(_partial_sampling, "partial_sample", sampled_in_the_mean(found))
        module.unlearn(loaded, unlearning_data, config, Run(0))
    assert sum(found, Passes()) == config.denoiser_passes * config.steps


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in counted("attacks")),
        ("full", {"gradient_accumulation": 2}),
        ("dreambooth", {"prior_weight": 0.0}),
    ],
)
def test_an_attacks_passes(
    name: str, settings: dict[str, Any], loaded: LoadedPipeline, attack_data: AttackData
) -> None:
    module = registry.member("attacks", name)
    config: Any = smallest(module.Config, **settings)
    with passes(loaded.denoiser) as found:
        module.attack(loaded, attack_data, config, Run(0), lambda *arguments: None)
    heldout = Passes(forward=2 * config.heldout_batch_size)  # at the start and at the end of a job: of no step
    assert sum(found, Passes()) == config.denoiser_passes * config.steps + heldout


@pytest.mark.parametrize("adaptation", [["full"], ["lora"], ["attention"], ["full", "full"], ["outer"]])
@pytest.mark.parametrize("solver", ["identity", {"name": "richardson", "rtol": 0.0}, "nystrom", "fisher"], ids=str)
@pytest.mark.parametrize("loss", ["denoising", "prior_preserving"])
def test_resaligns_passes(
    adaptation: list[str], solver: Any, loss: str, loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    draw = {"lr": [1e-4], "steps": [2], "loss": [loss], "adaptation": adaptation, "optimizer": ["sgd"]}
    settings = {"steps": 2, "draws": 2, "batch_size": 2, "hessian_batch_size": 3, "max_residual": 1e30}
    settings |= {"hessian_products": "finite_difference", "gamma": 0.01, "solver": solver, "simulation": draw}
    module = registry.member("unlearning", "resalign")
    config = module.Config.parse(settings, where="test")
    with passes(loaded.denoiser) as found:
        module.unlearn(loaded, unlearning_data, config, Run(0))
    assert sum(found, Passes()) == config.denoiser_passes * config.steps


ERASURE = {"name": "erasure", "num_inference_steps": 4}


@pytest.mark.parametrize(
    "harmful", ["denoising", "relabelling", ERASURE, {**ERASURE, "negative_guidance": 0.0}], ids=str
)
@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_resaligns_passes_by_its_harmful_loss(
    harmful: Any,
    beta: float,
    loaded: LoadedPipeline,
    unlearning_data: UnlearningData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = {"lr": [1e-4], "steps": [2], "loss": ["denoising"], "adaptation": ["full"], "optimizer": ["sgd"]}
    settings = {"steps": 2, "draws": 2, "batch_size": 3, "solver": "identity", "gamma": 0.01, "simulation": draw}
    module = registry.member("unlearning", "resalign")
    config = module.Config.parse({**settings, "harmful": harmful, "beta": beta}, where="test")
    with passes(loaded.denoiser) as found:
        monkeypatch.setattr(_harmful, "partial_sample", sampled_in_the_mean(found))
        module.unlearn(loaded, unlearning_data, config, Run(0))
    assert sum(found, Passes()) == config.denoiser_passes * config.steps


@pytest.mark.parametrize("optimizer", [["sgd"], ["adam"]])
def test_resaligns_passes_through_every_step(
    optimizer: list[str], loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    draw = {"lr": [1e-4], "steps": [2], "adaptation": ["full"], "optimizer": optimizer, "batch_size": 2}
    settings = {"steps": 2, "draws": 2, "batch_size": 2, "hessian_products": "finite_difference", "through": "steps"}
    module = registry.member("unlearning", "resalign")
    config = module.Config.parse({**settings, "simulation": {**draw, "loss": ["prior_preserving"]}}, where="test")
    with passes(loaded.denoiser) as found:
        module.unlearn(loaded, unlearning_data, config, Run(0))
    assert sum(found, Passes()) == config.denoiser_passes * config.steps


def test_the_timed_step_of_resalign_has_the_passes_of_its_rate() -> None:
    timed = {"lr": 1e-5, "adaptation": "full", "optimizer": "sgd", "loss": "denoising"}
    steps = [{**timed, "steps": count} for count in (30, 20, 20)]
    settings = {"simulation": {"configurations": steps}, "solver": {"name": "richardson", "steps": 5}}
    parse = partial(registry.config_class("unlearning", "resalign").parse, where="test")
    config = parse({**settings, "hessian_batch_size": 1})
    usual, found = read_rates(RATES, "sd-v1-4")["unlearn", "resalign"].passes, config.denoiser_passes
    assert usual is not None
    # When it was timed, each of the 5 products of the 3 draws made the graph of the gradient anew.
    assert (found.gradient + 15, found.forward) == pytest.approx((usual.gradient, usual.forward))
    # By differences a product is two gradients, and the mixed block too, which is three passes with a graph of its own.
    differences = config.model_copy(update={"hessian_products": "finite_difference"})
    assert found.gradient == differences.denoiser_passes.gradient
    # A measured γ waits for a gradient of its own; that of gradient descent is known.
    matched = {**settings, "gamma": "matched", "hessian_batch_size": 1}
    assert parse(matched).denoiser_passes == found
    half = [{**step, "optimizer": name} for step, name in zip(steps, ("adam", "sgd", "sgd"), strict=True)]
    more = parse({**matched, "simulation": {"configurations": half}}).denoiser_passes
    assert more.gradient - found.gradient == pytest.approx(1)
    first_order = config.model_copy(update={"beta": 0.0})
    assert first_order.denoiser_passes == Passes(gradient=5, forward=4)
