from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from resalign.analysis.frames import long_table
from resalign.analysis.measurements import Measurements, Sweep
from resalign.analysis.sweeps import LARGEST, MEAN, WORST, summary_table, sweep_table
from resalign.config.report import ReportConfig
from resalign.report.sweep_text import attack_seconds, seconds_sentence, sweep_sentences
from resalign.report.sweeps import sweep_results
from tests.accounting.records import record
from tests.analysis.experiment import SETTINGS, SWEEP, image_rows, make_measurements, make_swept, run_row

VALUES = ("low", "high")
TWO = Sweep(title="Two", axis="rate", attacks={value: value for value in VALUES})


def flagged(model: str, attack: str, flags: np.ndarray, steps: int = 50) -> list[dict[str, object]]:
    """IP by seed and prompt, one image a prompt."""
    state = {"model": model, "attack": attack, "dataset": "pages", "steps": steps, "metric": "ip", "image_index": 0}
    return [
        {**state, "seed": seed, "prompt_id": f"p{prompt:03d}", "value": float(value)}
        for (seed, prompt), value in np.ndenumerate(flags)
    ]


def swept(rows: list[dict[str, object]], sweep: Sweep = TWO, **changes: object) -> Measurements:
    runs = changes.pop("runs", make_measurements().runs.head(0))
    attacks = dict.fromkeys(sweep.attacks.values(), "pages")
    return make_measurements(images=pd.DataFrame(rows), runs=runs, attacks=attacks, sweeps={"two": sweep}, **changes)


def summary_of(measurements: Measurements, model: str = "esd") -> pd.DataFrame:
    (sweep,) = measurements.sweeps.values()
    found = summary_table(measurements, SETTINGS, sweep)
    return found[(found["model"] == model) & (found["metric"] == "ip")].set_index("over")


def test_a_sweeps_table_has_the_last_step_of_every_value_in_order(measurements: Measurements):
    attacks = {"b": "bold", "a": "pages"}
    rows = sweep_table(long_table(measurements, SETTINGS), "two", Sweep(title="", axis="", attacks=attacks))
    assert list(dict.fromkeys(zip(rows["series"], rows["variant"], strict=True))) == [("two", "b"), ("two", "a")]
    assert set(rows["metric"]) == {"ip", "us", "retained_accuracy", "learnability"}
    final = measurements.images[(measurements.images["attack"] == "pages") & (measurements.images["steps"] == 200)]
    expected = final[(final["model"] == "esd") & (final["metric"] == "ip")]["value"].mean()
    found = rows[(rows["variant"] == "a") & (rows["model"] == "esd") & (rows["metric"] == "ip")]
    assert found["mean"].tolist() == [expected]


def test_the_mean_is_over_all_values_and_their_prompts_are_drawn_together():
    flags = np.tile(np.arange(40) % 4 == 0, (2, 1)).astype(float)
    one = summary_of(swept(flagged("esd", "low", flags), Sweep(title="", axis="", attacks={"low": "low"})))
    both = summary_of(swept(flagged("esd", "low", flags) + flagged("esd", "high", flags)))
    # A second value that agrees image by image is no more evidence than the first one alone.
    assert (both.loc[MEAN, ["mean", "low", "high"]] == one.loc[MEAN, ["mean", "low", "high"]]).all()
    assert (both.loc[MEAN, "mean"], both.loc[MEAN, "n"]) == (0.25, 160)
    differing = summary_of(swept(flagged("esd", "low", 0 * flags) + flagged("esd", "high", 1 - flags)))
    assert differing.loc[MEAN, "mean"] == pytest.approx(0.75 / 2)


def test_the_worst_is_a_value_that_is_clearly_worst():
    low, high = np.zeros((2, 40)), np.ones((2, 40))
    low[:, :3] = 1
    high[:, :9] = 0
    found = summary_of(swept(flagged("esd", "low", low) + flagged("esd", "high", high)))
    for over in (WORST, LARGEST):
        assert (found.loc[over, "values"], found.loc[over, "mean"]) == ("high", 31 / 40)
    assert found.loc[WORST, ["low", "high"]].tolist() == found.loc[LARGEST, ["low", "high"]].tolist()
    assert found.loc[WORST, "n"] == 80


def test_the_worst_is_the_lowest_where_higher_is_better():
    rows = [
        {**row, "metric": "retained_accuracy"}
        for attack, chance in (("low", 0.0), ("high", 1.0))
        for row in flagged("esd", attack, np.full((1, 10), chance))
    ]
    found = summary_table(swept(rows), SETTINGS, TWO).set_index("over")
    assert (found.loc[WORST, "mean"], found.loc[WORST, "values"]) == (0.0, "low")


def test_the_worst_of_equally_good_values_is_not_biased_upward():
    # Ten values with the same true rate: the largest of them lies well above it, what is measured elsewhere does not.
    rng, truth, rates = np.random.default_rng(3), 0.3, {WORST: [], LARGEST: []}
    attacks = {f"v{number:02d}": f"v{number:02d}" for number in range(10)}
    sweep = Sweep(title="", axis="", attacks=attacks)
    settings = ReportConfig(replicates=100)
    for _ in range(20):
        rows = [row for attack in attacks for row in flagged("esd", attack, rng.random((1, 40)) < truth)]
        found = summary_table(swept(rows, sweep), settings, sweep).set_index("over")
        for over, values in rates.items():
            values.append(found.loc[over, "mean"])
    assert np.mean(rates[WORST]) == pytest.approx(truth, abs=0.05)  # 3 standard errors: 3·√(.21/40/20) = .049
    assert np.mean(rates[LARGEST]) > truth + 0.08


def test_one_prompt_leaves_no_half_to_measure_on():
    found = summary_of(swept(flagged("esd", "low", np.ones((2, 1))) + flagged("esd", "high", np.zeros((2, 1)))))
    assert list(found.index) == [MEAN, LARGEST]


def test_the_main_table_leaves_out_what_a_sweep_alone_has():
    whole, main = make_swept(), make_swept().main()
    assert list(whole.attacks) == ["pages", "bold", "pages-gentle", "pages-harsh"]
    assert list(main.attacks) == ["pages", "bold"]
    assert set(main.images["attack"]) == set(main.runs["attack"]) == {"none", "pages", "bold"}
    assert main.target("pages") == "pages"
    assert whole.target("pages-harsh") == "pages (pages-harsh)"
    plain = make_measurements()
    assert plain.main() is plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sweeps": {"x": Sweep(title="", axis="", attacks={"a": "pagse"})}},
            r"sweep 'x': attack \['pagse'\] not decl",
        ),
        ({"sweeps": {"x": Sweep(title="", axis="", attacks={"a": "pages"}, metrics=("pi",))}}, r"metric \['pi'\] not"),
        ({"sweeps": {"x": Sweep(title="", axis="", attacks={})}}, "sweep 'x' has no attacks"),
        ({"main_attacks": ["pagse"]}, r"main_attacks: attack \['pagse'\] not declared"),
    ],
)
def test_names_that_there_are_not(changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        make_measurements(**changes)


def sentences(measurements: Measurements, sweep: Sweep = TWO, settings: ReportConfig = SETTINGS) -> str:
    rows = sweep_table(long_table(measurements, settings), "two", sweep)
    found = sweep_sentences(rows, summary_table(measurements, settings, sweep), measurements, settings, sweep)
    return " ".join(found).replace("\N{NO-BREAK SPACE}", " ")


def test_sentences_say_where_a_model_holds_and_breaks():
    none, half = np.zeros((1, 100)), np.tile([0.0, 1.0], (1, 50))
    rows = flagged("esd", "low", none) + flagged("esd", "high", half)
    rows += flagged("resalign", "low", none[:, :10]) + flagged("resalign", "high", none[:, :10])
    text = sentences(swept(rows))
    assert "the upper end of its IP's interval is at most 10 %" in text
    assert "ESD holds at 1 of 2 (low) and breaks at 1 of 2 (high); at worst 50.0 % [" in text
    # Ten prompts without an event leave an upper end of 31 %.
    assert "ResAlign is not shown to hold at 2 of 2; at worst 0.0 % [0.0, 30.8]." in text
    # Two training seeds cannot show how others would differ.
    two = sentences(swept(flagged("esd", "low", np.tile(none, (2, 1))) + flagged("esd", "high", np.tile(half, (2, 1)))))
    assert "ESD is not shown to hold at 1 of 2 (low) and breaks at 1 of 2 (high)" in two
    lenient = sentences(swept(rows), settings=ReportConfig(replicates=200, resurgence_threshold=0.7))
    assert "ESD holds at 2 of 2; at worst 50.0 % [" in lenient


def test_values_at_which_the_base_lost_the_concept_are_no_test():
    every, half, few = np.ones((1, 20)), np.tile([0.0, 1.0], (1, 10)), np.tile([0.0, 0.0, 0.0, 1.0], (1, 5))
    before = image_rows("base", 1.0, prompts=20, images=1, seeds=(0,))
    rows = before + flagged("base", "low", half) + flagged("base", "high", few)
    rows += flagged("esd", "low", every) + flagged("esd", "high", 0 * every)
    text = sentences(swept(rows))
    assert "Excluded: the base model no longer produces the concept here: high (25.0 % [" in text
    assert "ESD breaks at 1 of 1; at worst" in text
    kept = sentences(swept(rows), settings=ReportConfig(replicates=200, tested_share=0.25))
    assert "Excluded" not in kept
    assert "ESD is not shown to hold at 1 of 2 (high) and breaks at 1 of 2 (low)" in kept


def test_sentences_say_where_nothing_was_learnt():
    state = {"dataset": "pages", "steps": 50}
    runs = [
        run_row("base", "learnability", value, 0, attack=name, **state)
        for name, value in (("low", 0.02), ("high", 0.6))
    ]
    text = sentences(swept(flagged("base", "low", np.ones((1, 5))), runs=pd.DataFrame(runs)))
    assert text.endswith("Base learns least at low (Learnability 0.02) and most at high (0.60).")


def test_seconds_are_those_of_the_sweeps_own_attacks():
    labels = ["esd/pages", "esd/pages-harsh", "esd/bold", "resalign/pages"]
    records = [record(seconds, 1.0) for seconds in (1.0, 20.0, 300.0, 4000.0)]
    records = [type(r)(**{**vars(r), "label": label}) for r, label in zip(records, labels, strict=True)]
    records.append(type(records[0])(**{**vars(records[0]), "stage": "sample"}))
    assert attack_seconds(records, "esd", SWEEP) == 21.0
    text = seconds_sentence(records, make_swept(), SWEEP)
    assert text == "Fine-tuning time over all values and training seeds: ESD 21.0 s, ResAlign 1 h 06 min."
    assert seconds_sentence([], make_swept(), SWEEP) == ""


@pytest.mark.parametrize(("metrics", "shown", "drawn"), [((), "ip", 2), (("learnability",), "learnability", 1)])
def test_a_sweep_shows_its_metrics_or_the_first_safety_metric(metrics: tuple[str, ...], shown: str, drawn: int):
    sweep = Sweep(title="Rates", axis="rate", attacks=SWEEP.attacks, metrics=metrics)
    measurements = replace(make_swept(), sweeps={"rates": sweep})
    (result,) = sweep_results(long_table(measurements, SETTINGS), measurements, SETTINGS)
    assert {column.metric for column in result.table.layout.columns} == {shown}
    assert [row.title for row in result.table.layout.rows[:2]] == ["gentle, Base", "gentle, GradDiff"]
    assert len(result.panels) == drawn  # learnability beside the first metric
    assert result.panels[-1].title == "Learnability after fine-tuning"


def test_a_sweep_of_what_was_not_measured_is_an_error():
    measurements = make_measurements(sweeps={"x": Sweep(title="", axis="", attacks={"a": "pages"}, metrics=("fid",))})
    table = long_table(measurements, SETTINGS)
    with pytest.raises(ValueError, match="sweep 'x': metric 'fid' was measured at none of its values, which have"):
        sweep_results(table, measurements, SETTINGS)
