"""A list that repeats its texts: intervals, verdicts and counts are of different texts, as if they had more images."""

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from resalign.analysis.collect import collect
from resalign.analysis.frames import long_table
from resalign.analysis.statistics import clopper_pearson
from resalign.config.plan import Plan
from resalign.config.report import ReportConfig
from resalign.jobs.measure import MeasureJob

from .conftest import Workshop

TEXTS, COPIES = ("a red two", "a blue two", "a red seven", "days in a week", "a two"), 12
WORDS = {"attack": "unlearndiffatk", "train": "images", "heldout": "heldout", "prompts": "unsafe", "batch_size": 1}
FLAG = {"prompts": "unsafe", "rules": [{"scorer": "net", "quantities": ["seven"], "threshold": 1.0}]}


@pytest.fixture(scope="module")
def made(
    workshop: Callable[[], Workshop], tiny_plan: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workshop, Plan]:
    """60 rows of 5 texts; four of them, which are of two texts, are attacked."""
    folder = tmp_path_factory.mktemp("lists")
    rows = [(f"p{n:02d}", TEXTS[n % 5] + " " * (n // 5 % 2), "two") for n in range(5 * COPIES)]
    pd.DataFrame(rows, columns=["id", "prompt", "label"]).to_csv(folder / "all.csv", index=False)
    pd.DataFrame([rows[n] for n in (0, 1, 5, 6)], columns=["id", "prompt", "label"]).to_csv(
        folder / "few.csv", index=False
    )
    counts: dict[str, Any] = {"all": {"prompts": None, "images": 1}, "unsafe": {"prompts": None, "images": 2}}
    plan = tiny_plan(
        assets={name: {"path": str(a.path)} for name, a in tiny_plan().experiment.config.assets.items()}
        | {"lists": {"path": str(folder)}},
        prompts={
            name: {"source": f"lists/{file}.csv", "may_be_captions": True}
            for name, file in (("all", "all"), ("unsafe", "few"))
        },
        unlearning={},
        attacks={"words": {**WORDS, "steps": 1}},
        metrics={"ip": {**FLAG, "prompts": "all"}, "pre_asr": FLAG, "asr": FLAG},
        scorers={"net": {"scorer": "image_classification", "folder": "net"}},
        tiers={"smoke": {"training_seeds": [0], "prompts": counts}},
    )
    shop = workshop()
    shop.overlap(plan)
    for stages, step in ((plan.attack, shop.attack), (plan.sample, shop.sample), (plan.score, shop.score)):
        for stage in stages.values():
            step(plan, stage, 0)
    return shop, plan


def test_60_rows_of_5_texts_are_5_prompts(made: tuple[Workshop, Plan]) -> None:
    shop, plan = made
    with chdir(shop.folder):
        measurements = collect(MeasureJob.of(plan)).measurements
    table = long_table(measurements, ReportConfig())
    row = table[(table["metric"] == "ip") & (table["attack"] == "none")].iloc[0]
    assert (row["n"], row["mean"], row["low"]) == (60, 0.0, 0.0)
    assert row["high"] == clopper_pearson(0, 5, 0.95).high == pytest.approx(0.5218, abs=5e-5)
    # An attack works on every row by itself; the sample is of the texts that it was given.
    attacked = table[table["attack"] == "words"].set_index("metric")
    for metric in ("pre_asr", "asr"):
        assert attacked.loc[metric, "n"] == 8
        assert attacked.loc[metric, "high"] == clopper_pearson(0, 2, 0.95).high


def test_images_of_repeats_differ(made: tuple[Workshop, Plan]) -> None:
    shop, plan = made
    base = next(stage for stage in plan.sample.values() if stage.attack is None)
    images = pd.read_csv(shop.folder / base.folder(0) / "smoke" / "images.csv")
    every = images[images["prompt_set"] == "all"]
    assert len({(shop.folder / path).read_bytes() for path in every["path"]}) == 60
    assert [Path(path).name.split(".")[0] for path in every["path"]] == [f"p{n:02d}" for n in range(60)], "own noise"
    assert not every.duplicated(["prompt_id", "image_index"]).any()
    assert every.groupby("prompt_id")["image_index"].agg(list).tolist() == [list(range(COPIES))] * 5
