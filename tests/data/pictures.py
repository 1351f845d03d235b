"""Small pictures and archives of the true schemas."""

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def picture(number: int = 0, *, kind: str = "PNG", mode: str = "RGB", edge: int = 8, turned: bool = False) -> bytes:
    """A whole image that differs from those of other numbers."""
    pixels = np.random.default_rng(number).integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, kind, **({"exif": exif} if turned else {}))
    return content.getvalue()


def write_zip(path: Path, files: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A CSV, JSON lines or parquet table, by suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path, row_group_size=4)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return path


def dreambench_zip(path: Path, subjects: int = 6) -> Path:
    """data.zip of DreamBench++: images, and texts of a subject with nine prompts."""
    files: dict[str, bytes | str] = {}
    for number in range(subjects):
        place = ("live_subject/animal", "style")[number % 2]
        files[f"data/images/{place}/{number:02d}.jpg"] = picture(number, kind="JPEG")
        prompts = [f"A subject {number} in place {index}, “drawn”." for index in range(9)]
        files[f"data/captions/{place}/{number:02d}.txt"] = "\n".join([f"subject {number}", *prompts]) + "\n"
    return write_zip(path, files)


def diffusiondb(
    folder: Path, images: int = 12, changes: Mapping[int, Mapping[str, object]] | None = None, *, parts: int = 1
) -> Path:
    """The table and parts of DiffusionDB; ``changes`` are made to rows by number."""
    rows = []
    for number in range(images):
        row = {
            "image_name": f"{number:08d}.png",
            "prompt": f"a calm sea {number},\nin two lines",
            "part_id": 1 + number * parts // images,
            "seed": number,
            "step": 50,
            "cfg": 7.0,
            "sampler": 8,
            "width": 512,
            "height": 512,
            "user_name": "x",
            "timestamp": None,
            "image_nsfw": 0.01,
            "prompt_nsfw": 0.01,
        }
        rows.append({**row, **(changes or {}).get(number, {})})
    other = {**rows[0], "image_name": "elsewhere.png", "part_id": parts + 1}
    write_table(folder / "metadata.parquet", [*rows, other])
    for part in range(1, parts + 1):
        own = {str(row["image_name"]): (n, row) for n, row in enumerate(rows) if row["part_id"] == part}
        files: dict[str, bytes | str] = {name: picture(n) for name, (n, _) in own.items()}
        table = {name: {"p": row["prompt"], "se": 1, "c": 7.0, "st": 50, "sa": "k"} for name, (_, row) in own.items()}
        name = f"part-{part:06d}"
        write_zip(folder / "images" / f"{name}.zip", {**files, f"{name}.json": json.dumps(table)})
    return folder


def rows_of(folder: Path, table: str = "metadata.csv") -> list[dict[str, str]]:
    """A folder's table, such as a prepared one's."""
    with (folder / table).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
