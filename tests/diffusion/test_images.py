"""The image store: what it keeps, and what makes it start afresh."""

import typing
from pathlib import Path

import numpy as np
import pytest
import torch

from resalign import hashes
from resalign.config.sampling import ImageFormat
from resalign.data import image_files
from resalign.data.prompts import Prompt
from resalign.diffusion.images import ImageStore

PROMPT = Prompt("p-1", "a red seven")
FINGERPRINT = {"weights": "abc", "sampling": {"seed": 42}}
IMAGE = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def stored(folder: Path, image_format: ImageFormat = "png") -> ImageStore:
    store = ImageStore(folder / "store", image_format)
    store.open(FINGERPRINT)
    store.save(PROMPT, 0, IMAGE)
    return store


@pytest.mark.parametrize("image_format", typing.get_args(ImageFormat))
def test_an_image_goes_in_and_comes_back_bit_for_bit(image_format: ImageFormat, tmp_path: Path) -> None:
    store = stored(tmp_path, image_format)
    path = store.path(PROMPT, 0)
    assert (path.suffix, image_files.image_format(path)) == (f".{image_format}", image_format.upper())
    np.testing.assert_array_equal(np.asarray(image_files.open_image(path)), IMAGE.permute(1, 2, 0).numpy())
    assert sorted(p.name for p in path.parent.iterdir()) == ["fingerprint.json", path.name]
    assert path.name.startswith("p-1.")
    assert not store.path(Prompt("p-1", "a blue two"), 0).exists()  # a changed text is another image
    store.open(dict(reversed(FINGERPRINT.items())))
    assert path.is_file()


def test_other_weights_or_no_fingerprint_start_afresh(tmp_path: Path) -> None:
    for folder, change in (("a", {**FINGERPRINT, "weights": "def"}), ("b", None)):
        store = stored(tmp_path / folder)
        if change:
            store.open(change)
        else:
            (store.folder / "fingerprint.json").unlink()
        store.open(FINGERPRINT)  # and back: images that were thrown away stay so
        assert not store.path(PROMPT, 0).exists()


def test_names_are_files_of_the_store_whatever_the_id(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    ids = ["plain", "with space", "../outside", "a/b", "a.b", "", "seven-01"]
    paths = {store.path(Prompt(name, ""), index) for name in ids for index in (0, 1)}
    assert len(paths) == 2 * len(ids)
    assert {path.resolve().parent for path in paths} == {tmp_path.resolve()}


def reopened(store: ImageStore) -> ImageStore:
    again = ImageStore(store.folder)
    again.open(FINGERPRINT)
    return again


def test_an_image_is_made_if_its_bytes_are_those_that_are_listed(tmp_path: Path) -> None:
    store = stored(tmp_path)
    assert not reopened(store).has(PROMPT, 0)  # it was never listed
    store.list_made()
    assert reopened(store).has(PROMPT, 0)
    assert reopened(store).sha256(PROMPT, 0) == hashes.Entry.of(store.path(PROMPT, 0)).sha256
    content = store.path(PROMPT, 0).read_bytes()
    store.path(PROMPT, 0).write_bytes(content[:-1])
    assert not reopened(store).has(PROMPT, 0)


def test_a_lost_image_of_another_tier_stays_listed(tmp_path: Path) -> None:
    store = stored(tmp_path)
    store.save(PROMPT, 1, IMAGE)
    store.list_made()
    store.path(PROMPT, 1).unlink()
    again = reopened(store)
    again.save(PROMPT, 2, IMAGE)
    again.list_made()
    assert store.path(PROMPT, 1).name in (hashes.read(store.folder) or {})


@pytest.mark.parametrize("content", [b"\xff", b"{}"])
def test_a_damaged_fingerprint_throws_nothing_away(tmp_path: Path, content: bytes) -> None:
    store = stored(tmp_path)
    store.list_made()
    before = (store.folder / "fingerprint.json").read_bytes()
    (store.folder / "fingerprint.json").write_bytes(content)
    assert reopened(store).has(PROMPT, 0)
    assert (store.folder / "fingerprint.json").read_bytes() == before
