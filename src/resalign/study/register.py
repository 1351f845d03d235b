"""Registers a study, or a search: it writes docs/studies/NAME/registered.json, to be committed before a run.

``make register CONFIG=config/studies/resilience.yaml``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from resalign.config.plan import load_plan
from resalign.jobs.study import REGISTERED, REGISTRATION, registration


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configfile", type=Path)
    plan = load_plan(parser.parse_args(arguments).configfile)
    file = REGISTERED / plan.experiment.config.name / REGISTRATION
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(registration(plan), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
