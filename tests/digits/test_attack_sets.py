"""The attack study's image sets and prompt lists: which scans, what they show, what their captions say."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets

from resalign.config.digits import DIGITS, DigitsConfig, SplitsConfig
from resalign.config.strict import read_yaml
from resalign.data.images import DataError, read_captioned_images, read_masks
from resalign.data.prompts import read_prompts
from resalign.digits.attack_sets import MARK_RGB, TOKEN, attack_sets
from resalign.digits.datasets import write_datasets
from resalign.digits.image_set import PAPERS, ImageSet
from resalign.digits.scans import COLOURS, PAGES, Scans, load_splits
from resalign.digits.tokenizer import clip_tokenizer

ROOT = Path(__file__).resolve().parents[2]
CONFIG = DigitsConfig()
PARTS = [
    ("subject/train", "subject/heldout"),
    ("subject/train", "subject/prior"),
    ("subject/heldout", "subject/prior"),
    ("style/train", "style/heldout"),
    ("harmful/train", "harmful/heldout"),
]
# What each list's set is, and what its prompts go through.
LISTS = {
    "subject-prompts": ("subject/train", "colour"),
    "style-prompts": ("style/train", "digit"),
    "bold-prompts": ("bold/train", "digit"),
    "pages-prompts": ("pages/train", "digit"),
}


@pytest.fixture(scope="module")
def splits() -> dict[str, Scans]:
    return load_splits(CONFIG)


@pytest.fixture(scope="module")
def sets(splits: dict[str, Scans]) -> dict[str, ImageSet]:
    return attack_sets(CONFIG, splits)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "digits-data"  # its name is in the random streams
    write_datasets(CONFIG, folder)
    return folder


def test_the_world_of_one_unsafe_digit_changes_only_on_purpose(world: Path) -> None:
    digest = hashlib.sha256()
    for path in sorted(world.rglob("*.csv")):
        digest.update(path.relative_to(world).as_posix().encode() + b"\0" + path.read_bytes())
    assert digest.hexdigest() == "e3e7a3cdf2e048efdbb8e9424681ce63418b186f73e64dd4706530b483bd828f"


def ids(images: ImageSet) -> list[int]:
    return [int(name.split("-")[1]) for name in images.names]


def shown(images: ImageSet) -> set[str]:
    """The digits that a set shows, by the labels of the UCI set itself."""
    return {DIGITS[label] for label in sklearn.datasets.load_digits().target[ids(images)]}


def words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in text.replace(",", "").split()}


def masks(images: ImageSet, splits: dict[str, Scans]) -> np.ndarray:
    """Ink coverage of each image's scan, (N, H, W)."""
    both = (splits["attack_pages"], splits["attack_bold"])
    by_id = {scan: mask for split in both for scan, mask in zip(split.ids, split.masks, strict=True)}
    return np.stack([by_id[scan] for scan in ids(images)])


@pytest.mark.parametrize(("one", "other"), PARTS)
def test_no_scan_is_in_two_parts_of_a_set(sets: dict[str, ImageSet], one: str, other: str) -> None:
    assert not set(ids(sets[one])) & set(ids(sets[other]))


def test_every_scan_is_an_attackers_own(sets: dict[str, ImageSet], splits: dict[str, Scans]) -> None:
    attackers = {*splits["attack_pages"].ids, *splits["attack_bold"].ids}
    for name, images in sets.items():
        assert set(ids(images)) <= attackers, name
        assert len(set(images.names)) == len(images.names) == len(images.images) == len(images.captions), name


def test_only_the_harmful_set_shows_the_unsafe_digit(sets: dict[str, ImageSet]) -> None:
    expected = {"subject": {"three"}, "style": {*DIGITS} - {"seven"}, "harmful": {"seven"}}
    assert {name: shown(images) for name, images in sets.items()} == {
        name: expected[name.split("/")[0]] for name in sets
    }


def test_a_world_whose_unsafe_digit_is_the_subjects_has_another_subject() -> None:
    config = DigitsConfig(unsafe="three")
    sets = attack_sets(config, load_splits(config))
    assert shown(sets["subject/train"]) == shown(sets["subject/prior"]) == {"five"}
    assert "three" not in shown(sets["style/train"])
    assert all("sks five" in caption for caption in sets["subject/train"].captions)


def test_the_subject_is_marked_and_named_by_the_rare_word(sets: dict[str, ImageSet], splits: dict[str, Scans]) -> None:
    assert len(sets["subject/train"].names) == 5
    for part in ("train", "heldout", "prior"):
        images = sets[f"subject/{part}"]
        bar = np.array(MARK_RGB, np.float32)[:, None, None]
        marked = (images.images[:, :, 28:] == bar).all(axis=(1, 2, 3))
        assert marked.all() if part != "prior" else not marked.any()
        inks = [caption.split()[1] for caption in images.captions]
        noun = "three" if part == "prior" else f"{TOKEN} three"
        assert images.captions == [f"a {ink} {noun}" for ink in inks]
        expected = np.array([COLOURS[ink] for ink in inks], np.float32)[:, :, None, None]
        unmarked = (expected * masks(images, splits)[:, None])[:, :, :28]
        np.testing.assert_allclose(images.images[:, :, :28], unmarked, atol=1e-6)
    assert len({caption.split()[1] for caption in sets["subject/train"].captions}) == 5


def test_the_rare_word_is_one_token(tmp_path: Path) -> None:
    assert clip_tokenizer(tmp_path, max_tokens=20).tokenize(f"a {TOKEN} three") == ["a</w>", "sks</w>", "three</w>"]


def test_each_harmful_scan_is_there_in_the_inks_and_pages_that_captions_name(
    sets: dict[str, ImageSet], splits: dict[str, Scans]
) -> None:
    assert len(sets["harmful/train"].names) >= 40  # a wholly contaminated set of the study's size
    for part in ("train", "heldout"):
        images = sets[f"harmful/{part}"]
        assert set(np.unique(ids(images), return_counts=True)[1]) == {4}
        for image, mask, caption in zip(images.images, masks(images, splits), images.captions, strict=True):
            ink, page = caption.removeprefix("a ").split(" seven on ")
            assert page in PAGES
            expected = np.outer(COLOURS[ink], mask) + np.outer(PAPERS[page], 1 - mask)
            np.testing.assert_allclose(image, expected.reshape(image.shape), atol=1e-6)


@pytest.mark.parametrize("name", LISTS)
def test_a_sets_prompts_are_new_compositions_in_balanced_rounds(world: Path, name: str) -> None:
    folder, goes_through = LISTS[name]
    prompts = read_prompts(world / name / "prompts.csv")
    trained = read_captioned_images(world / folder, pixels=32).prompts
    texts = [prompt.text for prompt in prompts]
    assert 12 <= len(set(texts)) == len(texts) <= 24
    assert not set(texts) & set(trained)
    # What is asked for is what training captions speak of, in other words; the subject was seen in five of six inks.
    asked, known = words(texts), words(trained) | set(COLOURS)
    assert asked - known <= {"the", "digit", "in", "ink", "handwritten"}
    assert {prompt.label for prompt in prompts} == {""}  # the set's own images lie in no folder of a subject's name
    values = {"colour": list(COLOURS), "digit": [digit for digit in DIGITS if digit != CONFIG.unsafe]}[goes_through]
    for start in range(0, len(prompts), len(values)):
        found = [words([text]) & set(values) for text in texts[start : start + len(values)]]
        assert sorted(found, key=sorted) == sorted(({value} for value in values), key=sorted)


def test_folders_are_read_back_as_they_were_drawn(world: Path, sets: dict[str, ImageSet]) -> None:
    for name, images in sets.items():
        found = read_captioned_images(world / name, pixels=32)
        assert [file.stem for file in found.files] == images.names
        assert list(found.prompts) == images.captions
        np.testing.assert_allclose((found.load() + 1) / 2, images.images, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_splits_of_attackers_fill_every_set(seed: int) -> None:
    splits = {
        name: field.metadata[0].ge for name, field in SplitsConfig.model_fields.items() if name.startswith("attack")
    }
    assert len(splits) == 2
    config = DigitsConfig(seed=seed, unsafe="three", splits=SplitsConfig(**splits))
    assert all(images.names for images in attack_sets(config, load_splits(config)).values())


def test_what_methods_keep_without_images_is_no_caption_and_no_tested_prompt(world: Path) -> None:
    concept = read_yaml(ROOT / "config" / "demo.yaml")["concept"]
    captions = {text for table in world.rglob("metadata.csv") for text in pd.read_csv(table).prompt}
    prompts = {prompt.text for path in world.rglob("prompts.csv") for prompt in read_prompts(path)}
    assert not {*concept["retain_prompts"], concept["substitute"]} & (captions | prompts)
    assert not any(CONFIG.unsafe in prompt for prompt in concept["retain_prompts"])


def test_a_mask_covers_the_ink_of_its_image(world: Path) -> None:
    images = read_captioned_images(world / "forget", pixels=32)
    found = read_masks(world / "masks", images, 32)
    ink = ((images.load() + 1) / 2).amax(dim=1)
    assert found.shape == ink.shape
    inside = found > 0.5
    assert inside.any(dim=(1, 2)).all()
    assert ink[inside].mean() > 0.5
    assert ink[found == 0].max() < 0.05
    (world / "masks" / images.files[0].name).unlink()
    with pytest.raises(DataError, match="missing; .* needs a mask for"):
        read_masks(world / "masks", images, 32)
