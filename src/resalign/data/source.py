"""An asset on its way here: its name, its place in a mirror, and what can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from resalign.config.assets import AssetConfig, CatalogueEntry, ContentConfig
from resalign.data.images import DataError

# The environment variable that names a folder of assets for machines without internet, and for manual downloads.
MIRROR_ROOT = "RESALIGN_ASSET_ROOT"
UNPINNED = "unpinned"  # the folder of an asset that has neither revision nor hash


class FetchError(DataError):
    """An asset that cannot be had now; the message names asset and remedy."""


class GatedError(FetchError):
    """The asset's owners ask for consent or a log-in first."""


class RemovedError(FetchError):
    """What is asked for is not at its address any more, or never was."""


class ManualDownloadError(FetchError):
    """The address gives a page for people instead of the file."""


class NotPublicError(FetchError):
    """The asset was never published."""


class BrokenFileError(FetchError):
    """A file of the wrong size, or not of the kind that its name says."""


class HashMismatchError(FetchError):
    """A file whose content is not what was published, or not what it was when it was first fetched."""


class SchemaMismatchError(FetchError):
    """A table that lacks columns or rows which the catalogue knows it to have."""


class UnsafeFileError(FetchError):
    """A file that would run code if it were loaded as such files are."""


@dataclass(frozen=True)
class Source:
    """An asset under its name.

    Attributes:
        name: Its key in the configuration.
        asset: Its origin and pin; a catalogue's entry says more, which is checked and told.
        locked: sha256 by file of what was fetched first.
    """

    name: str
    asset: AssetConfig
    locked: dict[str, str] = field(default_factory=dict)

    @property
    def mirror(self) -> Path:
        """Its folder below the mirror root: name, then revision or hash."""
        return Path(self.name) / self.pin

    @property
    def pin(self) -> str:
        """What fixes its content."""
        return self.asset.revision or self.asset.sha256 or UNPINNED

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""
        at = f" at {self.asset.revision}" if self.asset.revision else ""
        if self.asset.hub:
            return f"{self.asset.repo_type} {self.asset.hub}{at}"
        return str(self.asset.url or self.asset.manual)

    @property
    def contents(self) -> dict[str, ContentConfig]:
        """What its tables must hold, by file."""
        return self.asset.contents if isinstance(self.asset, CatalogueEntry) else {}

    def published(self, label: str) -> str | None:
        """A file's published sha256."""
        return self.asset.sha256 or self.asset.hashes.get(label)

    def expected(self, label: str) -> str | None:
        """A file's published or else its first sha256."""
        return self.published(label) or self.locked.get(label)

    def error(self, kind: type[FetchError], problem: str, remedy: str) -> FetchError:
        """An error that names asset, problem, what to do, where a file got elsewhere can be put, and who needs it."""
        told = f"asset '{self.name}' ({self.origin}): {problem}; {remedy}"
        entry = self.asset if isinstance(self.asset, CatalogueEntry) else None
        if entry and entry.mirrors:
            told += f", or try {', '.join(entry.mirrors)}"
        told += f", or put what you got otherwise into ${MIRROR_ROOT}/{self.mirror}/"
        told += f" (needed for {', '.join(entry.tables)})" if entry and entry.tables else ""
        return kind(told)
