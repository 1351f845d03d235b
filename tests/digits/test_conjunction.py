"""The world `conjunction`: what its sets show, what its lists ask for, and that no tested prompt is a caption."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
from PIL import Image

from resalign.config.digits import DIGITS, INKS, PAIR_LABELS, ConjunctionConfig, DigitsConfig, pair
from resalign.config.strict import ConfigError
from resalign.data.overlap import normalised
from resalign.data.prompts import read_prompts
from resalign.digits.captions import retained_inks, unretained_inks
from resalign.digits.conjunction import write_conjunction
from resalign.digits.datasets import write_datasets
from resalign.digits.detectors import inked_pairs, near_inks
from resalign.digits.scans import COLOURS, load_splits

CONFIG = DigitsConfig()
WORLD = CONFIG.conjunction
EVERY = {(ink, digit) for ink in INKS for digit in DIGITS}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "conjunction"
    write_conjunction(CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "digits-data"
    write_datasets(CONFIG, folder)
    return folder


def shown(folder: Path) -> list[tuple[str, str]]:
    """Ink and digit of a folder's images: the digit by UCI's label, the ink by the brightest pixel."""
    labels, inks = sklearn.datasets.load_digits().target, np.array([COLOURS[ink] for ink in INKS])
    found = []
    for file in sorted(folder.glob("*.png")):
        pixels = np.asarray(Image.open(file)).reshape(-1, 3) / 255
        brightest = pixels[pixels.sum(axis=1).argmax()]
        ink = INKS[int(np.abs(inks - brightest).sum(axis=1).argmin())]
        found.append((ink, DIGITS[labels[int(file.stem.split("-")[1])]]))
    return found


def test_the_inks_of_the_configuration_are_those_of_the_scans() -> None:
    assert tuple(COLOURS) == INKS


def test_every_pair_is_unsafe_retained_near_or_far() -> None:
    parts = [[WORLD.unsafe], WORLD.retained, WORLD.near, WORLD.far]
    assert [len(part) for part in parts] == [1, 14, 8, 37]
    assert {one for part in parts for one in part} == EVERY
    assert all((ink == "red") != (digit == "seven") for ink, digit in WORLD.near)
    # What is retained covers half of the neighbours as near as can be.
    neighbours = [one for one in EVERY if (one[0] == "red") != (one[1] == "seven")]
    assert len(set(neighbours) & set(WORLD.retained)) == 6
    assert len(neighbours) == 14


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ink": "pink"}, r"\['pink', 'blue', 'white'\] must be different ones of \['red'"),
        ({"digit": "zero"}, r"must be different ones"),
        ({"retained_digits": [d for d in DIGITS if d != "seven"], "retained_inks": INKS[1:]}, "everything is retained"),
    ],
)
def test_a_world_that_is_none_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ConjunctionConfig.parse(wrong, where="x")


def test_only_what_is_to_be_forgotten_shows_the_unsafe_pair(world: Path) -> None:
    others = EVERY - {WORLD.unsafe}
    expected = {"forget": {WORLD.unsafe}, "retain": set(WORLD.retained)}
    for name in ("pool", "pages/train", "pages/heldout", "plain/train", "plain/heldout", "bold/train", "bold/heldout"):
        expected[name] = others
    expected["reference"] = others
    for name, pairs in expected.items():
        found = set(shown(world / name))
        assert found <= pairs, name
        digits, inks = ({one[i] for one in found} for i in (1, 0))
        assert (digits, inks) == ({one[1] for one in pairs}, {one[0] for one in pairs}), name
    assert {path.parent for path in world.rglob("metadata.csv")} == {world / name for name in (*expected, "masks")}


def test_a_scan_is_trained_on_by_one_side_only(world: Path) -> None:
    sides = (("forget", "retain"), ("pool",), ("pages",), ("plain", "bold"), ("reference",))
    scans = [{file.stem for name in side for file in (world / name).rglob("*.png")} for side in sides]
    assert len(set.union(*scans)) == sum(map(len, scans))
    for name in ("pages", "plain", "bold"):
        train, heldout = ({file.stem for file in (world / name / part).glob("*.png")} for part in ("train", "heldout"))
        assert not train & heldout
    masks, forget = ({file.stem for file in (world / name).glob("*.png")} for name in ("masks", "forget"))
    assert masks == forget


def test_lists_ask_for_their_pairs_in_balanced_rounds(world: Path) -> None:
    lists = {"unsafe": [WORLD.unsafe], "near": WORLD.near, "covered": WORLD.retained, "far": WORLD.far}
    for name, pairs in lists.items():
        prompts = read_prompts(world / f"{name}-prompts" / "prompts.csv")
        assert len(prompts) == 16 * len(pairs), name
        assert {prompt.label for prompt in prompts} == {pair(*one) for one in pairs} < {*PAIR_LABELS}
        for turn in range(16):
            labels = Counter(prompt.label for prompt in prompts[turn * len(pairs) : (turn + 1) * len(pairs)])
            assert set(labels.values()) == {1}
            kinds = {prompt.id.split("-")[0] for prompt in prompts[turn * len(pairs) : (turn + 1) * len(pairs)]}
            assert kinds == {("explicit", "implicit")[turn % 2]}
        assert all(prompt.label.split()[0] in prompt.text for prompt in prompts)


@pytest.mark.parametrize("name", ["world", "digits"])
def test_no_tested_prompt_is_a_caption(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    captions = {normalised(str(text)) for file in folder.rglob("metadata.csv") for text in pd.read_csv(file).prompt}
    prompts = [prompt for file in folder.rglob("prompts.csv") for prompt in read_prompts(file)]
    assert len(captions) > 300
    assert len(prompts) > 300
    assert not {normalised(prompt.text) for prompt in prompts} & captions


def test_the_digits_are_retained_in_other_inks_than_utility_is_measured_in(digits: Path) -> None:
    assert all({*retained_inks(digit)} ^ {*unretained_inks(digit)} == {*INKS} for digit in DIGITS)
    retained = set(shown(digits / "retain"))
    assert len(retained) == 9 * 3
    benign = read_prompts(digits / "benign-prompts" / "prompts.csv")
    asked = {(next(ink for ink in INKS if ink in prompt.text), prompt.label) for prompt in benign}
    assert len(asked) == 9 * 3
    assert not asked & retained


def test_a_detector_of_inks_learns_each_pair_by_its_own_name() -> None:
    scans = load_splits(CONFIG)["detectors"]
    images, labels = inked_pairs(scans, 60, np.random.default_rng(0))
    assert images.shape == (60, 3, 32, 32)
    names = [PAIR_LABELS[label].split()[0] for label in labels]
    exact = np.array([COLOURS[ink] for ink in INKS])
    brightest = [image[:, *np.unravel_index(image.sum(axis=0).argmax(), image.shape[1:])] for image in images]
    assert [INKS[int(np.abs(exact - pixel).sum(axis=1).argmin())] for pixel in brightest] == names
    assert np.abs(near_inks(np.arange(6), np.random.default_rng(1)) - exact).mean() < 0.1
