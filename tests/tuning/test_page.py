"""The committed searches: their page is what their files say."""

import re
from pathlib import Path

import pandas as pd

from resalign.config.plan import load_plan
from resalign.tuning import shown

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "docs" / "studies" / "tuning"


def test_the_page_is_its_files() -> None:
    config = load_plan(str(ROOT / "config" / "studies" / "tuning.yaml")).experiment.config
    assert config.tuning is not None
    found = pd.read_csv(STUDY / "best.csv")
    assert set(zip(found["searcher"], found["seed"], strict=True)) == {
        (searcher, seed) for searcher in config.tuning.searchers for seed in config.tuning.seeds
    }
    assert (STUDY / "tuning.md").read_text(encoding="utf-8") == shown.text(
        found, config.tuning, config.report.confidence
    )


def test_the_words_are_the_pages_numbers() -> None:
    page = (ROOT / "docs" / "studies" / "README.md").read_text(encoding="utf-8").partition("## Tuning")[2]
    differences = shown.differences(pd.read_csv(STUDY / "best.csv"), 0.95).query("quantity == 'difference'")
    said = re.findall(r"([−+])\.(\d{4}) \[−\.(\d{4}), \.(\d{4})\]", " ".join(page.split()))
    expected = [
        ("−" if row["mean"] < 0 else "+", *(f"{abs(row[key]):.4f}"[2:] for key in ("mean", "low", "high")))
        for row in differences.to_dict("records")
    ]
    assert said == expected
    assert (differences["low"] < 0).all()
    assert (differences["high"] > 0).all()  # no searcher is told apart from random search
