"""What is special about STEREO: its two stages, and what each starts from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.diffusion.token_embedding import token_embedding
from resalign.lazy import diffusers
from resalign.objectives.denoising import denoising_loss
from resalign.running.attempt import Attempt, Interrupted
from resalign.running.folder import StateFolder
from resalign.tensors.params import Params, add, detached, norm
from resalign.unlearning import esd, stereo
from resalign.unlearning._descent import Gradient, descend
from tests.nearness import assert_near, differing
from tests.unlearning.recording import Recording

QUICK = {"steps": 2, "lr": 1e-3, "search_lr": 1e-3, "rounds": 2, "token": "two", "initializer_token": "seven"}
QUICK |= {"num_inference_steps": 4, "inversion": {"steps": 2}}


def config_of(**settings: Any) -> stereo.Config:
    return stereo.Config.parse({**QUICK, **settings}, where="test")


def first_step(direction: Gradient, weights: Params, seed: int) -> Params:
    variables = detached(weights, requires_grad=True)
    return direction(variables, variables, Run(seed).generator("step"))[0]


@pytest.fixture(scope="module")
def evenly(loaded: LoadedPipeline) -> LoadedPipeline:
    """The pipeline with evenly spaced timesteps, on which ESD's partial samples are exact, too."""
    config = loaded.noise_scheduler.config
    return replace(loaded, noise_scheduler=diffusers.DDPMScheduler.from_config(config, timestep_spacing="leading"))


@pytest.mark.parametrize("eta", [0.0, 1.0, 3.0])
def test_without_rounds_and_anchors_stage_2_is_esd(
    evenly: LoadedPipeline, unlearning_data: UnlearningData, eta: float
) -> None:
    original, settings = named_weights(evenly.denoiser), {"negative_guidance": eta, "num_inference_steps": 4}
    expected = esd.step_gradient(evenly, unlearning_data, esd.Config.parse(settings, where="test"))
    config = config_of(rounds=0, anchor_guidance=0.0, negative_guidance=eta)
    found = stereo.final_gradient(evenly, unlearning_data, config)
    for seed in range(3):
        assert not differing(first_step(found, original, seed), first_step(expected, original, seed))


def test_anchors_attract_as_much_as_the_concept_repels(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    seven = (ConceptPrompts(prompts=("a red seven",)),)
    data = replace(unlearning_data, concepts=seven, retain_prompts=("a red seven",))
    original = named_weights(loaded.denoiser)
    steps = {
        (anchor, negative): first_step(
            stereo.final_gradient(loaded, data, config_of(anchor_guidance=anchor, negative_guidance=negative)),
            original,
            seed=2,
        )
        for anchor, negative in ((1.0, 0.0), (2.0, 2.0), (3.0, 3.0), (2.0, 1.0))
    }
    # The concept is its own anchor here: what attracts and what repels cancel, to ε₀(∅) or, one ahead, to ε₀(c).
    assert_near(steps[3.0, 3.0], steps[2.0, 2.0], 1e-4)
    assert norm(steps[1.0, 0.0]) < 1e-4 * norm(steps[2.0, 2.0])
    assert norm(steps[2.0, 1.0]) < 1e-4 * norm(steps[2.0, 2.0])


def test_the_mean_over_concept_and_embeddings_repels(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    data = replace(unlearning_data, concepts=(ConceptPrompts(prompts=("two",)),))
    original = named_weights(loaded.denoiser)
    own = token_embedding(loaded, "two").row  # the concept's own: three negatives that are one
    config = config_of(anchor_guidance=0.0)
    losses = {}
    for found in ((), (own, own)):
        direction, variables = (
            stereo.final_gradient(loaded, data, config, found),
            detached(original, requires_grad=True),
        )
        values = [direction(variables, variables, Run(seed).generator("s"))[1]["erasure_loss"] for seed in range(40)]
        losses[len(found)] = sum(values) / 40
    # The same target on other draws of x_t; the sum in place of the mean would be (1 + 3)²/(1 + 1)² = 4 times as much.
    assert 0.5 < losses[2] / losses[0] < 2


def test_a_round_erases_the_latest_embedding_in_place_of_the_prompt(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    two, seven = (replace(unlearning_data, concepts=(ConceptPrompts(prompts=(p,)),)) for p in ("two", "seven"))
    original, own = named_weights(loaded.denoiser), token_embedding(loaded, "two").row
    named, found, other = (
        first_step(stereo._search_gradient(loaded, data, config_of(), original, latest), original, seed=0)
        for data, latest in ((two, ()), (seven, (own,)), (seven, ()))
    )
    assert_near(found, named, 1e-4)
    assert norm(add(other, named, -1.0)) > 0.1 * norm(named)


def test_a_round_goes_on_from_the_last_and_stage_2_from_the_original(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    attempt = Recording()
    result = stereo.unlearn(loaded, unlearning_data, config_of(), Run(0, attempt=attempt))
    original = named_weights(loaded.denoiser)
    phases = ["erasure 0", "inversion 0", "erasure 1", "inversion 1", "steps"]
    assert list(attempt.starts) == phases
    last = dict(attempt.path)
    names = set(select(original, "noxattn"))
    assert set(attempt.starts["erasure 0"]) == names
    assert not differing(original, attempt.starts["erasure 0"])
    assert not differing(last["erasure 0"], attempt.starts["erasure 1"])
    assert differing(original, attempt.starts["erasure 1"])
    assert not differing(original, attempt.starts["steps"])
    assert not differing({name.removeprefix("unet."): tensor for name, tensor in result.items()}, last["steps"])
    seven = token_embedding(loaded, "seven").row
    for phase in ("inversion 0", "inversion 1"):
        assert not differing(attempt.starts[phase], seven)
        assert differing(last[phase], seven)


def test_every_loop_has_what_the_loops_before_it_found(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    attempt, config = Recording(), config_of(search_lr=2e-3)
    stereo.unlearn(loaded, unlearning_data, config, Run(0, attempt=attempt))
    last, original, seven = dict(attempt.path), named_weights(loaded.denoiser), token_embedding(loaded, "seven").row
    names = select(original, "noxattn")
    after = [{**original, **last[f"erasure {number}"]} for number in range(2)]
    found = [last[f"inversion {number}"] for number in range(2)]
    search = stereo._search_gradient(loaded, unlearning_data, config, after[0], found[:1])
    slower = config.model_copy(update={"lr": 2e-3})
    erased = descend(after[0], names, search, slower, Run(0), method="stereo erasure 1")
    assert not differing(erased, last["erasure 1"])
    inversion = stereo._inversion_gradient(
        loaded, unlearning_data, config, after[1], token_embedding(loaded, config.token)
    )
    row = descend(seven, seven, inversion, config.inversion, Run(0), method="stereo inversion 1")
    assert not differing(row, found[1])
    final = stereo.final_gradient(loaded, unlearning_data, config, found)
    assert not differing(descend(original, names, final, config, Run(0), method="stereo"), last["steps"])


def test_a_run_that_is_stopped_after_every_step_goes_on_to_equal_bits(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, tmp_path: Path
) -> None:
    expected = stereo.unlearn(loaded, unlearning_data, config_of(), whole := Run(0))
    stops, found = 0, None
    while found is None:
        with StateFolder(tmp_path, {}) as state:
            run = Run(0, attempt=Attempt(state, deadline=0.0))
            try:
                found = stereo.unlearn(loaded, unlearning_data, config_of(), run)
            except Interrupted:
                stops += 1
    assert stops == 5  # in every loop of two steps
    assert not differing(found, expected)
    assert repr(run.history.rows) == repr(whole.history.rows)


def test_an_embedding_is_found_that_brings_the_images_back(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    attempt, settings = Recording(), {"steps": 40, "lr": 3e-2, "batch_size": 4}
    config = config_of(rounds=1, steps=1, inversion=settings)
    stereo.unlearn(loaded, unlearning_data, config, Run(0, attempt=attempt))
    erased = {**named_weights(loaded.denoiser), **dict(attempt.path)["erasure 0"]}
    batch, token = unlearning_data.forget.draw_stratified(32, Run(7).generator("test")), token_embedding(loaded, "two")

    def error(row: Params) -> float:
        with torch.no_grad():
            conditioning = loaded.encode_prompts(["a photo of a two"], token.weights(row)).expand(32)
            return float(denoising_loss(loaded.denoiser, erased, replace(batch, conditioning=conditioning)))

    assert error(dict(attempt.path)["inversion 0"]) < error(attempt.starts["inversion 0"])


def test_retain_prompts_are_needed_for_anchors_alone() -> None:
    assert stereo.Config().needs() == ("retain_prompts",)
    assert stereo.Config(anchor_guidance=0.0).needs() == ()


@pytest.mark.parametrize("template", ["a photo", "{} and {}"])
def test_the_caption_has_the_token_once(template: str) -> None:
    with pytest.raises(ConfigError, match="template must have {} once"):
        config_of(inversion={"template": template})
