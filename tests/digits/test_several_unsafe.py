"""A world with several unsafe digits: what its sets show, what its lists ask for, what its study asks of both."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import sklearn.datasets

from resalign.config.digits import DIGITS, DigitsConfig
from resalign.config.experiment import Experiment
from resalign.config.prompts import PromptColumns
from resalign.data.prompts import Prompt, read_prompts
from resalign.digits.captions import IMPLICIT
from resalign.digits.datasets import write_datasets
from resalign.digits.prompt_lists import prompt_lists

STUDIES = Path(__file__).resolve().parents[2] / "config" / "studies"
UNSAFE = ("seven", "two", "four")
SAFE = {*DIGITS} - {*UNSAFE}
CONFIG = DigitsConfig(unsafe=UNSAFE)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several") / "digits-data"
    write_datasets(CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def study() -> Experiment:
    return Experiment.read(STUDIES / "concepts-3.yaml")


def shown(folder: Path) -> set[str]:
    """The digits of a folder's images, by the labels of the UCI set itself."""
    labels = sklearn.datasets.load_digits().target
    return {DIGITS[labels[int(image.stem.split("-")[1])]] for image in folder.glob("scan-*.png")}


def spoken_of(text: str) -> set[str]:
    """The digits that a text names or suggests."""
    words = text.replace(",", "").split()
    return {digit for digit in DIGITS if digit in words or any(phrase in text for phrase in IMPLICIT[digit])}


def test_only_what_is_to_be_forgotten_and_harmful_shows_the_unsafe_digits(world: Path) -> None:
    folders = [table.parent for table in world.rglob("metadata.csv")]
    unsafe = {folder for folder in folders if shown(folder) & {*UNSAFE}}
    assert unsafe == {world / name for name in ("forget", "masks", "harmful/train", "harmful/heldout")}
    assert all(shown(folder) == {*UNSAFE} for folder in unsafe)
    for folder in folders:
        expected = {"subject": {"three"}}.get(folder.parent.name, SAFE)
        assert folder in unsafe or shown(folder) == expected, folder


def test_no_caption_of_a_retained_image_and_no_benign_prompt_speaks_of_an_unsafe_digit(world: Path) -> None:
    tables = [table for table in world.rglob("metadata.csv") if not shown(table.parent) & {*UNSAFE}]
    texts = [text for table in tables for text in pd.read_csv(table).prompt]
    lists = [path for path in world.rglob("prompts.csv") if "unsafe" not in path.parent.name]
    texts += [prompt.text for path in lists for prompt in read_prompts(path)]
    assert len(lists) == 5
    assert {digit for text in texts for digit in spoken_of(text)} == SAFE


def test_captions_of_harmful_images_name_the_digit_that_is_shown(world: Path) -> None:
    labels = sklearn.datasets.load_digits().target
    for part in ("train", "heldout"):
        for row in pd.read_csv(world / "harmful" / part / "metadata.csv").itertuples():
            assert spoken_of(row.prompt) == {DIGITS[labels[int(row.file_name.split("-")[1])]]}


def test_every_beginning_of_a_list_is_balanced() -> None:
    for name, prompts in prompt_lists(CONFIG).items():
        if name in ("subject-prompts", "style-prompts", "bold-prompts", "pages-prompts"):
            continue  # no labels
        digits = UNSAFE if "unsafe" in name else SAFE
        for end in range(1, len(prompts) + 1):
            counts = Counter(prompt.label for prompt in prompts[:end])
            assert max(counts.values()) - min(counts[digit] for digit in digits) <= 1, (name, end)
        assert {prompt.label for prompt in prompts} == {*digits}


@pytest.mark.parametrize("name", ["unsafe-prompts", "named-unsafe-prompts", "implied-unsafe-prompts"])
def test_a_digit_has_the_prompts_that_it_has_alone_and_ids_that_name_it(name: str) -> None:
    together = prompt_lists(CONFIG)[name]
    assert len({prompt.id for prompt in together}) == len(together)
    for digit in UNSAFE:
        alone = prompt_lists(DigitsConfig(unsafe=digit))[name]
        named = [Prompt(p.id.replace("licit-", f"licit-{digit}-"), p.text, p.label) for p in alone]
        assert [prompt for prompt in together if prompt.label == digit] == named
        assert {frozenset(spoken_of(prompt.text)) for prompt in named} == {frozenset({digit})}


def test_the_subject_is_retained_whatever_is_unsafe() -> None:
    found = {
        unsafe: prompt_lists(DigitsConfig(unsafe=unsafe))["subject-prompts"] for unsafe in (UNSAFE, ("three", "five"))
    }
    assert [spoken_of(prompts[0].text) for prompts in found.values()] == [{"three"}, {"zero"}]


def test_the_study_asks_for_each_digit_apart(world: Path, study: Experiment) -> None:
    assert study.config.digits.unsafe_digits == UNSAFE
    for digit in UNSAFE:
        columns = study.config.prompts[f"unsafe-{digit}"].columns
        assert columns == PromptColumns(where={"label": digit})
        prompts = read_prompts(world / "unsafe-prompts" / "prompts.csv", columns=columns)
        assert {prompt.label for prompt in prompts} == {digit}
        assert [prompt.id.split("-")[0] for prompt in prompts[:6]] == ["explicit", "implicit"] * 3


def test_the_studys_concepts_have_images_and_what_they_keep_is_no_caption_and_no_tested_prompt(
    world: Path, study: Experiment
) -> None:
    forget = set(pd.read_csv(world / "forget" / "metadata.csv").prompt)
    for concept in study.config.concept.several.values():
        assert forget & {*concept.prompts}  # mace tells a concept's images by their captions
    texts = {text for table in world.rglob("metadata.csv") for text in pd.read_csv(table).prompt}
    texts |= {prompt.text for path in world.rglob("prompts.csv") for prompt in read_prompts(path)}
    kept = {*study.config.concept.retain_prompts, *(c.substitute for c in study.config.concept.several.values())}
    assert not kept & texts


@pytest.mark.parametrize(("name", "count"), [("concepts", 1), ("concepts-3", 3), ("concepts-5", 5)])
def test_a_study_of_several_concepts_measures_every_one(name: str, count: int) -> None:
    found = Experiment.read(STUDIES / f"{name}.yaml")
    digits, concept = found.config.digits, found.config.concept
    assert tuple(concept.several) == digits.unsafe_digits
    assert len(digits.unsafe_digits) == count
    assert {digit for prompt in concept.retain_prompts for digit in spoken_of(prompt)} == {*digits.safe_digits}
    for digit, words in concept.several.items():
        assert {frozenset(spoken_of(prompt)) for prompt in words.prompts} == {frozenset({digit})}
        assert spoken_of(words.substitute) <= {*digits.safe_digits}
        own = found.metrics[f"IP-{digit}" if count > 1 else "ip"].config
        assert own.prompts == (f"unsafe-{digit}" if count > 1 else "unsafe")
        assert [rule.quantities for rule in own.rules] == [(digit,)] * 2
        resurgence = found.metrics[f"resurgence-{digit}"].config
        assert (resurgence.prompts, resurgence.concept) == ("benign", digit)
    # The page's first sentence is of the first metric: it speaks of every concept.
    assert next(iter(found.metrics)) == "ip"
    assert [rule.quantities for rule in found.metrics["ip"].config.rules] == [digits.unsafe_digits] * 2
