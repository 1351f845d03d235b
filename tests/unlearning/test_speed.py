"""SPEED: its closed form against the paper's projections and a library's least squares; what it must not move."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.unlearning import speed
from tests.nearness import assert_near, differing
from tests.pipelines import KINDS
from tests.unlearning.least_squares import least_squares, near, random
from tests.weight_names import of_denoiser

WIDTH = 24


def basis_of(retain: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    return speed.null_space(retain, fixed, 1e-6)


def edited(loaded: LoadedPipeline, data: UnlearningData, **settings: Any) -> tuple[dict[str, torch.Tensor], Run]:
    run = Run(0)
    weights = speed.unlearn(loaded, data, speed.Config.parse(settings, where="test"), run)
    return of_denoiser(loaded, weights), run


# --- the edit as a function of matrices -------------------------------------------------------------------------------


@pytest.mark.parametrize("concepts", [1, 10, 100])
def test_the_edit_is_the_least_squares_in_the_allowed_directions(concepts: int) -> None:
    weight, retain, fixed = random(7, WIDTH), random(6, WIDTH, seed=1), random(3, WIDTH, seed=2)
    targets, anchors = random(concepts, WIDTH, seed=3), random(concepts, WIDTH, seed=4)
    basis = basis_of(retain, fixed)
    assert basis.shape == (WIDTH, WIDTH - 9)
    found = weight @ speed.constrained_edit(targets, anchors, basis, 0.7)
    # D of Δ = DNᵀ: mean ‖DNᵀt − W(a − t)‖² + r‖D‖².
    zero = torch.zeros(7, basis.shape[1], dtype=torch.float64)
    inside = least_squares([(1 / concepts, targets @ basis, (anchors - targets) @ weight.T), near(0.7, zero)])
    assert_near(found, inside @ basis.T, 1e-8)
    assert_near(found @ retain.T, torch.zeros(7, 6), 1e-10, scale=weight)
    assert_near(found @ fixed.T, torch.zeros(7, 3), 1e-10, scale=weight)


def test_the_edit_is_the_published_product_of_projections() -> None:
    weight, retain, fixed = random(7, WIDTH), random(6, WIDTH, seed=1), random(3, WIDTH, seed=2)
    targets, anchors = random(5, WIDTH, seed=3), random(5, WIDTH, seed=4)
    identity = torch.eye(WIDTH, dtype=torch.float64)
    p = identity - torch.linalg.pinv(retain) @ retain
    s, a = targets.T @ targets / 5, anchors.T @ targets / 5
    m, k = torch.linalg.inv(s @ p + 0.7 * identity), fixed.T
    inner = identity - m @ k @ torch.linalg.inv(k.T @ p @ m @ k) @ k.T @ p
    published = weight @ (a - s) @ p @ inner @ m
    assert_near(weight @ speed.constrained_edit(targets, anchors, basis_of(retain, fixed), 0.7), published, 1e-8)


def test_nothing_is_fixed_where_no_prompt_is_zeros_and_nothing_is_left_where_all_is_kept() -> None:
    retain = random(6, WIDTH)
    assert basis_of(retain, torch.zeros(5, WIDTH, dtype=torch.float64)).shape == (WIDTH, WIDTH - 6)
    # Repeated rows fix one direction, not two.
    assert basis_of(retain, random(1, WIDTH, seed=1).repeat(4, 1)).shape == (WIDTH, WIDTH - 7)
    with pytest.raises(ConfigError, match="leave none of 24 directions free; give fewer retain_prompts, or raise"):
        basis_of(retain, random(WIDTH, WIDTH, seed=2))


def test_directions_below_the_threshold_are_free() -> None:
    # Mean squares of 4 and 0.01 along two axes, and none along the others.
    retain = torch.zeros(2, 5, dtype=torch.float64)
    retain[0, 0], retain[1, 1] = 8**0.5, 0.02**0.5
    none = torch.zeros(1, 5, dtype=torch.float64)
    assert [speed.null_space(retain, none, limit).shape[1] for limit in (0.005, 0.1, 5.0)] == [3, 4, 5]


def test_retain_keys_are_those_that_the_free_edit_would_move() -> None:
    weight, target = random(7, WIDTH), random(1, WIDTH, seed=1)
    apart = random(1, WIDTH, seed=2)
    apart = apart - (apart @ target.T) / (target @ target.T) * target  # orthogonal to the target: never moved
    retain = torch.cat([apart, target + apart, 2 * apart, target])
    kept = speed.influenced(weight, target, random(1, WIDTH, seed=3), retain, 1.0)
    assert torch.equal(kept, retain[[1, 3]])
    assert torch.equal(speed.influenced(weight, target, target, retain, 1.0), retain)  # all move alike: not at all


def test_noisy_copies_hardly_change_the_values() -> None:
    weight = torch.diag(torch.tensor([3.0, 2.0, 1e-9, 1.0], dtype=torch.float64))
    retain = random(3, 4)
    config = speed.Config(augmentations=2000, augmentation_std=0.5)
    keys = speed.augmented(retain, weight, config, Run(0).generator("test"))
    assert keys.shape == (3 * 2001, 4)
    assert torch.equal(keys[:3], retain)
    copies = keys[3:].reshape(2000, 3, 4)
    assert_near((copies - retain) @ weight.T, torch.zeros(2000, 3, 4), 1e-8, scale=weight)
    assert float((copies - retain)[..., 2].std()) == pytest.approx(0.5, rel=0.03)  # 6000 draws: 0.9 % of itself


# --- on a model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pipeline_kind", [kind for kind in KINDS if kind in speed.ARCHITECTURES], indirect=True, scope="session"
)
def test_no_prompt_and_the_retained_word_keep_their_values(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    # Twelve tokens of no prompt would fix most of sixteen dimensions; a shorter set of prompts leaves some.
    data = replace(unlearning_data, retain_prompts=("two",))
    two = loaded.encode_prompts(["two"]).encoder_hidden_states[0, 1].double()
    empty = loaded.unconditional(1).encoder_hidden_states[0].double()
    seven = loaded.encode_prompts(["a red seven"]).encoder_hidden_states[0, 3].double()
    weights, run = edited(loaded, data, null_threshold=1e-6, augmentations=0)
    original = named_weights(loaded.denoiser)
    assert run.history.last("free_dimensions") >= 1
    assert weights
    assert all(name.endswith("attn2.to_v.weight") for name in weights)
    for name, tensor in weights.items():
        change = tensor.double() - original[name].double()
        still = torch.cat([two[None], empty])
        assert_near(change @ still.T, torch.zeros(len(change), len(still)), 1e-5, scale=original[name])
        assert float((change @ seven).norm()) > 1e-3 * float((original[name].double() @ seven).norm())


def test_keys_are_edited_by_config_and_a_concept_that_is_its_substitute_is_not(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = named_weights(loaded.denoiser)
    both, _ = edited(loaded, unlearning_data, part="keys_and_values")
    assert {name.rpartition("attn2.")[2] for name in differing(both, {n: original[n] for n in both})} == {
        "to_k.weight",
        "to_v.weight",
    }
    same = replace(
        unlearning_data,
        concepts=(ConceptPrompts(prompts=("a one",), substitute="a one"),),
        retain_prompts=("two",),  # with all three no direction is left of sixteen
    )
    unchanged, _ = edited(loaded, same, guide="substitute")
    assert not differing(unchanged, {name: original[name] for name in unchanged})
    assert speed.Config(guide="substitute").needs() == ("retain_prompts", "substitute")
