"""Reads prompt lists: tables with one prompt per row, as released, or text files with one prompt per line."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from resalign.config.prompts import LABEL, Choice, PromptColumns
from resalign.data.images import check_prompt
from resalign.data.tables import Table, read_table
from resalign.errors import DataError
from resalign.files import whole
from resalign.hashes import verified
from resalign.tensors.seeds import derive_seed
from resalign.tracking import log

MAX_ID_BYTES = 200  # a file name has 255, of which the text's hash, the image's number and a process need some
LINES = ".txt"  # of a list without columns, a prompt a line


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        id: Key of its initial noise; never changes once images exist.
        text: What the model is given; may be empty (I2P has such a case), but not a whole list of them.
        label: What the image should show, for metrics that ask; '' if unknown.
    """

    id: str
    text: str
    label: str = ""


def read_prompts(
    path: Path, limit: int | None = None, columns: PromptColumns | None = None, choice: Choice = "first"
) -> list[Prompt]:
    """A list's prompts, or some of them, in the list's order.

    Args:
        path: A table: CSV, whose quoted prompts may span lines, JSON lines or parquet; or a ``.txt`` with a prompt a
            line.
        limit: How many; None for all. A larger choice has every prompt of a smaller one.
        columns: What the table's columns hold; None for id, prompt and, where a metric needs it, label.
        choice: Which of them: the first, or :func:`evenly_chosen` ones.

    Raises:
        DataError: If the file is missing or no such table, lacks a column, has no row that counts, lacks or repeats an
            id, holds empty prompts only, or fewer prompts than asked for.
    """
    columns = columns or PromptColumns()
    prompts = _read_lines(path, columns) if path.suffix == LINES else _read_rows(path, columns)
    for prompt in prompts:
        check_prompt(prompt.text, f"{path}: prompt {prompt.id[:80]!r}")
        check_prompt(prompt.label, f"{path}: the label of prompt {prompt.id[:80]!r}")
        if len(prompt.id.encode()) > MAX_ID_BYTES:
            raise DataError(
                f"{path}: the id {prompt.id[:80]!r}… has {len(prompt.id.encode())} bytes, and images are named by it: "
                f"at most {MAX_ID_BYTES}; shorten it, or write 'columns: {{id: null}}' to number the rows"
            )
    if not any(prompt.text.strip() for prompt in prompts):
        condition = f" where {columns.where}" if columns.where else ""
        raise DataError(f"{path}: the prompt list holds no prompts{condition}")
    nameless = sum(not prompt.id.strip() for prompt in prompts)
    if nameless:
        raise DataError(f"{path}: {nameless} prompts have nothing in column {columns.id!r}; give each an id of its own")
    identifier, times = Counter(prompt.id for prompt in prompts).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path}: id {identifier!r} occurs {times} times; an image's noise is keyed by it")
    available = len(prompts) - columns.skip
    if available < 1:
        raise DataError(
            f"{path}: the list has {len(prompts)} prompts, of which 'skip: {columns.skip}' leaves none; lower skip"
        )
    if limit is not None and available < limit:
        skipped = f" beyond the {columns.skip} that are skipped" if columns.skip else ""
        raise DataError(
            f"{path}: the tier or 'first' asks for {limit} prompts, the list has {available}{skipped}; lower the number"
        )
    rest = prompts[columns.skip :]
    return rest[:limit] if choice == "first" or limit is None else evenly_chosen(rest, limit)


def evenly_chosen(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Chooses ``count`` prompts evenly over labels, and returns them in the list's order.

    Labels take turns. Within a label, new texts come before repeated ones, in an order that each text's hash decides:
    other prompts do not influence it, and a larger choice contains every smaller one.
    """
    copies: Counter[tuple[str, str]] = Counter()
    by_label: dict[str, list[tuple[int, int, int]]] = {}  # (copy, random number, place in the list)
    for place, prompt in enumerate(prompts):
        key = prompt.label, same_text(prompt.text)
        by_label.setdefault(prompt.label, []).append((copies[key], derive_seed("prompt", key[1]), place))
        copies[key] += 1
    turns = [
        (turn, derive_seed("label", label), place)
        for label, ranked in by_label.items()
        for turn, (_, _, place) in enumerate(sorted(ranked))
    ]
    return [prompts[place] for place in sorted(place for _, _, place in sorted(turns)[:count])]


def same_text(text: str) -> str:
    """The key under which two prompts count as one: their text in Unicode's form NFC, without outer spaces."""
    return unicodedata.normalize("NFC", text).strip()


def counted_as(images: Sequence[tuple[Prompt, int]]) -> list[tuple[str, int]]:
    """The id and image index under which each image is counted; a repeated text counts as one prompt with more images.

    Intervals treat prompts as the sample, and a repeated text is not a further draw. It is counted under the id of its
    first occurrence. The noise is still keyed by each occurrence's own id, so that the images differ.

    Args:
        images: (prompt, image index) of every image, a prompt's images in order.
    """
    first: dict[str, str] = {}
    so_far: Counter[str] = Counter()
    counted = []
    for prompt, _ in images:
        text = same_text(prompt.text)
        counted.append((first.setdefault(text, prompt.id), so_far[text]))
        so_far[text] += 1
    return counted


def _numbers(count: int) -> list[str]:
    """Ids of rows without ids of their own, all of one width."""
    return [f"{number:0{len(str(max(count - 1, 0)))}d}" for number in range(count)]


def _read_lines(path: Path, columns: PromptColumns) -> list[Prompt]:
    """The lines of a ``.txt`` file that are not blank, one prompt each."""
    _check_is_there(path)
    if columns.id not in (None, PromptColumns().id) or columns.where:
        raise DataError(f"{path}: a prompt a line has no columns; take 'id' and 'where' out of 'columns'")
    try:
        lines = verified(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not in UTF-8 ({error}); save it as UTF-8") from None
    texts = [line.strip() for line in lines]
    names = [name.strip(" \"'") for name in re.split("[,;\t]", texts[0])]
    if texts[0].startswith('{"') or (len(names) > 1 and columns.prompt in names):
        raise DataError(f"{path}: begins with {texts[0][:80]!r}, as a table does; name the file .csv or .jsonl")
    comments = [text for text in texts if text.startswith("#")]
    if comments:
        raise DataError(
            f"{path}: {len(comments)} lines begin with '#', the first is {comments[0][:80]!r}; take comments out, and "
            "give prompts that begin so in a CSV table"
        )
    prompts = [text for text in texts if text]
    blank = len(texts) - len(prompts) - (not texts[-1])  # what follows the last line feed is no line
    if blank:
        log.info("%s: %d prompts; %d blank lines are left out", path, len(prompts), blank)
    return [Prompt(number, text) for number, text in zip(_numbers(len(prompts)), prompts, strict=True)]


def _check_is_there(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"{path}: no such prompt list; expected a table with columns id, prompt, or a .txt with a prompt a line"
        )


def _read_rows(path: Path, columns: PromptColumns) -> list[Prompt]:
    """The rows of a table for which ``where`` holds, as text: ids keep their zeros, and a prompt may be "null"."""
    _check_is_there(path)
    table = read_table(path, numbers_as_text=True)
    label = () if columns.label == LABEL else (columns.label,)
    names = [name for name in (columns.id, columns.prompt, *label, *columns.where) if name is not None]
    if not table.columns:
        raise DataError(f"{path}: the prompt list is empty; expected columns {names}")
    missing = [name for name in dict.fromkeys(names) if name not in table.columns]
    if missing:
        raise DataError(f"{path}: no column {missing}; {_remedy(table, missing, columns)}")

    def text(number: int, column: str) -> str:
        value = table.rows[number].get(column)
        return str(value) if type(value) is int else table.text(number, column)

    prompts, conditions = [], columns.where.items()
    for number, default in enumerate(_numbers(len(table.rows))):
        row = table.rows[number]
        identifier = default if columns.id is None else text(number, columns.id)
        prompt = Prompt(identifier, text(number, columns.prompt))
        if row.get(columns.label) is not None:  # it may be unknown
            prompt = replace(prompt, label=text(number, columns.label))
        if all(row.get(name) is not None and _has_word(text(number, name), word) for name, word in conditions):
            prompts.append(prompt)
    return prompts


def _remedy(table: Table, missing: Sequence[str], columns: PromptColumns) -> str:
    """The remedy where a table lacks columns."""
    names = list(table.columns)
    if missing == [columns.id]:
        return f"found {names}; write 'columns: {{id: null}}' to number the rows, or name the column of the ids there"
    if len(names) == 1 and columns.prompt not in names and Path(table.label).suffix == ".csv":
        return f"the first line, {names[0][:80]!r}, is read as the header; if it is a prompt, name the file .txt"
    return f"found {names}; name the list's own under 'columns'"


def _has_word(text: str, word: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text))


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Writes a prompt list."""
    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(p.id, p.text, p.label) for p in prompts]
    with whole(path) as part:
        pd.DataFrame(rows, columns=["id", "prompt", "label"]).to_csv(part, index=False)
