"""Tables as LaTeX: every cell once in one float, with or without intervals, and LaTeX takes it."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from resalign.analysis.frames import long_table
from resalign.display.latex import compact, to_latex
from resalign.display.layout import Cell, Column, ResultTable, TableRow, lay_out
from tests.analysis.experiment import SETTINGS, make_measurements

STRANGE = ("Pokémon", "α β γ δ ε ω Σ ∇ ≥ × ± ↑ → Ω", "a|b > c & 5 % of #1 {x} ~ ^ \\\\", "½ · … – − ²")
PAPER = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs,graphicx}
\begin{document}\input{table}\end{document}
"""


@pytest.fixture(scope="module")
def table() -> ResultTable:
    """The main table of the made-up experiment, with names that LaTeX would trip over."""
    renamed = make_measurements(titles={"esd": "ESD_x & 100%"})
    return lay_out(long_table(renamed, SETTINGS), renamed, SETTINGS)


def tabular(latex: str) -> list[list[str]]:
    """Rows of cells, without rules."""
    [found] = re.findall(r"\\begin\{tabular\}.*?\n(.*?)\\end\{tabular\}", latex, flags=re.DOTALL)
    return [line[:-3].split(" & ") for line in found.splitlines() if line.endswith(r"\\")]


@pytest.mark.parametrize("is_compact", [False, True])
def test_every_cell_is_there_once(table: ResultTable, is_compact: bool) -> None:
    latex = to_latex(compact(table) if is_compact else table, label="main")
    assert latex.count(r"\begin{table*}") == 1
    assert r"\label{tab:main}" in latex
    lines = tabular(latex.replace(r"\&", "and"))[2:]  # below the groups and the headers
    for row, (name, *cells) in zip(table.rows, lines, strict=True):
        assert name == row.title.replace("_", r"\_").replace("&", "and").replace("%", r"\%")
        for cell, found in zip(row.cells, cells, strict=True):
            assert cell is not None
            value = rf"\textbf{{{cell.value}}}" if cell.best else cell.value
            spread = rf"$\pm$ {cell.spread}" if cell.spread else ""
            assert found == " ".join(filter(None, (value, spread, "" if is_compact else cell.interval)))


def test_a_table_without_groups_has_no_line_for_them() -> None:
    plain = ResultTable((Column("", "p", "", "p"),), (TableRow("a", "a", False, (Cell("0.1"),)),), "A caption.")
    latex = to_latex(plain, "Metric")
    assert tabular(latex) == [["Metric", "p"], ["a", "0.1"]]
    assert "cmidrule" not in latex
    assert "label" not in latex


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="LaTeX is not installed")
@pytest.mark.parametrize("kind", ["wide", "long", "characters"])
def test_latex_takes_it(table: ResultTable, tmp_path: Path, kind: str) -> None:
    if kind == "long":
        few = [replace(row, cells=row.cells[:2]) for row in table.rows]
        rows = tuple(replace(row, title=f"{row.title} {n}") for n in range(30) for row in few)
        table = replace(table, columns=table.columns[:2], rows=rows)
    if kind == "characters":
        rows = tuple(TableRow("a", title, False, (Cell("0.1", "[0, 1]"),)) for title in ("[full]", *STRANGE))
        table = ResultTable(
            (Column("η < 1", "λ ≤ ∞", "‖H‖", "p"),), rows, "A note.\n\nAnd another\N{NO-BREAK SPACE}one."
        )
    (tmp_path / "table.tex").write_text(to_latex(table, "η"), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(PAPER)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:]
    assert not re.findall(r"^(?:Overfull|LaTeX Warning: (?!Label)|Missing character).*", made.stdout, re.MULTILINE)
