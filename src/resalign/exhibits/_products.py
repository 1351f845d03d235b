"""What an exhibit makes, as files: a table (CSV, LaTeX), a figure (CSV, PNG, SVG) or macros (LaTeX)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from resalign.analysis.frames import write_csv
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.latex import to_latex
from resalign.display.layout import ResultTable
from resalign.files import whole


@dataclass(frozen=True)
class Table:
    """A table's numbers, how they are laid out, and what its rows are."""

    frame: pd.DataFrame
    layout: ResultTable
    head: str = "Model"


@dataclass(frozen=True)
class Drawn:
    """A figure and the numbers that it shows."""

    frame: pd.DataFrame
    figure: Figure


@dataclass(frozen=True)
class Macros:
    """LaTeX definitions."""

    text: str


def write(product: Table | Drawn | Macros, path: Path, settings: ReportConfig) -> None:
    """Writes one of a product's files, by its suffix.

    Raises:
        ValueError: If a product of this kind has no such file.
    """
    match product, path.suffix:
        case (Table() | Drawn(), ".csv"):
            write_csv(product.frame, path)
        case (Table(), ".tex"):
            _write_text(to_latex(product.layout, product.head), path)
        case (Macros(), ".tex"):
            _write_text(product.text, path)
        case (Drawn(), ".png" | ".svg"):
            drawing.save(product.figure, path.with_suffix(""), settings, formats=(path.suffix[1:],))
        case _:
            raise ValueError(f"{path}: a {type(product).__name__.lower()} is not written as '{path.suffix}'")


def _write_text(text: str, path: Path) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
