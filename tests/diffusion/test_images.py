"""The image store: what it keeps, and what makes it start afresh."""

import typing
from pathlib import Path

import numpy as np
import pytest
import torch

from resalign import hashes, shards
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


# --- shards -----------------------------------------------------------------------------------------------------------


def filled(folder: Path, images: int, first: int = 0) -> ImageStore:
    """A store with some images, opened as a job opens it; each has pixels of its own."""
    store = ImageStore(folder / "store")
    store.open(FINGERPRINT)
    for index in range(first, first + images):
        if not store.has(PROMPT, index):
            store.save(PROMPT, index, IMAGE.roll(index, 2))
    store.list_made()
    return store


def files(store: ImageStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.name not in ("fingerprint.json", hashes.NAME))


def check_images(store: ImageStore, images: int) -> None:
    """Every image is there once, by the list and by its pixels."""
    listed = hashes.read(store.folder) or {}
    assert sorted(Path(name).name for name in listed) == sorted(
        ["fingerprint.json", *(store.path(PROMPT, index).name for index in range(images))]
    )
    for index in range(images):
        assert store.has(PROMPT, index)
        path = store.path(PROMPT, index)
        hashes.check_listed(path, store.sha256(PROMPT, index), "images.csv")
        pixels = np.asarray(image_files.open_image(path))
        np.testing.assert_array_equal(pixels, IMAGE.roll(index, 2).permute(1, 2, 0).numpy())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two images."""
    monkeypatch.setattr(shards, "MOST_FILES", 2)


@pytest.mark.usefixtures("few")
def test_a_larger_tier_adds_shards(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    store.pack()
    assert files(store) == ["0001.zip", "0002.zip"]
    check_images(store, 3)
    untouched = (store.folder / "0001.zip").stat().st_mtime_ns
    larger = filled(tmp_path, 6)
    assert len(files(larger)) == 2 + 3
    check_images(larger, 6)
    larger.pack()
    larger.pack()  # there is nothing left to do
    assert files(larger) == ["0001.zip", "0002.zip", "0003.zip", "0004.zip"]
    check_images(larger, 6)
    check_images(reopened(larger), 6)
    assert (store.folder / "0001.zip").stat().st_mtime_ns == untouched


@pytest.mark.usefixtures("few")
def test_equal_images_make_equal_shards(tmp_path: Path) -> None:
    stores = [filled(tmp_path / name, 5) for name in ("one", "two")]
    stores[1] = reopened(stores[1])  # a job that was stopped goes on, and knows its images in another order
    for store in stores:
        store.pack()
    one, two = ({path.name: path.read_bytes() for path in store.folder.iterdir()} for store in stores)
    assert one == two


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("step", ["write", "list_made", "unlink"])
@pytest.mark.parametrize("shard", [1, 2])
def test_a_kill_between_two_steps_loses_nothing_and_doubles_nothing(
    step: str, shard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"write": shards, "list_made": ImageStore, "unlink": Path}[step]
    store, done, original = filled(tmp_path, 4), [0], getattr(owner, step)

    def killed(*arguments: object, **named: object) -> object:
        done[0] += not str(arguments[0]).endswith(".part")
        if done[0] == (2 * shard if step == "unlink" else shard):
            raise KeyboardInterrupt
        return original(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, killed)
        with pytest.raises(KeyboardInterrupt):
            store.pack()
    again = reopened(store)
    check_images(again, 4)
    again.pack()
    assert files(again) == ["0001.zip", "0002.zip"]
    check_images(again, 4)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("damage", ["removed", "cut", "flipped"])
def test_images_of_a_damaged_shard_are_made_again(damage: str, tmp_path: Path) -> None:
    store = filled(tmp_path, 4)
    store.pack()
    shard = store.folder / "0001.zip"
    before = shard.read_bytes()
    flipped = bytearray(before)
    flipped[100] ^= 1  # in the bytes of its first image
    if damage == "removed":
        shard.unlink()
    else:
        shard.write_bytes(before[:-30] if damage == "cut" else flipped)
    lost = 1 if damage == "flipped" else 2
    assert sum(not reopened(store).has(PROMPT, index) for index in range(4)) == lost
    again = filled(tmp_path, 4)
    again.pack()
    check_images(again, 4)
    assert files(reopened(again)) == (["0001.zip"] if damage == "flipped" else []) + ["0002.zip", "0003.zip"]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("packed", [False, True])
def test_images_are_dropped_and_made_again(packed: bool, tmp_path: Path) -> None:
    store = filled(tmp_path, 4)
    if packed:
        store.pack()
    names = [store.path(PROMPT, index).name for index in range(4)]
    before = sum(path.stat().st_size for path in store.folder.iterdir() if path.name != hashes.NAME)
    freed = store.drop({*names[1:], "other"})
    after = sum(path.stat().st_size for path in store.folder.iterdir() if path.name != hashes.NAME)
    assert freed == before - after > 0
    assert files(store) == (["0001.zip"] if packed else [names[0]])
    assert [reopened(store).has(PROMPT, index) for index in range(4)] == [True, False, False, False]
    assert store.drop(names[1:]) == 0
    again = filled(tmp_path, 4)
    again.pack()
    check_images(again, 4)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("packed", [False, True])
def test_a_kill_while_images_are_dropped_leaves_no_damage(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, 4)
    if packed:
        store.pack()
    names = [store.path(PROMPT, index).name for index in range(1, 4)]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.drop(names)
    assert [reopened(store).has(PROMPT, index) for index in range(4)] == [True, False, False, False]
    store.drop(names)
    assert files(store) == (["0001.zip"] if packed else [store.path(PROMPT, 0).name])
