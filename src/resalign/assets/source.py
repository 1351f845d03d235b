"""An asset's origin: its name, its place in a mirror, and the errors of fetching it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from resalign.config.assets import AssetConfig, CatalogueEntry
from resalign.data.images import DataError

# The environment variable that names a folder of assets for machines without internet, and for manual downloads.
MIRROR_ROOT = "RESALIGN_ASSET_ROOT"
UNPINNED = "unpinned"  # the folder of an asset that has neither revision nor hash


class FetchError(DataError):
    """The asset is currently unavailable; the message names asset and remedy."""


class GatedError(FetchError):
    """The asset's owners ask for consent or a log-in first."""


class RemovedError(FetchError):
    """The asset is no longer at its address, or never was."""


class ManualDownloadError(FetchError):
    """The address gives a page for people instead of the file."""


class NotPublicError(FetchError):
    """The asset was never published."""


class BrokenOffError(FetchError):
    """A download that ended before the file; what came of it is kept."""


class BrokenFileError(FetchError):
    """A file of the wrong size, or of another kind than its suffix."""


class HashMismatchError(FetchError):
    """A file whose content differs from what was published, or from what was first fetched."""


class SchemaMismatchError(FetchError):
    """A table that lacks columns or rows listed in the catalogue."""


class UnsafeFileError(FetchError):
    """A file that would run code if it were loaded as such files are."""


@dataclass(frozen=True)
class Source:
    """An asset under its name.

    Attributes:
        name: Its key in the configuration.
        asset: Its origin and pin; a catalogue entry also has contents that are checked, and mirrors.
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
        """The revision or hash that fixes its content."""
        return self.asset.revision or self.asset.sha256 or UNPINNED

    @property
    def origin(self) -> str:
        """Its origin, for messages."""
        at = f" at {self.asset.revision}" if self.asset.revision else ""
        if self.asset.hub:
            return f"{self.asset.repo_type} {self.asset.hub}{at}"
        return str(self.asset.url or self.asset.manual)

    @property
    def entry(self) -> CatalogueEntry:
        """The asset with the catalogue's details, which have their defaults for an asset that it does not list."""
        if isinstance(self.asset, CatalogueEntry):
            return self.asset
        return CatalogueEntry.model_construct(**dict(self.asset))

    def published(self, label: str) -> str | None:
        """A file's published sha256."""
        return self.asset.sha256 or self.asset.hashes.get(label)

    def expected(self, label: str) -> str | None:
        """A file's published or else its first sha256."""
        return self.published(label) or self.locked.get(label)

    def error(self, kind: type[FetchError], problem: str, remedy: str) -> FetchError:
        """An error that names the asset, the problem, its remedy, the mirror's folder, and the tables that need it."""
        entry = self.entry
        elsewhere = f", or try {', '.join(entry.mirrors)}" if entry.mirrors else ""
        needed = f" (needed for {', '.join(entry.tables)})" if entry.tables else ""
        return kind(
            f"asset '{self.name}' ({self.origin}): {problem}; {remedy}{elsewhere}, or put a copy from elsewhere into "
            f"${MIRROR_ROOT}/{self.mirror}/{needed}"
        )
