"""A study's table, fronts, claims and text, made again from its counts and manifest.

``python -m resalign.study.build docs/studies/resilience`` rewrites them in that folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from resalign.analysis.frames import write_csv
from resalign.config.report import ReportConfig
from resalign.config.study import StudyConfig
from resalign.hashes import read_record
from resalign.study.claims import claims
from resalign.study.counts import read_counts
from resalign.study.fronts import front_table
from resalign.study.table import Study, study_table
from resalign.study.text import study_markdown


def read_study(folder: Path) -> tuple[Study, dict[str, Any]]:
    """A study from ``counts.csv`` and ``manifest.json``, and the manifest."""
    manifest = read_record(folder / "manifest.json")
    study = Study(
        counts=read_counts(folder),
        models=tuple(manifest["models"]),
        attacks=tuple(manifest["attacks"]),
        base=manifest["base"],
        config=StudyConfig.parse(manifest["study"], where="manifest.json: study"),
        settings=ReportConfig.parse(manifest["config"]["report"], where="manifest.json: config.report"),
    )
    return study, manifest


def write_study(folder: Path) -> None:
    """Writes ``table.csv``, ``fronts.csv``, ``claims.csv`` and ``study.md`` beside the files they are made from."""
    study, manifest = read_study(folder)
    table, fronts, tested = study_table(study), front_table(study), claims(study)
    for name, frame in (("table", table), ("fronts", fronts), ("claims", tested)):
        write_csv(frame, folder / f"{name}.csv")
    text = study_markdown(study, table, fronts, tested, manifest)
    (folder / "study.md").write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Command line of the rule study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with counts.csv and manifest.json")
    write_study(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
