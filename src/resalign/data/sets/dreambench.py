"""DreamBench++: 150 pictures of subjects, each with the subject's name and nine generation prompts.

Source: Peng 2024, arXiv 2406.16855; data.zip of yuangpeng/dreambench_plus: ``images/…/x.jpg`` and ``captions/…/x.txt``,
whose first line is the subject and whose others are the prompts.

Deviation: how ResAlign captions the images, and which it holds out, is not published; see ``caption``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from pydantic import Field

from resalign.config.strict import Strict
from resalign.data.image_sets import Picture, Splits, write_splits
from resalign.data.images import check_prompt
from resalign.data.members import Members, composed, log_left_out, open_members
from resalign.data.prompts import Prompt, write_prompts
from resalign.errors import DataError

INPUTS = ("source",)
SUBJECT = "{subject}"


class Config(Strict):
    """How the images are captioned and split.

    Attributes:
        source: The archive, as ``asset``.
        caption: Of an image; ``{subject}`` is the first line of its text.
        splits: Images of each folder to make; null for the rest.
        seed: Decides which image is in which split.
    """

    source: str
    caption: str = "a photo of {subject}"
    splits: Splits = {"train": 120, "heldout": 30}
    seed: int = Field(0, ge=0)


def prepare(config: Config, output: Path) -> None:
    """Writes the splits, and every generation prompt into ``prompts.csv``.

    Raises:
        DataError: If an image lacks its text or a text its image.
    """
    with open_members(Path(config.source)) as members:
        texts = _by_key(members, [n for n in members.names if _below(n) == "captions" and n.endswith(".txt")])
        images = _by_key(members, [name for name in members.names if _below(name) == "images"])
        rest = set(members.names) - {*texts.values(), *images.values()}
        log_left_out(members.label, "files that are neither an image nor its text", rest)
        unpaired = sorted(set(texts) ^ set(images))
        if unpaired or not images:
            raise DataError(
                f"{members.label}: {len(images)} images and {len(texts)} captions; unpaired are {unpaired[:3]};"
                " expected data.zip of DreamBench++"
            )
        lines = {key: _lines(members, name) for key, name in sorted(texts.items())}
        pictures = [
            Picture(key, config.caption.replace(SUBJECT, lines[key][0]), partial(members.read, name))
            for key, name in sorted(images.items())
        ]
        write_splits(pictures, config.splits, config.seed, output, label=members.label)
    prompts = [
        Prompt(f"{key}#{number}", text, captions[0])
        for key, captions in lines.items()
        for number, text in enumerate(captions)
    ]
    write_prompts(output / "prompts.csv", [prompt for prompt in prompts if not prompt.id.endswith("#0")])


def _by_key(members: Members, names: list[str]) -> dict[str, str]:
    """Names by the key that an image and its text share."""
    by_key: dict[str, str] = {}
    for name in names:
        other = by_key.setdefault(_key(name), name)
        if other is not name:
            raise DataError(f"{members.label}: '{other}' and '{name}' would be one subject's; keep one of them")
    return by_key


def _below(name: str) -> str:
    """The top folder of a file: ``images`` or ``captions``."""
    return next((part for part in PurePosixPath(name).parts[:-1] if part in ("images", "captions")), "")


def _key(name: str) -> str:
    """The key that an image and its text share: the path below that folder, without suffix."""
    parts = PurePosixPath(composed(name)).with_suffix("").parts
    return "/".join(parts[parts.index(_below(name)) + 1 :] if _below(name) else parts)


def _lines(members: Members, name: str) -> list[str]:
    """The subject and its prompts."""
    try:
        text = members.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{members.label}: {name} is no text in UTF-8 ({error})") from None
    check_prompt(text, f"{members.label}: {name}")
    # Lines as text files have them: str.splitlines would divide a prompt at a separator within it.
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{members.label}: {name} is empty; its first line should be the subject")
    return lines
