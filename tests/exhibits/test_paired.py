"""Paired tests against their definitions, written out."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from resalign.analysis.frames import long_table, paired_difference
from resalign.display.layout import lay_out
from resalign.exhibits import table1
from resalign.exhibits._inputs import ExhibitInputs
from resalign.exhibits._paired import (
    NONE,
    T_TEST,
    _tested,
    conclusion,
    holm,
    paired_tests,
    sign_flips,
)
from tests.analysis.experiment import SETTINGS, image_rows, make_measurements, make_swept, run_row

from .frames import inputs_of, write_frames

FIDS = (("base", 0, 20.0), ("resalign", 0, 12.0), ("resalign", 1, 13.0), ("resalign", 2, 14.0))


def esd_against(resalign: list[list[int]], esd: list[list[int]], tmp_path: Path) -> pd.Series:
    """The test of IP before fine-tuning; how many of a prompt's images show the concept, by seed and prompt."""
    rows = image_rows("base", 1.0, seeds=[0], prompts=1)
    for model, counts in (("esd", esd), ("resalign", resalign)):
        for seed, of_seed in enumerate(counts):
            for prompt, count in enumerate(of_seed):
                own = {"model": model, "seed": seed, "prompt_id": f"p{prompt}", "metric": "ip", **BEFORE}
                rows += [own | {"image_index": n, "value": float(n < count)} for n in range(4)]
    measured = make_measurements(images=pd.DataFrame(rows), runs=make_measurements().runs[:0])
    tests = paired_tests(inputs_of(write_frames(tmp_path, measured)))
    return tests.set_index("model").loc["esd"]


BEFORE = {"attack": "none", "dataset": "", "steps": 0}


def test_sign_flips_over_prompts_are_all_of_them_when_there_are_few(tmp_path: Path) -> None:
    first, second = [[4, 3, 4, 2, 1, 0], [3, 3, 2, 2, 0, 1]], [[0, 1, 0, 1, 0, 1], [1, 0, 0, 0, 1, 1]]
    found = esd_against(second, first, tmp_path)
    d = (np.array(first) - np.array(second)).sum(axis=0) / 8
    flipped = [abs(np.mean(d * signs)) for signs in itertools.product([1, -1], repeat=len(d))]
    assert found["difference"] == pytest.approx(d.mean())
    assert found["p"] == pytest.approx(np.mean([value >= abs(d.mean()) - 1e-12 for value in flipped]))
    assert (found["n_prompts"], found["n_seeds"]) == (6, 2)
    assert found["low"] < d.mean() < found["high"]


def test_images_of_one_prompt_are_no_further_evidence() -> None:
    # Two of eight flips of three prompts, and the fourth changes nothing, however many images each has.
    assert sign_flips(np.array([0.25, 0.25, 0.25, 0.0]), SETTINGS, np.random.default_rng(0)) == 0.25


@pytest.mark.parametrize(
    ("esd", "resalign", "expected"),
    [
        ([[4, 4, 4, 3, 4]], [[0, 1, 0, 0, 0]], (0.9, 5, 1)),
        ([[0, 1, 0, 0, 0]], [[4, 4, 4, 3, 4]], (-0.9, 5, 1)),  # the order of the models is the sign
        ([[4, 4], [0, 0]], [[0, 0]], (1.0, 2, 1)),  # only seeds that both have
    ],
)
def test_the_difference_is_of_the_seeds_that_both_have(
    tmp_path: Path, esd: list[list[int]], resalign: list[list[int]], expected: tuple[float, int, int]
) -> None:
    found = esd_against(resalign, esd, tmp_path)
    assert (pytest.approx(found["difference"]), found["n_prompts"], found["n_seeds"]) == expected


def test_one_prompt_has_a_difference_and_no_test(tmp_path: Path) -> None:
    found = esd_against([[0], [1]], [[4], [3]], tmp_path)
    assert (found["difference"], found["n_prompts"], found["n_seeds"], found["test"]) == (0.75, 1, 2, NONE)
    assert math.isnan(found["p"])
    assert (found["low"], found["high"]) == (-1.0, 1.0)  # over two training seeds: clipped


@pytest.mark.parametrize("untrained", ["base", "imported"])
def test_a_model_that_nothing_has_trained_is_held_against_every_seed(tmp_path: Path, untrained: str) -> None:
    """It was measured before fine-tuning once, and attacked with every seed; paired tests and both tables agree."""
    other = {"base": "imported", "imported": "base"}[untrained]
    rows = image_rows(untrained, 1.0, seeds=[0])
    rows += image_rows(untrained, 1.0, attack="pages", dataset="pages", steps=200)
    for model in ("esd", other):
        rows += image_rows(model, 0.0, seeds=[0])
    for seed, chance in enumerate((0.0, 0.0, 1.0)):
        rows += image_rows("resalign", chance, seeds=[seed])
    runs = [run_row(untrained if model == "base" else model, "fid", value, seed) for model, seed, value in FIDS]
    models = ("base", "imported", "esd", "resalign")
    measured = make_measurements(images=pd.DataFrame(rows), runs=pd.DataFrame(runs), models=models)
    inputs = inputs_of(write_frames(tmp_path, measured))
    tests = paired_tests(inputs).set_index(["metric", "model"])
    rate, fid = tests.loc[("ip", untrained)], tests.loc[("fid", untrained)]
    assert (rate["difference"], rate["n_seeds"]) == (pytest.approx(2 / 3), 3)
    assert (fid["difference"], fid["n_seeds"], fid["test"]) == (pytest.approx(20 - 13), 3, T_TEST)
    for row, metric in ((rate, "ip"), (fid, "fid")):
        for order in (1, -1):
            state = {"metric": metric, "attack": "none", "steps": 0}
            pair = (untrained, "resalign")[::order]
            page = paired_difference(measured, SETTINGS, pair, **state)
            assert page is not None
            assert page.mean == pytest.approx(order * row["difference"])
            ends = sorted((order * row["low"], order * row["high"]))
            assert [page.low, page.high] == pytest.approx(ends, abs=1e-5)
    # Of a model that was trained once there is no more than that one seed.
    assert (tests.loc[("ip", "esd"), "difference"], tests.loc[("ip", "esd"), "n_seeds"]) == (0.0, 1)


def test_unequal_numbers_of_images_are_refused() -> None:
    made = make_measurements()
    images = made.images[(made.images["model"] != "esd") | (made.images["image_index"] == 0)]
    pair = {"metric": "ip", "attack": "none", "steps": 0}
    with pytest.raises(ValueError, match="ip none 0: 20 prompts, first 'p000', have unequal numbers of images of esd"):
        _tested(make_measurements(images=images), SETTINGS, ("esd", "resalign"), **pair)


def test_a_value_a_run_is_tested_over_seeds() -> None:
    def found(*seeds: int) -> dict[str, Any]:
        values = {"esd": (4.0, 5.0, 7.0), "resalign": (1.0, 3.0, 6.0)}
        runs = [run_row(model, "fid", own[seed], seed) for model, own in values.items() for seed in seeds]
        measured = make_measurements(runs=pd.DataFrame(runs))
        return _tested(measured, SETTINGS, ("esd", "resalign"), metric="fid", attack="none", steps=0)

    three, d = found(0, 1, 2), np.array([3.0, 2.0, 1.0])
    assert three["difference"] == pytest.approx(2.0)
    assert three["p"] == pytest.approx(2 * stats.t.sf(d.mean() / (d.std(ddof=1) / math.sqrt(3)), 2))
    one = found(0)
    assert (one["difference"], one["test"]) == (3.0, NONE)
    assert math.isnan(one["p"])


def test_holm_is_the_published_step_down() -> None:
    # m = 4: 0.005·4, 0.01·3 = 0.03, 0.03·2 = 0.06, max(0.06, 0.04·1); what was not tested is no member of the family.
    assert holm(np.array([0.01, np.nan, 0.04, 0.03, 0.005])) == pytest.approx(
        [0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True
    )
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_every_model_is_held_against_resalign(inputs: ExhibitInputs) -> None:
    tests = paired_tests(inputs)
    assert set(tests["against"]) == {"resalign"}
    assert set(tests["model"]) == {"base", "graddiff", "esd"}
    after = tests[(tests["metric"] == "ip") & (tests["attack"] == "pages")].set_index("model")
    values = inputs.main
    own = values[(values["metric"] == "ip") & (values["attack"] == "pages") & (values["steps"] == 200)]
    means = own.set_index("model")["mean"]
    assert after.loc["base", "difference"] == pytest.approx(means["base"] - means["resalign"], abs=1e-5)
    assert after.loc["base", "significant"] == "yes"
    assert (tests["p_corrected"].dropna() >= tests["p"].dropna()).all()


@pytest.mark.parametrize("order", [1, -1])
def test_the_page_has_the_same_interval(inputs: ExhibitInputs, order: int) -> None:
    tests = paired_tests(inputs).set_index(["metric", "attack", "model"])
    row = tests.loc[("ip", "pages", "graddiff")]
    models = ("graddiff", "resalign")[::order]
    found = paired_difference(make_swept(), SETTINGS, models, metric="ip", attack="pages", steps=int(row["steps"]))
    assert found is not None
    ends = sorted((order * found.low, order * found.high))
    assert [row["difference"], row["low"], row["high"]] == pytest.approx([order * found.mean, *ends], abs=1e-9)
    assert row["low"] < row["high"]


def test_a_file_without_a_significant_difference_says_so() -> None:
    tests = pd.DataFrame({"p": [0.2, float("nan")], "significant": ["no", "no"]})
    assert conclusion(tests, 0.95).startswith("No difference of 1 is significant at 0.05 after Holm's correction")
    assert conclusion(tests.assign(significant=["yes", "no"]), 0.95).startswith("1 of 1 differences are significant")
    assert conclusion(tests.assign(significant=["these seeds", "no"]), 0.95).endswith(
        "1 more hold for the trained seeds alone."
    )


@pytest.mark.parametrize(("seeds", "significant"), [(2, "these seeds"), (3, "yes")])
def test_what_training_seeds_disagree_on_is_no_difference_of_methods(
    tmp_path: Path, seeds: int, significant: str
) -> None:
    # One of ESD's seeds shows the concept on every prompt, the others never; ResAlign's never do, GradDiff's always.
    rows = []
    for model, chances in (
        ("base", (1.0, 1.0, 1.0)),
        ("esd", (1.0, 0.0, 0.0)),
        ("graddiff", (1.0, 1.0, 1.0)),
        ("resalign", (0.0, 0.0, 0.0)),
    ):
        for seed, chance in enumerate(chances[:seeds]):
            rows += image_rows(model, chance, seeds=[seed])
    frames = write_frames(tmp_path, make_measurements(images=pd.DataFrame(rows), runs=make_measurements().runs[:0]))
    tests = paired_tests(inputs_of(frames)).set_index("model")
    assert tests.loc["esd", "p_corrected"] < 0.05
    assert tests.loc["esd", "significant"] == "these seeds"
    assert tests.loc["graddiff", "significant"] == significant  # two seeds show no difference of methods


def test_the_exhibit_has_the_pages_bold(inputs: ExhibitInputs) -> None:
    main = make_swept().main()
    page = lay_out(long_table(main, SETTINGS), main, SETTINGS)
    exhibit = table1.make(inputs).layout
    own = [row for row in exhibit.rows if "published" not in row.title]
    bold = [[(row.model, bool(cell and cell.best)) for cell in row.cells] for row in page.rows]
    assert [[(row.model, bool(cell and cell.best)) for cell in row.cells] for row in own] == bold
    flat = [best for row in bold for _, best in row]
    assert any(flat)
    assert not all(flat)
