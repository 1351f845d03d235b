"""Tables as LaTeX: everything is in them once, no part is wider than a page, and LaTeX takes them."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from resalign.analysis.frames import long_table
from resalign.display.latex import LINE_CHARACTERS, PAGE_LINES, to_latex
from resalign.display.layout import Cell, Column, ResultTable, Row, lay_out
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


def tabulars(latex: str) -> list[list[list[str]]]:
    """Rows of cells of each part, without rules."""
    found = re.findall(r"\\begin\{tabular\}.*?\n(.*?)\\end\{tabular\}", latex, flags=re.DOTALL)
    return [[line[:-3].split(" & ") for line in part.splitlines() if line.endswith(r"\\")] for part in found]


def test_a_wide_table_is_set_in_parts_with_every_cell_once(table: ResultTable) -> None:
    latex = to_latex(table)
    parts = tabulars(latex.replace(r"\&", "and"))
    assert len(parts) > 1
    for number, row in enumerate(table.rows):
        lines = [part[2 + number] for part in parts]  # below the groups and the headers
        assert {line[0] for line in lines} == {row.title.replace("_", r"\_").replace("&", "and").replace("%", r"\%")}
        cells = [cell for line in lines for cell in line[1:]]
        assert len(cells) == len(table.columns)
        for cell, found in zip(row.cells, cells, strict=True):
            assert cell is not None
            value = rf"\textbf{{{cell.value}}}" if cell.best else cell.value
            assert found == f"{value} {cell.interval}".strip()


def test_no_part_is_wider_than_a_page_and_a_group_that_fits_is_whole(table: ResultTable) -> None:
    parts = tabulars(to_latex(table))
    plain = [[re.sub(r"\\textbf\{(.*?)\}", r"\1", " ".join(row)) for row in part[2:]] for part in parts]
    assert max(len(row) for part in plain for row in part) <= LINE_CHARACTERS
    groups = [re.findall(r"\\multicolumn\{(\d+)\}\{c\}\{(.*?)\}", " & ".join(part[0])) for part in parts]
    widths = [(title, int(width)) for part in groups for width, title in part]
    assert widths[:3] == [(title.replace("%", r"\%"), width) for title, width in table.groups[:3]]
    # The last group, of six columns, is wider than a page.
    assert sum(width for title, width in widths if title == "Benign generation") == table.groups[3][1] == 6
    assert len([title for title, _ in widths if title == "Benign generation"]) == 2


def long(table: ResultTable, times: int) -> ResultTable:
    """Its rows again and again, each with a name of its own."""
    rows = [replace(row, title=f"{row.title} {number}") for number in range(times) for row in table.rows]
    return replace(table, rows=tuple(rows))


def test_a_table_that_is_longer_than_a_page_goes_on_in_another_float(table: ResultTable) -> None:
    for columns, times in ((len(table.columns), 5), (2, 30)):  # several parts of 20 rows, one part of 120
        shown = tuple(replace(row, cells=row.cells[:columns]) for row in table.rows)
        latex = to_latex(long(replace(table, columns=table.columns[:columns], rows=shown), times))
        floats = latex.split(r"\begin{table*}")[1:]
        assert [r"\caption{(continued)}" in text for text in floats] == [False, *[True] * (len(floats) - 1)]
        assert max(sum(map(len, tabulars(text))) for text in floats) <= PAGE_LINES
        cells = [row for text in floats for part in tabulars(text) for row in part[2:]]
        assert len({row[0] for row in cells}) == times * len(table.rows)


def test_rows_that_share_a_name_stay_in_one_line(table: ResultTable) -> None:
    rows = tuple(replace(row, title="ip") for row in table.rows)
    assert len(tabulars(to_latex(replace(table, rows=rows)))) == 1


def test_a_part_leaves_out_rows_of_which_it_has_nothing(table: ResultTable) -> None:
    first = table.rows[0]
    below = Row("published", "published", False, (Cell("0.36", ""), *[None] * (len(first.cells) - 1)))
    parts = tabulars(to_latex(replace(table, rows=(first, below))))
    assert [len(part) for part in parts] == [2 + 2, *[2 + 1] * (len(parts) - 1)]


def test_a_table_without_groups_has_no_line_for_them() -> None:
    plain = ResultTable((Column("", "p", "", "p"),), (Row("a", "a", False, (Cell("0.1", ""),)),), "A caption.")
    latex = to_latex(plain, "Metric")
    assert tabulars(latex) == [[["Metric", "p"], ["a", "0.1"]]]
    assert "cmidrule" not in latex


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="LaTeX is not installed")
@pytest.mark.parametrize("kind", ["wide", "long", "characters"])
def test_latex_takes_it(table: ResultTable, tmp_path: Path, kind: str) -> None:
    if kind == "long":
        narrow = tuple(replace(row, cells=row.cells[:2]) for row in table.rows)
        table = long(replace(table, columns=table.columns[:2], rows=narrow), 30)
    if kind == "characters":
        rows = tuple(Row("a", title, False, (Cell("0.1", "[0, 1]"),)) for title in ("[full]", *STRANGE))
        table = ResultTable(
            (Column("η < 1", "λ ≤ ∞", "‖H‖", "p"),), rows, "A note.\n\nAnd another\N{NO-BREAK SPACE}one."
        )
    (tmp_path / "table.tex").write_text(to_latex(table, "η"), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(PAPER)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:]
    assert not re.findall(r"^(?:Overfull|LaTeX Warning: (?!Label)|Missing character).*", made.stdout, re.MULTILINE)
