"""Lists missing assets by table, with size and licence, and checks whether this machine suffices."""

from __future__ import annotations

import argparse
import logging
import sys

from resalign.assets.blocked import verdicts
from resalign.assets.doctor import fetched_names, machine_lines, needs_of, table_lines
from resalign.config.plan import load_plan
from resalign.display.text_table import aligned
from resalign.running.stage import run_stage
from resalign.tracking import log


def main() -> None:
    """Prints what `make doctor` shows; touches neither the network nor any file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", default="config/config.yaml", help="the experiment")
    found = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    plan = load_plan(found.configfile)
    needs = needs_of(plan)
    for line in verdicts(plan, needs):
        log.info("%s", line)
    here = [need.name for need in needs if not need.is_missing]
    counted = f"{len(here)} of {len(needs)} assets are here ({', '.join(here) or 'none'})"
    log.info("%s: %s", found.configfile, counted if needs else "no asset comes from outside")
    for need in needs:
        if need.is_missing:
            log.info("  %s", need.line)
    log.info("This machine:")
    for line in machine_lines(plan, needs):
        log.info("  %s", line)
    log.info("Published tables, each with all that its paper used (config/assets.yaml), which may be more than above:")
    for line in aligned(table_lines(fetched_names())):
        log.info("  %s", line)


if __name__ == "__main__":
    run_stage(main)
