"""Folders and files that are made to do harm: each is refused in words, nothing runs, nothing is written elsewhere."""

import gzip
import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resalign.assets import pickles
from resalign.assets.fetch import fetch
from resalign.assets.pickles import check_pickles
from resalign.assets.source import BrokenFileError, Source, UnsafeFileError
from resalign.config.assets import AssetConfig
from resalign.data.images import DataError, read_captioned_images
from resalign.data.members import open_members
from resalign.data.sets import dreambench, image_folder, parquet_dataset
from tests.data.pictures import picture, write_table, write_zip


class Command:
    """Pickles as a call that would leave a file behind."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a test may write; beside it lies what nothing may touch."""
    (tmp_path / "outside.txt").write_text("untouched")
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


@pytest.fixture(autouse=True)
def _nothing_outside(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    yield
    if "place" in request.fixturenames:
        assert {path.name for path in tmp_path.iterdir()} == {"outside.txt", "inside"}
        assert (tmp_path / "outside.txt").read_text() == "untouched"


def from_mirror(place: Path, name: str, content: bytes, sha256: str | None = None) -> dict[str, str]:
    """Fetches one file out of a mirror."""
    asset = AssetConfig(url=f"https://a.example/{name}", sha256=sha256)
    folder = place / "mirror" / "given" / (sha256 or "unpinned")
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return fetch("given", asset, place / "asset", place / "mirror")


# --- what is fetched --------------------------------------------------------------------------------------------------


def as_zip(*files: tuple[str, bytes], compressed: bool = False) -> bytes:
    """A zip file as torch.save writes them."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return content.getvalue()


def as_tar(data: bytes) -> bytes:
    """A tar file, in which torch's very first format kept its pickles."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        info = tarfile.TarInfo("pickle")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def as_array(name: str, values: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, values) if name.endswith(".npy") else np.savez(content, values=values)
    return content.getvalue()


MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
PADDING = b"\x80\x04\x8e" + struct.pack("<Q", 65 << 10) + bytes(65 << 10) + b"."
PLAIN = pickle.dumps({"a": [1.5]}, protocol=2)
PROTOCOL_0 = b"cos\nsystem\n(Vtouch executed\ntR."
# A pickle that takes its function's name from the memo, behind a harmless one.
MEMOISED = (
    b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0bcollections\x94000h\x00h\x01\x93\x8c\x0etouch executed\x85R."
)
HARM = pickle.dumps(Command())
# Every way that was found to lead a scanner past a pickle's call, or to two readers who read different things.
HIDDEN: dict[str, tuple[str, bytes, str]] = {
    "plainly": ("prompts.p", HARM, "a pickle that would call posix.system; it was not loaded; use a safe"),
    "in protocol 0": ("prompts.p", PROTOCOL_0, "would call os.system"),
    "behind a memo": ("prompts.p", MEMOISED, "would call os.system"),
    "in torch's zip": ("weights.pt", as_zip(("a/data.pkl", HARM)), "would call posix.system"),
    # Who looks for a zip from the end finds one without harm; torch looks at the beginning, and finds the pickle.
    "before a zip": ("weights.pt", HARM + as_zip(("a/data.pkl", PLAIN)), "would call posix.system"),
    "in a pickle that is cut off": ("prompts.p", pickle.dumps(["a"] * 100)[:-20], "is no whole pickle"),
    "behind padding in torch's first format": ("a.pt", MAGIC + PADDING + HARM, "than 65536 bytes"),
    "behind padding in a zip": (
        "a.pt",
        as_zip(("a/data.pkl", PADDING[:-1] + b"0" + HARM), compressed=True),
        "than 65536 bytes",
    ),
    "behind a length that is only claimed": (
        "a.pkl",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + HARM,
        "than 65536 bytes",
    ),
    "behind more operations than are read": ("a.pkl", b"\x80\x04" + b"N0" * 501 + HARM, "than 1000 operations"),
    "behind seven other pickles": ("a.pkl", PLAIN * 7 + HARM, "would call posix.system"),
    "in the fifth pickle of torch's": ("a.pt", MAGIC + PLAIN * 3 + HARM, "would call posix.system"),
    "before the pickle breaks off": ("a.pkl", HARM[:-3], "would call posix.system"),
    "in a second pickle of a zip": (
        "a.bin",
        as_zip(("a/data.pkl", PLAIN), ("b/nested/data.PKL", HARM)),
        "would call posix.system",
    ),
    "in a pickle of another suffix in a zip": (
        "a.bin",
        as_zip(("a/data.pkl", PLAIN), ("a/other.bin", HARM)),
        "would call posix.system",
    ),
    "under the same name in capitals": ("a.pt", as_zip(("a/data.pkl", PLAIN), ("a/DATA.PKL", HARM)), "readers differ"),
    "in a zip behind another's beginning": ("a.pt", b"PK\x03\x04" + as_zip(("a/data.pkl", PLAIN)), "readers differ"),
    "in a zip with a wrong checksum": (
        "a.pt",
        as_zip(("a/data.pkl", PLAIN)).replace(PLAIN, PLAIN.replace(b"a", b"b")),
        "Bad CRC-32",
    ),
    "in a zip that says it is encrypted": (
        "a.pt",
        as_zip(("a/data.pkl", HARM)).replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        "encrypted",
    ),
    "in a zip whose two tables differ": (
        "a.pt",
        as_zip(("a/data.pkl", HARM)).replace(b"a/data.pkl", b"a/data.txt", 1),
        "differ",
    ),
    "in a zip without pickles": ("a.pt", as_zip(("a/data", HARM)), "no pickle and no array"),
    "behind a pickle, as a zip": ("a.pt", PLAIN + as_zip(("a/data.pkl", HARM)), "no whole pickle"),
    "behind torch's pickles, as a zip": ("a.pt", MAGIC + PLAIN * 4 + as_zip(("a/data.pkl", HARM)), "an archive, too"),
    "in a tar": ("a.pt", as_tar(HARM), "is no .pt file|no whole pickle"),
    "in a tar under another suffix": ("a.bin", as_tar(HARM), "no whole pickle"),
    "in a 7z archive": ("a.bin", b"7z\xbc\xaf\x27\x1c" + HARM, "no whole pickle"),
    "under a suffix of no pickle": ("a.dat", HARM, "would call posix.system"),
    "in an array of objects": ("a.npy", as_array("a.npy", np.zeros(1, object))[:128] + HARM, "posix.system"),
    "as a numbers' file": ("a.npy", HARM, "no whole pickle"),
    "of joblib": ("a.joblib", HARM, "would call posix.system"),
    "by a name of no text": ("a.pkl", b"\x80\x04\x8c\x02osN0\x8c\x06systemN0\x93.", "does not name"),
    "by a registered extension": ("a.pkl", b"\x80\x02\x82\x01.", "extension 1"),
    "by a part of torch": ("a.pt", b"\x80\x02ctorch.serialization\nload\n.", "torch.serialization.load"),
    "by partial": ("a.pkl", b"\x80\x02cfunctools\npartial\n.", "functools.partial"),
    "by a private module": ("a.pkl", b"\x80\x02c_io\nFileIO\n.", "_io.FileIO"),
    "by a method of what is allowed": (
        "a.pkl",
        b"\x80\x04\x8c\x05torch\x8c\x0cTensor.numpy\x93.",
        "torch.Tensor.numpy",
    ),
}


@pytest.mark.parametrize("way", HIDDEN)
def test_a_pickle_that_hides_its_code(place: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 1000)
    monkeypatch.setattr(pickles, "MAX_PICKLE_BYTES", 1 << 16)
    monkeypatch.chdir(place)
    name, content, message = HIDDEN[way]
    with pytest.raises((UnsafeFileError, BrokenFileError), match=message) as caught:
        from_mirror(place, name, content)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert not (place / "asset" / name).exists()
    assert not (place / "executed").exists()


def test_files_that_begin_like_pickles_and_hold_none(place: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(0x280)
    from_mirror(place / "0", "a.safetensors", struct.pack("<Q", 0x280) + header + bytes(4))
    for number, name in enumerate(("a.npy", "a.npz")):
        from_mirror(place / f"numbers {number}", name, as_array(name, np.ones(3)))
        from_mirror(place / f"texts {number}", name, as_array(name, np.array(["a", None], dtype=object)))


def test_harmless_pickles_pass(place: Path) -> None:
    saved = {"layer.weight": torch.zeros(2, dtype=torch.float16), "b": torch.nn.Parameter(torch.ones(1))}
    for number, zipped in enumerate((True, False)):
        content = io.BytesIO()
        torch.save(OrderedDict(saved), content, _use_new_zipfile_serialization=zipped)
        assert from_mirror(place / str(number), "weights.pt", content.getvalue())
    for protocol in (2, 4, 5):
        array = [np.zeros((2, 3), dtype=np.float16), np.ones(1, dtype=np.float32)]
        assert from_mirror(place / f"array {protocol}", "prompts.p", pickle.dumps(array, protocol=protocol))
    assert from_mirror(place / "backslash", "prompts.p", b"S'a\\y'\n.")  # no warning either


def changed(content: bytes, rng: random.Random) -> bytes:
    """A file with some bytes changed, taken out or put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place, kind = rng.randrange(len(data) + 1), rng.randrange(3)
        if kind == 0:
            data[place : place + 1] = rng.randbytes(1)
        elif kind == 1:
            del data[place : place + rng.randrange(1, 20)]
        else:
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
    return bytes(data)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in a text that pickletools decodes
def test_changed_bytes_are_told_in_one_line_or_pass(place: Path) -> None:
    files = {f"{protocol}.pkl": pickle.dumps([np.ones(2), {"a": 2**80}], protocol) for protocol in range(6)}
    files |= {name: as_array(name, np.array(["a", None], dtype=object)) for name in ("a.npy", "a.npz")}
    for zipped in (True, False):
        content = io.BytesIO()
        torch.save({"w": torch.zeros(3)}, content, _use_new_zipfile_serialization=zipped)
        files[f"{zipped}.pt"] = content.getvalue()
    for name, tar in (("a.tar", as_tar(b"x" * 50)[:2048]), ("a.tgz", gzip.compress(as_tar(b"x" * 50), mtime=0))):
        files[name] = tar
    files["a.zip"] = as_zip(("a.png", b"x" * 50), compressed=True)
    rng, told = random.Random(0), []
    source = Source("given", AssetConfig(url="https://a.example/a"))
    for name in sorted(files) * 40:
        path = place / name
        path.write_bytes(changed(files[name], rng))
        try:
            check_pickles(source, path, name)
            if name.endswith((".tar", ".tgz", ".zip")):
                with open_members(path) as members:
                    for member in members.names:
                        members.read(member)
        except DataError as error:
            told.append(str(error))
    assert len(told) > 200
    assert all(map(str.isprintable, told))


# --- archives ---------------------------------------------------------------------------------------------------------

NAMES = ["../outside.txt", "a/../../outside.txt", "/etc/passwd", "..\\outside.txt", "C:\\outside.txt", "a/\x00b.png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_zip_whose_names_lead_out(place: Path, name: str) -> None:
    with zipfile.ZipFile(place / "data.zip", "w") as archive:
        info = zipfile.ZipInfo("placeholder")
        # ZipInfo's own constructor mends such names; an attacker's tool does not.
        info.filename = name
        archive.writestr(info, picture())
    with pytest.raises(DataError, match=r"data.zip: the name .* leads out of the archive's folder; .*do not use it"):
        dreambench.prepare(dreambench.Config(source=str(place / "data.zip")), place / "out")
    assert not (place / "out").exists()


def tar_of(place: Path, **attributes: Any) -> Path:
    with tarfile.open(place / "data.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        for name, value in attributes.items():
            setattr(info, name, value)
        tar.addfile(info)
    return place / "data.tar"


def zip_with_a_link(place: Path) -> Path:
    info = zipfile.ZipInfo("a.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(place / "data.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return place / "data.zip"


def folder_with_a_link(place: Path) -> Path:
    (place / "mine").mkdir()
    (place / "mine" / "a.png").symlink_to(place.parent / "outside.txt")
    return place / "mine"


def zip_with_a_name_twice(place: Path) -> Path:
    with zipfile.ZipFile(place / "data.zip", "w") as archive:
        archive.writestr("a.png", picture(0))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", picture(1))
    return place / "data.zip"


def no_zip(place: Path, content: bytes) -> Path:
    (place / "data.zip").write_bytes(content)
    return place / "data.zip"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(tar_of, name="../outside.txt"), "leads out"),
        (partial(tar_of, name="/etc/passwd"), "leads out"),
        (partial(tar_of, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link or a device"),
        (partial(tar_of, type=tarfile.LNKTYPE, linkname="../outside.txt"), "is a link or a device"),
        (partial(tar_of, type=tarfile.FIFOTYPE), "is a link or a device"),
        (zip_with_a_link, "'a.png' is a link"),
        (folder_with_a_link, "a link out of its folder"),
        (zip_with_a_name_twice, "'a.png' is there twice"),
        (partial(no_zip, content=b"PK\x03\x04 and no more"), "not a whole archive"),
        (partial(no_zip, content=b""), "not a whole archive"),
        (partial(no_zip, content=b"<html>"), "not a whole archive"),
    ],
)
def test_archives_and_folders_that_are_refused(place: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(place)
    with pytest.raises(DataError, match=message), open_members(path):
        pass


def test_a_zip_that_would_fill_the_memory(place: Path) -> None:
    with zipfile.ZipFile(place / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert (place / "data.zip").stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"'a.png' has 314572800 bytes; at most 268435456 are read"):
        image_folder.prepare(image_folder.Config(source=str(place / "data.zip"), caption="a"), place / "out")


# --- images and captions ----------------------------------------------------------------------------------------------


def bomb(edge: int) -> bytes:
    """A small PNG file that says it has edge x edge pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def as_folder(place: Path, image: bytes, caption: str) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "a.png").write_bytes(image)
    write_table(place / "mine" / "metadata.csv", [{"file_name": "a.png", "prompt": caption}])
    read_captioned_images(place / "mine", pixels=8)


def as_image_folder(place: Path, image: bytes, caption: str) -> None:
    write_zip(place / "mine.zip", {"a.png": image, "metadata.csv": f'file_name,text\na.png,"{caption}"\n'})
    image_folder.prepare(image_folder.Config(source=str(place / "mine.zip")), place / "out")


def as_parquet(place: Path, image: bytes, caption: str) -> None:
    write_table(place / "mine" / "a.parquet", [{"image": {"bytes": image, "path": None}, "text": caption}])
    parquet_dataset.prepare(parquet_dataset.Config(source=str(place / "mine")), place / "out")


ROUTES = pytest.mark.parametrize("route", [as_folder, as_image_folder, as_parquet])
Route = Callable[[Path, bytes, str], None]


@ROUTES
@pytest.mark.parametrize("edge", [20_000, 8_100, 100_000])
def test_an_image_of_too_many_pixels(place: Path, route: Route, edge: int) -> None:
    with pytest.raises(DataError, match=r"a.png|a.parquet#0.0") as caught:
        route(place, bomb(edge), "a")
    assert "64000000 " in str(caught.value)
    assert not (place / "out" / "train" / "metadata.csv").exists()


@ROUTES
def test_a_caption_of_five_megabytes(place: Path, route: Route) -> None:
    with pytest.raises(DataError, match=r"caption.* has 5000000 characters|field larger than field limit"):
        route(place, picture(), "a" * 5_000_000)


@ROUTES
def test_an_image_that_another_program_would_read(place: Path, route: Route) -> None:
    # For EPS, Pillow starts Ghostscript.
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(" + str(place / "executed").encode() + b") (w) file\n"
    with pytest.raises(DataError, match="not a whole image of PNG, JPEG"):
        route(place, script, "a")
    assert not (place / "executed").exists()
