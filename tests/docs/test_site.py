"""The documentation's site: it builds without a warning, and its reference has every key and every member."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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
