"""The paper's exhibits are made one by one."""

import re
import shutil
from pathlib import Path

import pytest

from .conftest import Checkout

pytestmark = pytest.mark.slow

PAPER = "results/demo/paper"


def planned_files(checkout: Checkout) -> list[str]:
    """Outputs that a dry run of the target paper would make."""
    finished = checkout.snakemake("--dry-run", "--", "paper")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    outputs = re.findall(r"^    output: (.*)$", finished.stdout, flags=re.MULTILINE)
    return sorted(path for line in outputs for path in line.split(", "))


@pytest.fixture(scope="module")
def written(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A finished demo with its paper, apart from the one that other tests share."""
    checkout = Checkout(Path(shutil.copytree(finished.folder, tmp_path_factory.mktemp("written") / "repository")))
    paths = planned_files(checkout)  # what ablations and theory add, too
    assert f"{PAPER}/table1.csv" in paths
    assert f"{PAPER}/macros.tex" in paths
    for name in paths:
        path = checkout.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    touched = checkout.snakemake("--touch", "--", "paper")
    assert touched.returncode == 0, touched.stderr
    assert planned_files(checkout) == []
    return checkout


def test_deleting_a_file_remakes_its_exhibit_only(written: Checkout) -> None:
    lost = [f"{PAPER}/table1.tex", f"{PAPER}/figure1.svg"]
    for name in lost:
        (written.folder / name).unlink()
    planned = planned_files(written)
    for name in lost:
        (written.folder / name).write_text("{}")
    assert planned == sorted(
        [f"{PAPER}/figure1{suffix}" for suffix in (".csv", ".png", ".svg")]
        + [f"{PAPER}/table1{suffix}" for suffix in (".csv", ".tex", "-full.tex")]
    )


def test_editing_an_exhibit_remakes_its_own_files_only(written: Checkout) -> None:
    with written.edited("src/resalign/exhibits/rgd.py", lambda text: f"{text}\n# an edit\n"):
        assert planned_files(written) == [f"{PAPER}/rgd-full.tex", f"{PAPER}/rgd.csv", f"{PAPER}/rgd.tex"]
