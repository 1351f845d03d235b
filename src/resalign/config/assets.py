"""Assets: models, image sets, prompt lists and scorer networks, each with one origin and one folder."""

from __future__ import annotations

import functools
import urllib.parse
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from resalign.config.closure import ROOT
from resalign.config.references import InsidePath, OwnPath
from resalign.config.strict import ConfigError, Strict, read_yaml

CATALOGUE = ROOT / "config" / "assets.yaml"
HASHES = Path("config/hashes")  # of files that have no published one, by asset
ORIGINS = ("digits", "hub", "url", "path", "manual")
FETCHED = ("hub", "url", "manual")  # what the rule fetch brings
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")  # of files of tensors, as they are published
# What a user must agree to, in an experiment's `consent`, before an asset is planned with.
Term = Literal["sensitive", "faces", "contested", "non-commercial"]
TERMS: dict[Term, str] = {
    "sensitive": "holds or makes sexual or otherwise harmful content",
    "faces": "holds pictures of real people's faces",
    "contested": "was taken down by rights holders before",
    "non-commercial": "may not be used commercially",
}
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class AssetConfig(Strict):
    """Origin of an asset: exactly one of ``digits``, ``hub``, ``url``, ``path`` and ``manual`` is given.

    Attributes:
        digits: Part of the demo world, made by a rule: ``data``, ``conjunction``, ``model``, ``clip`` or the name of a
            detector.
        hub: Hugging Face repository id; needs ``revision``.
        url: File to download, or a folder of ``files``, which then ends in ``/``.
        manual: Page from which a person downloads ``files`` into the mirror root, because no program can.
        path: Folder of the user's own, used in place; ``~`` is the home folder.
        sha256: Of an asset that is one file.
        hashes: Of its files by name, where it has several; each that has none here is locked on its first download.
        terms: What a user must agree to by the experiment's ``consent``.
    """

    digits: str | None = None
    hub: InsidePath | None = None
    url: str | None = None
    manual: str | None = None
    path: OwnPath | None = None
    revision: InsidePath | None = Field(None, description="commit of a hub repository")
    repo_type: Literal["model", "dataset"] = "model"
    files: tuple[InsidePath, ...] = Field(
        (), description="of a hub or manual asset: glob patterns of what is needed, all if empty; of a url/: names"
    )
    sha256: Sha256 | None = None
    hashes: dict[InsidePath, Sha256] = {}
    licence: str = ""
    terms: tuple[Term, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _one_origin(self) -> AssetConfig:
        given = [name for name in ORIGINS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(ORIGINS)}; got {given}")
        if self.hub is not None and self.revision is None:
            raise ValueError(f"hub asset {self.hub!r} needs a revision; a branch's content may change")
        if self.url is not None and self.files and not self.url.endswith("/"):
            raise ValueError(f"url {self.url!r} has 'files', and so is a folder: it must end in '/'")
        if self.url is not None and ".." in urllib.parse.unquote(urllib.parse.urlsplit(self.url).path).split("/"):
            raise ValueError(f"url {self.url!r} leads out of its folder; give the address of a file, without '..'")
        if self.sha256 is not None and self.hashes:
            raise ValueError("give sha256 for an asset of one file, or hashes by file name; not both")
        return self

    @property
    def origin(self) -> str:
        """Which of the five it is."""
        return next(name for name in ORIGINS if getattr(self, name) is not None)

    @property
    def identity(self) -> dict[str, object]:
        """The values that determine its content; a changed description reruns nothing."""
        return self.model_dump(mode="json", include=set(AssetConfig.model_fields) - DESCRIPTION, exclude_defaults=True)


DESCRIPTION = {"note", "licence", "terms"}


class ContentConfig(Strict):
    """Columns and rows of a table among an asset's files: a changed release is refused before it is read."""

    columns: tuple[str, ...] = ()
    rows: int | None = Field(None, ge=0)


class CatalogueEntry(AssetConfig):
    """An asset as ``config/assets.yaml`` describes it.

    Attributes:
        kind: What it is.
        access: Whether it can be had; ``removed`` and ``not-public`` assets are had from a mirror or not at all.
        size_bytes: Of the files that are needed; None if unknown.
        md5: Of an asset that is one file for which nobody published a sha256.
        hash_from: Where the hashes come from.
        mirrors: Other places that have it.
        tables: Published tables that need it, as ``paper table``.
        contents: What its tables must hold, by file or glob pattern; rows are those of all its files together.
    """

    kind: Literal["model", "images", "prompts", "detector", "metric network"]
    access: Literal["open", "gated", "removed", "not-public"] = "open"
    size_bytes: int | None = Field(None, gt=0)
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$")
    hash_from: str = ""
    mirrors: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    contents: dict[str, ContentConfig] = {}


@functools.cache
def read_catalogue(path: Path = CATALOGUE) -> dict[str, CatalogueEntry]:
    """Every known asset by name.

    Raises:
        ConfigError: Naming file, entry and key.
    """
    return {name: CatalogueEntry.parse(entry, where=f"{path}: {name}") for name, entry in read_yaml(path).items()}


def described(name: str, asset: AssetConfig) -> AssetConfig:
    """The catalogue's entry of that name if it is the same asset, else the asset itself."""
    entry = read_catalogue().get(name)
    return entry if entry is not None and entry.identity == asset.identity else asset


def check_consent(name: str, asset: AssetConfig, consent: tuple[Term, ...], *, where: str) -> None:
    """Refuses an asset to whose terms the experiment's user has not agreed.

    Raises:
        ConfigError: With the line that gives the consent.
    """
    lacking = [term for term in asset.terms if term not in consent]
    if lacking:
        reasons = " and ".join(TERMS[term] for term in lacking)
        agreed = ", ".join([*consent, *lacking])
        raise ConfigError(
            f"{where}: asset '{name}' {reasons}; if you agree to use it so (licence: {asset.licence or 'not stated'}),"
            f" write 'consent: [{agreed}]' into the configuration"
        )
