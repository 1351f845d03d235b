"""The page as a reader has it: in Chromium, by mouse and by keyboard, on a phone, in the dark, without scripts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from resalign.report.build import build_report
from tests.analysis.experiment import MODELS, make_context, make_gallery, make_histories, make_results, make_swept

from .browser import DESKTOP, PHONE, Visit, browser, needs_chromium, visit

pytestmark = [needs_chromium, pytest.mark.slow]

MAIN = "#results table.main.sortable"
FIRST_FLAGGED = "button.flagged >> nth=0"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    gallery = make_gallery(folder)
    histories = make_histories().query("seed == 0")
    build_report(make_results(make_swept(), gallery, histories), make_context(), folder / "out")
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture
def opened(chromium: Any, path: Path) -> Iterator[Visit]:
    with visit(chromium, path) as found:
        yield found


# --- everywhere -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("viewport", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")], ids=["phone", "desktop"])
def test_it_opens_quietly_and_fits(chromium: Any, path: Path, viewport: dict[str, int], scheme: str) -> None:
    with visit(chromium, path, viewport=viewport, color_scheme=scheme) as found:
        assert found.page.title() == "Does the seven come back?"
        for details in found.page.locator("details").all():
            details.evaluate("details => details.open = true")
        assert found.page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        assert found.complaints == []
        assert {url for url in found.requests if not url.startswith("data:")} == {path.as_uri()}


def test_a_phone_shows_a_number_of_every_table_and_the_definitions_whole(chromium: Any, path: Path) -> None:
    with visit(chromium, path, viewport=PHONE) as found:
        for table in found.page.locator("#results table.main").all():
            number = table.locator(".number").first.bounding_box()
            assert number["x"] + number["width"] <= PHONE["width"]
        for table in found.page.locator("table.prose").all():
            assert table.bounding_box()["width"] <= PHONE["width"]
        options = "[...document.querySelectorAll('.origin .word')].filter(word => word.textContent.startsWith('--'))"
        heights = []
        for width in range(320, PHONE["width"], 6):  # the end of a line falls into every option once
            found.page.set_viewport_size({**PHONE, "width": width})
            heights += found.page.evaluate(f"{options}.map(word => word.getBoundingClientRect().height).filter(h => h)")
        assert heights
        assert max(heights) < 1.5 * min(heights), "an option is broken between two lines"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_readers_colours_and_axe_finds_nothing_serious(chromium: Any, path: Path, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with visit(chromium, path, color_scheme=scheme) as found:
        style = found.page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
        paper, ink = (np.mean([int(number) for number in re.findall(r"\d+", colour)]) for colour in style)
        assert (paper > 230 and ink < 60) if scheme == "light" else (paper < 60 and ink > 200)
        # A plot's axes are drawn in the page's own ink.
        assert found.page.evaluate(
            "getComputedStyle(document.querySelector('.panels svg text')).fill !== 'rgb(0, 0, 0)'"
        )
        for details in found.page.locator("details").all():
            details.evaluate("details => details.open = true")
        for state in ("the page", "an enlarged plot"):
            if state != "the page":
                found.page.locator("button.enlarge").first.click()
            violations = Axe().run(found.page).response["violations"]
            wrong = [
                f"{rule['id']}: {[node['target'] for node in rule['nodes'][:3]]}"
                for rule in violations
                if rule["impact"] in ("serious", "critical")
            ]
            assert not wrong, state


def test_without_scripts_everything_can_be_read(chromium: Any, path: Path) -> None:
    with visit(chromium, path, java_script_enabled=False) as found:
        assert found.page.locator("button").count() == 0
        assert found.page.locator(MAIN).is_visible()
        assert found.page.locator(".panels svg").first.is_visible()
        flagged = found.page.locator("a.flagged").first
        assert (path.parent / str(flagged.get_attribute("href"))).is_file()
        assert str(flagged.locator("img").get_attribute("src")).startswith("data:")


# --- the keyboard -----------------------------------------------------------------------------------------------------


def test_tab_reaches_everything_that_can_be_done(opened: Visit) -> None:
    stops = opened.walk()
    assert stops[0].startswith("a|skip|")
    for kind in ("button|sort|", "button|enlarge|", "button|tile flagged|", "summary|"):
        reached = sum(kind in stop for stop in stops)
        selector = kind.replace("tile flagged", "tile.flagged").rstrip("|").replace("|", ".")
        shown = opened.page.locator(selector).evaluate_all("all => all.filter(e => e.checkVisibility()).length")
        assert reached == shown > 0, kind
    # From above to below: the finding, the results, the samples, the folded times.
    order = ["Enlarge: After", "IP", "flagged by the detector", "hours of"]
    places = [next(place for place, stop in enumerate(stops) if text in stop) for text in order]
    assert places == sorted(places)


# --- sorting ----------------------------------------------------------------------------------------------------------


def test_sorting_is_numeric_and_announced(opened: Visit) -> None:
    assert opened.column(MAIN, 0) == ["Base", "GradDiff", "ESD", "ResAlign"]
    before = opened.column(MAIN, 1)
    header = opened.page.locator(f"{MAIN} thead tr:last-child th").nth(1)
    button = header.locator("button")
    expected = {"ascending": sorted(before, key=float), "descending": sorted(before, key=float, reverse=True)}
    assert header.get_attribute("aria-sort") == "none"
    for order, values in expected.items():
        button.focus()
        opened.page.keyboard.press("Enter")
        assert header.get_attribute("aria-sort") == order
        assert opened.column(MAIN, 1) == values
        assert order in opened.page.locator("[role=status]").inner_text()
    assert values != before
    button.press("Space")
    assert header.get_attribute("aria-sort") == "none"
    assert opened.column(MAIN, 1) == before


def test_a_table_is_sorted_by_one_column_at_a_time(opened: Visit) -> None:
    headers = opened.page.locator(f"{MAIN} thead tr:last-child th")
    for place in (0, 2):
        headers.nth(place).locator("button").click()
    assert [header.get_attribute("aria-sort") for header in headers.all()[:3]] == ["none", "none", "ascending"]


def test_durations_sort_by_their_seconds_and_the_sum_stays_below(opened: Visit) -> None:
    table = "[aria-label='Time per stage'] table"
    opened.page.locator("#time > details > summary").click()
    opened.page.locator(f"{table} th", has_text="Longest job").locator("button").click()
    assert opened.column(table, 0) == ["attack", "unlearn"]  # 41.0 s, 1 min 23 s
    assert opened.page.locator(f"{table} tr").last.inner_text().startswith("All stages")


def test_what_was_not_measured_comes_last_in_both_orders(opened: Visit) -> None:
    table = "[aria-label='Table of single runs'] table"
    opened.page.locator("#results summary").click()
    button = opened.page.locator(f"{table} th", has_text="interval").locator("button")
    for _ in ("ascending", "descending"):
        button.click()
        shown = opened.column(table, 6)
        missing = shown.count("–")
        assert 0 < missing < len(shown)
        assert shown[-missing:] == ["–"] * missing
        lows = [float(text.strip("[,")) for text in shown[:-missing]]
        assert lows in (sorted(lows), sorted(lows, reverse=True))


# --- plots ------------------------------------------------------------------------------------------------------------


def test_a_plot_is_enlarged_and_the_focus_comes_back(opened: Visit) -> None:
    page, opener = opened.page, opened.page.locator("button.enlarge").nth(1)
    plots = page.locator(".panels svg").count()
    small = page.locator("figure").nth(1).locator("svg").bounding_box()
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.zoom")
    assert dialog.is_visible()
    large = dialog.locator("svg").bounding_box()
    assert large["width"] > 1.5 * small["width"]
    page.keyboard.press("+")
    assert dialog.locator("svg").bounding_box()["width"] == pytest.approx(1.5 * large["width"], rel=0.01)
    assert dialog.locator("output").inner_text() == "150 %"
    page.keyboard.press("Escape")
    page.locator("figure").nth(1).locator("svg").wait_for()
    assert not dialog.is_visible()
    assert opener.evaluate("button => button === document.activeElement")
    assert page.locator(".panels svg").count() == plots
    assert page.locator("figure").nth(1).locator("svg").bounding_box() == pytest.approx(small)


def test_the_dialogs_own_button_closes_it(opened: Visit) -> None:
    opener = opened.page.locator("button.enlarge").first
    opener.click()
    opened.page.get_by_role("button", name="Close").click()
    assert not opened.page.locator("dialog.zoom").is_visible()
    assert opener.evaluate("button => button === document.activeElement")


# --- flagged images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["click", "Space"])
def test_a_flagged_image_is_blurred_until_it_is_asked_for(opened: Visit, way: str) -> None:
    cover = opened.page.locator(FIRST_FLAGGED)
    image = cover.locator("img")
    contrast = """image => { const c = document.createElement('canvas'); c.width = c.height = 32;
        const d = c.getContext('2d'); d.drawImage(image, 0, 0, 32, 32);
        const p = d.getImageData(0, 0, 32, 32).data.filter((_, i) => i % 4 === 0);
        return Math.max(...p) - Math.min(...p); }"""
    assert cover.get_attribute("aria-pressed") == "false"
    assert str(image.get_attribute("alt")).endswith("flagged by the detector and blurred")
    assert image.evaluate(contrast) < 60  # noise from 0 to 255, blurred
    cover.click() if way == "click" else cover.press(way)
    opened.page.wait_for_selector("button.flagged[aria-pressed=true]")
    assert str(image.get_attribute("alt")).endswith("flagged by the detector")
    # What a page may not read of a file, its size shows: 32 pixels are the original's, 96 the blurred copy's.
    assert image.evaluate("image => [image.complete, image.naturalWidth]") == [True, 32]
    assert opened.page.locator("button.flagged[aria-pressed=true]").count() == 1
    cover.press("Enter")
    assert cover.get_attribute("aria-pressed") == "false"
    assert image.evaluate(contrast) < 60
    assert opened.complaints == []
    assert {urlsplit(url).scheme for url in opened.requests} <= {"file", "data"}


def test_a_page_on_its_own_has_no_flagged_image_to_show(chromium: Any, path: Path, tmp_path: Path) -> None:
    alone = tmp_path / "report.html"
    alone.write_bytes(path.read_bytes())
    with visit(chromium, alone) as found:
        found.page.locator(FIRST_FLAGGED).click()
        found.page.wait_for_selector("button.flagged.missing")
        assert found.page.locator(FIRST_FLAGGED).get_attribute("aria-pressed") == "false"
        assert "not beside this page" in found.page.locator("[role=status]").inner_text()


# --- where numbers come from ------------------------------------------------------------------------------------------


def test_the_tables_numbers_are_those_of_its_file(opened: Visit, path: Path) -> None:
    table = pd.read_csv(path.parent / "tables" / "table1.csv").set_index(["model", "attack", "metric"])["mean"]
    others = opened.page.locator("[aria-label='Every other metric'] tbody tr").first
    us = [float(text) for text in others.locator(".number").all_inner_texts()]
    assert us == pytest.approx([table[model, "none", "us"] for model in MODELS], abs=0.0051)
    shown = opened.page.locator(f"{MAIN} tbody tr").evaluate_all(
        "all => all.map(r => [r.cells[0].textContent, [...r.querySelectorAll('.number')].map(e => e.textContent)])"
    )
    assert [model.lower() for model, _ in shown] == list(MODELS)
    for model, texts in shown:
        own = table[model.lower()]
        for text, (_, value) in zip(texts[:2], own["none"][["ip", "retained_accuracy"]].items(), strict=True):
            assert float(text) == pytest.approx(value, abs=0.0051)
        assert len(texts) == 6  # two metrics in three states


def test_links_lead_to_files_that_are_there(opened: Visit, path: Path) -> None:
    others = {"run.json"}  # the record of the job that writes the page
    links = set(opened.page.locator("a[href]").evaluate_all("all => all.map(a => a.getAttribute('href'))"))
    files = {link.partition("#")[0] for link in links} - {"", *others}
    inside = {file for file in files if not file.startswith("..")}
    assert {"tables/table1.csv", "tables/paired.csv", "tables/sweep-rates-summary.csv", "figures/steps.svg"} <= inside
    assert not [file for file in inside if not (path.parent / file).is_file()]


def test_the_findings_differences_are_in_a_file_of_their_own(opened: Visit, path: Path) -> None:
    table = pd.read_csv(path.parent / "tables" / "paired.csv")
    assert list(table["attack"]) == ["pages"]  # after bold the base itself shows less than half of what it showed
    assert "Excluded: after 200 steps on bold" in opened.page.locator("#finding").inner_text()
