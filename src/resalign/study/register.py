"""Registers a study, or a search: it writes docs/studies/NAME/registered.json, to be committed before a run.

``make register CONFIG=config/studies/resilience.yaml``

What could not be run as registered is amended: ``python -m resalign.study.register CONFIG --amend REASON``. The study's
page says why, and that results of the earlier registration existed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from resalign.config.plan import load_plan
from resalign.config.strict import ConfigError
from resalign.jobs.study import REGISTERED, REGISTRATION, is_registered, registration
from resalign.pipes import run_command


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configfile", type=Path)
    parser.add_argument("--amend", metavar="REASON", help="why it could not be run as it is registered")
    options = parser.parse_args(arguments)
    try:
        plan = load_plan(options.configfile)
        values: dict[str, Any] = registration(plan)
    except (ConfigError, OSError) as error:
        sys.exit(f"error: {error}")
    file = REGISTERED / plan.experiment.config.name / REGISTRATION
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else values
    amended = before.get("amended", [])
    is_other = not is_registered(before, values)
    if is_other and not options.amend:
        sys.exit(f"error: {file} registers something else; delete it if nothing was run, or give --amend REASON")
    if options.amend and not is_other:
        sys.exit(f"error: --amend: {file} registers nothing else")
    if is_other:
        amended = [*amended, {**{name: before.get(name) for name in values}, "reason": options.amend}]
    values |= {"amended": amended} if amended else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{file}: commit it before {'any more' if amended else 'anything'} is run\n")


if __name__ == "__main__":
    run_command(main)
