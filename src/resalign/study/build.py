"""A study's table, claims, figure and text, made again from its counts, losses and manifest.

``python -m resalign.study.build docs/studies/resilience`` rewrites them in that folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from resalign.analysis.frames import write_csv
from resalign.config.report import ReportConfig
from resalign.config.study import StudyConfig
from resalign.display import drawing
from resalign.hashes import read_record
from resalign.study.claims import claims
from resalign.study.counts import read_counts
from resalign.study.figure import ip_figure
from resalign.study.table import Study, study_table
from resalign.study.text import study_markdown

FIGURE = "ip.png"


def read_study(folder: Path) -> tuple[Study, StudyConfig, dict[str, Any]]:
    """A study from ``counts.csv``, ``losses.csv`` and ``manifest.json``: its data, its claims' bounds, its manifest."""
    manifest = read_record(folder / "manifest.json")
    counts, losses = read_counts(folder)
    study = Study(
        counts=counts,
        losses=losses,
        models=tuple(manifest["models"]),
        attacks=tuple(manifest["attacks"]),
        base=manifest["base"],
        settings=ReportConfig.parse(manifest["config"]["report"], where="manifest.json: config.report"),
    )
    return study, StudyConfig.parse(manifest["study"], where="manifest.json: study"), manifest


def write_study(folder: Path) -> None:
    """Writes ``table.csv``, ``claims.csv``, ``study.md`` and ``ip.png`` beside the files that they are made from."""
    study, config, manifest = read_study(folder)
    table, tested = study_table(study), claims(study, config)
    write_csv(table, folder / "table.csv")
    write_csv(tested, folder / "claims.csv")
    text = study_markdown(study, table, tested, config, manifest, FIGURE)
    (folder / "study.md").write_text(text, encoding="utf-8")
    figure = ip_figure(study, table, config)
    drawing.save(figure, (folder / FIGURE).with_suffix(""), study.settings, formats=("png",))


def main(arguments: list[str] | None = None) -> None:
    """Command line of the rule study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with counts.csv, losses.csv and manifest.json")
    write_study(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
