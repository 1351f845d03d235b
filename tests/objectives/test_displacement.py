"""Distance and barrier on functions whose values are known in closed form, and on the tiny pipeline."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.objectives.displacement import barrier, displacement, distance
from resalign.tensors.params import Params, detached, gradient, norm
from resalign.tensors.steps import DivergenceError
from tests.nearness import assert_near

START = {"a": torch.tensor([1.0, -2.0], dtype=torch.float64), "b": torch.tensor([[0.5]], dtype=torch.float64)}
END = {"b": torch.tensor([[3.5]], dtype=torch.float64), "a": torch.tensor([2.0, 0.0], dtype=torch.float64)}
AWAY = np.array([1.0, 2.0, 3.0])


def test_distance_is_over_all_tensors_and_its_gradient_points_away() -> None:
    assert distance(START, END).item() == pytest.approx(np.sqrt(14))
    leaves = detached(END, requires_grad=True)
    found = gradient(distance(START, leaves), leaves)
    assert_near(torch.cat([found["a"], found["b"].flatten()]), AWAY / np.sqrt(14), 1e-12)
    still = detached(START, requires_grad=True)
    assert norm(gradient(distance(START, still), still)) == 0  # and no NaN


def quadratic(hessian: np.ndarray, slope: np.ndarray) -> Callable[[Params], float]:
    def loss(point: Params) -> float:
        x = np.concatenate([point["a"].numpy(), point["b"].numpy().ravel()])
        return float(x @ hessian @ x / 2 + slope @ x + 7)

    return loss


@pytest.mark.parametrize("points", [3, 4, 5, 8])
def test_the_barrier_of_a_quadratic(points: int) -> None:
    """L(θ_t) is t(1 − t) · dᵀHd / 2 below its chord, whatever its slope: highest at the point nearest the middle."""
    hessian = np.array([[-2.0, 0.3, 0.0], [0.3, -1.0, 0.2], [0.0, 0.2, -0.5]])
    middle = (points // 2) / (points - 1)
    expected = -middle * (1 - middle) * AWAY @ hessian @ AWAY / 2
    assert expected > 0
    slope = np.array([5.0, -3.0, 1.0])
    assert barrier(quadratic(hessian, slope), START, END, points) == pytest.approx(expected, rel=1e-12)
    assert barrier(quadratic(-hessian, slope), START, END, points) == pytest.approx(0, abs=1e-12)


def test_a_loss_that_is_not_finite_on_the_line_is_no_barrier_of_0() -> None:
    with pytest.raises(DivergenceError, match="not finite"):
        barrier(lambda point: float("nan") if 1 < point["a"][0] < 2 else 0.0, START, END)


def test_every_network_that_was_changed_counts(loaded: LoadedPipeline, encoded_images: EncodedImages) -> None:
    tensors = trainable_tensors(loaded.pipeline)
    denoiser = next(name for name in tensors if name.startswith("unet.") and name.endswith("attn2.to_k.weight"))
    encoder = next(name for name in tensors if name.startswith("text_encoder.") and name.endswith("fc1.weight"))
    kept = {name: tensors[name].detach().clone() for name in (denoiser, encoder)}
    found = {}
    for names in ((), (denoiser,), (encoder,), (denoiser, encoder)):
        turned = {name: -kept[name] for name in names}
        found[names] = displacement(loaded, turned, encoded_images)
        expected = 2 * np.sqrt(sum(norm({name: kept[name]}) ** 2 for name in names))
        assert_near(found[names]["weight_distance"], float(expected), 1e-6)
        assert found[names]["relative_distance"] == pytest.approx(2 if names else 0, rel=1e-6)
        assert found[names]["loss_barrier"] >= 0
    assert found[()]["loss_barrier"] == 0
    # Half way between W and -W is a network without that part: the loss there is another one than at either end.
    assert len({value["loss_barrier"] for value in found.values()}) > 2
    assert all(torch.equal(tensors[name], tensor) for name, tensor in kept.items())
