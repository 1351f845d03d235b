"""Makes a whole pipeline folder of an exported delta and its base; refuses a base that is not the delta's."""

from __future__ import annotations

import argparse
from pathlib import Path

from resalign.diffusion.export import apply_delta
from resalign.running.stage import run_stage


def main() -> None:
    """Command line for whoever has got a delta."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delta", type=Path, required=True, help="exported folder with delta.safetensors")
    parser.add_argument("--base", type=Path, required=True, help="pipeline folder of the base that delta.json names")
    parser.add_argument("--output", type=Path, required=True, help="empty or new folder to write")
    found = parser.parse_args()
    apply_delta(found.delta, found.base, found.output)


if __name__ == "__main__":
    run_stage(main)
