"""Assets: models, image sets, prompt lists and scorer networks, each with one origin and one folder."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from resalign.config.strict import Strict


class AssetConfig(Strict):
    """Where an asset comes from; exactly one of ``digits``, ``hub``, ``url`` and ``path`` is given.

    Attributes:
        digits: Part of the demo world, made by a rule: ``data``, ``model``, ``clip`` or the name of a detector.
        hub: Hugging Face repository id; needs ``revision``.
        sha256: Of the one file of a ``url`` asset, or of a ``hub`` asset that lists exactly one.
        url: File to download; needs ``sha256`` unless none was published.
        path: Folder of the user's own, used in place.
    """

    digits: str | None = None
    hub: str | None = None
    url: str | None = None
    path: str | None = None
    revision: str | None = Field(None, description="commit of a hub repository")
    repo_type: Literal["model", "dataset"] = "model"
    files: tuple[str, ...] = Field((), description="glob patterns of the hub's files that are needed; all if empty")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    licence: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _one_origin(self) -> AssetConfig:
        given = [name for name in ("digits", "hub", "url", "path") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of digits, hub, url, path; got {given}")
        if self.hub is not None and self.revision is None:
            raise ValueError(f"hub asset {self.hub!r} needs a revision; a branch's content may change")
        return self

    @property
    def origin(self) -> str:
        """Which of the four it is."""
        return next(name for name in ("digits", "hub", "url", "path") if getattr(self, name) is not None)
