"""SalUn: which weights it trains, and that what it does there is relabelling."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.config.concept import ConceptPrompts
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.prediction import predict
from resalign.errors import DataError
from resalign.objectives.denoising import harmful_loss
from resalign.objectives.relabelling import relabelling_loss
from resalign.running.attempt import Attempt, Interrupted
from resalign.running.folder import StateFolder
from resalign.tensors.params import Params, add, detached, gradient, norm
from resalign.unlearning import salun, scissorhands
from resalign.unlearning._descent import Logged, descend, of_loss
from resalign.unlearning._relabelling import substitutes_of
from tests.nearness import assert_near, differing
from tests.weight_names import of_denoiser


def trained(
    loaded: LoadedPipeline, method: Any, data: UnlearningData, **settings: Any
) -> tuple[dict[str, torch.Tensor], Run]:
    """All weights after a method's run, and the run."""
    run = Run(0)
    changed = method.unlearn(loaded, data, method.Config.parse(settings, where="test"), run)
    return {**named_weights(loaded.denoiser), **of_denoiser(loaded, changed)}, run


def with_captions_embedded_as(data: UnlearningData, conditioning: Conditioning) -> UnlearningData:
    """The data, every caption of the forget set embedded as one given prompt."""
    images = data.forget
    return replace(data, forget=replace(images, conditioning=conditioning.expand(len(images.conditioning))))


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_relabelling_makes_the_prediction_that_of_the_substitute(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    """A relabelled network has a loss of 0; the loss at the original one is the distance of its two predictions."""
    original = named_weights(loaded.denoiser)
    batch = unlearning_data.forget.draw_stratified(4, Run(0).generator("test"))
    substitute = loaded.encode_prompts(["a one"]).expand(4)
    leaves = detached(original, requires_grad=True)

    def own() -> torch.Tensor:
        return relabelling_loss(loaded.denoiser, leaves, leaves, batch, substitute)

    with torch.no_grad():
        named, replaced = (
            predict(loaded.denoiser, original, replace(batch, conditioning=given))
            for given in (batch.conditioning, substitute)
        )
    assert_near(own(), (named - replaced).square().mean(), 1e-5)
    # Only the prediction for the concept is pulled: the target's own change plays no part.
    slope = gradient(own(), leaves)
    frozen = gradient((predict(loaded.denoiser, leaves, batch) - replaced).square().mean(), leaves)
    assert_near(slope, frozen, 1e-6)
    moved = add(original, slope, -0.01 / norm(slope))
    assert relabelling_loss(loaded.denoiser, moved, original, batch, substitute) < own()
    # Concept = substitute.
    same = relabelling_loss(loaded.denoiser, leaves, leaves, batch, batch.conditioning)
    assert same.item() == 0
    assert norm(gradient(same, leaves)) == 0


def test_each_image_has_its_own_concepts_substitute(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    red, blue = (ConceptPrompts(prompts=(f"a {c} seven",), substitute=f"a {c} one") for c in ("red", "blue"))
    substitutes = substitutes_of(loaded, replace(unlearning_data, concepts=(red, blue)))
    expected = loaded.encode_prompts(["a blue one", "a red one", "a blue one"])
    found = substitutes(["a blue seven", "a red seven", "a blue seven"])
    assert_near(found.encoder_hidden_states, expected.encoder_hidden_states, 1e-6)
    with pytest.raises(DataError, match="'a blue seven' is no concept's prompt"):
        substitutes_of(loaded, replace(unlearning_data, concepts=(red, red)))


# --- SalUn ------------------------------------------------------------------------------------------------------------

SALUN = {"batch_size": 2, "retain_batch_size": 2, "steps": 3, "lr": 1e-3}


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "adamw", "weight_decay": 0.1}])
def test_salun_trains_the_half_of_the_weights_with_the_largest_gradient(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, optimizer: dict[str, Any]
) -> None:
    original = named_weights(loaded.denoiser)
    config = salun.Config.parse(SALUN, where="test")
    size = {name: value.abs() for name, value in salun.saliency(loaded, unlearning_data, config, Run(0)).items()}
    weights, _ = trained(loaded, salun, unlearning_data, **SALUN, **optimizer)
    changed = {name: weights[name] != original[name] for name in original}
    count, every = (
        sum(int(part.sum()) for part in parts) for parts in (changed.values(), map(torch.ones_like, changed.values()))
    )
    assert 0.48 * every < count <= round(0.5 * every)  # some salient weights have no gradient in the steps taken
    smallest_inside = min(size[name][changed[name]].min() for name in original if changed[name].any())
    cut = torch.cat([value.flatten() for value in size.values()]).median()
    assert smallest_inside >= cut > 0


@pytest.mark.parametrize("target", ["current", "original"])
def test_salun_with_every_weight_and_no_alpha_is_plain_relabelling(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, target: str
) -> None:
    settings = {**SALUN, "alpha": 0.0, "mask_share": 1.0, "target": target}
    weights, _ = trained(loaded, salun, unlearning_data, **settings)
    original, substitute = named_weights(loaded.denoiser), loaded.encode_prompts(["a one"]).expand(2)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        batch = unlearning_data.forget.draw(2, stream)
        unlearning_data.retain.draw(2, stream)
        reference = weights if target == "current" else original
        return relabelling_loss(loaded.denoiser, weights, reference, batch, substitute), {}

    config = salun.Config.parse(settings, where="test")
    assert not differing(weights, descend(original, original, of_loss(loss), config, Run(0), method="salun"))


def test_saluns_saliency_is_the_signed_gradient_of_the_guided_error(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    """At g = 0 of −denoising at the caption; at any g of −denoising at the empty prompt where that is the caption."""

    def found(data: UnlearningData, batch_size: int, guidance: float) -> dict[str, torch.Tensor]:
        settings = {"batch_size": batch_size, "saliency_guidance": guidance}
        return salun.saliency(loaded, data, salun.Config.parse(settings, where="test"), Run(0))

    whole = found(unlearning_data, 4, 0.0)
    leaves = detached(named_weights(loaded.denoiser), requires_grad=True)
    stream = Run(0).generator("salun", "saliency")
    rows, positions = torch.randperm(4, generator=stream), torch.randint(1000, (4,), generator=stream)
    batch = unlearning_data.forget.at(rows, positions, stream)
    assert_near(whole, gradient(harmful_loss(loaded.denoiser, leaves, batch), leaves), 1e-5)
    assert norm(add(found(unlearning_data, 4, 7.5), whole, -1.0)) > 0.1 * norm(whole)
    empty = with_captions_embedded_as(unlearning_data, loaded.unconditional(1))
    assert_near(found(empty, 4, 7.5), found(empty, 4, 0.0), 1e-4)


def test_saluns_saliency_is_a_sum_over_one_pass(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    """Of four equal images in uneven batches each counts alike, so that opposite gradients cancel before ranking."""
    config = salun.Config.parse({"batch_size": 3}, where="test")
    told: list[range] = []

    def progress(steps: range) -> range:
        told.append(steps)
        return steps

    total = salun.saliency(loaded, unlearning_data, config, Run(0, progress=progress))
    assert told == [range(2)]
    leaves = detached(named_weights(loaded.denoiser), requires_grad=True)
    stream = Run(0).generator("salun", "saliency")
    order, parts = torch.randperm(4, generator=stream), []
    for rows in order.split(3):
        positions = torch.randint(1000, rows.shape, generator=stream)
        parts.append(unlearning_data.forget.at(rows, positions, stream))
    empty = loaded.unconditional(1)

    def image_error(index: int) -> torch.Tensor:
        part, row = divmod(index, 3)
        batch = parts[part]
        one = replace(
            batch,
            noisy_latents=batch.noisy_latents[[row]],
            timesteps=batch.timesteps[[row]],
            conditioning=batch.conditioning[[row]],
        )
        away, plain = (
            predict(loaded.denoiser, leaves, replace(one, conditioning=c)) for c in (one.conditioning, empty)
        )
        guided = plain + 8.5 * (away - plain)
        return (guided - batch.target[[row]]).square().mean()

    mean = sum(gradient_of(image_error, index, leaves) for index in range(4))
    assert_near(torch.cat([value.flatten() for value in total.values()]), -mean / 4, 1e-4)


def gradient_of(loss: Callable[[int], torch.Tensor], index: int, leaves: Params) -> torch.Tensor:
    return torch.cat([slope.flatten() for slope in gradient(loss(index), leaves).values()])


def test_salun_moves_the_concept_towards_its_substitute(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = named_weights(loaded.denoiser)
    batch = unlearning_data.forget.draw_stratified(32, Run(7).generator("test"))
    substitute = loaded.encode_prompts(["a one"]).expand(32)
    weights, run = trained(loaded, salun, unlearning_data, **{**SALUN, "batch_size": 4, "steps": 15})
    with torch.no_grad():
        before, after = (relabelling_loss(loaded.denoiser, w, w, batch, substitute).item() for w in (original, weights))
    assert before > 0
    assert after < 0.8 * before
    assert {"forget_loss", "retain_loss", "grad_norm"} == {name for _, name, _ in run.history.rows}


def test_salun_of_a_concept_that_is_its_substitute_and_of_no_steps(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = named_weights(loaded.denoiser)
    same = with_captions_embedded_as(unlearning_data, loaded.encode_prompts(["a one"]))
    for data, settings in ((same, {"alpha": 0.0}), (unlearning_data, {"steps": 0})):
        weights, _ = trained(loaded, salun, data, **{**SALUN, **settings})
        assert not differing(weights, original)


@pytest.mark.parametrize(
    ("method", "settings"), [(salun, {}), (scissorhands, {"saliency_batches": 2, "sparsity": 0.9})]
)
def test_what_the_saliency_chose_is_kept_when_a_run_stops_in_the_descent(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path, method: Any, settings: dict[str, Any]
) -> None:
    """The contract suite stops in the first loop; here the second is left after two steps of three."""
    config, now = method.Config.parse({**SALUN, **settings}, where="test"), [0.0]

    def late_in_the_descent(steps: range) -> Iterator[int]:
        for step in steps:
            now[0] = 10.0 if steps == range(3) and step == 1 else 0.0
            yield step

    with StateFolder(tmp_path, {}) as state:
        attempt = Attempt(state, deadline=5.0, clock=lambda: now[0])
        stopped = Run(0, progress=late_in_the_descent, attempt=attempt)
        with pytest.raises(Interrupted, match="steps 2 of 3"):
            method.unlearn(loaded, unlearning_data, config, stopped)
    with StateFolder(tmp_path, {}) as state:
        run = Run(0, attempt=Attempt(state))
        resumed = method.unlearn(loaded, unlearning_data, config, run)
    whole = Run(0)
    assert not differing(method.unlearn(loaded, unlearning_data, config, whole), resumed)
    assert run.history.rows == whole.history.rows
