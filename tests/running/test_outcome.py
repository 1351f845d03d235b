"""What is said last, of logs and of targets."""

from pathlib import Path

import pytest

from resalign.running.outcome import failures, products

STOPPED = "stopped: stopped by SIGINT: saved after steps 3 of 9; run again to go on"


@pytest.fixture
def logs(tmp_path: Path) -> dict[str, str]:
    texts = {
        "refused": "2026 INFO step 1\nerror: mine/0.png: no image; take it out\n",
        "refused-too": "error: mine/0.png: no image; take it out\n\n",
        "stopped": f"error: of an earlier line\n{STOPPED}\n",
        "crashed": "Traceback (most recent call last):\n  File\nValueError: no\n",
        "empty": "\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in (*texts, "missing")}


def test_the_last_error_of_each_log_is_said_once(logs: dict[str, str]) -> None:
    assert failures(logs.values()) == [
        f"error: mine/0.png: no image; take it out\n    log: {logs['refused']}, {logs['refused-too']}",
        f"{STOPPED}\n    log: {logs['stopped']}",
        f"ValueError: no\n    log: {logs['crashed']}",
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["results/demo/report.html"], "results/demo/report.html"),
        (["results/demo/tables/a.csv", "results/demo/tables/a.tex"], "results/demo/tables/"),
        (["r/study/table.csv", "r/study/study.md", "r/study/ip.png"], "r/study/study.md"),
        (["r/paper/a.csv", "r/paper/a.png", "r/theory/theory.md"], "r/paper/, r/theory/theory.md"),
        (["r/x/a.zip", "r/x/a.zip.sha256", "r/x/run.json"], "r/x/a.zip"),
        ([f"r/{name}/values.csv" for name in "abcde"], "r/a/, r/b/, r/c/ and 2 more"),
        (["/abs/x", "b/y", "c/z", "d/w.md"], "/abs/, b/, c/ and 1 more"),
        (["mine.csv"], "./"),
        (["page.html"], "page.html"),
    ],
)
def test_a_target_is_its_page_or_its_folder(files: list[str], expected: str) -> None:
    assert products("all", files) == f"all: {expected}"


def test_a_product_that_is_a_folder_is_the_folder(tmp_path: Path) -> None:
    assert products("export", [str(tmp_path)]) == f"export: {tmp_path}/"
