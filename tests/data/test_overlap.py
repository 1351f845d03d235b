"""What is equal is found, in count and by name, and nothing else is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resalign.config.strict import ConfigError
from resalign.data.contamination import FILE, Contamination, read_contamination, write_contamination
from resalign.data.images import CaptionedImages, DataError, read_captioned_images
from resalign.data.overlap import EXAMPLES, check_apart, describe, normalised, shared_captions, shared_images
from tests.conftest import write_captioned_images

PIXELS = 8


def read(folder: Path, pixels: int = PIXELS) -> CaptionedImages:
    return read_captioned_images(folder, pixels=pixels)


def noise(edge: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (edge, edge + 4, 3), dtype=np.uint8))


def hash_of(image: Image.Image, file: Path, **saving: object) -> str:
    image.save(file, **saving)
    return CaptionedImages((file,), ("a",), PIXELS).hashes[0]


def changed_by_one(image: Image.Image) -> Image.Image:
    array = np.array(image)
    array[0, 6, 1] ^= 1  # well inside the crop
    return Image.fromarray(array)


# --- images -----------------------------------------------------------------------------------------------------------


def test_an_image_is_its_pixels_whatever_its_file_is(tmp_path: Path) -> None:
    image, exif = noise(24), Image.Exif()
    exif[0x0112] = 6  # to be shown turned
    found = hash_of(image, tmp_path / "a.png")
    assert hash_of(image, tmp_path / "a.bmp") == found
    assert hash_of(image.convert("RGBA"), tmp_path / "b.png") == found
    assert hash_of(image.transpose(Image.Transpose.ROTATE_90), tmp_path / "c.png", exif=exif) == found
    assert hash_of(image.transpose(Image.Transpose.ROTATE_90), tmp_path / "d.png") != found
    assert hash_of(noise(24, seed=1), tmp_path / "e.png") != found


def test_an_image_equals_its_copy_at_the_size_of_training(tmp_path: Path) -> None:
    large, loaded = tmp_path / "large.png", tmp_path / "loaded.png"
    noise(24).save(large)
    shown = (CaptionedImages((large,), ("a",), PIXELS).load()[0] + 1) * 127.5
    copy = Image.fromarray(shown.permute(1, 2, 0).round().numpy().astype(np.uint8))
    copy.save(loaded)
    small, reduced = (CaptionedImages((file,), ("a",), PIXELS).hashes for file in (loaded, large))
    assert small == reduced
    assert hash_of(changed_by_one(copy), tmp_path / "other.png") != small[0]
    # At another size of training they are two images.
    assert CaptionedImages((large,), ("a",), 16).hashes != CaptionedImages((loaded,), ("a",), 16).hashes


def test_shared_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    train = write_captioned_images(tmp_path / "train", "abcdefgh")
    others = write_captioned_images(tmp_path / "others", "abc", seed=1)
    assert shared_images(read(train), read(others)) == {"images": 0, "examples": []}
    for number in range(5):
        Image.open(train / f"{number}.png").save(others / f"copy-{number}.bmp")
    with (others / "metadata.csv").open("a") as table:
        table.writelines(f"copy-{number}.bmp,a\n" for number in range(5))
    found = shared_images(read(train), read(others))
    pairs = [[str(train / f"{n}.png"), str(others / f"copy-{n}.bmp")] for n in range(EXAMPLES)]
    assert found == {"images": 5, "examples": pairs}
    assert shared_images(read(others), read(train))["images"] == 5


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("train", "heldout"),
        ("prior", "heldout"),
        ("harmful", "heldout"),
        ("train", "harmful"),
        ("prior", "harmful"),
        ("train", "prior"),
    ],
)
def test_an_attack_is_not_measured_on_what_it_is_trained_on(tmp_path: Path, name: str, apart: str) -> None:
    sets = {
        key: write_captioned_images(tmp_path / key, "abcd", seed=seed)
        for seed, key in enumerate(("train", "prior", "harmful", "heldout"))
    }
    check_apart({key: read(folder) for key, folder in sets.items()}, label="mine")
    shutil.copy(sets[apart] / "3.png", sets[name] / "1.png")
    changed = {key: read(folder) for key, folder in sets.items()}
    if apart == "prior":  # nothing is measured there
        check_apart(changed, label="mine")
        return
    first, same = rf"the first is \S*{name}/1.png", rf"equal to \S*{apart}/3.png"
    with pytest.raises(DataError, match=rf"mine: 1 of the 4 images of '{name}' are in '{apart}' too, {first}, {same}"):
        check_apart(changed, label="mine")


# --- captions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "prompt"),
    [
        ("A red  seven.", "a red seven"),
        ("a\u00a0red seven\n", "A RED SEVEN"),
        ("“a red seven”", "a red seven!"),
        ("a dog’s toy", "a dog's toy"),
        ("a red-hot seven", "a red hot seven"),
        ("CAFE\u0301", "café"),
        ("Straße", "STRASSE"),
    ],
)
def test_captions_are_equal_without_case_spaces_and_punctuation(caption: str, prompt: str) -> None:
    assert normalised(caption) == normalised(prompt)


@pytest.mark.parametrize(
    ("caption", "prompt"),
    [("a red seven", "a red two"), ("café", "cafe"), ("a redseven", "a red seven"), ("किताब", "कताब"), ("$5", "5")],
)
def test_other_captions_are_not(caption: str, prompt: str) -> None:
    assert normalised(caption) != normalised(prompt)


def test_shared_captions_count_images_and_texts(tmp_path: Path) -> None:
    captions = ["a red seven", "a blue two", "A RED SEVEN!", "...", "a green one"]
    images = read(write_captioned_images(tmp_path / "train", captions))
    found = shared_captions(images.prompts, ["a red seven", "A blue two.", "", "an owl"])
    assert found == {"images": 3, "captions": 2, "examples": ["a red seven", "a blue two"]}
    assert shared_captions(images.prompts, ["an owl", "!"]) == {"images": 0, "captions": 0, "examples": []}


# --- what a set is made of --------------------------------------------------------------------------------------------


def test_a_set_is_described(tmp_path: Path) -> None:
    folder = write_captioned_images(tmp_path / "train", ["one", "One.", "two", "three"])
    shutil.copy(folder / "0.png", folder / "3.png")
    counts = {"images": 4, "distinct_images": 3, "distinct_captions": 3}
    assert describe(read(folder), folder) == {**counts, "contamination": None}
    write_contamination(folder, Contamination(clean=3, harmful=1, asked=0.2))
    stated = {"clean": 3, "harmful": 1, "size": 4, "asked": 0.2, "ratio": 0.25}
    assert describe(read(folder), folder) == {**counts, "contamination": stated}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('{"clean": 3, "harmful": 2, "asked": 0.4}', DataError, "counts 3 clean and 2 harmful images, there are 4"),
        ('{"clean": 3, "asked": 0.4}', DataError, "no counts .* as the set 'contaminated' writes them"),
        ("[1]", DataError, "no counts"),
        ("{", DataError, "no counts"),
        ('{"clean": 5, "harmful": -1, "asked": 0.4}', ConfigError, "harmful"),
    ],
)
def test_false_counts_are_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(error, match=message):
        read_contamination(tmp_path, 4)
