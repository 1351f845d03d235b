import io
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from resalign.artifact import archive as archive_module
from resalign.artifact import unpack
from resalign.artifact.archive import sidecar, write_archive
from resalign.artifact.layout import FORMAT, MANIFESTS, covers
from resalign.artifact.unpack import integrity
from resalign.config.strict import ConfigError
from resalign.hashes import DamagedError, Entry, from_text, to_text

CONTENT = {"README.md": b"Read me.\n", "results/a.csv": b"x\n1\n", "provenance/logs/a.log": b"at noon\n", "empty": b""}


def with_manifests(content: Mapping[str, bytes]) -> dict[str, bytes | Path]:
    entries = {name: Entry.of(data) for name, data in content.items()}
    texts = {
        name: to_text({k: entry for k, entry in entries.items() if covers(name, k)}, FORMAT).encode()
        for name in MANIFESTS
    }
    return {**content, **texts}


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_archive(tmp_path / "a.zip", with_manifests(CONTENT))
    return tmp_path / "a.zip"


def test_a_whole_archive_has_no_problem(archive: Path, tmp_path: Path) -> None:
    assert integrity(archive, tmp_path / "unpacked") == []
    assert {
        p.relative_to(tmp_path / "unpacked").as_posix() for p in (tmp_path / "unpacked").rglob("*") if p.is_file()
    } == {
        *CONTENT,
        *MANIFESTS,
    }


def test_bytes_depend_on_content_alone(archive: Path, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.csv"
    file.write_bytes(CONTENT["results/a.csv"])
    file.chmod(0o755)
    other = tmp_path / "other" / "a.zip"
    members = dict(reversed(with_manifests(CONTENT).items()))
    write_archive(other, {**members, "results/a.csv": file})
    assert other.read_bytes() == archive.read_bytes()
    assert sidecar(other).read_bytes() == sidecar(archive).read_bytes()


def test_the_sidecar_is_what_sha256sum_writes(archive: Path) -> None:
    assert sidecar(archive).read_text() == f"{Entry.of(archive).sha256}  a.zip\n"


@pytest.mark.parametrize("member", sorted({*CONTENT, *MANIFESTS} - {"empty"}))
def test_every_flipped_byte_of_a_member_is_named_though_the_digest_is_renewed(member: str, tmp_path: Path) -> None:
    members = with_manifests(CONTENT)
    whole = members[member]
    assert isinstance(whole, bytes)
    for place in range(len(whole)):
        path = tmp_path / str(place) / "a.zip"
        write_archive(path, {**members, member: flipped(whole, place, place % 8)})
        problems = integrity(path, path.parent / "unpacked")
        assert any(problem.startswith(f"{member}:") for problem in problems), (place, problems)
        assert not [problem for problem in problems if problem.startswith("a.zip")]


def test_every_flipped_byte_of_the_archive_is_caught(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
    data: dict[int, str] = {}  # the member of which a byte is compressed content
    for info in infos:
        name_length, extra_length = struct.unpack("<HH", whole[info.header_offset + 26 : info.header_offset + 30])
        begin = info.header_offset + 30 + name_length + extra_length
        data |= dict.fromkeys(range(begin, begin + info.compress_size), info.filename.removeprefix("a/"))
    unnamed = []
    for place in range(len(whole)):
        archive.write_bytes(flipped(whole, place, place % 8))
        problems = integrity(archive, tmp_path / f"unpacked-{place}")
        assert problems[0].startswith("a.zip: sha256 is ")
        if place in data and not any(problem.startswith(f"{data[place]}:") for problem in problems):
            # Bits after a deflated member's end code mean nothing: its content is as it was.
            unpacked = (tmp_path / f"unpacked-{place}" / data[place]).read_bytes()
            assert unpacked == with_manifests(CONTENT)[data[place]]
            unnamed.append(place)
    assert len(unnamed) <= 3 * len(infos)


def test_a_flipped_byte_of_the_sidecar_is_caught(archive: Path, tmp_path: Path) -> None:
    sidecar(archive).write_bytes(flipped(sidecar(archive).read_bytes(), 3))
    assert integrity(archive, tmp_path / "a")[0].startswith("a.zip: sha256 is")
    sidecar(archive).unlink()
    assert integrity(archive, tmp_path / "b") == ["a.zip.sha256: missing; the archive is to be handed on with it"]


def test_members_too_many_or_too_few_are_named(tmp_path: Path) -> None:
    members = with_manifests(CONTENT)
    write_archive(tmp_path / "a.zip", {**{k: v for k, v in members.items() if k != "empty"}, "more": b"x"})
    assert integrity(tmp_path / "a.zip", tmp_path / "unpacked") == [
        "empty: is in manifest.json and not in the archive",
        "more: is in the archive and not in manifest.json",
    ]
    write_archive(tmp_path / "b.zip", CONTENT)
    problems = integrity(tmp_path / "b.zip", tmp_path / "unpacked-b")
    assert problems == ["manifest.json: missing", "provenance/manifest.json: missing"]


def test_a_manifest_is_read_in_its_one_spelling_only() -> None:
    text = to_text({"a": Entry.of(b"1")}, FORMAT).encode()
    assert from_text(text, "m", FORMAT) == {"a": Entry.of(b"1")}
    for other in (text + b"\n", text.replace(b": 1", b":  1"), text.replace(b'"a"', b'"b"'), b"[]", b"\xff"):
        with pytest.raises(DamagedError, match="^m: "):
            from_text(other, "m", FORMAT)


@pytest.mark.parametrize(
    ("names", "mode", "message"),
    [
        (["a/../../evil"], stat.S_IFREG, "none of a file inside"),
        (["/a/evil"], stat.S_IFREG, "none of a file inside"),
        (["a\\..\\evil"], stat.S_IFREG, "none of a file inside"),
        (["a/x", "a/x"], stat.S_IFREG, "twice"),
        (["a/x", "b/y"], stat.S_IFREG, "several folders"),
        (["a/x"], stat.S_IFLNK, "link"),
        (["a/x"], stat.S_IFIFO, "link"),
        (["a/Table.csv", "a/table.csv"], stat.S_IFREG, "are one name on some systems"),
        (["a/Tables/1.csv", "a/tables/2.csv"], stat.S_IFREG, "are one name on some systems"),
        (["a/caf\u00e9", "a/cafe\u0301"], stat.S_IFREG, "are one name on some systems"),
        (["a/x", "a/x/y"], stat.S_IFREG, "are one name on some systems"),
        (["a/.git/config"], stat.S_IFREG, "none of a file inside"),
        (["a/./x"], stat.S_IFREG, "none of a file inside"),
        (["a//x"], stat.S_IFREG, "none of a file inside"),
        (["a/con.csv"], stat.S_IFREG, "none of a file inside"),
        (["a/x."], stat.S_IFREG, "none of a file inside"),
        (["a/x:y"], stat.S_IFREG, "none of a file inside"),
        (["a/\x1b[31mx"], stat.S_IFREG, "none of a file inside"),
        (["a/" + "x" * 256], stat.S_IFREG, "too long"),
        (["a/" + "/".join(["x" * 200] * 6)], stat.S_IFREG, "too long"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_written_outside(names: list[str], mode: int, message: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bad:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.filename = name
            info.external_attr = (mode | 0o644) << 16
            bad.writestr(info, b"evil")
    path = tmp_path / "in" / "a.zip"
    path.parent.mkdir()
    path.write_bytes(buffer.getvalue())
    problems = integrity(path, tmp_path / "in" / "unpacked")
    assert any(message in problem for problem in problems), problems
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "in"]


def problems_of(path: Path, content: bytes, **options: Any) -> list[str]:
    path.write_bytes(content)
    sidecar(path).write_text(f"{Entry.of(path).sha256}  {path.name}\n")
    return integrity(path, path.parent / "unpacked", **options)


def test_what_it_unpacks_to_is_said_before_and_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path / "a.zip", with_manifests({**CONTENT, "bomb": bytes(3_000_000)}))
    assert (tmp_path / "a.zip").stat().st_size < 10_000
    monkeypatch.setattr(unpack, "MOST_BYTES", 1 << 20)
    with caplog.at_level("INFO"):
        [problem] = integrity(tmp_path / "a.zip", tmp_path / "unpacked")
    assert caplog.messages == ["a.zip: 7 files, 0.00 GB unpacked"]
    assert "it declares 0.00 GB; at most 0.00 GB are unpacked: if you trust it, say --most-gigabytes 1" in problem
    assert not (tmp_path / "unpacked").exists()
    assert integrity(tmp_path / "a.zip", tmp_path / "unpacked", 10**9) == []


def test_a_disk_that_is_too_small_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "a.zip", with_manifests(CONTENT))
    monkeypatch.setattr(unpack, "_FREE_BYTES", 1 << 60)
    assert "set TMPDIR to a larger disk" in integrity(tmp_path / "a.zip", tmp_path / "unpacked")[0]
    assert list((tmp_path / "unpacked").iterdir()) == []


def test_a_member_of_more_than_it_declares_is_damaged(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.zip", with_manifests({**CONTENT, "bomb": bytes(3_000_000)}))
    content = (tmp_path / "a.zip").read_bytes().replace(struct.pack("<L", 3_000_000), struct.pack("<L", 10))
    problems = problems_of(tmp_path / "a.zip", content)
    assert problems[0].startswith("bomb: damaged (")
    assert (tmp_path / "unpacked" / "bomb").stat().st_size <= 10


def overlapping(content: bytes) -> bytes:
    """The last entry of the list of members leads to the first one's data."""
    place = content.rindex(b"PK\x01\x02")
    return content[: place + 42] + bytes(4) + content[place + 46 :]


def with_method(content: bytes, method: int) -> bytes:
    place = content.index(b"PK\x01\x02")
    return content[: place + 10] + struct.pack("<H", method) + content[place + 12 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (overlapping, "overlaps another member"),
        (lambda content: b"#!/bin/sh\n" + content, "overlaps another member, or something lies before it"),
        (lambda content: content[:-2] + b"\x04\x00" + b"more", "has a comment or something else behind its end"),
        (lambda content: content + b"more", "has a comment or something else behind its end"),
        (lambda content: with_method(content, zipfile.ZIP_BZIP2), "compressed by method 12"),
        (lambda content: b"", "it is no zip file"),
        (lambda content: b"PK\x05\x06" + bytes(18), "manifest.json: missing"),
    ],
    ids=["overlap", "before", "comment", "behind", "method", "empty", "no-members"],
)
def test_a_file_that_is_more_than_its_members_is_refused(
    change: Callable[[bytes], bytes], said: str, archive: Path
) -> None:
    assert said in problems_of(archive, change(archive.read_bytes()))[0]


def test_a_list_of_members_that_fills_the_memory_is_not_read(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_MAX_DIRECTORY_BYTES", 100)
    monkeypatch.setattr(zipfile, "ZipFile", mock.Mock(side_effect=AssertionError("it is read")))
    assert "its list of members has" in integrity(archive, archive.parent / "unpacked")[0]


def test_nothing_is_unpacked_through_a_link(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "unpacked").symlink_to(tmp_path / "elsewhere")
    assert "is a link, or not empty" in integrity(archive, tmp_path / "unpacked")[0]
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("names", [["inputs/1-2026-01-01T10:00.yaml"], ["aux.py"], ["docs/what?.md"], ["A.md", "a.md"]])
def test_what_nobody_could_unpack_is_not_written(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^a.zip: nobody could unpack it: .*; rename it$"):
        write_archive(tmp_path / "a.zip", dict.fromkeys(names, b""))
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_would_fill_the_memory_is_not_read(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MOST_RECORD_BYTES", 100)
    monkeypatch.setattr(unpack, "_ENTRY_BYTES", 10)
    problems = integrity(archive, archive.parent / "unpacked")
    assert [problem.partition(" bytes; ")[2] for problem in problems] == [
        "at most 100 are read; do not use the archive"
    ] * 2
