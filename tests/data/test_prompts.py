"""Prompt lists: their forms, which prompts a tier takes, and what counts as one prompt."""

import logging
import random
from collections import Counter
from pathlib import Path

import pytest

from resalign.config.digits import DigitsConfig
from resalign.config.prompts import PromptColumns
from resalign.data.prompts import Prompt, counted_as, evenly_chosen, read_prompts, write_prompts
from resalign.diffusion.images import ImageStore
from resalign.digits.prompt_lists import prompt_lists
from resalign.errors import DataError
from resalign.files import whole

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_prompts(tmp_path / "prompts.csv", [Prompt(f"p{i}", f"prompt {i}") for i in range(5)])
    return tmp_path / "prompts.csv"


def test_a_split_and_what_skips_it_are_the_whole_list(path: Path) -> None:
    rest = read_prompts(path, columns=PromptColumns(skip=2))
    assert read_prompts(path, 2) + rest == read_prompts(path)
    assert [prompt.id for prompt in read_prompts(path, 2, PromptColumns(skip=2))] == ["p2", "p3"]


@pytest.mark.parametrize(
    ("skip", "limit", "message"),
    [
        (0, 6, "the tier or 'first' asks for 6 prompts, the list has 5; lower the number"),
        (3, 3, "asks for 3 prompts, the list has 2 beyond the 3 that are skipped; lower the"),
        (5, None, "the list has 5 prompts, of which 'skip: 5' leaves none; lower skip"),
        (5, 1, "the list has 5 prompts, of which 'skip: 5' leaves none; lower skip"),
        (8, None, "of which 'skip: 8' leaves none"),
    ],
)
def test_a_list_that_is_too_short(path: Path, skip: int, limit: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_prompts(path, limit, PromptColumns(skip=skip))


def test_a_row_without_a_value_does_not_match(tmp_path: Path) -> None:
    rows = ['"class": "2"', '"class": null', '"other": 1', '"class": 2']
    lines = [f'{{"id": {number}, "prompt": "a", {row}}}\n' for number, row in enumerate(rows)]
    (tmp_path / "p.jsonl").write_text("".join(lines))
    prompts = read_prompts(tmp_path / "p.jsonl", columns=PromptColumns(where={"class": "2"}))
    assert [prompt.id for prompt in prompts] == ["0", "3"]


# --- forms of a list --------------------------------------------------------------------------------------------------


def test_a_text_file_is_a_prompt_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes('\ufeffa red two, "plain"\r\n\r\n  a blue\u2028three \n  \nid\n'.encode())
    with caplog.at_level(logging.INFO, logger="resalign"):
        prompts = read_prompts(path)
    texts = ['a red two, "plain"', "a blue\u2028three", "id"]
    assert [(prompt.id, prompt.text) for prompt in prompts] == list(zip("012", texts, strict=True))
    assert "3 prompts; 2 blank lines are left out" in caplog.text
    assert read_prompts(path, columns=PromptColumns(id=None)) == prompts
    for columns in (PromptColumns(id="key"), PromptColumns(where={"class": "2"})):
        with pytest.raises(DataError, match="a prompt a line has no columns"):
            read_prompts(path, columns=columns)
    path.write_text("\n".join(f"prompt {i}" for i in range(11)))
    assert [prompt.id for prompt in read_prompts(path, 2)] == ["00", "01"]
    assert [prompt.id for prompt in read_prompts(path, 2, PromptColumns(skip=3))] == ["03", "04"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.txt", "id,prompt\n0,a red two\n", "begins with 'id,prompt', as a table does; name the file .csv"),
        ("p.txt", '{"prompt": "a red two"}\n', "as a table does; name the file .csv or .jsonl"),
        ("p.txt", "a red two\n# threes\na blue three\n", "1 lines begin with '#', the first is '# threes'"),
        ("p.csv", "", r"is empty; expected columns \['id', 'prompt'\]"),
        ("p.csv", "id,prompt\n", "holds no prompts"),
        ("p.csv", "id,prompt\np0,\np1,  \n", "holds no prompts"),
        ("p.csv", "id,text\np0,a red two\n", r"no column \['prompt'\]; found \['id', 'text'\]"),
        ("p.csv", "id,prompt\np0,a red two\np0,a blue two\n", "id 'p0' occurs 2 times"),
        ("p.csv", "id,prompt\n,a\n4,b\n", "1 prompts have nothing in column 'id'"),
        (
            "p.csv",
            f"id,prompt\n{'a' * 201},a dog\n",
            "has 201 bytes, and images are named by it: at most 200; shorten it",
        ),
        ("p.csv", f"id,prompt\n{'ä' * 101},a dog\n", "has 202 bytes"),
        ("p.csv", f"id,prompt\np0,{'a' * 20_001}\n", "prompt 'p0' has 20001 characters; at most 20000"),
        ("p.csv", f"id,prompt,label\np0,a dog,{'a' * 20_001}\n", "the label of prompt 'p0' has 20001 characters"),
        ("p.csv", f"id,prompt\np0,{'a' * 5_000_000}\n", "field larger than"),
        ("p.txt", "\n  \n", "holds no prompts"),
        ("p.txt", "", "holds no prompts"),
        (
            "p.csv",
            "a red two\na blue three\n",
            "the first line, 'a red two', is read as the header; .* name the file .txt",
        ),
        ("p.csv", "prompt\na red two\n", r"no column \['id'\]; .*write 'columns: \{id: null\}' to number the rows"),
        ("p.csv", "id,prompt,label,label\n0,a red two,two,three\n", r"columns \['label'\] are there more than once"),
        ("p.jsonl", '"a red two"\n"a blue three"\n', "line 1 is str .'a red two'.; expected one object a line"),
        ("p.jsonl", '[["id", "0"], ["prompt", "a red two"]]\n', "line 1 is a list"),
        ("p.jsonl", '{"id": "0", "prompt": "a", "prompt": "b"}\n', r"keys \['prompt'\] are there more than once"),
        ("p.jsonl", '{"id": 0, "prompt": ["a", "b"]}\n', "row 0: column 'prompt' holds a list"),
        ("p.jsonl", '{"id": 0, "prompt": "a"}\n{"id": 1, "prompt": null}\n', "row 1: column 'prompt' holds nothing"),
        ("p.jsonl", '{"id": 0, "prompt": "a", "label": true}\n', "column 'label' holds true or false"),
    ],
)
def test_lists_of_another_form_say_so(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=expected) as caught:
        read_prompts(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert len(str(caught.value)) < 500
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="no such prompt list; expected a table with columns"):
        read_prompts(tmp_path / name)


def test_json_lines_end_at_a_line_feed_alone(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        '{"id": 007, "prompt": "x"}\n'.replace("007", "7") + '{"id": "b", "prompt": "a\u2028b\x85"}'
    )
    assert [(p.id, p.text) for p in read_prompts(tmp_path / "p.jsonl")] == [("7", "x"), ("b", "a\u2028b\x85")]


# --- which prompts a tier takes ---------------------------------------------------------------------------------------


def by_class(per_label: int = 6) -> list[Prompt]:
    """A list ordered by class."""
    return [Prompt(f"{label}{i}", f"a {label} of kind {i}", label) for label in "abc" for i in range(per_label)]


def test_a_choice_is_even_over_labels_and_a_larger_one_has_the_smaller(tmp_path: Path) -> None:
    prompts = by_class()
    write_prompts(tmp_path / "p.csv", prompts)
    before: set[str] = set()
    for count in range(1, len(prompts) + 1):
        chosen = read_prompts(tmp_path / "p.csv", count, choice="even")
        per_label = Counter(prompt.label for prompt in chosen)
        assert max(per_label.values()) - min(per_label[label] for label in "abc") <= 1
        assert before < {prompt.id for prompt in chosen}
        assert chosen == [prompt for prompt in prompts if prompt in chosen], "the list's own order"
        before = {prompt.id for prompt in chosen}
    assert read_prompts(tmp_path / "p.csv", choice="even") == prompts
    assert read_prompts(tmp_path / "p.csv", 6) == prompts[:6], "the first, where they are asked for"


def test_a_choice_depends_on_texts_and_labels_alone() -> None:
    prompts = by_class()
    chosen = {prompt.text for prompt in evenly_chosen(prompts, 6)}
    shuffled = random.Random(0).sample(prompts, len(prompts))
    renamed = [Prompt(str(i), prompt.text, prompt.label) for i, prompt in enumerate(shuffled)]
    assert {prompt.text for prompt in evenly_chosen(renamed, 6)} == chosen
    # Of a longer list with another label, what is chosen of the others stays.
    more = evenly_chosen([*prompts, *(Prompt(f"d{i}", f"d {i}", "d") for i in range(6))], 8)
    assert {prompt.text for prompt in more if prompt.label != "d"} == chosen
    kinds = [("a", 1), ("a", 2), ("b", 2), ("b", 4), ("c", 1), ("c", 3)]
    assert chosen == {f"a {label} of kind {kind}" for label, kind in kinds}, "another hash samples other prompts"


def test_a_choice_takes_every_text_before_it_takes_one_again() -> None:
    prompts = [Prompt(str(i), f"text {i // 12}") for i in range(60)]
    for count in range(1, 61):
        assert len({prompt.text for prompt in evenly_chosen(prompts, count)}) == min(count, 5)


# --- what counts as one prompt ----------------------------------------------------------------------------------------


def test_a_repeated_text_is_one_prompt_of_more_images() -> None:
    texts = ["a red two", "Café", " a red two ", "Cafe\u0301", "A red two"]
    images = [(Prompt(f"p{i}", text), index) for i, text in enumerate(texts) for index in range(2)]
    assert counted_as(images) == [
        *(("p0", 0), ("p0", 1)),
        *(("p1", 0), ("p1", 1)),
        *(("p0", 2), ("p0", 3)),
        *(("p1", 2), ("p1", 3)),
        *(("p4", 0), ("p4", 1)),
    ]


def test_where_no_text_repeats_images_are_counted_as_they_are_made() -> None:
    images = [(prompt, index) for prompt in by_class() for index in range(3)]
    assert counted_as(images) == [(prompt.id, index) for prompt, index in images]


def test_no_shipped_list_repeats_a_text() -> None:
    lists = dict(prompt_lists(DigitsConfig()))
    for path in (ROOT / "config").glob("*prompts/*.csv"):
        lists[path.name] = read_prompts(path, columns=PromptColumns(id=None))
    assert len(lists) == 8 + 11
    for name, prompts in lists.items():
        assert len({key for key, _ in counted_as([(prompt, 0) for prompt in prompts])}) == len(prompts), name


def test_the_longest_id_is_part_of_a_files_name(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text(f"id,prompt\n{'ä' * 100},a dog\n", encoding="utf-8")
    [prompt] = read_prompts(tmp_path / "prompts.csv")
    with whole(ImageStore(tmp_path).path(prompt, 99_999)) as part:
        part.touch()
    assert len(list(tmp_path.glob("*.png"))) == 1
