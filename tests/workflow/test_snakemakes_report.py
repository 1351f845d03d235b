"""Snakemake's own report of a finished experiment: what it has, under which headings, with captions."""

import zipfile
from pathlib import Path

import pytest

from .conftest import Checkout

pytestmark = pytest.mark.slow

ALWAYS = {"report.html", "table1.csv", "steps.csv", "per_run.csv", "paired.csv"}
ALWAYS |= {"survival.csv", "pareto.csv", "steps.svg"}


def test_it_has_the_page_the_tables_and_the_figures(finished: Checkout, tmp_path: Path) -> None:
    made = finished.snakemake("--report", str(tmp_path / "made.zip"))
    assert made.returncode == 0, made.stderr
    with zipfile.ZipFile(tmp_path / "made.zip") as archive:
        results = {Path(name).name for name in archive.namelist() if "/data/raw/" in name}
        text = archive.read("made/report.html").decode()
    assert results >= ALWAYS
    for shown in ("Page", "Tables", "Figures", "Main table", "Paired comparisons"):
        assert f'"{shown}"' in text
    # The captions' first words, and those that a figure's name chooses.
    for caption in (
        "The whole report as one HTML file",
        "The main results: every model",
        "The comparisons that the finding states",
        "The safety metric over fine-tuning",
        "asks whether an unlearned concept comes back",
    ):
        assert caption in " ".join(text.replace("\\n", " ").split())
