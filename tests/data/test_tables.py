"""Tables are read strictly: nothing is guessed, nothing of equal name takes another's place."""

import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from resalign.data import tables
from resalign.data.tables import parse_table, read_table
from resalign.errors import DataError
from tests.data.pictures import write_table


def parquet(table: pyarrow.Table) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(table, content)
    return content.getvalue()


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_only_line_feeds_end_a_line(separator: str) -> None:
    """``str.splitlines`` divides at each of these."""
    text = f"two{separator}halves"
    lines = f'{{"text": "{text}"}}\r\n\n{{"text": "b"}}'
    if separator in "\u2028\u2029\u0085":  # JSON has control characters escaped
        assert parse_table("a.jsonl", lines.encode()).rows == [{"text": text}, {"text": "b"}]
    csv = f'text,other\r\n{text},1\n\n"{text}\n{text}",2\n'
    expected = [{"text": text, "other": "1"}, {"text": f"{text}\n{text}", "other": "2"}]
    assert parse_table("a.csv", csv.encode("utf-8-sig")).rows == expected


def test_values_stay_what_they_are() -> None:
    rows = parse_table("a.jsonl", b'{"a": 1.50, "b": null, "c": ["x"], "d": "007"}\n').rows
    assert rows == [{"a": 1.5, "b": None, "c": ["x"], "d": "007"}]
    as_text = parse_table("a.jsonl", b'{"a": 1.50, "b": 12, "d": "007"}\n', numbers_as_text=True)
    assert as_text.rows == [{"a": "1.50", "b": "12", "d": "007"}]
    assert parse_table("a.csv", b"a,b\n007,null\n").rows == [{"a": "007", "b": "null"}]
    assert parse_table("a.parquet", parquet(pyarrow.table({"a": [["x"]], "b": [1]}))).rows == [{"a": ["x"], "b": 1}]


@pytest.mark.parametrize(
    ("label", "content", "message"),
    [
        ("a.csv", b"a,b,a\n1,2,3\n", r"a.csv: the columns \['a'\] are there more than once"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": 1, "a": 2}\n', r"a.jsonl: line 3: the keys \['a'\] are there more than once"),
        ("a.jsonl", b'{"a": {"b": 1, "b": 2}}\n', r"a.jsonl: line 1: the keys \['b'\] are there more than once"),
        (
            "a.parquet",
            parquet(pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 2, names=["a", "a"])),
            r"a.parquet: the columns \['a'\] are there more than once",
        ),
        ("a.csv", b"a,b\n1,2\n3\n", r"a.csv: row 1 has 1 fields, the header of this CSV has 2; put texts that hold"),
        ("a.csv", b"a\n1,2\n", r"a.csv: row 0 has 2 fields, the header of this CSV has 1"),
        ("a.csv", b'a\n"open\n', r"a.csv: not a whole CSV table in UTF-8 \(unexpected end of data\)"),
        ("a.csv", "a\ngr\u00f6\u00dfe\n".encode("latin-1"), r"a.csv: not a whole CSV table in UTF-8"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a.jsonl: not a whole JSON lines table in UTF-8 \(line 2: "),
        ("a.jsonl", b'{"a": 1}\n["a"]\n', r"a.jsonl: line 2 is a list \(\['a'\]\); expected one object a line"),
        ("a.jsonl", b"[" * 200_000, r"a.jsonl: not a whole JSON lines table"),
        ("a.parquet", b"PAR1 and no more", r"a.parquet: not a whole parquet table"),
    ],
)
def test_what_is_refused(label: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_table(label, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["a", "b"], r"holds a list \(\['a', 'b'\]\)"),
        ({"en": "a"}, r"holds a struct \(\{'en': 'a'\}\)"),
        (b"a", r"holds bytes \(b'a'\)"),
        (7, r"holds a number \(7\)"),
        (float("nan"), r"holds a number \(nan\)"),
        (True, r"holds true or false \(True\)"),
        (None, r"holds nothing \(null\)"),
    ],
)
def test_what_is_no_text_is_never_made_one(value: Any, told: str) -> None:
    table = parse_table("a.parquet", parquet(pyarrow.table({"text": [value]})))
    with pytest.raises(DataError, match=rf"a.parquet: row 0: column 'text' {told}; write one text in its place"):
        table.text(0, "text")


def test_half_a_character_is_no_text() -> None:
    table = parse_table("a.jsonl", b'{"text": "\\ud83d\\ude00"}\n{"text": "\\ud83d"}\n{"other": "a"}\n')
    assert table.text(0, "text") == "\U0001f600"
    with pytest.raises(DataError, match=r"a.jsonl: row 1: column 'text' holds half a character"):
        table.text(1, "text")
    with pytest.raises(DataError, match=r"a.jsonl: row 2: column 'text' holds nothing"):
        table.text(2, "text")


def test_tables_that_are_larger_than_any_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(5 << 30)  # takes no room
        with pytest.raises(DataError, match=f"{name}: has 5368709120 bytes, at most 4294967296 are read; divide it"):
            read_table(tmp_path / name)
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    write_table(tmp_path / "b.parquet", [{"id": "0"}] * 3)
    with pytest.raises(DataError, match="b.parquet: has 3 rows, at most 2 are read"):
        read_table(tmp_path / "b.parquet")
