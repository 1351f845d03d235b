"""Finetune, GradDiff's terms, RG and RGD: where they coincide, and what each step does to first order."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import with_prompts
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.sampling import sample_latents
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.params import Params, add, detached, dot, norm
from resalign.unlearning import finetune, graddiff, rg, rgd
from resalign.unlearning._descent import Gradient, Logged, descend
from tests.nearness import assert_near, differing
from tests.stopping import stopped_after_a_step
from tests.weight_names import of_denoiser

BATCHES = {"batch_size": 2, "retain_batch_size": 2}
# One example of its own noise and timestep a set, so that some pairs of gradients conflict and others do not.
SINGLE = {"batch_size": 1, "retain_batch_size": 1}
# Weights, inputs and sums are in float32; the products of gradients are in float64.
FLOAT32 = 1e-5


def config_of(method: Any, **settings: Any) -> Any:
    return method.Config.parse(settings, where="test")


def direction(
    loaded: LoadedPipeline, data: UnlearningData, method: Any, seed: int, start: Params, **settings: Any
) -> tuple[Params, Logged]:
    """A method's direction at given weights, for the batches of one seed."""
    leaves = detached(start, requires_grad=True)
    step_gradient: Gradient = method.step_gradient(loaded, data, config_of(method, **settings))
    return step_gradient(leaves, leaves, Run(seed).generator("batches"))


def after_a_forget_batch(step_gradient: Gradient, data: UnlearningData, batch_size: int) -> Gradient:
    """A step on the retain set alone, which sees the retain batches of methods that draw a forget batch first."""

    def shifted(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
        data.forget.draw(batch_size, stream)
        return step_gradient(weights, variables, stream)

    return shifted


@pytest.fixture(scope="module")
def moved(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    """Weights at which distillation pulls."""
    return {name: tensor + 0.02 for name, tensor in named_weights(loaded.denoiser).items()}


@pytest.fixture(scope="module")
def fitted(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> dict[str, torch.Tensor]:
    """Weights that have learned what all images share: until then any two gradients point the same way."""
    config = config_of(finetune, steps=20, lr=2e-2, batch_size=8)
    return of_denoiser(loaded, finetune.unlearn(loaded, unlearning_data, config, Run(0)))


@pytest.fixture(scope="module")
def pairs(loaded: LoadedPipeline, unlearning_data: UnlearningData, fitted: Params) -> dict[bool, int]:
    """A seed whose gradients conflict, and one whose gradients do not."""
    found: dict[bool, int] = {}
    for seed in range(60):
        _, logged = direction(loaded, unlearning_data, rg, seed, fitted, **SINGLE, truncation=None)
        found.setdefault(logged["gradient_product"] < 0, seed)
        if len(found) == 2:
            return found
    raise AssertionError(f"gradients of seeds 0 to 59 all are alike: conflict {[*found]}")


# --- where they coincide ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [graddiff, rg])
def test_without_a_forget_gradient_they_are_finetune(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, method: Any
) -> None:
    """A truncation that every example has passed leaves no gradient of the forget set: RG must not divide by it."""
    weight = {"alpha": 1.0, "retain_loss": "denoising"} if method is graddiff else {"retain_weight": 1.0}
    settings = {**BATCHES, **weight, "steps": 3, "lr": 1e-3, "max_grad_norm": None, "truncation": 1e-6}
    found = method.unlearn(loaded, unlearning_data, config_of(method, **settings), Run(0))
    original = named_weights(loaded.denoiser)
    alone = config_of(finetune, steps=3, lr=1e-3, batch_size=2)
    step_gradient = after_a_forget_batch(finetune.step_gradient(loaded, unlearning_data, alone), unlearning_data, 2)
    name = method.__name__.rpartition(".")[2]
    expected = loaded.named(descend(original, original, step_gradient, alone, Run(0), method=name))
    assert not differing(found, expected)
    assert differing(found, loaded.named(original))


def test_without_conflict_rg_is_graddiff(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, fitted: Params, pairs: dict[bool, int]
) -> None:
    def both(seed: int) -> tuple[Params, Params]:
        restricted, _ = direction(
            loaded, unlearning_data, rg, seed, fitted, **SINGLE, retain_weight=1.5, truncation=None
        )
        plain, _ = direction(
            loaded,
            unlearning_data,
            graddiff,
            seed,
            fitted,
            **SINGLE,
            alpha=1.5,
            retain_loss="denoising",
            truncation=None,
        )
        return restricted, plain

    assert not differing(*both(pairs[False]))
    assert differing(*both(pairs[True]))


# --- Finetune ---------------------------------------------------------------------------------------------------------


def test_finetune_learns_the_retain_set_and_sees_no_other(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    none = unlearning_data.forget.subset(torch.tensor([], dtype=torch.long))
    data = replace(unlearning_data, forget=none, pool=none)
    changed = finetune.unlearn(loaded, data, config_of(finetune, steps=20, lr=3e-3, batch_size=4), Run(0))
    weights = of_denoiser(loaded, changed)
    batch = data.retain.draw_stratified(32, Run(7).generator("test"))
    with torch.no_grad():
        before = denoising_loss(loaded.denoiser, named_weights(loaded.denoiser), batch)
        assert denoising_loss(loaded.denoiser, weights, batch) < 0.9 * before


# --- RG ---------------------------------------------------------------------------------------------------------------


def test_a_step_of_rg_spoils_neither_loss(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, fitted: Params, pairs: dict[bool, int]
) -> None:
    """By the losses' central differences along the step, not by the gradients that were projected."""
    seed = pairs[True]
    stream = Run(seed).generator("batches")
    forget_batch, retain_batch = unlearning_data.forget.draw(1, stream), unlearning_data.retain.draw(1, stream)

    def falls(step: Params) -> tuple[float, float]:
        """How fast the forget loss, which is the negative error, and the retain loss fall along a descent step."""
        size = 1e-3 / norm(step)
        with torch.no_grad():
            before, after = (add(fitted, step, sign * size) for sign in (1.0, -1.0))
            forget = [-float(denoising_loss(loaded.denoiser, weights, forget_batch)) for weights in (before, after)]
            retain = [float(denoising_loss(loaded.denoiser, weights, retain_batch)) for weights in (before, after)]
        return (forget[0] - forget[1]) / 2e-3, (retain[0] - retain[1]) / 2e-3

    for weight in (0.1, 1.5, 30.0):
        step, _ = direction(loaded, unlearning_data, rg, seed, fitted, **SINGLE, retain_weight=weight, truncation=None)
        assert min(falls(step)) > 0
    # Each gradient by itself would spoil the other loss: the two do conflict.
    retain, _ = direction(loaded, unlearning_data, rg, seed, fitted, **SINGLE, retain_weight=1.0, truncation=1e-6)
    forget, _ = direction(loaded, unlearning_data, rg, seed, fitted, **SINGLE, retain_weight=0.0, truncation=None)
    assert falls(retain)[0] < 0 < falls(retain)[1]
    assert falls(forget)[1] < 0 < falls(forget)[0]


def test_rg_weighs_and_logs_what_it_projects(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, fitted: Params, pairs: dict[bool, int]
) -> None:
    seed, unlimited = pairs[True], {**SINGLE, "truncation": None}
    forget, _ = direction(loaded, unlearning_data, rg, seed, fitted, **unlimited, retain_weight=0.0)
    once, logged = direction(loaded, unlearning_data, rg, seed, fitted, **unlimited, retain_weight=1.0)
    retain, _ = direction(loaded, unlearning_data, rg, seed, fitted, **SINGLE, truncation=1e-6, retain_weight=1.0)
    assert_near(logged["gradient_product"], float(dot(forget, retain)), FLOAT32, scale=norm(forget) * norm(retain))
    # δ_f + λδ_r: weights after the projections must give what the weight before them gives.
    thrice, _ = direction(loaded, unlearning_data, rg, seed, fitted, **unlimited, retain_weight=3.0)
    twice, _ = direction(loaded, unlearning_data, rg, seed, fitted, **unlimited, retain_weight=2.0)
    assert_near(add(thrice, twice, -1.0), add(twice, once, -1.0), FLOAT32, scale=thrice)
    # δ_r is what a unit of λ adds; it is orthogonal to g_f, and so is δ_f to g_r.
    added = add(twice, once, -1.0)
    assert abs(float(dot(added, forget))) < 1e-4 * norm(added) * norm(forget)
    rest = add(once, added, -1.0)
    assert abs(float(dot(rest, retain))) < 1e-4 * norm(rest) * norm(retain)


def test_rg_truncates_the_loss_of_a_batch(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, fitted: Params
) -> None:
    """Where the mean is below the limit, an example beyond it is still pushed: GradDiff's limit is an example's."""
    batch = unlearning_data.forget.draw(8, Run(0).generator("batches"))
    with torch.no_grad():
        mean = float(denoising_loss(loaded.denoiser, fitted, batch))
    settings = {"batch_size": 8, "retain_batch_size": 1}
    free, below, beyond = (
        direction(loaded, unlearning_data, rg, 0, fitted, **settings, retain_weight=0.0, truncation=limit)[0]
        for limit in (None, 1.001 * mean, 0.999 * mean)
    )
    assert not differing(below, free)
    assert norm(free) > 0
    assert norm(beyond) == 0


# --- GradDiff's distance and noise ------------------------------------------------------------------------------------


def test_graddiffs_distance_pushes_outwards_up_to_its_truncation(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, moved: Params
) -> None:
    original = named_weights(loaded.denoiser)
    away = add(moved, original, -1.0)

    def push(start: Params, **settings: Any) -> Params:
        plain, _ = direction(loaded, unlearning_data, graddiff, 0, start, **BATCHES)
        pushed, _ = direction(loaded, unlearning_data, graddiff, 0, start, **BATCHES, distance_weight=40.0, **settings)
        return add(pushed, plain, -1.0)

    # The step is against the direction: −μ(θ − θ₀) / ‖θ − θ₀‖.
    assert_near(push(moved), {name: -40.0 * tensor / norm(away) for name, tensor in away.items()}, 1e-4)
    assert norm(push(moved, distance_truncation=0.99 * norm(away))) == 0
    assert norm(push(moved, distance_truncation=1.01 * norm(away))) > 39
    assert norm(push(original)) == 0  # and no NaN, at the start of every run


def test_graddiffs_distance_grows_with_its_weight(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    original = loaded.named(named_weights(loaded.denoiser))

    def reached(**settings: Any) -> float:
        config = config_of(graddiff, **BATCHES, steps=6, lr=1e-2, optimizer="sgd", max_grad_norm=None, **settings)
        return norm(add(graddiff.unlearn(loaded, unlearning_data, config, Run(0)), original, -1.0))

    assert reached(distance_weight=10.0) > 2 * reached()


def test_graddiffs_noise_is_of_its_deviation_and_on_its_scope(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = loaded.named(named_weights(loaded.denoiser))

    def noise(seed: int, deviation: float) -> Params:
        config = config_of(graddiff, steps=0, scope="attention", start_noise=deviation)
        return {n: t - original[n] for n, t in graddiff.unlearn(loaded, unlearning_data, config, Run(seed)).items()}

    drawn = noise(0, 0.5)
    assert all(".attn" in name for name in drawn)
    values = torch.cat([tensor.flatten() for tensor in drawn.values()]).double()
    # Standard errors of the mean and of the deviation of so many normal numbers; weights around 0.1 round at 1e-8.
    assert abs(values.mean()) < 4 * 0.5 / len(values) ** 0.5
    assert abs(values.std() - 0.5) < 4 * 0.5 / (2 * len(values)) ** 0.5
    assert differing(noise(1, 0.5), drawn)
    assert_near(noise(0, 0.25), {name: tensor / 2 for name, tensor in drawn.items()}, FLOAT32)


# --- RGD --------------------------------------------------------------------------------------------------------------

COLOURS = {"name": "colour", "values": ["red", "blue"]}
DIGITS = {
    "templates": ["a {colour} {concept}"],
    "slots": [COLOURS],
    "forget_words": ["seven"],
    "retain_words": ["one", "two"],
}


def test_rgds_pairs_differ_in_the_concepts_words_only() -> None:
    config = config_of(rgd, forget_words=["nude", "unclad"], samples=60)
    forget, retain = rgd.prompt_pairs(config, Run(0).generator("prompts"))
    assert len(forget) == len(retain) == 60
    assert len(set(retain)) > 50  # of 7 · 7 · 7 · 6
    for with_it, without in zip(forget, retain, strict=True):
        assert "person" in without
        assert without in (with_it.replace(" nude", ""), with_it.replace(" unclad", ""))
        assert with_it != without
    assert {word for prompt in forget for word in ("nude", "unclad") if word in prompt} == {"nude", "unclad"}
    heldout = {value for slot in config.slots for value in slot.heldout}
    assert len(heldout) == 16
    assert not [prompt for prompt in forget for value in heldout if value in prompt]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"templates": ["a {colour} seven"]}, "has no slot {concept}"),
        ({"templates": ["a {hue} {concept}"]}, r"names \['hue'\]; give them values"),
        (
            {"slots": [COLOURS, {"name": "concept", "values": ["x"]}]},
            "slots must have names of their own, other than con",
        ),
        ({"slots": [COLOURS, COLOURS]}, "slots must have names of their own"),
        ({"slots": [{"name": "colour", "values": []}]}, r"slots.0.values.* at least 1 item"),
        (
            {"slots": [{**COLOURS, "heldout": ["green", "blue"]}]},
            r"slot colour: \['blue'\] is in values and in heldout",
        ),
        ({"retain_words": ["one", "seven"]}, r"\['seven'\] is in forget_words and in retain_words"),
        ({"forget_words": []}, "forget_words.* at least 1 item"),
    ],
)
def test_rgd_refuses_templates_that_do_not_split(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(rgd, **{**DIGITS, **settings})


def test_rgd_is_rg_on_the_models_own_images(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path
) -> None:
    """No image of the data plays a part, and a stop in the midst of sampling changes no bit."""
    sampling = {"samples": 3, "sampling_batch_size": 2, "num_inference_steps": 2, "guidance_scale": 4.0}
    descent = {**BATCHES, "steps": 2, "lr": 1e-3}
    config = config_of(rgd, **DIGITS, **sampling, **descent)
    none = unlearning_data.forget.subset(torch.tensor([], dtype=torch.long))
    blind = replace(unlearning_data, forget=none, retain=none, pool=none)
    found = rgd.unlearn(loaded, blind, config, Run(0))
    resumed = stopped_after_a_step(
        tmp_path, lambda attempt: rgd.unlearn(loaded, blind, config, Run(0, attempt=attempt))
    )
    assert not differing(resumed, found)

    forget, retain = rgd.prompt_pairs(config, Run(0).generator("rgd", "prompts"))
    prompts, stream = forget + retain, Run(0).generator("rgd", "samples")
    latents = torch.cat(
        [
            sample_latents(loaded, prompts[at : at + 2], stream, num_inference_steps=2, guidance_scale=4.0)
            for at in (0, 2, 4)
        ]
    )
    own = replace(
        blind,
        forget=with_prompts(loaded, latents[:3], forget),
        retain=with_prompts(loaded, latents[3:], retain),
    )
    original, plain = named_weights(loaded.denoiser), config_of(rg, **descent)
    expected = descend(original, original, rg.step_gradient(loaded, own, plain), plain, Run(0), method="rgd")
    assert not differing(found, loaded.named(expected))
