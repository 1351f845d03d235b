"""One reader of captions: folders as Hugging Face's imagefolder has them, in place, prepared and from archives."""

import functools
import json
import logging
import os
import runpy
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from resalign.analysis.collect import images_of
from resalign.config.captions import caption_tables
from resalign.data.images import read_captioned_images, read_folder_captions
from resalign.data.members import open_members
from resalign.data.sets import contaminated, image_folder
from resalign.errors import DataError
from tests.data.pictures import picture, rows_of, write_table, write_zip

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
COMPOSED, APART = (unicodedata.normalize(form, "für/größe é.png") for form in ("NFC", "NFD"))


def written(folder: Path, captions: dict[str, Any], table: str = "metadata.csv", column: str = "text") -> Path:
    """A folder of images and its table."""
    write_table(folder / table, [{"file_name": name, column: caption} for name, caption in captions.items()])
    for number, name in enumerate(captions):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
    return folder


def in_place(folder: Path) -> dict[str, str]:
    found = read_captioned_images(folder, pixels=8)
    assert found.load().shape == (len(found), 3, 8, 8)
    return dict(zip((file.relative_to(folder).as_posix() for file in found.files), found.prompts, strict=True))


def prepared(folder: Path) -> dict[str, str]:
    out = folder.with_name("out")
    image_folder.prepare(image_folder.Config(source=str(folder)), out)
    return {row["source"]: row["prompt"] for row in rows_of(out / "train")}


def mixed(folder: Path) -> dict[str, str]:
    out = folder.with_name("mixed")
    contaminated.prepare(contaminated.Config(clean=str(folder), harmful=str(folder), ratio=0.0), out)
    return {row["source"].removeprefix("clean/"): row["prompt"] for row in rows_of(out / "train")}


@functools.cache
def score_script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "score.py"))


def scored(folder: Path) -> dict[str, str]:
    frame = score_script()["read_manifest"](
        next((folder / name for name in TABLES if (folder / name).is_file()), folder / TABLES[0])
    )
    assert list(frame["path"]) == [str(folder / name) for name in frame["prompt_id"]]
    return dict(zip(frame["prompt_id"], frame["prompt"], strict=True))


ROUTES = pytest.mark.parametrize("read", [in_place, prepared, mixed, scored])
Read = Callable[[Path], dict[str, str]]


# --- imagefolder ------------------------------------------------------------------------------------------------------


@ROUTES
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("column", ["text", "caption", "prompt"])
def test_a_folder_of_datasets_imagefolder_is_read(tmp_path: Path, read: Read, table: str, column: str) -> None:
    captions = {"b.png": 'a cat, "sitting"', "a.png": "ein Hund für 7 €\nin two lines"}
    assert read(written(tmp_path / "mine", captions, table, column)) == captions


@ROUTES
def test_folders_inside_have_tables_of_their_own(tmp_path: Path, read: Read) -> None:
    mine = tmp_path / "mine"
    written(mine / "cats", {"a.png": "a cat", "more/b.png": "another cat"}, "metadata.jsonl")
    written(mine / "dogs", {"a.png": "a dog"}, "metadata.csv")
    assert read(mine) == {"cats/a.png": "a cat", "cats/more/b.png": "another cat", "dogs/a.png": "a dog"}
    assert images_of(mine / "metadata.csv") == 3
    written(mine, {"top.png": "top"})
    assert len(read(mine)) == images_of(mine / "metadata.csv") == 4
    (mine / "metadata.csv").unlink()
    assert set(caption_tables(str(mine))) == {f"{mine}/cats/metadata.jsonl", f"{mine}/dogs/metadata.csv"}


@pytest.mark.parametrize("table", TABLES)
def test_the_report_counts_a_tables_rows_without_its_images(tmp_path: Path, table: str) -> None:
    for folder in (tmp_path / ".checkpoints", tmp_path):  # a hidden table does not count
        with pytest.raises(DataError, match="missing, and no folder beside it has a table of captions"):
            images_of(tmp_path / table)
        write_table(folder / table, [{"file_name": f"{n}.png", "prompt": "a,\nb"} for n in range(3)])
    assert images_of(tmp_path / table) == 3


def test_training_and_testing_images_are_not_one_set_unasked(tmp_path: Path) -> None:
    for split in ("train", "test"):
        written(tmp_path / "mine" / split, {f"{split}.png": split})
    with pytest.raises(
        DataError, match=r"mine: holds the splits \['test', 'train'\], .*name the folder of one of them"
    ):
        in_place(tmp_path / "mine")
    assert in_place(tmp_path / "mine" / "train") == {"train.png": "train"}
    assert len(prepared(tmp_path / "mine")) == 2


@ROUTES
def test_two_tables_in_one_folder_are_refused(tmp_path: Path, read: Read) -> None:
    written(tmp_path / "mine", {"a.png": "a"}, "metadata.csv")
    written(tmp_path / "mine", {"a.png": "b"}, "metadata.jsonl")
    with pytest.raises(DataError, match=r"has both 'metadata.csv' and 'metadata.jsonl'; keep the one that holds"):
        read(tmp_path / "mine")


# --- what is refused, what is left out --------------------------------------------------------------------------------


@ROUTES
@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.parquet"])
@pytest.mark.parametrize("caption", [["a", "b"], {"en": "a"}, 7, 1.5, True, None])
def test_a_caption_that_is_no_text_is_refused(tmp_path: Path, read: Read, table: str, caption: Any) -> None:
    written(tmp_path / "mine", {"a.png": caption}, table)
    with pytest.raises(DataError, match=rf"{table}: row 0: column 'text' holds .*; write one text in its place"):
        read(tmp_path / "mine")


@ROUTES
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("again", ["a.png", "./a.png"])
def test_two_captions_of_one_image_are_refused(tmp_path: Path, read: Read, table: str, again: str) -> None:
    written(tmp_path / "mine", {"a.png": "a", "b.png": "b", again if again != "a.png" else "c.png": "c"}, table)
    if again == "a.png":
        rows = [{"file_name": name, "text": name} for name in ("a.png", "b.png", "a.png")]
        write_table(tmp_path / "mine" / table, rows)
    with pytest.raises(DataError, match=rf"{table}: row 2 and {table}: row 0 are both for 'a.png'; keep one caption"):
        read(tmp_path / "mine")


def test_two_tables_captions_of_one_image_are_refused(tmp_path: Path) -> None:
    written(written(tmp_path / "mine", {"in/a.png": "a"}) / "in", {"a.png": "b"})
    with pytest.raises(DataError, match=r"mine/metadata.csv: row 0 and in/metadata.csv: row 0 are both for 'in/a.png'"):
        in_place(tmp_path / "mine")


def test_what_is_left_out_is_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = written(tmp_path / "mine", {"a.png": "a"})
    for name in ("b.jpg", "photo.heic", "notes.md", "run.json", "contamination.json", ".DS_Store"):
        (mine / name).write_bytes(b"x")
    with caplog.at_level(logging.INFO, logger="resalign"):
        assert in_place(mine) == {"a.png": "a"}
    assert caplog.messages == [
        f"{mine}: left out: 1 images without a row in a table: b.jpg",
        f"{mine}: left out: 2 files that are no images by their names: notes.md, photo.heic",
    ]


def test_files_of_other_kinds_are_counted_where_no_table_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files: dict[str, bytes | str] = {f"dog/{n}.{suffix}": picture(n) for n, suffix in enumerate(("PNG", "jfif", "jpe"))}
    path = write_zip(tmp_path / "mine.zip", {**files, **{f"{n}.avif": "x" for n in range(5)}})
    with caplog.at_level(logging.INFO, logger="resalign"):
        image_folder.prepare(image_folder.Config(source=str(path), caption="a {label}"), tmp_path / "out")
    assert len(rows_of(tmp_path / "out" / "train")) == 3
    left = f"{path}: left out: 5 files that are no images by their names: 0.avif, 1.avif, 2.avif, …"
    assert caplog.messages == [left]


def test_an_archive_beside_a_table_or_a_folder_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for mine in (written(tmp_path / "flat", {"a.png": "a"}), written(tmp_path / "deep" / "in", {"a.png": "a"}).parent):
        write_zip(mine / "backup.zip", {"old.png": picture(), "metadata.csv": "file_name,text\nold.png,old\n"})
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="resalign"):
            assert list(prepared(mine).values()) == ["a"]
        assert caplog.messages == [f"{mine}: left out: 1 files that are no images by their names: backup.zip"]


def test_an_archive_alone_is_read_and_the_log_says_what_lies_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = tmp_path / "mine"
    write_zip(mine / "data.zip", {"a.png": picture(), "metadata.csv": "file_name,text\na.png,a\n"})
    for name in ("README.md", "run.json", "._data.zip"):
        (mine / name).write_bytes(b"x")
    (mine / ".cache").mkdir()
    with caplog.at_level(logging.INFO, logger="resalign"):
        assert prepared(mine) == {"a.png": "a"}
    assert caplog.messages == [f"{mine}: left out: 1 files beside data.zip: README.md"]


# --- names and separators ---------------------------------------------------------------------------------------------


@ROUTES
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(("on_disk", "in_table"), [(APART, COMPOSED), (COMPOSED, APART), (APART, APART)])
def test_names_whose_accents_are_apart(tmp_path: Path, read: Read, table: str, on_disk: str, in_table: str) -> None:
    mine = written(tmp_path / "mine", {on_disk: "a"}, table)
    write_table(mine / table, [{"file_name": in_table, "text": "a"}])
    assert read(mine) == {on_disk: "a"}


def test_a_name_that_may_be_either_of_two_files(tmp_path: Path) -> None:
    one, other = "e\u0301\u0323.png", "e\u0323\u0301.png"  # both are U+1EB9 U+0301
    mine = written(tmp_path / "mine", {one: "a", other: "b"})
    assert in_place(mine) == {one: "a", other: "b"}
    write_table(mine / "metadata.csv", [{"file_name": "\u1eb9\u0301.png", "text": "a"}])
    with pytest.raises(DataError, match=r"may be any of .*; rename all but one"):
        in_place(mine)


@ROUTES
@pytest.mark.parametrize("separator", ["\u2028", "\u0085"])
def test_separators_of_lines_within_a_caption(tmp_path: Path, read: Read, separator: str) -> None:
    captions = {"a.png": f"one{separator}two", "b.png": "three"}
    assert read(written(tmp_path / "mine", captions, "metadata.jsonl")) == captions


@ROUTES
def test_backslashes_in_a_table_separate_folders(tmp_path: Path, read: Read) -> None:
    mine = written(tmp_path / "mine", {"cats/a.png": "a cat"})
    write_table(mine / "metadata.csv", [{"file_name": "cats\\a.png", "text": "a cat"}])
    assert read(mine) == {"cats/a.png": "a cat"}
    write_table(mine / "metadata.csv", [{"file_name": "..\\mine\\cats\\a.png", "text": "a cat"}])
    with pytest.raises(DataError, match="leads out of its folder"):
        read(mine)


def zip_of(path: Path, names: dict[str, str], *, flags: int = 0) -> Path:
    """An archive of the names' bytes as they are, which zipfile itself would mend and mark as UTF-8."""
    lines = [json.dumps({"file_name": table, "text": table}) for table in names.values()]
    write_zip(path, {"metadata.jsonl": "\n".join(lines), **{f"{n:08d}": picture(n) for n in range(len(names))}})
    content = path.read_bytes()
    for number, name in enumerate(names):
        raw = name.encode()
        assert len(raw) == 8
        content = content.replace(f"{number:08d}".encode(), raw)
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert all(info.flag_bits == flags for info in archive.infolist())
    return path


def test_a_zip_whose_folders_are_separated_by_backslashes(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "mine.zip", {"in\\a.png": "in/a.png", "in\\b.png": "in\\b.png"})
    assert prepared(path) == {"in/a.png": "in/a.png", "in/b.png": "in\\b.png"}


def test_a_zip_of_macos_has_names_in_utf_8_and_does_not_say_so(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "mine.zip", {"ae\u0301.png": "a\u00e9.png"})
    assert prepared(path) == {"ae\u0301.png": "a\u00e9.png"}


def test_a_folders_name_is_a_caption_of_whole_letters(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "é_a")
    path = write_zip(tmp_path / "mine.zip", {f"{name}/a.png": picture()})
    config = image_folder.Config(source=str(path), below=unicodedata.normalize("NFC", "é_a"), caption="{label}")
    image_folder.prepare(config, tmp_path / "out")
    assert [row["prompt"] for row in rows_of(tmp_path / "out" / "train")] == ["\u00e9 a"]


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / os.fsdecode(b"gr\xf6\xdfe.png")).write_bytes(picture())
    with pytest.raises(DataError, match=r"the name 'gr\\udcf6\\udcdfe.png' is no text in UTF-8; rename the file"):
        with open_members(tmp_path / "mine"):
            pass


def test_images_may_be_linked_into_a_folder_of_ones_own(tmp_path: Path) -> None:
    written(tmp_path / "elsewhere", {"a.png": "a"})
    mine = tmp_path / "mine"
    write_table(mine / "metadata.csv", [{"file_name": name, "text": "a"} for name in ("a.png", "all/a.png")])
    (mine / "a.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (mine / "all").symlink_to(tmp_path / "elsewhere")
    assert in_place(mine) == {"a.png": "a", "all/a.png": "a"}
    with pytest.raises(DataError, match=r"a link out of its folder, or to a folder"):
        prepared(mine)


def test_what_is_missing_is_said_before_any_image_is_read(tmp_path: Path) -> None:
    written(tmp_path / "mine", {"a.png": "a", "b.png": "b"})
    (tmp_path / "mine" / "b.png").unlink()
    with pytest.raises(DataError, match=r"metadata.csv: row 1: there is no image 'b.png' beside it; put it there"):
        read_folder_captions(tmp_path / "mine")


def test_the_frame_of_a_reference_is_text_throughout(tmp_path: Path) -> None:
    """A file name of digits alone stays one."""
    mine = written(tmp_path / "mine", {"007": "a"}, column="prompt")
    assert scored(mine) == {"007": "a"}
    assert pd.read_csv(mine / "metadata.csv")["file_name"].tolist() == [7]
