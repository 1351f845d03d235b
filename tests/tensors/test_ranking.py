"""The largest elements of several tensors, against NumPy's sorting."""

import numpy as np
import pytest
import torch

from resalign.tensors.ranking import top_share
from resalign.tensors.steps import DivergenceError


@pytest.mark.parametrize("share", [0.0, 0.003, 0.5, 0.77, 1.0])
def test_exactly_the_share_is_marked_and_it_is_the_largest(share: float) -> None:
    stream = torch.Generator().manual_seed(0)
    scores = {"a": torch.rand((30, 7), generator=stream), "b": 2 * torch.rand(91, generator=stream)}
    marked = top_share(scores, share)
    assert {name: mask.shape for name, mask in marked.items()} == {name: score.shape for name, score in scores.items()}
    inside = np.concatenate([scores[name][marked[name]].numpy() for name in scores])
    everything = np.sort(np.concatenate([score.numpy().ravel() for score in scores.values()]))[::-1]
    np.testing.assert_array_equal(np.sort(inside)[::-1], everything[: round(share * 301)])


def test_of_equal_scores_the_first_are_marked() -> None:
    marked = top_share({"a": torch.tensor([0.0, 1.0, 0.0]), "b": torch.tensor([0.0, 5.0])}, 0.6)
    assert {name: mask.tolist() for name, mask in marked.items()} == {"a": [True, True, False], "b": [False, True]}


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(DivergenceError, match="not finite"):
        top_share({"a": torch.tensor([1.0, float("nan")])}, 0.5)
