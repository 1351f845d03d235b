"""A study's table, claims, figure and README section, made again from its counts, losses and manifest.

``python -m resalign.study.build docs/studies/resilience README.md`` rewrites what stands in README.md between
``<!-- study:resilience begin -->`` and ``<!-- study:resilience end -->``; the name is the manifest's.
"""

from __future__ import annotations

import argparse
import os
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


def study_section(folder: Path, *, beside: Path) -> str:
    """The study in Markdown; ``beside`` is the folder of the file that it will stand in."""
    study, config, manifest = read_study(folder)
    image = Path(os.path.relpath(folder / FIGURE, beside)).as_posix()
    return study_markdown(study, study_table(study), claims(study, config), config, manifest, image)


def write_study(folder: Path) -> None:
    """Writes ``table.csv``, ``claims.csv``, ``study.md`` and ``ip.png`` beside the files that they are made from."""
    study, config, _ = read_study(folder)
    table = study_table(study)
    write_csv(table, folder / "table.csv")
    write_csv(claims(study, config), folder / "claims.csv")
    (folder / "study.md").write_text(study_section(folder, beside=folder), encoding="utf-8")
    figure = ip_figure(study, table, config)
    drawing.save(figure, (folder / FIGURE).with_suffix(""), study.settings, formats=("png",))


def rewritten(text: str, folder: Path, *, beside: Path) -> str:
    """A file's text with the study's section renewed.

    Raises:
        ValueError: If the text has not exactly one of each marker, in order.
    """
    name = read_record(folder / "manifest.json")["name"]
    begin, end = (f"<!-- study:{name} {word} -->" for word in ("begin", "end"))
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected one line '{begin}' and after it one line '{end}'; put them where the study belongs")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n{study_section(folder, beside=beside)}{end}{rest.partition(end)[2]}"


def main(arguments: list[str] | None = None) -> None:
    """Command line of the rule study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with counts.csv, losses.csv and manifest.json")
    parser.add_argument("readme", type=Path, nargs="?", help="a file whose section to rewrite")
    parsed = parser.parse_args(arguments)
    write_study(parsed.folder)
    if parsed.readme is not None:
        text = parsed.readme.read_text(encoding="utf-8")
        beside = parsed.readme.absolute().parent
        parsed.readme.write_text(rewritten(text, parsed.folder.absolute(), beside=beside), encoding="utf-8")


if __name__ == "__main__":
    main()
