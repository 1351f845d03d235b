"""The job that downloads one asset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resalign.jobs.job import Job

if TYPE_CHECKING:
    from resalign.config.plan import Plan


class FetchJob(Job):
    """A job of scripts/fetch.py: the identity of an asset, as another note about it must not fetch it again."""

    asset: str
    origin: dict[str, Any]

    @classmethod
    def of(cls, plan: Plan, name: str) -> FetchJob:
        """The job of an asset by its name."""
        return cls(asset=name, origin=plan.assets[name].resolved)
