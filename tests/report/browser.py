"""Chromium, driven for the tests of the page; without it they are skipped."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
PATIENCE_MS = 300_000  # of a busy machine; nothing waits for as long as that
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@dataclass
class Visit:
    """A page that is open, and what it did.

    Attributes:
        page: Playwright's.
        complaints: Everything that the console showed, and exceptions.
        requests: Every address that was asked for.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def focused(self) -> str:
        """What a reader at the keyboard is on: its tag, its class and its name."""
        return str(
            self.page.evaluate(
                "(() => { const e = document.activeElement; const image = e.querySelector?.('img');"
                "return [e.tagName.toLowerCase(), e.className, e.getAttribute('aria-label') ?? image?.alt"
                " ?? e.textContent.trim()].join('|'); })()"
            )
        )

    def walk(self, limit: int = 2000) -> list[str]:
        """What Tab leads to, in order, from the page's beginning until it comes round."""
        stops: list[str] = []
        for _ in range(limit):
            self.page.keyboard.press("Tab")
            stop = self.focused()
            if stop.startswith("body|") or stop in stops[:1]:
                return stops
            stops.append(stop)
        raise AssertionError(f"Tab has not come round after {limit} stops")

    def column(self, table: str, place: int) -> list[str]:
        """A column of a table's body, as it is shown, without intervals."""
        cells = self.page.locator(f"{table} tbody tr > :nth-child({place + 1})")
        return [text.split()[0] for text in cells.all_inner_texts()]


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Continuous integration runs as root, where Chromium has no sandbox; the pages are the tests' own.
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield chromium
        chromium.close()


@contextmanager
def visit(chromium: Any, path: Path, **options: Any) -> Iterator[Visit]:
    """Opens a file."""
    context = chromium.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
    context.set_default_timeout(PATIENCE_MS)
    found = Visit(context.new_page())
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(path.as_uri())
    yield found
    context.close()
