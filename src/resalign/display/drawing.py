"""The common look of figures (type, colours, one style per model), and writing them with reproducible bytes."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from resalign.analysis.measurements import Measurements
from resalign.config.report import ReportConfig

# Names of the page's colours (style.html.j2 defines them, light and dark) to what a figure's file shows instead.
INK, MUTED, RULE, SURFACE = "#1d2329", "#5b6670", "#d9dee3", "#fefefe"
PAGE_COLOURS = {INK: "--ink", MUTED: "--muted", RULE: "--rule", SURFACE: "--surface"}
_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)))
_MARKERS = ("o", "s", "D", "^", "v", "P")
_TITLE_CHARACTERS = 34  # of a line of a panel's title
_PAGE_SCALE = 1.2  # of a wide panel on the page: about that of the other panels there


@dataclass(frozen=True)
class Style:
    """A model's style in every figure."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str

    @property
    def markers(self) -> dict[str, Any]:
        """Colour and markers, as ``Axes.plot`` takes them."""
        return {"color": self.colour, "marker": self.marker, "ms": 5.0, "mec": SURFACE, "mew": 0.6}


BEFORE_STYLE = Style(MUTED, (0, (3, 2)), "X")


@dataclass(frozen=True)
class Panel:
    """One plot: a part of a figure's file, and a separate figure on the page, where panels wrap.

    Attributes:
        title: Above the plot.
        label: Its alternative text, with the numbers.
        draw: Draws on the axes; :func:`theme` is in force.
        height: In inches; None for the settings'.
        width: In inches, where the plot needs more than the settings'.
    """

    title: str
    label: str
    draw: Callable[[Axes], None]
    height: float | None = None
    width: float | None = None


def model_styles(measurements: Measurements, settings: ReportConfig) -> dict[str, Style]:
    """:func:`styles_of` the measured models."""
    return styles_of(measurements.models, measurements.base, settings)


def styles_of(models: Sequence[str], base: str, settings: ReportConfig) -> dict[str, Style]:
    """The base in grey, every other model by its place: the same in every figure of an experiment.

    Args:
        models: All of the experiment, in its order, whether or not a figure shows them.
        base: The model before unlearning.
        settings: The colours.

    Raises:
        ValueError: If there are more models than colours times line styles.
    """
    others = [model for model in models if model != base]
    colours = settings.palette
    if len(others) > len(colours) * len(_DASHES):
        raise ValueError(
            f"{len(others)} models, but {len(colours)} colours in {len(_DASHES)} line styles; lengthen report.palette"
        )
    styles = {base: BEFORE_STYLE}
    for place, model in enumerate(others):
        turn, colour = divmod(place, len(colours))
        styles[model] = Style(colours[colour], _DASHES[turn], _MARKERS[place % len(_MARKERS)])
    return styles


@contextmanager
def theme(settings: ReportConfig, *, text_as_paths: bool = True) -> Iterator[None]:
    """Matplotlib's settings for one figure; nothing global is left changed."""
    size = settings.font_points
    rc: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": size,
        "axes.titlesize": size + 1,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.labelsize": size,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "text.color": INK,
        "axes.titlecolor": INK,
        "axes.labelcolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.edgecolor": RULE,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "ytick.major.pad": 6,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "path" if text_as_paths else "none",
        "svg.hashsalt": "resalign",
    }
    with matplotlib.rc_context(rc):
        yield


def percent_ticks(scale: Axis, unit: str = "\N{NO-BREAK SPACE}%") -> None:
    """Ticks of a rate, in steps of 1, 2 or 5 per cent (or their tenths, …), labelled without rounding."""
    scale.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10]))
    scale.set_major_formatter(FuncFormatter(lambda value, _: exact_percent(value) + unit))


def exact_percent(value: float) -> str:
    """A tick's value in per cent, with as many decimals as it has.

    >>> exact_percent(0.07), exact_percent(0.025)
    ('7', '2.5')
    """
    return f"{round(100 * value, 6) + 0.0:g}".replace("-", "\N{MINUS SIGN}")


def panels(count: int, settings: ReportConfig, *, height: float | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, sharing their vertical axis, in rows of ``panel_columns``."""
    columns = min(count, settings.panel_columns)
    rows = -(-count // columns)
    width, height = settings.panel_width_inches, height or settings.panel_height_inches
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    axes = list(grid.ravel())
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def figure_of(subplots: Sequence[Panel], settings: ReportConfig) -> Figure:
    """A figure of all panels side by side, each with its title; an empty figure if there are none."""
    if not subplots:
        return Figure()
    width = max([settings.panel_width_inches, *(panel.width or 0.0 for panel in subplots)])
    columns = max(1, int(settings.panel_columns * settings.panel_width_inches / width))
    sized = settings.model_copy(update={"panel_width_inches": width, "panel_columns": columns})
    with theme(settings):
        height = max(panel.height or 0.0 for panel in subplots)
        figure, axes = panels(len(subplots), sized, height=height or None)
        for axis, panel in zip(axes, subplots, strict=True):
            panel.draw(axis)
            axis.set_title(textwrap.fill(panel.title, _TITLE_CHARACTERS))
    return figure


def inlined(subplots: Sequence[Panel], settings: ReportConfig, name: str) -> list[dict[str, Any]]:
    """The panels for the page: title, ``<svg>`` element, and the width in inches of a wide one.

    Args:
        subplots: The panels.
        settings: Sizes and colours.
        name: Of all of them, unique in the page.
    """
    result = []
    for place, panel in enumerate(subplots):
        width = panel.width if panel.width and panel.width > settings.panel_width_inches else None
        sized = settings.model_copy(update={"panel_width_inches": width}) if width else settings
        with theme(settings, text_as_paths=False):
            figure, (axis,) = panels(1, sized, height=panel.height)
            panel.draw(axis)
        svg = inline_svg(figure, name=f"{name}-{place}", label=panel.label, settings=settings)
        result.append({"title": panel.title, "svg": svg, "inches": _PAGE_SCALE * width if width else None})
    return result


def save(figure: Figure, stem: Path, settings: ReportConfig, formats: Sequence[str] = ("png", "svg")) -> None:
    """Writes ``stem.png`` and ``stem.svg`` (or one of them) on white, without dates."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    with theme(settings):
        for suffix in formats:
            figure.savefig(
                stem.with_suffix(f".{suffix}"),
                dpi=settings.dots_per_inch,
                facecolor="white",
                metadata=metadata[suffix],
            )


def inline_svg(figure: Figure, *, name: str, label: str, settings: ReportConfig) -> str:
    """The figure as an ``<svg>`` element: text stays text, colours are the page's, ids are its own.

    Args:
        figure: What to draw.
        name: A prefix for ids, unique in the page.
        label: The alternative text.
        settings: Palette, of which each colour becomes the page's variable ``--series-N``.
    """
    buffer = io.StringIO()
    with theme(settings, text_as_paths=False):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = text.replace(' id="', f' id="{name}-').replace('href="#', f'href="#{name}-')
    text = text.replace("url(#", f"url(#{name}-")
    for colour, variable in page_colours(settings).items():
        text = text.replace(colour, f"var({variable})")
    view_box = re.search(r'viewBox="[^"]*"', text)
    if view_box is None:
        raise ValueError(f"figure '{name}': matplotlib wrote no viewBox; its SVG backend has changed")
    alt = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = f'<svg role="img" aria-label="{alt}" {view_box.group(0)}>'
    return head + text[text.index(">") + 1 :].strip()


def page_colours(settings: ReportConfig) -> dict[str, str]:
    """Maps the colours of a file to the page's variables of the same meaning."""
    series = {colour: f"--series-{place}" for place, colour in enumerate(settings.palette)}
    return {colour.lower(): variable for colour, variable in (PAGE_COLOURS | series).items()}


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves label positions apart to at least ``gap``, each as little as the order allows, within [low, high].

    >>> spread([0.0, 0.0], 1.0, 0.0, 5.0)
    [0.0, 1.0]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved: list[float] = []
    for index in order:
        moved.append(max(places[index], low if not moved else moved[-1] + gap))
    ceiling = high
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], ceiling)
        ceiling = moved[place] - gap
    result = [0.0] * len(places)
    for index, value in zip(order, moved, strict=True):
        result[index] = value
    return result
