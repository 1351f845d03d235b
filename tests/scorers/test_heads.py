"""Released files are read without running what is in them, and only if they are what they should be."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from resalign.scorers._heads import load_head, only_file, read_checked, unpickle_array
from resalign.tensors.weights import WeightsError

from .conftest import sha256

HERE = Path("prompts.p")


class Malice:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_an_array_is_read_as_it_was(protocol: int) -> None:
    array = np.random.default_rng(0).normal(size=(2, 768)).astype("float16")
    np.testing.assert_array_equal(unpickle_array(pickle.dumps(array, protocol=protocol), HERE), array)


def test_an_array_of_an_older_numpy_is_read_too() -> None:
    array = np.arange(4, dtype="float16").reshape(2, 2)
    old = pickle.dumps(array, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    np.testing.assert_array_equal(unpickle_array(old, HERE), array)


def test_a_pickle_of_anything_else_runs_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for malice in (Malice(made), [np.zeros(2), Malice(made)]):
        with pytest.raises(WeightsError, match="only NumPy arrays are allowed"):
            unpickle_array(pickle.dumps(malice), HERE)
    torch.save({"weight": Malice(made)}, tmp_path / "head.pth")
    with pytest.raises(WeightsError, match="not a file of tensors alone"):
        load_head(nn.Linear(2, 1), tmp_path / "head.pth")
    assert not made.exists()
    pickle.loads(pickle.dumps(Malice(made)))
    assert made.exists(), "the pickle must be able to do harm for the test to mean anything"


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", pickle.dumps([1.0]), pickle.dumps(np.array(["text"])), pickle.dumps(np.zeros(2)) + b"more"],
)
def test_what_is_no_array_fails(content: bytes) -> None:
    with pytest.raises(WeightsError, match=r"prompts\.p"):
        unpickle_array(content, HERE)


def test_a_file_is_read_only_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.p"
    with pytest.raises(WeightsError, match="no such weight file"):
        read_checked(path, "0" * 64)
    path.write_bytes(b"content")
    assert read_checked(path, sha256(path)) == b"content"
    with pytest.raises(WeightsError, match=f"sha256 {sha256(path)}, expected {'0' * 64}"):
        read_checked(path, "0" * 64)


def test_a_folder_has_one_file_to_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"exactly one file of \['.pth'\], found \[\]"):
        only_file(tmp_path, (".pth",))
    for name in ("a.pth", "run.json", "b.pth"):
        assert len(list(tmp_path.glob("*.pth"))) != 1 or only_file(tmp_path, (".pth",)).name == "a.pth"
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=r"found \['a.pth', 'b.pth'\]"):
        only_file(tmp_path, (".pth",))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (nn.Linear(3, 1).state_dict(), r"'weight' has shape \(1, 3\), the network expects \(1, 2\)"),
        ({"weight": torch.zeros(1, 2)}, "1 of the 2 tensors of Linear is missing: 'bias'"),
        ([torch.zeros(1)], "expected named tensors, got list"),
        (
            {"weight": torch.full((1, 2), torch.nan), "bias": torch.zeros(1)},
            "'weight' holds values that are not finite",
        ),
        (None, "no such weight file"),
    ],
)
def test_a_head_that_does_not_fit_fails(tmp_path: Path, saved: object, message: str) -> None:
    path = tmp_path / "head.pth"
    if saved is not None:
        torch.save(saved, path)
    with pytest.raises(WeightsError, match=message):
        load_head(nn.Linear(2, 1), path)


def test_a_head_in_half_precision_is_widened(tmp_path: Path) -> None:
    head, path = nn.Linear(2, 1), tmp_path / "head.pth"
    torch.save({name: tensor.half() for name, tensor in head.state_dict().items()}, path)
    load_head(head, path)
    assert head.weight.dtype == torch.float32
    assert torch.equal(head.weight, head.weight.half().float())
