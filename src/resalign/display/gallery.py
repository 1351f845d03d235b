"""The sample grid: every row has the same prompts and noise; flagged images are blurred before they are embedded."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageFilter

from resalign import shards
from resalign.analysis.frames import final_states
from resalign.analysis.measurements import GALLERY_COLUMNS, NOT_ATTACKED, STATE, Measurements, check_frame
from resalign.config.report import ReportConfig
from resalign.data.image_files import open_image
from resalign.display import drawing
from resalign.display.drawing import INK, MUTED, RULE
from resalign.display.layout import target_title

FLAG_COLOUR = "#c8321f"
_LABEL_TILES = 1.9  # width of a row's label, in tiles
_PROMPT_CHARACTERS, _STATE_CHARACTERS = 16, 26  # of a line above a column and at the left of a row
_MARGIN = 0.03  # around a tile, in tiles, as are the next three
_GAP_TILES = 0.22  # between two models
_HEAD_TILES, _FOOT_TILES = 0.6, 0.3  # prompts above, the note below


@dataclass(frozen=True)
class Tile:
    """An image ready to be shown: already blurred if it was flagged.

    Attributes:
        image: RGB, ``tile_pixels`` on its longer side, or the nearest whole multiple of a small image's.
        flagged: Whether the detector flagged the original.
        alt: Alternative text.
        path: The file of the original image, or its shard; it is never embedded if it is flagged.
    """

    image: Image.Image
    flagged: bool
    alt: str
    path: str

    @property
    def data_uri(self) -> str:
        """The image as a PNG inside a URI."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class GridRow:
    """A model in one state; a tile is None where that image was not sampled."""

    model: str
    title: str
    state: str
    tiles: tuple[Tile | None, ...]


@dataclass(frozen=True)
class Grid:
    """The grid, with one prompt per column."""

    prompts: tuple[str, ...]
    rows: tuple[GridRow, ...]
    seed: int


def sample_grid(gallery: pd.DataFrame, measurements: Measurements, settings: ReportConfig) -> Grid | None:
    """Chooses and prepares the samples.

    Columns are the first ``gallery_prompts + gallery_retained`` pairs of prompt and image index, in the order
    of the rows given; rows are the models before each attack and after its last step. All images have the lowest seed.

    Args:
        gallery: Columns model, attack, dataset, steps, seed, prompt_id, prompt, image_index, path, flagged.
        measurements: Names, titles and orders.
        settings: Numbers of prompts and pixels, and the blur.

    Returns:
        None for an empty gallery.

    Raises:
        ValueError: If a column is missing or a state has no samples of the lowest seed.
        FileNotFoundError: If an image is missing.
    """
    check_frame(gallery, "gallery", GALLERY_COLUMNS)
    if gallery.empty:
        return None
    seed = int(gallery["seed"].min())
    final = final_states(gallery)
    chosen = final[final["seed"] == seed]
    lost = set(final[list(STATE)].itertuples(index=False, name=None)) - set(
        chosen[list(STATE)].itertuples(index=False, name=None)
    )
    if lost:
        raise ValueError(f"gallery: no samples of training seed {seed} for {sorted(lost)}; give every state one seed")
    most = settings.gallery_prompts + settings.gallery_retained
    columns = chosen[["prompt_id", "image_index"]].drop_duplicates().head(most)
    keys = list(columns.itertuples(index=False, name=None))
    prompts = chosen.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    rows = []
    for state in sorted(set(chosen[list(STATE)].itertuples(index=False, name=None)), key=_order(measurements)):
        model, attack, *_ = state
        mask = (chosen[list(STATE)] == list(state)).all(axis=1)
        samples = chosen[mask].set_index(["prompt_id", "image_index"])
        named = "before" if attack == NOT_ATTACKED else f"after {target_title(measurements, final, attack)}"
        tiles = tuple(
            _tile(samples.loc[key], named, measurements, settings) if key in samples.index else None for key in keys
        )
        rows.append(GridRow(model, measurements.title(model), named, tiles))
    return Grid(prompts=tuple(str(prompts[prompt]) for prompt, _ in keys), rows=tuple(rows), seed=seed)


def _order(measurements: Measurements) -> Callable[[tuple[str, str, str, int]], tuple[int, int]]:
    """Models and attacks as given, the state before fine-tuning first."""
    attacks = [NOT_ATTACKED, *measurements.attacks]

    def key(state: tuple[str, str, str, int]) -> tuple[int, int]:
        model, attack, *_ = state
        return measurements.models.index(model), attacks.index(attack)

    return key


def _tile(row: pd.Series, state: str, measurements: Measurements, settings: ReportConfig) -> Tile:
    flagged = bool(row["flagged"])
    path = Path(row["path"])
    image = prepare(open_image(path), settings, blurred=flagged)
    note = "; flagged by the detector and blurred" if flagged else ""
    alt = f"{measurements.title(str(row['model']))}, {state}: {row['prompt']}{note}"
    return Tile(image, flagged, alt, str(shards.holder(path)))


def prepare(image: Image.Image, settings: ReportConfig, *, blurred: bool) -> Image.Image:
    """Blurs a flagged image, then brings it to the grid's size.

    A small image is enlarged by a whole factor without smoothing, so that its pixels stay visible; a large one is
    reduced. The blur is applied first, with a radius in proportion to the image, so that it hides equally
    much at any size.
    """
    image = image.convert("RGB")
    side = max(image.size)
    if blurred:
        image = image.filter(ImageFilter.GaussianBlur(settings.blur_fraction * side))
    if side > settings.tile_pixels:
        scale = settings.tile_pixels / side
        return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    factor = settings.tile_pixels // side
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def grid_figure(grid: Grid, settings: ReportConfig) -> Figure:
    """The grid as a figure for a README: prompts above, models at the left, flagged tiles outlined."""
    columns, places = len(grid.prompts), _places(grid)
    bottom = places[-1] + 1 + _FOOT_TILES
    inch = settings.tile_pixels / 96.0  # a CSS pixel
    small = settings.font_points - 2
    with drawing.theme(settings):
        figure = Figure(figsize=((columns + _LABEL_TILES) * inch, (bottom + _HEAD_TILES) * inch))
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axis.set(xlim=(-_LABEL_TILES, columns), ylim=(bottom, -_HEAD_TILES))
        axis.set_axis_off()
        label: dict[str, Any] = {"color": MUTED, "fontsize": small}
        for column, prompt in enumerate(grid.prompts):
            text = textwrap.fill(prompt, _PROMPT_CHARACTERS)
            axis.text(column + 0.5, -0.06, text, ha="center", va="bottom", **label)
        for y, row in zip(places, grid.rows, strict=True):
            state = textwrap.fill(row.state, _STATE_CHARACTERS)
            axis.text(-0.1, y + 0.46, row.title, ha="right", va="bottom", fontweight="bold", color=INK)
            axis.text(-0.1, y + 0.5, state, ha="right", va="top", **label)
            for column, tile in enumerate(row.tiles):
                _draw_tile(axis, tile, column, y)
        note = "Outlined: flagged by the detector, and blurred."
        axis.text(_MARGIN, bottom - 0.5 * _FOOT_TILES, note, va="center", color=FLAG_COLOUR, fontsize=small)
    return figure


def _places(grid: Grid) -> list[float]:
    """The top of each row, in tiles; there is a gap between models."""
    places: list[float] = []
    for number, row in enumerate(grid.rows):
        apart = number > 0 and row.model != grid.rows[number - 1].model
        places.append(places[-1] + 1 + _GAP_TILES * apart if places else 0.0)
    return places


def _draw_tile(axis: Axes, tile: Tile | None, column: int, top: float) -> None:
    """One image, in its own proportions, in the middle of its square."""
    if tile is None:
        axis.text(column + 0.5, top + 0.5, "–", ha="center", va="center", color=MUTED)
        return
    half = (0.5 - _MARGIN) / max(tile.image.size)
    width, height = half * tile.image.width, half * tile.image.height
    left, right, upper, lower = column + 0.5 - width, column + 0.5 + width, top + 0.5 - height, top + 0.5 + height
    axis.imshow(np.asarray(tile.image), extent=(left, right, lower, upper), interpolation="nearest", aspect="auto")
    edge, line = (FLAG_COLOUR, 1.6) if tile.flagged else (RULE, 0.6)
    axis.add_patch(Rectangle((left, upper), 2 * width, 2 * height, fill=False, edgecolor=edge, linewidth=line))
