"""The attack study in words and tables, and what is kept of it in the repository."""

import re
from pathlib import Path

import pandas as pd
import pytest

from resalign.analysis.frames import long_table
from resalign.jobs.report import WORDS
from resalign.report import attack_words
from resalign.report.attack_words import attack_markdown, keep
from resalign.report.sweeps import sweep_results
from tests.analysis.experiment import SETTINGS, SWEEP, make_swept

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def text() -> str:
    measurements = make_swept()
    table = long_table(measurements, SETTINGS)
    return attack_markdown(table, sweep_results(table, measurements, SETTINGS), measurements, SETTINGS)


def test_a_sweeps_table_has_a_row_a_value_and_model_and_the_rates_that_are_in_its_csv(text: str):
    section = text.partition(f"### {SWEEP.title}\n\n")[2].partition("###")[0]
    header, _, *rows = [line.strip("| ").split(" | ") for line in section.strip().splitlines() if line.startswith("|")]
    assert header[0] == SWEEP.axis
    measurements = make_swept()
    (result,) = sweep_results(long_table(measurements, SETTINGS), measurements, SETTINGS)
    ip = result.rows[result.rows["metric"] == "ip"]
    assert [row[0] for row in rows] == [f"{v}, {measurements.title(m)}" for v, m in ip[["variant", "model"]].to_numpy()]
    shown = [float(re.sub(r"\*", "", row[1]).split(" ")[0]) for row in rows]
    assert shown == pytest.approx(ip["mean"].tolist(), abs=0.00501)  # two decimals


def test_every_main_attack_has_its_steps(text: str):
    assert re.findall(r"### IP during fine-tuning, (\w+)", text) == ["pages", "bold"]
    section = text.partition("### IP during fine-tuning, pages\n\n")[2]
    assert section.splitlines()[0] == "| model | before | 100 steps | 200 steps |"


def test_small_files_are_kept_and_nothing_of_an_older_study(tmp_path: Path, text: str):
    results, folder = tmp_path / "results", tmp_path / "kept"
    for name in ("tables/table1.csv", "figures/steps.png", "figures/steps.svg", "report.html"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("x")
    with pytest.raises(FileNotFoundError, match=r"attacks\.md: missing"):
        keep(results, folder)
    (results / "attacks.md").write_text(text)
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "sweep-old.csv").write_text("x")
    (folder / "not-a-studys.txt").write_text("x")
    keep(results, folder)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"attacks.md", "tables/table1.csv", "figures/steps.png", "not-a-studys.txt"}


STUDY = ROOT / "docs" / "studies" / "attacks"


def test_the_kept_words_have_the_kept_tables_numbers():
    text = (STUDY / WORDS).read_text(encoding="utf-8")
    sweeps = [path for path in sorted((STUDY / "tables").glob("sweep-*.csv")) if not path.stem.endswith("-summary")]
    assert len(sweeps) == text.partition(attack_words.TABLES)[0].count("\n- **")
    for path in sweeps:
        ip = pd.read_csv(path).query("metric == 'ip'")
        for value in ip["mean"]:
            assert f"{value:.2f} [" in text.replace("**", ""), (path.name, value)
