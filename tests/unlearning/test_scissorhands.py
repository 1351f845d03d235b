"""Scissorhands: what is trimmed, how it is re-initialised, and the projection against a solver."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights, select
from resalign.objectives.denoising import denoising_loss
from resalign.objectives.relabelling import relabelling_loss
from resalign.tensors.params import Params, add, detached, dot, gradient, norm, without_conflict
from resalign.unlearning import scissorhands
from resalign.unlearning._descent import Logged, descend, of_loss
from tests.nearness import assert_near, differing
from tests.weight_names import of_denoiser

SMALL = {"batch_size": 2, "retain_batch_size": 2, "steps": 3, "lr": 1e-3, "saliency_batches": 2}


def parsed(**settings: Any) -> scissorhands.Config:
    return scissorhands.Config.parse({**SMALL, **settings}, where="test")


def trained(loaded: LoadedPipeline, data: UnlearningData, **settings: Any) -> tuple[dict[str, torch.Tensor], Run]:
    """All weights after a run, and the run."""
    run = Run(0)
    changed = scissorhands.unlearn(loaded, data, parsed(**settings), run)
    return {**named_weights(loaded.denoiser), **of_denoiser(loaded, changed)}, run


# --- the trim ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(loaded: LoadedPipeline) -> dict[str, torch.Tensor]:
    """Weights of which none is at its initial value, as the tiny network's biases and norms are."""
    stream = torch.Generator().manual_seed(0)
    return {n: t + 0.1 * torch.randn(t.shape, generator=stream) for n, t in named_weights(loaded.denoiser).items()}


@pytest.mark.parametrize("share", [0.0, 0.005, 0.2, 1.0])
def test_exactly_the_wanted_share_is_trimmed_where_it_matters_most(moved: Params, share: float) -> None:
    stream = torch.Generator().manual_seed(1)
    total = {name: torch.rand(tensor.shape, generator=stream) for name, tensor in moved.items()}
    trimmed = scissorhands.trim(moved, total, moved.keys(), share, Run(0).generator("test"))
    changed = torch.cat([(trimmed[name] != moved[name]).flatten() for name in moved])
    score = torch.cat([(moved[name] * total[name]).abs().flatten() for name in moved])
    assert changed.sum() == round(share * len(score))
    if 0 < share < 1:
        assert score[changed].min() >= score[~changed].max()


def test_trimmed_weights_start_anew(moved: Params) -> None:
    total = {name: torch.ones_like(tensor) for name, tensor in moved.items()}
    trimmed = scissorhands.trim(moved, total, moved.keys(), 1.0, Run(0).generator("test"))
    spread = []
    for name, tensor in trimmed.items():
        if tensor.dim() < 2:
            assert torch.equal(tensor, torch.full_like(tensor, 0.0 if name.endswith("bias") else 1.0))
        else:
            bound = (6 / tensor[0].numel()) ** 0.5  # uniform, of a variance of 2 / fan-in
            assert tensor.abs().max() <= bound
            spread.append((tensor / bound).flatten())
    assert torch.cat(spread).square().mean() == pytest.approx(1 / 3, rel=0.02)


def test_a_share_of_the_ranking_is_trimmed_within_its_place_only(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    original = named_weights(loaded.denoiser)
    settings = {"steps": 0, "sparsity": 0.5}
    everywhere, run = trained(loaded, unlearning_data, **settings)
    attention, _ = trained(loaded, unlearning_data, **settings, trimmed="attention")
    inside = select(original, "attention")
    changed = set(differing(attention, original))
    assert changed
    assert changed <= set(inside)
    assert len(differing(everywhere, original)) > len(changed)
    # The ranking is over all weights in both.
    for name in inside:
        assert torch.equal(everywhere[name] != original[name], attention[name] != original[name])
    count = sum(int((everywhere[n] != original[n]).sum()) for n in original)
    assert run.history.last("trimmed_weights") == count
    # The trim stays within what is trained, too.
    scoped, _ = trained(loaded, unlearning_data, **settings, scope="cross_attention")
    assert set(differing(scoped, original)) <= set(select(original, "cross_attention"))


def test_the_released_place_is_self_attention_of_two_up_blocks() -> None:
    part = "transformer_blocks.0.attn1.to_q.weight"
    blocks = {f"up_blocks.{up}.attentions.{n}.{part}": torch.ones(1) for up in (1, 2, 3) for n in range(3)}
    others = {"up_blocks.0.resnets.1.conv1.weight": torch.ones(1), "down_blocks.1.attentions.1." + part: torch.ones(1)}
    others |= {f"up_blocks.1.attentions.1.{part}".replace("attn1", "attn2"): torch.ones(1)}
    found = scissorhands.where_trimmed({**blocks, **others}, "released")
    assert found == [f"up_blocks.{up}.attentions.1.{part}" for up in (1, 2)]
    with pytest.raises(ValueError, match=re.escape("has none of them; give a scope")):
        scissorhands.where_trimmed({"transformer_blocks.0.attn.to_q.weight": torch.ones(1)}, "released")


def test_the_saliency_is_a_sum_of_absolute_gradients(loaded: LoadedPipeline, unlearning_data: UnlearningData) -> None:
    total = scissorhands.saliency(loaded, unlearning_data, parsed(saliency_batches=3), Run(0))
    leaves, stream = (
        detached(named_weights(loaded.denoiser), requires_grad=True),
        Run(0).generator("scissorhands", "saliency"),
    )
    slopes = [
        gradient(denoising_loss(loaded.denoiser, leaves, unlearning_data.forget.draw(2, stream)), leaves)
        for _ in range(3)
    ]
    for name in leaves:
        np.testing.assert_allclose(total[name], np.abs([slope[name] for slope in slopes]).sum(axis=0), rtol=1e-5)


# --- the repair -------------------------------------------------------------------------------------------------------


def test_without_a_trim_and_a_projection_it_is_relabelling_and_denoising(
    loaded: LoadedPipeline, unlearning_data: UnlearningData
) -> None:
    substitute = loaded.encode_prompts(["a one"]).expand(2)

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        batch, kept = unlearning_data.forget.draw(2, stream), unlearning_data.retain.draw(2, stream)
        relabelling = relabelling_loss(loaded.denoiser, weights, weights, batch, substitute)
        return denoising_loss(loaded.denoiser, weights, kept) + 0.7 * relabelling, {}

    settings = {"sparsity": 1.0, "forget_weight": 0.7, "project": False}
    original = named_weights(loaded.denoiser)
    expected = descend(original, original, of_loss(loss), parsed(**settings), Run(0), method="scissorhands")
    weights, run = trained(loaded, unlearning_data, **settings)
    assert not differing(weights, expected)
    assert run.history.last("trimmed_weights") == 0
    unchanged, _ = trained(loaded, unlearning_data, **{**settings, "steps": 0})
    assert not differing(unchanged, original)


@pytest.mark.parametrize("seed", range(8))
def test_the_projection_is_the_nearest_step_that_does_not_conflict(seed: int) -> None:
    g, m = np.random.default_rng(seed).normal(size=(2, 6))
    solution = minimize(
        lambda x: ((x - g) ** 2).sum() / 2,
        np.zeros(6),
        jac=lambda x: x - g,
        constraints={"type": "ineq", "fun": lambda x: x @ m, "jac": lambda x: m},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    assert solution.success
    found = without_conflict({"θ": torch.tensor(g)}, {"θ": torch.tensor(m)})
    assert_near(found["θ"], solution.x, 1e-6)
    assert (g @ m < 0) == (not np.array_equal(found["θ"], g))


def test_no_step_points_against_the_stored_gradient(
    loaded: LoadedPipeline, unlearning_data: UnlearningData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descent of the forget images' own denoising loss conflicts with it: what is left of it does not, and is taken."""
    original, steps = named_weights(loaded.denoiser), []

    def learning(*_: Any) -> Any:
        def direction(weights: Params, variables: Params, stream: torch.Generator) -> tuple[Params, Logged]:
            batch = unlearning_data.forget.draw(8, stream)
            return gradient(denoising_loss(loaded.denoiser, weights, batch), variables), {}

        return direction

    monkeypatch.setattr(scissorhands, "step_gradient", learning)
    settings = {"sparsity": 1.0, "steps": 1, "optimizer": "sgd", "lr": 1e-3}
    stored = scissorhands.forget_slope(loaded, original, list(original), unlearning_data, parsed(**settings), Run(0))
    for project in (True, False):
        weights, run = trained(loaded, unlearning_data, **settings, project=project)
        steps.append(add(original, weights, -1.0))
        assert project == ("pairing" in {name for _, name, _ in run.history.rows})
    kept, plain = steps
    assert dot(plain, stored) < -0.1 * norm(plain) * norm(stored)
    assert abs(dot(kept, stored)) < 1e-3 * norm(kept) * norm(stored)
    assert 0.1 * norm(plain) < norm(kept) < norm(plain)
