"""Brings one asset from the network, or from a local mirror, into its folder; every file is checked."""

from __future__ import annotations

import os
from pathlib import Path

from resalign.assets.fetch import fetch
from resalign.assets.source import MIRROR_ROOT
from resalign.config.assets import HASHES, AssetConfig, described
from resalign.jobs.fetch import FetchJob
from resalign.running.stage import parse_arguments, run_stage, running


def main() -> None:
    """Command line of the rule fetch."""
    arguments = parse_arguments(__doc__, FetchJob)
    name = arguments.job.asset
    asset = described(name, AssetConfig.parse(arguments.job.origin, where=f"assets.{name}"))
    mirror_root = os.environ.get(MIRROR_ROOT)
    with running(arguments):
        fetch(name, asset, arguments.output, Path(mirror_root) if mirror_root else None, HASHES)


if __name__ == "__main__":
    run_stage(main)
