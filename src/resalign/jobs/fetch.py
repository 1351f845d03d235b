"""The job that downloads one asset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class FetchJob(Job):
    """A job of scripts/fetch.py.

    Attributes:
        asset: The asset's name.
        origin: Where it comes from, see :attr:`resalign.config.assets.AssetConfig.identity`: another word of the
            catalogue about the same asset is no reason to fetch it again.
    """

    asset: str
    origin: dict[str, Any]

    @classmethod
    def of(cls, plan: Plan, name: str) -> FetchJob:
        """The job of an asset by its name."""
        return cls(asset=name, origin=plan.assets[name].resolved)
