"""Registers a study, or a search: it writes docs/studies/NAME/registered.json, to be committed before a run.

``make register CONFIG=config/studies/resilience.yaml``
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from resalign.config.plan import load_plan
from resalign.config.strict import ConfigError
from resalign.jobs.study import REGISTERED, REGISTRATION, registration
from resalign.pipes import run_command


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configfile", type=Path)
    try:
        plan = load_plan(parser.parse_args(arguments).configfile)
        text = json.dumps(registration(plan), indent=1) + "\n"
    except (ConfigError, OSError) as error:
        sys.exit(f"error: {error}")
    file = REGISTERED / plan.experiment.config.name / REGISTRATION
    if file.is_file() and file.read_text(encoding="utf-8") != text:
        sys.exit(f"error: {file} registers something else; delete it if nothing was run")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{file}: commit it before anything is run\n")


if __name__ == "__main__":
    run_command(main)
