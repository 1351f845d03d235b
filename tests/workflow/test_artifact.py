"""What the archive of a finished experiment waits for."""

import pytest

from .conftest import Checkout

pytestmark = pytest.mark.slow

MADE = [f"results/demo/{folder}" for folder in ("ablations", "measured", "paper", "theory")]


def test_it_waits_for_the_paper_with_its_ablations_and_for_the_theory(finished: Checkout) -> None:
    finished.forget(*MADE)
    planned = finished.planned(target="artifact")
    finished.make_everything()
    exhibits = {"exhibit_table", "exhibit_figure", "exhibit_macros"}
    assert {"pack", *exhibits, "ablation_measured", "measure", "theory_shown", "linear_model"} <= set(planned)
    assert not {"cards", "detector_audit", "second_order", "study", "export", "digits_bars"} & set(planned)


def test_pictures_of_generated_images_are_made_only_where_they_are_packed(finished: Checkout) -> None:
    finished.forget(*MADE)
    without, given = (
        finished.snakemake("--dry-run", "--", "artifact", overrides=overrides).stdout
        for overrides in ((), ("artifact={images: true}",))
    )
    finished.make_everything()
    assert "paper/figure1.png" in without
    assert "paper/figure3.png" not in without
    assert "paper/figure3.png" in given
