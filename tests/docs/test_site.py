"""The documentation's site: it builds without a warning, and its reference has every key and every member."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from resalign.config import registry
from resalign.config.schema import FAMILIES
from resalign.config.shape import ExperimentConfig

from .blocks import ROOT

pytest.importorskip("mkdocs")


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return __import__("hooks")


def test_the_reference_has_every_key_and_every_member(hooks: ModuleType) -> None:
    text = hooks.reference()
    for key in ExperimentConfig.model_fields:
        assert f"| `{key}` |" in text
    for family, key, _ in FAMILIES:
        for member in registry.members(family):
            _, _, section = text.partition(f"### {key}: {member}\n")
            table = section.partition("\n### ")[0]
            for field in registry.config_class(family, member).model_fields:
                assert f"| `{field}` |" in table, (family, member, field)


def test_bounds_defaults_and_meanings_are_in_the_reference(hooks: ModuleType) -> None:
    text = hooks.reference()
    assert "| `pixels` | integer &gt; 0 | `512` | edge of training and reference images |" in text
    assert "| `model` | text | required |" in text
    assert "\nUsed by `concept`. " in text
    assert "| `num_inference_steps` | integer &gt; 0 | `30` | Of the sampling. |" in text  # from a docstring's list


def test_links_that_leave_docs_become_paths(hooks: ModuleType) -> None:
    class Page:
        class file:  # noqa: N801
            src_uri = "running.md"

    text = hooks.on_page_markdown(
        "[log](../dev/LOG.md) [keys](../config/README.md#sizes) [x](faq.md)", Page, None, None
    )
    assert text == "log (`dev/LOG.md`) [keys](configuration.md#sizes) [x](faq.md)"
    Page.file.src_uri = "configuration.md"  # made from config/README.md, whose links begin there
    text = hooks.on_page_markdown(
        "[its file](demo.yaml) [x](../docs/faq.md#a) [here](#sizes) [y](https://a.org/b)", Page, None, None
    )
    assert text == "its file (`config/demo.yaml`) [x](faq.md#a) [here](#sizes) [y](https://a.org/b)"


class Built(HTMLParser):
    """Places and links of a built page."""

    def __init__(self, page: Path) -> None:
        """Reads the page."""
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keeps what a link may lead to, and where links lead."""
        values = dict(attributes)
        self.places |= {place for place in (values.get("id"), values.get("name")) if place}
        self.links += [link for link in (values.get("href"), values.get("src")) if link]


def dead_links(site: Path) -> list[str]:
    """Links of a site's pages to files or places that the site does not have."""
    pages = {path: Built(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    dead = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            place = unquote(parts.fragment)
            if not target.exists() or (place and target in pages and place not in pages[target].places):
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text('<a href="a/#x"></a><a href="a/#y"></a><a href="b"></a><a href="//c.org">')
    (tmp_path / "a" / "index.html").write_text('<h1 id="x"><a href=".."></a></h1><img src="no.png">')
    assert dead_links(tmp_path) == ["a/index.html: no.png", "index.html: a/#y", "index.html: b"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "configuration-reference" / "index.html").is_file()
    assert dead_links((tmp_path / "site").resolve()) == []
