"""Laid-out tables as LaTeX floats; needs the packages booktabs and graphicx."""

from __future__ import annotations

from dataclasses import replace

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
# Scaled down to two columns' width and to what the caption leaves of a page's height, and never up.
_FITTED = (
    r"\resizebox*{!}{\ifdim\totalheight>0.7\textheight0.7\textheight\else\totalheight\fi}{%",
    r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
)


def compact(table: ResultTable) -> ResultTable:
    """The table as a paper prints it: means with their standard deviations, without intervals."""
    rows = (
        replace(row, cells=tuple(replace(cell, interval="") if cell else None for cell in row.cells))
        for row in table.rows
    )
    return replace(table, rows=tuple(rows), caption=table.short_caption or table.caption)


def to_latex(table: ResultTable, head: str = "Model", label: str = "") -> str:
    """The table as one float over two columns.

    Args:
        table: As laid out.
        head: Header of the rows.
        label: Name of the table, ``tab:label`` for references; none if empty.
    """
    caption = " ".join(line.strip(" ") for line in table.caption.splitlines() if line)  # a blank line would end it
    lines = [
        r"\begin{table*}",
        r"\centering",
        r"\footnotesize",
        rf"\caption{{{_latex(caption)}}}",
        *([rf"\label{{tab:{label}}}"] if label else []),
        *_FITTED,
        "\n".join(_tabular(table, head)) + "}}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


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
    """Protects a title that begins with a bracket, which LaTeX would read as an option of the line end before it."""
    return f"{'{}' * text.startswith('[')}{_latex(text)}"


def _header(column: Column) -> str:
    return f"{column.title} ({column.detail})" if column.detail else column.title


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    value = rf"\textbf{{{_latex(cell.value)}}}" if cell.best else _latex(cell.value)
    spread = f"{_latex('±')} {_latex(cell.spread)}" if cell.spread else ""
    own = f"({_latex(cell.own)})" if cell.own else ""
    return " ".join(filter(None, (value, spread, own, _latex(cell.interval))))


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
