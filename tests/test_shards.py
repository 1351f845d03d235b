"""Files in shards: what goes in comes out, equal files make equal bytes, and damage is never another file."""

import zipfile
from pathlib import Path

import pytest

from resalign import shards
from resalign.errors import DataError

FILES = {"a.webp": b"first", "b.webp": bytes(range(8)) * 3, "é.webp": b"x"}


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    (tmp_path / "loose").mkdir()
    for name, content in FILES.items():
        (tmp_path / "loose" / name).write_bytes(content)
    made = tmp_path / "0001.zip"
    shards.write(made, [tmp_path / "loose" / name for name in FILES])
    return made


def read(path: Path) -> bytes:
    with shards.opened(path) as stream:
        return stream.read()


def test_members_are_read_by_their_paths(shard: Path) -> None:
    assert {name: read(shard / name) for name in FILES} == FILES
    assert {name: shards.size(shard / name) for name in FILES} == {name: len(own) for name, own in FILES.items()}
    assert {shards.holder(shard / name) for name in FILES} == {shard}
    loose = shard.parent / "loose" / "a.webp"
    assert (read(loose), shards.size(loose), shards.holder(loose)) == (b"first", 5, loose)
    with zipfile.ZipFile(shard) as archive:  # any program can
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert archive.testzip() is None


def test_equal_files_make_equal_bytes(shard: Path) -> None:
    shards.write(shard.with_name("0002.zip"), [shard / name for name in FILES])
    assert shard.with_name("0002.zip").read_bytes() == shard.read_bytes()


@pytest.mark.parametrize("path", ["0001.zip/other.webp", "0002.zip/a.webp", "loose/other.webp"])
def test_what_is_not_there_is_not_found(path: str, shard: Path) -> None:
    for function in (shards.size, shards.opened):
        with pytest.raises(FileNotFoundError, match=path):
            function(shard.parent / path)


def test_a_folder_called_so_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").mkdir()
    (tmp_path / "photos.zip" / "a.png").write_bytes(b"own")
    assert read(tmp_path / "photos.zip" / "a.png") == b"own"


def test_compressed_members_are_none_of_ours(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"a" * 100)
    with pytest.raises(FileNotFoundError):
        shards.opened(tmp_path / "a.zip" / "a.png")


def test_members_are_dropped_and_the_others_stay(shard: Path) -> None:
    before = shard.stat().st_size
    assert shards.drop(shard, {"other"}) == 0
    freed = shards.drop(shard, {"b.webp", "other"})
    assert freed == before - shard.stat().st_size > len(FILES["b.webp"])
    assert {name: read(shard / name) for name in ("a.webp", "é.webp")} == {k: FILES[k] for k in ("a.webp", "é.webp")}
    with pytest.raises(FileNotFoundError):
        shards.size(shard / "b.webp")
    rest = shard.stat().st_size
    assert shards.drop(shard, FILES) == rest
    assert not shard.exists()


def test_any_flipped_bit_gives_the_same_bytes_or_others_or_nothing(shard: Path) -> None:
    """Other bytes are found by their hash; what must not be is an error that nobody expects."""
    whole, outcomes = shard.read_bytes(), set()
    for place in range(8 * len(whole)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        other = shard.with_name(f"{place}.zip")  # each has a name of its own: what is read is kept by name and time
        other.write_bytes(content)
        for name, own in FILES.items():
            try:
                outcomes.add("same" if read(other / name) == own else "others")
            except FileNotFoundError:
                outcomes.add("nothing")
        other.unlink()
    assert outcomes == {"same", "others", "nothing"}


def test_a_cut_shard_has_no_members_and_loses_none(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(FileNotFoundError):
        shards.size(shard / "a.webp")
    with pytest.raises(DataError, match=r"0001.zip: is no whole zip file"):
        shards.drop(shard, FILES)
    assert shard.is_file()
