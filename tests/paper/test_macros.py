"""Macros hold the tables' numbers under names that LaTeX allows."""

import re

import pytest

from resalign.config.strict import ConfigError
from resalign.paper.evidence import Evidence
from resalign.paper.macro_names import macros, words
from resalign.paper.paired import paired_tests
from resalign.report.tables import final_states


def read(text: str) -> dict[str, float]:
    lines = [re.fullmatch(r"\\newcommand\{\\([A-Za-z]+)\}\{(-?[\d.]+)\}", line) for line in text.splitlines()]
    assert all(lines)
    return {line[1]: float(line[2]) for line in lines if line}


def test_every_number_of_a_state_has_a_macro(evidence: Evidence) -> None:
    final = final_states(evidence.main)
    found = read(macros(final, paired_tests(evidence)))
    own = final[(final["model"] == "resalign") & (final["metric"] == "ip") & (final["attack"] == "pages")].iloc[0]
    for end, column in {"": "mean", "Std": "std", "Low": "low", "High": "high", "N": "n", "Seeds": "seeds"}.items():
        assert found[f"resalignIpPagesAfter{end}"] == pytest.approx(own[column], rel=1e-3)
    assert found["resalignIpPagesAfterSeeds"] == 3
    assert found["baseIpBefore"] > found["resalignIpBefore"]
    assert found["baseIpPagesAfterVersusResalign"] > 0
    assert found["testsSignificant"] <= found["testsTried"]


def test_names_are_letters() -> None:
    assert words("dreambench++") == "Dreambench"
    assert words("clip_score") == "ClipScore"
    assert words("lora-1e-5") == "LoraOneEFive"


def test_two_numbers_of_one_name_are_refused(evidence: Evidence) -> None:
    final = final_states(evidence.main)
    twin = final.assign(model=final["model"].replace({"esd": "resalign_"}))
    with pytest.raises(ConfigError, match="several numbers would be the macro"):
        macros(twin, paired_tests(evidence))
