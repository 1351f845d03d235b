"""What every unlearning method must do. A new file in ``src/resalign/unlearning`` is held to it unasked."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from annotated_types import Ge
from diffusers import DiffusionPipeline

from resalign.config import registry
from resalign.config.concept import OPTIONAL, needs_of
from resalign.config.strict import ConfigError, Strict
from resalign.contracts import Run, UnlearningData
from resalign.data.images import read_captioned_images
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline, trainable_tensors
from resalign.library.training import unlearned_weights
from resalign.library.weights import put
from resalign.objectives.denoising import loss_with
from resalign.running.attempt import Attempt
from tests.example_config import smallest
from tests.nearness import differing
from tests.pipelines import check_declared, on_every_pipeline, on_one_pipeline
from tests.stopping import stopped_after_a_step

METHODS = registry.members("unlearning")
# A method that takes no steps (a closed form, a released checkpoint) draws nothing and has no progress to tell.
TRAINING = [m for m in METHODS if "steps" in registry.config_class("unlearning", m).model_fields]
BUILDING = [m for m in TRAINING if "base" in registry.config_class("unlearning", m).model_fields]  # on another method
# Without a step these have edited or trimmed the model already; what is built on a base is the base.
NOT_FROM_STEPS = {"mace", "scissorhands", *BUILDING}
CAN_REST = [
    m
    for m in TRAINING
    if m not in NOT_FROM_STEPS and Ge(0) in registry.config_class("unlearning", m).model_fields["steps"].metadata
]
# What a method descends is the first quantity that it records, or this one.
OBJECTIVES = {"lcfdsd": "contrast", "mace": "attention_loss", "scissorhands": "forget_loss"}
# RG and RGD give way to the retained images; adversaries of STEREO, IMMA, Meta-Unlearning and ResAlign work against the
# descent; SafeGen's target is no fixed point; PGU starts where it is lowest. Their own tests look at those.
LOOKED_AT_ELSEWHERE = {"rg", "rgd", "stereo", "imma", "meta_unlearning", "resalign", "safegen", "pgu"}
Weights = dict[str, torch.Tensor]


def unlearn(
    name: str,
    loaded: LoadedPipeline,
    data: UnlearningData,
    seed: int = 0,
    attempt: Attempt | None = None,
    **settings: Any,
) -> tuple[Weights, Run]:
    """A method's weights after very few steps, at its defaults otherwise."""
    module = registry.member("unlearning", name)
    run = Run(seed, attempt=attempt or Attempt())
    return module.unlearn(loaded, data, smallest(module.Config, **settings), run), run


@pytest.fixture(scope="module", params=METHODS)
def name(request: pytest.FixtureRequest, pipeline_kind: str) -> str:
    check_declared("unlearning", request.param, pipeline_kind)
    return str(request.param)


@pytest.fixture(scope="module")
def before(loaded: LoadedPipeline) -> Weights:
    return {n: t.clone() for n, t in loaded.denoiser.state_dict().items()}


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str], tuple[Weights, Run]]:
    return {}


@pytest.fixture
def result(
    name: str,
    pipeline_kind: str,
    loaded: LoadedPipeline,
    unlearning_data: UnlearningData,
    before: Weights,
    results: dict[tuple[str, str], tuple[Weights, Run]],
) -> tuple[Weights, Run]:
    """Made once, in whatever order the tests come."""
    if (name, pipeline_kind) not in results:
        results[name, pipeline_kind] = unlearn(name, loaded, unlearning_data)
    return results[name, pipeline_kind]


@pytest.mark.parametrize("name", METHODS)
def test_signature(name: str) -> None:
    parameters = inspect.signature(registry.member("unlearning", name).unlearn).parameters
    assert list(parameters) == ["loaded", "data", "config", "run"]


@on_every_pipeline
def test_changed_weights_are_finite_and_fit_the_model_whose_own_are_left_alone(
    loaded: LoadedPipeline, before: Weights, result: tuple[Weights, Run]
) -> None:
    original = trainable_tensors(loaded.pipeline)
    for n, tensor in result[0].items():
        assert (tensor.shape, tensor.dtype, tensor.requires_grad) == (original[n].shape, original[n].dtype, False)
        assert torch.isfinite(tensor).all()
    changed = any(not torch.equal(tensor, original[n]) for n, tensor in result[0].items())
    assert changed, "every returned tensor equals the model's own: the method has changed nothing"
    assert not differing(loaded.denoiser.state_dict(), before), "the pipeline's own weights were changed: train copies"
    left = any(parameter.requires_grad or parameter.grad is not None for parameter in loaded.denoiser.parameters())
    assert not left, "the denoiser's own parameters are left with gradients, or asking for them"
    assert not loaded.denoiser.training, "the denoiser is left in training mode: call eval()"


@on_every_pipeline
def test_a_history_of_finite_numbers_is_kept(result: tuple[Weights, Run]) -> None:
    rows = result[1].history.rows
    assert rows, "the history is empty: call run.history.record(step, quantity=value) at least once"
    # A relative residual is not a number where no linear system was solved.
    assert all(torch.isfinite(torch.tensor(value)) for _, quantity, value in rows if quantity != "relative_residual")
    steps = [step for step, _, _ in rows]
    assert steps == sorted(steps)


@on_every_pipeline
def test_equal_seeds_give_equal_bits_though_the_run_is_stopped(
    name: str, loaded: LoadedPipeline, unlearning_data: UnlearningData, result: tuple[Weights, Run], tmp_path: Path
) -> None:
    def again(attempt: Attempt) -> tuple[Weights, Run]:
        return unlearn(name, loaded, unlearning_data, attempt=attempt)

    with torch.random.fork_rng():
        torch.manual_seed(12345)  # no method may draw from the global stream
        state = torch.get_rng_state()
        weights, run = stopped_after_a_step(tmp_path, again) if name in TRAINING else again(Attempt())
        assert torch.equal(torch.get_rng_state(), state), "the global random stream was drawn from: use run.generator"
    assert weights.keys() == result[0].keys()
    wrong = "the same seed gave other {}; after a stop, too, run.steps must be handed all that a step changes"
    assert not differing(weights, result[0]), wrong.format("bits")
    assert repr(run.history.rows) == repr(result[1].history.rows), wrong.format("history rows")


@on_every_pipeline
def test_a_saved_folder_is_a_plain_diffusers_pipeline(
    pipeline_folder: Path, result: tuple[Weights, Run], tmp_path: Path
) -> None:
    unlearned = load_pipeline(pipeline_folder)
    put(unlearned, result[0])
    unlearned.pipeline.save_pretrained(tmp_path)
    absent = {part: None for part, network in unlearned.pipeline.components.items() if network is None}  # SD 3's T5
    found = trainable_tensors(DiffusionPipeline.from_pretrained(tmp_path, **absent))
    assert found.keys() == trainable_tensors(unlearned.pipeline).keys()
    assert not differing(found, result[0])


@on_every_pipeline
def test_a_methods_own_objective_goes_down_and_what_it_retains_is_kept(
    name: str, loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    fields = registry.config_class("unlearning", name).model_fields
    # Scissorhands' projection gives way to a stored gradient; ResAlign's own rate is large, and its solves may diverge.
    wanted: dict[str, Any] = {"steps": 12, "lr": 5e-4, "batch_size": 4, "project": False, "on_divergence": "damp"}
    left_alone = {"lr"} if name == "resalign" else {"steps"} if name in BUILDING else set()
    settings = {key: value for key, value in wanted.items() if key in fields and key not in left_alone}
    weights, run = unlearn(name, loaded, unlearning_data, **settings)
    rows = run.history.rows

    def ends(quantity: str) -> tuple[float, float]:
        """Means of the first four records and of the last."""
        values = [value for _, found, value in rows if found == quantity]
        return sum(values[:4]) / 4, sum(values[-4:]) / 4

    if name in TRAINING and name not in LOOKED_AT_ELSEWHERE:
        objective = OBJECTIVES.get(name, rows[0][1])
        first, last = ends(objective)
        assert last < first, f"{objective} does not go down"
    if any(quantity == "retain_loss" for _, quantity, _ in rows):
        first, last = ends("retain_loss")
        # Denoising falls, but for its batches' noise; distillation rises from 0. The unit is the noise's variance.
        assert last < max(1.1 * first, 0.1), "what the method retains is lost"
    elif name != "imported":
        batch = unlearning_data.retain.draw_stratified(64, Run(0).generator("retained"))
        before, after = (loss_with(changed, loaded, batch) for changed in ({}, weights))
        assert after < 1.25 * before, "what is to be retained is lost"


@on_every_pipeline
@pytest.mark.parametrize("name", CAN_REST, indirect=True)
def test_zero_steps_change_nothing(name: str, loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    weights, _ = unlearn(name, loaded, unlearning_data, steps=0)
    original = trainable_tensors(loaded.pipeline)
    assert not differing(original, weights), "a run of 0 steps has changed weights"


@on_every_pipeline
@pytest.mark.parametrize("name", TRAINING, indirect=True)
def test_another_seed_gives_other_weights(
    name: str, loaded: LoadedPipeline, unlearning_data: UnlearningData, result: tuple[Weights, Run]
) -> None:
    other, _ = unlearn(name, loaded, unlearning_data, seed=1)
    differs = other.keys() != result[0].keys() or any(not torch.equal(other[n], t) for n, t in result[0].items())
    assert differs, "seeds 0 and 1 gave equal weights: the seed is not used"


@on_one_pipeline
@pytest.mark.parametrize("name", TRAINING, indirect=True)
def test_progress_is_told(name: str, loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    module = registry.member("unlearning", name)
    told: list[range] = []

    def progress(steps: range) -> range:
        told.append(steps)
        return steps

    # Not the number that the loops of other phases have; a base that is descended together has the method's own.
    config = smallest(module.Config, **({} if name in BUILDING else {"steps": 3}))
    module.unlearn(loaded, unlearning_data, config, Run(0, progress=progress))
    assert config.steps in [len(steps) for steps in told], "no loop over run.steps has the config's number of steps"


class NeedsAll(Strict):
    """The settings of a method that needs whatever a method may need."""

    def needs(self) -> tuple[str, ...]:
        return OPTIONAL


CONFIGS = {m: smallest(registry.config_class("unlearning", m)) for m in METHODS} | {"needs_all": NeedsAll()}


@on_one_pipeline
@pytest.mark.parametrize("needy", [name for name, config in CONFIGS.items() if needs_of(config)])
def test_what_a_method_needs_is_named_where_it_is_missing(
    needy: str, loaded: LoadedPipeline, image_folder: Path
) -> None:
    images = {"retain": read_captioned_images(image_folder, pixels=loaded.pixels)}
    method, config = ModuleType(f"resalign.unlearning.{needy}"), CONFIGS[needy]
    message = f"method '{needy}' needs {', '.join(needs_of(config))}; give "
    with pytest.raises(ConfigError, match=message):
        unlearned_weights(loaded, method, config, images, Run(0), checkpoint=Path("none"))
