"""Which weights are trained, and through which variables."""

import numpy as np
import pytest
import torch

from resalign.contracts import Run
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import FullRank, LowRank, Parametrisation, lora, named_weights, select, vjp
from resalign.tensors.params import Params
from tests.nearness import assert_near, differing

NAMES = ("a.to_q.weight", "b.to_v.weight")


def stream() -> torch.Generator:
    return Run(seed=0).generator("test")


def weights() -> dict[str, torch.Tensor]:
    """Three weights in float64, two of them attention projections."""
    draw = torch.Generator().manual_seed(1)
    shapes = {"a.to_q.weight": (3, 2), "bias": (3,), "b.to_v.weight": (2, 4)}
    return {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}


BOTH = pytest.mark.parametrize("parametrisation", [FullRank(NAMES), LowRank(NAMES, 2)], ids=["full rank", "low rank"])


@BOTH
def test_starts_at_the_unchanged_model_with_variables_of_their_own_names(parametrisation: Parametrisation) -> None:
    start = weights()
    variables = parametrisation.initial(start, stream())
    moved = parametrisation.weights(start, variables)
    assert moved.keys() == start.keys()
    assert not differing(moved, start)
    assert not variables.keys() & start.keys()
    assert {tensor.dtype for tensor in variables.values()} == {torch.float64}


def random_variables(parametrisation: Parametrisation) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    initial = parametrisation.initial(weights(), stream())
    return {n: torch.randn(t.shape, generator=draw, dtype=torch.float64) for n, t in initial.items()}


def test_full_rank_adds_its_variables() -> None:
    start, variables = weights(), random_variables(FullRank(NAMES))
    moved = FullRank(NAMES).weights(start, variables)
    assert torch.equal(moved["bias"], start["bias"])
    for name in NAMES:
        assert torch.equal(moved[name], start[name] + variables[f"delta.{name}"])


def test_low_rank_adds_a_scaled_product() -> None:
    parametrisation = LowRank(NAMES, 1, scale=0.5)
    start, variables = weights(), random_variables(LowRank(NAMES, 1))
    moved = parametrisation.weights(start, variables)
    assert torch.equal(moved["bias"], start["bias"])
    for name in NAMES:
        change = moved[name] - start[name]
        up, down = variables[f"lora_up.{name}"].numpy(), variables[f"lora_down.{name}"].numpy()
        assert_near(change, 0.5 * np.outer(up, down), 1e-12, scale=moved[name])
        assert np.linalg.matrix_rank(change) == 1


def test_low_rank_initial_deviations() -> None:
    start = {"x.to_k.weight": torch.zeros(300, 200)}
    for down_std, up_std, expected in ((None, 0.0, 0.25), (0.008, 0.002, 0.008)):
        variables = LowRank(tuple(start), 4, down_std=down_std, up_std=up_std).initial(start, stream())
        assert variables["lora_down.x.to_k.weight"].std().item() == pytest.approx(expected, rel=0.1)
        assert variables["lora_up.x.to_k.weight"].std().item() == pytest.approx(up_std, rel=0.1)


@BOTH
def test_fitted_variables_give_back_the_weights_that_have_some(parametrisation: Parametrisation) -> None:
    start = weights()
    moved = parametrisation.weights(start, random_variables(parametrisation))
    again = parametrisation.weights(start, parametrisation.fitted(start, moved))
    assert_near(again, moved, 1e-12)


def test_low_rank_is_fitted_to_the_leading_singular_values() -> None:
    start, moved = weights(), {name: tensor * 2 for name, tensor in weights().items()}
    parametrisation = LowRank(NAMES, 1, scale=0.5)
    fitted = parametrisation.weights(start, parametrisation.fitted(start, moved))
    for name in NAMES:
        left = np.linalg.norm(moved[name] - fitted[name])
        singular = np.linalg.svd(start[name])[1]  # of the change, which is the start once more
        assert_near(left, np.linalg.norm(singular[1:]), 1e-12, scale=singular)


@BOTH
def test_vjp_is_the_gradient_in_the_variables(parametrisation: Parametrisation) -> None:
    start, variables = weights(), random_variables(parametrisation)

    def loss(moved: Params) -> torch.Tensor:
        return torch.stack([(index + 1) * tensor.square().sum() for index, tensor in enumerate(moved.values())]).sum()

    moved = {n: t.detach().requires_grad_() for n, t in parametrisation.weights(start, variables).items()}
    slope = dict(zip(moved, torch.autograd.grad(loss(moved), list(moved.values())), strict=True))
    found = vjp(parametrisation, start, variables, slope)
    assert found.keys() == variables.keys()
    for name, tensor in variables.items():
        measured = torch.empty_like(tensor)
        for index in range(tensor.numel()):
            ends = []
            for sign in (1.0, -1.0):
                shifted = {n: t.clone() for n, t in variables.items()}
                shifted[name].view(-1)[index] += sign * 1e-5
                ends.append(loss(parametrisation.weights(start, shifted)).item())
            measured.view(-1)[index] = (ends[0] - ends[1]) / 2e-5
        assert_near(found[name], measured, 1e-7, scale=found)


# --- scopes on the tiny UNet ------------------------------------------------------------------------------------------


def test_cross_attention_reads_the_text(loaded: LoadedPipeline) -> None:
    # attn2 is where the text comes in: its keys are as wide as the text, attn1's as wide as the network.
    weights = named_weights(loaded.denoiser)
    names = [name for name in select(weights, "cross_attention") if name.endswith("to_k.weight")]
    assert names
    processors = {n for n, m in loaded.denoiser.named_modules() if getattr(m, "is_cross_attention", False)}
    assert {name.removesuffix(".to_k.weight") for name in names} == processors


def test_attention_is_both_kinds_and_lora_adapts_all_its_projections(loaded: LoadedPipeline) -> None:
    weights = named_weights(loaded.denoiser)
    attention, adapted = select(weights, "attention"), lora(weights, 4)
    assert {name.split(".attn")[1][0] for name in attention} == {"1", "2"}
    assert len(adapted.names) == 4 * len({name.split(".to_")[0] for name in attention})
    assert all(weights[name].ndim == 2 for name in adapted.names)


def test_a_network_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="'cross_attention'"):
        select({"conv.weight": torch.zeros(1)}, "cross_attention")
    with pytest.raises(ValueError, match="no attention projections"):
        lora({"conv.weight": torch.zeros(1)}, 4)
