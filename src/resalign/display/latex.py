"""Laid-out tables as LaTeX, for a two-column paper; needs the packages booktabs and graphicx."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, pairwise

from resalign.display.layout import Cell, Column, ResultTable

# Characters of mathematics, and their names in it.
_SYMBOLS = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ↓↑→±×≤≥∞∇‖"
_NAMES = (
    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon varphi chi "
    "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega "
    "downarrow uparrow rightarrow pm times leq geq infty nabla |"
)
# What pdfTeX would not set, or set as something else. Letters of other scripts are left as they are, for LuaTeX.
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    **{character: f"${character}$" for character in "<>"},
    "\N{NO-BREAK SPACE}": "~",
    "−": "$-$",
    "–": "--",
    **{character: rf"$\{name}$" for character, name in zip(_SYMBOLS, _NAMES.split(), strict=True)},
}
# What a line of \footnotesize over two columns holds, about; what is a little wider is scaled down to it.
LINE_CHARACTERS = 150
SCALED = 1.3
_GAP_CHARACTERS = 3  # between two columns
# Lines of \footnotesize that a page has; a float cannot be broken. A caption's are larger, and hold less.
PAGE_LINES = 55
_LINES_BESIDE_ROWS = 4
_CAPTION_CHARACTERS, _CAPTION_LINES = 110, 1.3
_BEGIN, _END = (r"\begin{table*}", r"\centering", r"\footnotesize"), r"\end{table*}"


def to_latex(table: ResultTable, head: str = "Model") -> str:
    """The table; one that is wider than a page becomes parts below each other, and one that is longer, several floats.

    A part leaves out rows of which it has nothing. A table whose rows share names is not set in parts, but scaled.

    Args:
        table: As laid out.
        head: What the rows are.
    """
    caption = " ".join(line.strip(" ") for line in table.caption.splitlines() if line)  # a blank line would end it
    told = _CAPTION_LINES * math.ceil(len(caption) / _CAPTION_CHARACTERS)
    lines, height = [*_BEGIN, rf"\caption{{{_latex(caption)}}}"], told
    pieces = [piece for part in _parts(table, head) for piece in _pages(part, PAGE_LINES - _LINES_BESIDE_ROWS - told)]
    for place, piece in enumerate(pieces):
        tall = len(piece.rows) + _LINES_BESIDE_ROWS
        if place and height + tall > PAGE_LINES:
            lines += [_END, *_BEGIN, r"\addtocounter{table}{-1}", r"\caption{(continued)}"]
            height = _CAPTION_LINES
        elif place:
            lines.append(r"\par\medskip")
        height += tall
        # Scaled down where it must be, and never up.
        lines += [r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%", *_tabular(piece, head)]
        lines[-1] += "}"
    return "\n".join([*lines, _END]) + "\n"


def _pages(table: ResultTable, most: float) -> list[ResultTable]:
    """The table in pieces of at most so many rows."""
    rows, size = table.rows, max(1, int(most))
    return [replace(table, rows=rows[start : start + size]) for start in range(0, max(1, len(rows)), size)]


def _parts(table: ResultTable, head: str) -> Iterator[ResultTable]:
    """Parts that a page is wide enough for: as many groups of columns as fit, of a group that does not, its columns."""
    titles = [row.title for row in table.rows]
    first = max(map(len, (head, *titles)))
    widths = [_GAP_CHARACTERS + _characters(table, place) for place in range(len(table.columns))]
    if first + sum(widths) <= SCALED * LINE_CHARACTERS or len(set(titles)) < len(titles):
        yield table
        return
    ends = [0, *accumulate(width for _, width in table.groups)]
    pieces = []
    for start, end in pairwise(ends):
        fits = first + sum(widths[start:end]) <= LINE_CHARACTERS
        pieces += [range(start, end)] if fits else [range(place, place + 1) for place in range(start, end)]
    part: list[int] = []
    for piece in pieces:
        if part and first + sum(widths[place] for place in [*part, *piece]) > LINE_CHARACTERS:
            yield _with_columns(table, part)
            part = []
        part += piece
    if part:
        yield _with_columns(table, part)


def _characters(table: ResultTable, place: int) -> int:
    """Of a column's widest text, as it is set."""
    cells = [row.cells[place] for row in table.rows]
    texts = [f"{cell.value} {cell.interval}".strip() if cell else "--" for cell in cells]
    return max(map(len, [_header(table.columns[place]), *texts]))


def _with_columns(table: ResultTable, places: list[int]) -> ResultTable:
    rows = (replace(row, cells=tuple(row.cells[place] for place in places)) for row in table.rows)
    shown = tuple(row for row in rows if any(row.cells))
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=shown)


def _tabular(table: ResultTable, head: str) -> list[str]:
    spans, rules, first = [], [], 2
    for title, width in table.groups:
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex(title)}}}")
        rules += [rf"\cmidrule(lr){{{first}-{first + width - 1}}}"] if title else []
        first += width
    groups = [" & ".join(["", *spans]) + r" \\", "".join(rules)] if rules else []
    return [
        rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
        r"\toprule",
        *groups,
        " & ".join(_latex(text) for text in (head, *map(_header, table.columns))) + r" \\",
        r"\midrule",
        *(" & ".join([_row_title(row.title), *map(_cell, row.cells)]) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _row_title(text: str) -> str:
    """A line that begins with a bracket would be an option of the line end before it."""
    return f"{'{}' * text.startswith('[')}{_latex(text)}"


def _header(column: Column) -> str:
    return f"{column.title} ({column.detail})" if column.detail else column.title


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    value = rf"\textbf{{{_latex(cell.value)}}}" if cell.best else _latex(cell.value)
    return f"{value} {_latex(cell.interval)}".strip()


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
