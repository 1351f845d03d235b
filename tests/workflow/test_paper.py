"""The paper's files are made one by one."""

import re

from .conftest import Checkout

PAPER = "results/demo/paper"


def planned_files(checkout: Checkout) -> list[str]:
    """Outputs that a dry run of the target paper would make."""
    finished = checkout.snakemake("--dry-run", "--", "paper")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    outputs = re.findall(r"^    output: (.*)$", finished.stdout, flags=re.MULTILINE)
    return sorted(path for line in outputs for path in line.split(", "))


def test_deleting_any_one_file_remakes_that_file_only(finished: Checkout) -> None:
    paths = planned_files(finished)  # what ablations and theory add, too
    assert f"{PAPER}/table1.csv" in paths
    assert f"{PAPER}/macros.tex" in paths
    for name in paths:
        path = finished.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    touched = finished.snakemake("--touch", "--", "paper")
    assert touched.returncode == 0, touched.stderr
    assert planned_files(finished) == []
    lost = [f"{PAPER}/table1.tex", f"{PAPER}/figure1.svg", f"{PAPER}/contents.csv"]
    for name in lost:
        (finished.folder / name).unlink()
    assert planned_files(finished) == sorted(lost)
    for name in lost:
        (finished.folder / name).write_text("{}")


def test_editing_an_exhibit_remakes_its_own_files_only(finished: Checkout) -> None:
    before = planned_files(finished)
    with finished.edited("src/resalign/exhibits/rgd.py", lambda text: f"{text}\n# an edit\n"):
        assert set(planned_files(finished)) - set(before) <= {f"{PAPER}/rgd.csv", f"{PAPER}/rgd.tex"}
