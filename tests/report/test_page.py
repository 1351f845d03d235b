import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from resalign.analysis.frames import long_table
from resalign.analysis.measurements import Measurements
from resalign.config.report import ReportConfig
from resalign.display import drawing, panels
from resalign.display.gallery import prepare, sample_grid
from resalign.display.layout import Cell
from resalign.display.templates import template
from resalign.report.build import build_report
from tests.analysis.experiment import (
    MODELS,
    SETTINGS,
    TITLES,
    make_context,
    make_gallery,
    make_histories,
    make_measurements,
    make_results,
    make_swept,
)

SECRET = (251, 3, 129)  # a colour that only the flagged image has


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("report")
    gallery = make_gallery(folder)
    build_report(make_results(make_swept(), gallery), make_context(), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def html(built) -> str:
    return (built / "report.html").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Collects tags, checking that they close in order."""

    void = {"meta", "link", "img", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_file_is_written(built):
    found = sorted(str(path.relative_to(built)) for path in built.rglob("*.*"))
    assert found == [
        "attacks.md",
        "figures/before_after.png",
        "figures/before_after.svg",
        "figures/pareto.png",
        "figures/pareto.svg",
        "figures/samples.png",
        "figures/steps.png",
        "figures/steps.svg",
        "figures/survival.png",
        "figures/survival.svg",
        "figures/sweep-rates.png",
        "figures/sweep-rates.svg",
        "report.html",
        "tables/paired.csv",
        "tables/pareto.csv",
        "tables/per_run.csv",
        "tables/steps.csv",
        "tables/survival.csv",
        "tables/sweep-rates-full.tex",
        "tables/sweep-rates-summary.csv",
        "tables/sweep-rates.csv",
        "tables/sweep-rates.tex",
        "tables/table1.csv",
    ]


def test_the_page_is_self_contained(html: str):
    assert not re.search(r"(?i)https?:|\bwww\.|@import|<script[^>]|fetch\(|XMLHttp", html)
    outline = Outline()
    outline.feed(html)
    for tag, attributes in outline.tags:
        for name in ("src", "href"):
            target = attributes.get(name)
            # A link may lead to a file beside the page; nothing is loaded from there.
            assert target is None or target.startswith(("data:", "#")) or tag == "a", (tag, target)
            assert not str(target).startswith("/")
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", html))


def test_the_page_is_well_formed_and_accessible(html: str):
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    names = [tag for tag, _ in outline.tags]
    assert names.count("h1") == 1
    assert names.index("h1") < names.index("h2") < names.index("h3")
    identifiers = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = {attributes["href"] for _, attributes in outline.tags if str(attributes.get("href")).startswith("#")}
    assert targets <= {f"#{name}" for name in identifiers}
    assert all(attributes.get("alt") for tag, attributes in outline.tags if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in outline.tags if tag == "svg")
    assert ("html", {"lang": "en"}) in outline.tags


def test_the_page_says_everything(html: str):
    for model in MODELS:
        assert f'<th scope="row">{TITLES[model]}</th>' in html
    for text in ("Before fine-tuning", "After 200 steps on bold", "12 min 31 s", "0123abcd", "# 2 &lt; 3", "912 MB"):
        assert text in html
    assert "a &lt;red&gt; seven" in html
    assert "prefers-color-scheme: dark" in html
    assert "#0072b2" not in html[html.index("</style>") :]  # figures use the page's colours


def test_the_menu_has_the_headings_words(html: str):
    menu = re.findall(r'<li><a href="#(\w+)">([^<]+)</a>', html)
    headings = re.findall(r'<section id="(\w+)">\s*<h2>([^<]+)</h2>', html)
    assert menu == headings
    assert len(menu) > 6


def test_two_training_seeds_stand_beside_their_mean():
    shown = template("display/parts.html.j2").module.shown
    assert (
        re.sub("<.*?>", "", shown(Cell("0.32", "[0.00, 0.98]", own="0.02, 0.61"))) == "0.32 (0.02, 0.61) [0.00, 0.98]"
    )
    assert re.sub("<.*?>", "", shown(Cell("0.32", "[0.30, 0.34]", spread="0.01"))) == "0.32 [0.30, 0.34]"


def test_sentences_are_apart(html: str):
    text = re.sub(r"<[^>]+>", "", html.partition("<body>")[2].partition("<script>")[0])
    assert re.findall(r"\w+\.[A-Z][a-z]+ [a-z]+", text) == []


def test_what_a_sweep_alone_has_stays_out_of_the_main_table(built, html: str):
    attacks = {name: set(pd.read_csv(built / "tables" / f"{name}.csv")["attack"]) for name in ("table1", "steps")}
    assert attacks == {
        "table1": {"none", "pages", "bold"},
        "steps": {"none", "pages", "bold", "pages-gentle", "pages-harsh"},
    }
    section = html[html.index('id="sweeps"') : html.index('id="samples"')]
    for text in (
        "Learning rates on pages",
        "Three rates &amp; a name.",
        "breaks at",
        "at worst",
        "IP after fine-tuning",
    ):
        assert text in section
    assert "pages-harsh" not in html


def test_times_stay_out_of_the_tables(built):
    for path in (built / "tables").iterdir():
        assert "83.45" not in path.read_text(encoding="utf-8")
        assert "seconds" not in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_all_bytes_repeat(built):
    folder = built.parent
    gallery = make_gallery(folder)
    build_report(make_results(make_swept(), gallery), make_context(), folder / "again")
    for path in built.rglob("*.*"):
        assert path.read_bytes() == (folder / "again" / path.relative_to(built)).read_bytes(), path.name


def shows(output, colour: tuple[int, int, int]) -> bool:
    """Whether a raster in the page or a PNG file has a pixel of that colour."""
    page = (output / "report.html").read_text(encoding="utf-8")
    pictures = [io.BytesIO(base64.b64decode(text)) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert pictures
    found = [(np.asarray(Image.open(file).convert("RGB")) == colour) for file in [*pictures, *output.rglob("*.png")]]
    return any(bool(pixels.all(axis=2).any()) for pixels in found)


def before_only() -> Measurements:
    """The experiment without any fine-tuning."""
    whole = make_measurements()
    images, runs = (frame[frame["attack"] == "none"] for frame in (whole.images, whole.runs))
    return make_measurements(images=images, runs=runs)


@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("flagged", [True, False])
def test_a_flagged_image_never_appears_unblurred(tmp_path, flagged: bool, size: int):
    gallery = make_gallery(tmp_path, size=size)
    gallery = gallery[gallery["attack"] == "none"]
    gallery["flagged"] = gallery.index == 0 if flagged else False
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = SECRET
    Image.fromarray(pixels).save(gallery.loc[0, "path"])
    build_report(make_results(before_only(), gallery, make_histories().head(0)), make_context(), tmp_path / "out")
    assert shows(tmp_path / "out", SECRET) is not flagged
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("flagged by the detector and blurred") == int(flagged)
    assert str(tmp_path) not in page


def test_the_blur_hides_details_at_any_size():
    # Stripes of a tenth of the image: what is left of them must be below a tenth of their contrast.
    for size in (32, 512):
        stripes = (np.arange(size) * 10 // size % 2 * 255).astype(np.uint8)
        image = Image.fromarray(np.repeat(np.tile(stripes, (size, 1))[:, :, None], 3, axis=2))
        middle = np.asarray(prepare(image, ReportConfig(), blurred=True))[48, 32:64, 0]
        assert int(middle.max()) - int(middle.min()) < 26
        sharp = np.asarray(prepare(image, ReportConfig(), blurred=False))[48, 32:64, 0]
        assert int(sharp.max()) - int(sharp.min()) > 200


def test_small_images_are_enlarged_without_smoothing():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shown = np.asarray(prepare(Image.fromarray(pixels), ReportConfig(tile_pixels=100), blurred=False))
    np.testing.assert_array_equal(shown, pixels.repeat(3, axis=0).repeat(3, axis=1))


def test_the_grid_shows_the_same_prompts_in_every_row(tmp_path, measurements):
    gallery = make_gallery(tmp_path).sample(frac=1, random_state=0)
    grid = sample_grid(gallery, measurements, ReportConfig(gallery_prompts=2))
    assert grid is not None
    assert [(row.model, row.state) for row in grid.rows[:2]] == [
        ("base", "before"),
        ("base", "after 200 steps on pages"),
    ]
    assert len(grid.rows) == 8
    for row in grid.rows:
        for prompt, tile in zip(grid.prompts, row.tiles, strict=True):
            assert tile is not None
            assert prompt in tile.alt
            assert tile.flagged == ("number 1" in prompt)


def test_a_missing_sample_or_seed(tmp_path, measurements):
    gallery = make_gallery(tmp_path)
    grid = sample_grid(gallery.drop(index=0), measurements, SETTINGS)
    assert grid is not None
    assert sum(tile is None for row in grid.rows for tile in row.tiles) == 1
    gallery.loc[gallery["model"] == "esd", "seed"] = 1
    with pytest.raises(ValueError, match="no samples of training seed 0 for"):
        sample_grid(gallery, measurements, SETTINGS)


def test_without_attacks_or_samples_the_page_still_stands(tmp_path):
    nothing = make_histories().head(0)
    gallery = pd.DataFrame(columns=make_gallery(tmp_path).columns)
    build_report(make_results(before_only(), gallery, nothing), make_context(), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Before fine-tuning" in page
    assert 'id="samples"' not in page
    assert 'id="steps"' not in page
    assert not (tmp_path / "out" / "figures").exists()


def test_nan_in_a_history_is_an_error(tmp_path):
    histories = make_histories()
    histories.loc[3, "value"] = float("nan")
    with pytest.raises(ValueError, match=r"histories: column 'value' is NaN or infinite in 1 rows, first \[3\]"):
        build_report(make_results(make_measurements(), make_gallery(tmp_path), histories), make_context(), tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("high", [0.05, 0.13, 0.27, 0.6, 1.02])
@pytest.mark.parametrize("low", [0.0, 0.001])
def test_ticks_of_rates_say_what_they_are(low: float, high: float):
    """Steps of 2.5 % that are written 2, 5, 8, 10 are none."""
    _, (axis,) = drawing.panels(1, SETTINGS)
    axis.set_xlim(low, high)
    axis.set_ylim(low, high)
    for scale in (axis.xaxis, axis.yaxis):
        drawing.percent_ticks(scale)
        places = scale.get_majorticklocs()
        labels = [scale.get_major_formatter()(place) for place in places]
        said = [float(label.rstrip("\N{NO-BREAK SPACE}%").replace("\N{MINUS SIGN}", "-")) for label in labels]
        assert said == pytest.approx([100 * place for place in places], abs=1e-9)
        assert max(map(len, labels)) <= len("100 %") + 1


def test_one_colour_a_model_in_every_figure(measurements):
    """Figures that show some models only, in whatever order, have the colours of all."""
    styles = drawing.model_styles(measurements, SETTINGS)
    table = long_table(measurements, SETTINGS)
    some = table[table["model"].isin(["resalign", "esd"])].iloc[::-1]
    figure = drawing.figure_of(panels.steps_panels(some, measurements, SETTINGS, "ip"), SETTINGS)
    drawn = {str(line.get_color()) for line in figure.axes[0].get_lines()}
    assert drawn == {styles[model].colour for model in ("esd", "resalign")}
    assert drawing.styles_of(MODELS, "base", SETTINGS) == styles
