"""Real photographs for FID and KID: images of COCO val2014, chosen by the ids in a list of its captions.

Source: Lin 2014, arXiv 1405.0312; ``val2014.zip`` with ``val2014/COCO_val2014_%012d.jpg``. The lists of 10,000 and
30,000 captions are samples of its annotations.

Deviation: the papers do not say how their reference images were resized. Here the shorter edge is resized to ``pixels``
(bicubic, Pillow's antialiasing), the centre is cropped, and the result is kept without loss: what generated images are
compared with has their size, and Inception's own resize to 299 then treats both alike.
"""

from __future__ import annotations

import io
from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath

from pydantic import Field

from resalign.config.prompts import PromptColumns
from resalign.config.strict import Strict
from resalign.data.captions import is_image
from resalign.data.image_files import open_image
from resalign.data.image_sets import Picture, write_images
from resalign.data.images import fitted
from resalign.data.members import Members, log_left_out, open_members
from resalign.data.prompts import read_prompts
from resalign.errors import DataError

INPUTS = ("source", "prompts")


class Config(Strict):
    """Which photographs, and their size.

    Attributes:
        source: The archive or its unpacked folder, as ``asset``.
        prompts: The list of captions, as ``asset/file``.
        columns: How the list is read; its id is COCO's image id.
        count: The first so many captions; None for all.
        pixels: Edge of the square images.
    """

    source: str
    prompts: str
    columns: PromptColumns = PromptColumns(id="case_number")
    count: int | None = Field(None, gt=0)
    pixels: int = Field(512, gt=0)


def prepare(config: Config, output: Path) -> None:
    """Writes the photographs with their captions into ``reference``, in the list's order.

    Raises:
        DataError: If a caption's photograph is not there.
    """
    prompts = read_prompts(Path(config.prompts), config.count, config.columns)
    with open_members(Path(config.source)) as members:
        by_id = _by_id(members)
        lacking = [prompt.id for prompt in prompts if _as_id(prompt.id) not in by_id]
        if lacking:
            raise DataError(
                f"{members.label}: no photograph for {len(lacking)} captions of {config.prompts}, such as"
                f" {lacking[0]!r}; expected val2014.zip, and COCO's ids in 'columns.id'"
            )
        chosen = [(by_id[_as_id(prompt.id)], prompt.text) for prompt in prompts]
        name, times = Counter(name for name, _ in chosen).most_common(1)[0]
        if times > 1:
            raise DataError(f"{config.prompts}: {times} rows are captions of '{name}'; keep one a photograph")
        pictures = [Picture(name, text, partial(_resized, config, members, name)) for name, text in chosen]
        write_images(pictures, output / "reference", label=members.label)


def _by_id(members: Members) -> dict[str, str]:
    """Photographs by their COCO id."""
    by_id: dict[str, str] = {}
    for name in filter(is_image, members.names):
        other = by_id.setdefault(_as_id(PurePosixPath(name).stem.rsplit("_", 1)[-1]), name)
        if other is not name:
            raise DataError(f"{members.label}: '{other}' and '{name}' have the same id of COCO's; keep one of them")
    log_left_out(members.label, "files that are no images by their names", set(members.names) - set(by_id.values()))
    return by_id


def _as_id(text: str) -> str:
    """An id without its leading zeros, which some lists lack."""
    return text.lstrip("0")


def _resized(config: Config, members: Members, name: str) -> bytes:
    """One photograph, resized, as PNG."""
    image = open_image(members.read(name), f"{members.label}: '{name}'", remedy="fetch the archive again")
    resized = io.BytesIO()
    fitted(image, config.pixels).save(resized, "PNG")
    return resized.getvalue()
