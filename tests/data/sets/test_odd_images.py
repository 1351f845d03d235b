"""Every set that reads images, given the images and captions that real collections hold."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resalign.config import registry
from resalign.config.experiment import SETS
from resalign.data.images import DataError, read_captioned_images
from resalign.data.sets import coco_reference, contaminated, diffusiondb, dreambench, image_folder, parquet_dataset
from tests.data.pictures import write_table, write_zip

EDGE = 8
# In the order of the images below. Captions of a line each, for sources that have them in lines.
CAPTIONS = ("grey", "gedruckt, für “uns” 🐈", "turned")
TWO_LINES = ("grey,\nin two lines", *CAPTIONS[1:])


def photograph(path: Path, mode: str = "RGB", *, turned: bool = False) -> bytes:
    """A JPEG file whose upper half is bright and whose lower half is dark; lying on its side in the file if turned."""
    pixels = np.zeros((2 * EDGE, 2 * EDGE, 3), dtype=np.uint8)
    pixels[:EDGE] = 255
    image, exif = Image.fromarray(pixels), Image.Exif()
    if turned:
        image = image.transpose(Image.Transpose.ROTATE_90)  # EXIF 6 turns it back, clockwise
        exif[0x0112] = 6
    image.convert(mode).save(path, "JPEG", exif=exif, quality=95)
    return path.read_bytes()


@pytest.fixture
def photographs(tmp_path: Path) -> list[bytes]:
    """Grey, CMYK, and turned by EXIF."""
    path = tmp_path / "photograph"
    return [photograph(path, "L"), photograph(path, "CMYK"), photograph(path, turned=True)]


def written(images: list[bytes], captions: tuple[str, ...], folder: Path, table: str = "metadata.csv") -> None:
    write_table(folder / table, [{"file_name": f"{n}.png", "text": caption} for n, caption in enumerate(captions)])
    for number, content in enumerate(images):
        (folder / f"{number}.png").write_bytes(content)


def as_folder(images: list[bytes], captions: tuple[str, ...], tmp_path: Path, table: str) -> None:
    written(images, captions, tmp_path / "mine", table)
    image_folder.prepare(image_folder.Config(source=str(tmp_path / "mine")), tmp_path / "out")


def as_archive(images: list[bytes], captions: tuple[str, ...], tmp_path: Path) -> None:
    lines = [json.dumps({"file_name": f"{n}.jpg", "text": text}) for n, text in enumerate(captions)]
    files: dict[str, bytes | str] = {f"{n}.jpg": content for n, content in enumerate(images)}
    write_zip(tmp_path / "mine.zip", {**files, "metadata.jsonl": "\n".join(lines)})
    image_folder.prepare(image_folder.Config(source=str(tmp_path / "mine.zip")), tmp_path / "out")


def as_parquet(images: list[bytes], captions: tuple[str, ...], tmp_path: Path) -> None:
    pairs = zip(images, captions, strict=True)
    rows = [{"image": {"bytes": content, "path": None}, "text": text} for content, text in pairs]
    write_table(tmp_path / "mine" / "a.parquet", rows)
    parquet_dataset.prepare(parquet_dataset.Config(source=str(tmp_path / "mine")), tmp_path / "out")


def as_diffusiondb(images: list[bytes], captions: tuple[str, ...], tmp_path: Path) -> None:
    scores = {"part_id": 1, "image_nsfw": 0.0, "prompt_nsfw": 0.0}
    rows = [{"image_name": f"{n}.png", "prompt": text, **scores} for n, text in enumerate(captions)]
    write_table(tmp_path / "mine" / "metadata.parquet", rows)
    write_zip(tmp_path / "mine" / "images" / "part-000001.zip", {f"{n}.png": c for n, c in enumerate(images)})
    config = diffusiondb.Config(source=str(tmp_path / "mine"), splits={"train": None})
    diffusiondb.prepare(config, tmp_path / "out")


def as_dreambench(images: list[bytes], captions: tuple[str, ...], tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"images/{n}.jpg": content for n, content in enumerate(images)}
    write_zip(tmp_path / "data.zip", {**files, **{f"captions/{n}.txt": text for n, text in enumerate(captions)}})
    source = str(tmp_path / "data.zip")
    dreambench.prepare(dreambench.Config(source=source, caption="{subject}", splits={"train": None}), tmp_path / "out")


def as_coco(images: list[bytes], captions: tuple[str, ...], tmp_path: Path) -> None:
    write_zip(tmp_path / "val2014.zip", {f"val2014/COCO_val2014_{n:012d}.jpg": c for n, c in enumerate(images, 1)})
    rows = [{"case_number": f"{n:012d}", "prompt": text} for n, text in enumerate(captions, 1)]
    prompts = write_table(tmp_path / "coco.csv", rows)
    source = str(tmp_path / "val2014.zip")
    coco_reference.prepare(coco_reference.Config(source=source, prompts=str(prompts), pixels=EDGE), tmp_path / "coco")
    shutil.copytree(tmp_path / "coco" / "reference", tmp_path / "out" / "train")


def as_contaminated(images: list[bytes], captions: tuple[str, ...], tmp_path: Path) -> None:
    for kind in ("clean", "harmful"):
        written(images, captions, tmp_path / kind)
    config = contaminated.Config(clean=str(tmp_path / "clean"), harmful=str(tmp_path / "harmful"), ratio=1.0)
    contaminated.prepare(config, tmp_path / "out")


Prepare = Callable[[list[bytes], tuple[str, ...], Path], None]
ROUTES: dict[str, Prepare] = {
    "image_folder": as_archive,
    **{
        f"image_folder {table}": functools.partial(as_folder, table=table)
        for table in ("metadata.csv", "metadata.jsonl", "metadata.parquet")
    },
    "parquet_dataset": as_parquet,
    "diffusiondb": as_diffusiondb,
    "dreambench": as_dreambench,
    "coco_reference": as_coco,
    "contaminated": as_contaminated,
}


def test_every_set_that_reads_images_is_here() -> None:
    assert {name.split()[0] for name in ROUTES} | {"generated"} == set(registry.members(SETS))


@pytest.mark.parametrize("route", ROUTES)
def test_grey_printed_and_turned_images_are_read_upright_and_in_colour(
    route: str, photographs: list[bytes], tmp_path: Path
) -> None:
    captions = CAPTIONS if route == "dreambench" else TWO_LINES
    ROUTES[route](photographs, captions, tmp_path)
    found = read_captioned_images(tmp_path / "out" / "train", pixels=EDGE)
    assert sorted(found.prompts) == sorted(captions)
    # A suffix says what the file is, whatever it was called.
    assert {file.suffix for file in found.files} == {".png" if route == "coco_reference" else ".jpg"}
    images = found.load()
    assert images.shape == (3, 3, EDGE, EDGE)
    assert images[:, :, : EDGE // 2].min() > 0.8
    assert images[:, :, EDGE // 2 :].max() < -0.8


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_broken_image_is_refused_by_name(route: str, damage: str, photographs: list[bytes], tmp_path: Path) -> None:
    broken = {"cut": photographs[2][:-200], "text": b"no image", "empty": b""}[damage]
    with pytest.raises(DataError, match="not a whole image of") as caught:
        ROUTES[route]([*photographs[:2], broken], TWO_LINES, tmp_path)
    assert "2" in str(caught.value).split(": not a whole")[0]
    assert not (tmp_path / "out" / "train" / "metadata.csv").exists()


@pytest.mark.parametrize("route", sorted(set(ROUTES) - {"diffusiondb"}))
def test_an_image_without_a_caption_is_refused(route: str, photographs: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no caption|is empty; its first line should be the subject"):
        ROUTES[route](photographs, ("grey", " ", "turned"), tmp_path)
    assert not (tmp_path / "out" / "train" / "metadata.csv").exists()


def test_users_of_diffusiondb_left_prompts_empty(photographs: list[bytes], tmp_path: Path) -> None:
    as_diffusiondb(photographs, ("grey", " ", "turned"), tmp_path)
    assert sorted(read_captioned_images(tmp_path / "out" / "train", pixels=EDGE).prompts) == ["grey", "turned"]
