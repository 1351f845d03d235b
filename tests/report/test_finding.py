import pandas as pd
import pytest

from resalign.analysis.frames import final_states, long_table, select
from resalign.analysis.measurements import Measurements
from resalign.report.finding import Finding, write_finding
from tests.analysis.experiment import SETTINGS, make_measurements


def states(model: str, before: list[int], after: list[int], seeds: int = 2) -> list[dict[str, object]]:
    rows = []
    for attack, dataset, steps, flags in (("none", "", 0, before), ("pages", "pages", 200, after)):
        for seed in range(seeds):
            for prompt, value in enumerate(flags):
                state = {"model": model, "attack": attack, "dataset": dataset, "steps": steps, "metric": "ip"}
                place = {"seed": seed, "prompt_id": f"p{prompt:02d}", "image_index": 0, "value": float(value)}
                rows.append(state | place)
    return rows


def finding_of(rows: list[dict[str, object]]) -> Finding:
    empty = make_measurements().runs.head(0)
    measurements = make_measurements(images=pd.DataFrame(rows), runs=empty)
    return write_finding(long_table(measurements, SETTINGS), measurements, SETTINGS, "a seven")


def flags(count: int, of: int = 40) -> list[int]:
    return [1] * count + [0] * (of - count)


BASE = states("base", flags(30), flags(30))


def test_it_names_whichever_model_is_best():
    rows = BASE + states("esd", flags(2), flags(6)) + states("resalign", flags(0), flags(26))
    text = " ".join(finding_of(rows).result).replace("\N{NO-BREAK SPACE}", " ")
    assert "Before unlearning, the base model shows a seven in 75.0 % [" in text
    assert "After 200 steps on pages: ESD 15.0 % [" in text
    assert "; ESD is 50.0 points [" in text
    assert "] below ResAlign, paired over 80 images." in text


def test_swapped_values_swap_the_verdict():
    rows = BASE + states("esd", flags(2), flags(26)) + states("resalign", flags(0), flags(6))
    finding = finding_of(rows)
    assert "ResAlign is 50.0 points [" in " ".join(finding.result)
    [found] = finding.paired.to_dict("records")
    assert (found["attack"], found["steps"], found["first"], found["second"]) == ("pages", 200, "resalign", "esd")
    assert found["difference"] == pytest.approx(-0.5)  # the first minus the second
    assert found["low"] < found["difference"] < found["high"] < 0
    assert found["n"] == 80


def test_a_difference_by_chance_is_called_so():
    rows = BASE + states("esd", flags(2), flags(11)) + states("resalign", flags(0), flags(10)[::-1])
    text = " ".join(finding_of(rows).result)
    assert "ResAlign and ESD cannot be told apart (difference [−" in text
    assert " below " not in text


def test_equal_models_are_called_equal_in_any_order():
    equal = states("esd", flags(2), flags(6)), states("resalign", flags(0), flags(6))
    for first, second in (equal, equal[::-1]):
        finding = finding_of(BASE + first + second + states("graddiff", flags(1), flags(30)))
        text = " ".join(finding.result).replace("\N{NO-BREAK SPACE}", " ")
        assert "ESD and ResAlign are equal; ESD is 60.0 points [" in text
        assert [row["first"] for row in finding.paired.to_dict("records")] == ["esd", "resalign"]
        assert set(finding.paired["second"]) == {"graddiff"}
    both = finding_of(BASE + equal[0] + equal[1])
    assert "ESD and ResAlign are equal." in both.result[-2]
    assert both.result[-1].startswith("Two training seeds hardly show how training varies")
    assert both.paired.empty


def test_nothing_is_concluded_where_the_base_itself_has_lost_the_concept():
    rows = (
        states("base", flags(30), flags(4)) + states("esd", flags(2), flags(6)) + states("resalign", flags(0), flags(0))
    )
    finding = finding_of(rows)
    text = " ".join(finding.result).replace("\N{NO-BREAK SPACE}", " ")
    assert "Excluded: after 200 steps on pages the base model no longer produces the concept (it shows a seven" in text
    assert "After 200 steps" not in text
    assert finding.paired.empty
    kept = finding_of(BASE + states("esd", flags(2), flags(6)) + states("resalign", flags(0), flags(0)))
    assert "; the base model itself 75.0" in " ".join(kept.result)


def test_what_the_method_keeps_is_said_whether_or_not_it_is_best(measurements: Measurements):
    table = long_table(measurements, SETTINGS)
    found = write_finding(table, measurements, SETTINGS, "a seven", methods=("graddiff",)).kept
    assert [text.partition(" keeps")[0] for text in found] == ["What ResAlign", "What GradDiff"]
    own = select(final_states(table), metric="retained_accuracy", model="graddiff", attack="pages")
    assert f"after fine-tuning on pages {100 * own['mean'].iloc[0]:.1f}\N{NO-BREAK SPACE}% [" in found[1]


def test_what_the_best_keeps_stands_beside_the_base(measurements: Measurements):
    kept = write_finding(long_table(measurements, SETTINGS), measurements, SETTINGS, "a seven").kept
    assert len(kept) == 1
    assert kept[0].startswith("What ResAlign keeps: Retained accuracy (higher is better) before fine-tuning ")
    assert "against the base model's 0.91 [" in kept[0]
    assert kept[0].count("Learnability") == 1
    assert "on pages 0.82 [" in kept[0]
    assert "on bold 0.82 [" in kept[0]


def test_the_headline_has_every_model_at_its_worst_best_model_first():
    def on(attack: str, model: str, after: list[int]) -> list[dict[str, object]]:
        rows = [row for row in states(model, [], after) if row["attack"] == "pages"]
        return [{**row, "attack": attack, "dataset": attack} for row in rows]

    rows = BASE + states("esd", flags(2), flags(6)) + states("resalign", flags(0), flags(26))
    assert finding_of(rows).headline.replace("\N{NO-BREAK SPACE}", " ") == (
        "After fine-tuning, ESD shows a seven in 15.0 % of its images, ResAlign in 65.0 % and the base model in 75.0 %."
    )
    rows += on("bold", "base", flags(34)) + on("bold", "esd", flags(32)) + on("bold", "resalign", flags(8))
    headline = finding_of(rows).headline.replace("\N{NO-BREAK SPACE}", " ")
    assert headline == (
        "After the fine-tuning that is worst for each model, ResAlign shows a seven in 65.0 % of its images, ESD in "
        "80.0 % and the base model in 85.0 %."
    )
