"""The products of an exhibit, as files: a table (CSV, LaTeX), a figure (CSV, PNG, SVG) or macros (LaTeX)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from resalign.analysis.frames import write_csv
from resalign.config.report import ReportConfig
from resalign.display import drawing
from resalign.display.drawing import Panel
from resalign.display.latex import compact, to_latex
from resalign.display.layout import ResultTable
from resalign.jobs.exhibit import SUFFIXES


@dataclass(frozen=True)
class Table:
    """A table's numbers, how they are laid out, and the header of its rows."""

    frame: pd.DataFrame
    layout: ResultTable
    head: str = "Model"


@dataclass(frozen=True)
class Drawn:
    """A figure, as panels or drawn already, and the numbers that it shows."""

    frame: pd.DataFrame
    shown: Sequence[Panel] | Figure

    def figure(self, settings: ReportConfig) -> Figure:
        """The whole figure."""
        return self.shown if isinstance(self.shown, Figure) else drawing.figure_of(self.shown, settings)


@dataclass(frozen=True)
class Macros:
    """LaTeX definitions."""

    text: str


Product = Table | Drawn | Macros


def write(product: Product, stem: Path, settings: ReportConfig, label: str = "") -> None:
    """Writes a product's files, :data:`resalign.jobs.exhibit.SUFFIXES` of its kind.

    Args:
        product: What is written.
        stem: Path of the files without their suffix.
        settings: Of figures.
        label: The table's in LaTeX; by default the last part of the stem.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str] = {}
    match product:
        case Table():
            write_csv(product.frame, stem.with_name(f"{stem.name}.csv"))
            short, full = SUFFIXES["table"][1:]
            texts[short] = to_latex(compact(product.layout), product.head, label or stem.name)
            texts[full] = to_latex(product.layout, product.head, f"{label or stem.name}-full")
        case Drawn():
            write_csv(product.frame, stem.with_name(f"{stem.name}.csv"))
            drawing.save(product.figure(settings), stem, settings)
        case Macros():
            [suffix] = SUFFIXES["macros"]
            texts[suffix] = product.text
    for suffix, text in texts.items():
        stem.with_name(f"{stem.name}{suffix}").write_text(text, encoding="utf-8")
