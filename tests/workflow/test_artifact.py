"""What the archive of a finished experiment waits for."""

import re
import shutil
from pathlib import Path

import pytest

from .conftest import Checkout

MADE = ("ablations", "measured", "paper", "theory")


@pytest.mark.slow
def test_it_waits_for_the_paper_and_the_theory_and_for_pictures_only_where_they_are_packed(
    finished: Checkout, tmp_path: Path
) -> None:
    checkout = Checkout(Path(shutil.copytree(finished.folder, tmp_path / "repository")))
    checkout.forget(*(f"results/demo/{folder}" for folder in MADE))
    without, given = (
        checkout.snakemake("--dry-run", "--", "artifact", overrides=overrides).stdout
        for overrides in ((), ("artifact={images: true}",))
    )
    planned = set(re.findall(r"^(?:local)?rule (\S+):", without, flags=re.MULTILINE))
    exhibits = {"exhibit_table", "exhibit_figure", "exhibit_macros"}
    assert {"pack", *exhibits, "ablation_measured", "measure", "theory_shown", "linear_model"} <= planned
    assert not {"cards", "detector_audit", "second_order", "study", "export", "digits_bars"} & planned
    assert "paper/figure1.png" in without
    assert "paper/figure3.png" not in without
    assert "paper/figure3.png" in given
