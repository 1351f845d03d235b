"""Macros hold the tables' numbers under names that LaTeX allows."""

import re
from dataclasses import replace

import pytest

from resalign.analysis.frames import final_states
from resalign.config.strict import ConfigError
from resalign.exhibits import macros as exhibits_macros
from resalign.exhibits._inputs import ExhibitInputs
from resalign.exhibits._macro_names import macros, variant_name, words
from resalign.exhibits._paired import paired_tests
from resalign.exhibits._published import beside
from resalign.exhibits._series import series_frame


def read(text: str) -> dict[str, float]:
    lines = [re.fullmatch(r"\\newcommand\{\\([A-Za-z]+)\}\{(-?[\d.]+)\}", line) for line in text.splitlines()]
    assert all(lines)
    return {line[1]: float(line[2]) for line in lines if line}


def test_every_number_of_a_state_has_a_macro(inputs: ExhibitInputs) -> None:
    final = final_states(inputs.main)
    found = read(macros(final, paired_tests(inputs), {}, swept=()))
    own = final[(final["model"] == "resalign") & (final["metric"] == "ip") & (final["attack"] == "pages")].iloc[0]
    for end, column in {"": "mean", "Std": "std", "Low": "low", "High": "high", "N": "n", "Seeds": "seeds"}.items():
        assert found[f"resalignIpPagesAfter{end}"] == pytest.approx(own[column], rel=1e-3)
    assert found["resalignIpPagesAfterSeeds"] == 3
    assert found["baseIpBefore"] > found["resalignIpBefore"]
    assert found["baseIpPagesAfterVersusResalign"] > 0
    assert found["testsSignificant"] <= found["testsTried"]


def test_series_have_macros_by_exhibit(inputs: ExhibitInputs) -> None:
    files = dict(inputs.files)
    files["figure5"] = files.pop("ablation")
    made = exhibits_macros.make(replace(inputs, files=files))
    found = read(made.text)
    frame, _ = series_frame(inputs, "figure5")
    own = frame[(frame["variant"] == "0.01") & (frame["metric"] == "ip") & (frame["attack"] == "pages")].iloc[0]
    name = "figureFiveGammaZeroZeroOneResalignIpPagesAfter"
    assert found[name] == pytest.approx(own["mean"], rel=1e-3)
    assert found[f"{name}Low"] == pytest.approx(own["low"], rel=1e-3)
    assert f"{name}Published" not in found  # figures have no published numbers


def test_published_numbers_and_differences_have_macros(inputs: ExhibitInputs) -> None:
    values = beside(final_states(inputs.main), "resalign", ["tab1"], comparable=True)
    own = values[(values["model"] == "esd") & (values["metric"] == "ip") & (values["attack"] == "none")].iloc[0]
    found = read(macros(values, paired_tests(inputs), {}, swept=()))
    assert found["esdIpBeforePublished"] == 0.0677
    assert found["esdIpBeforeDifference"] == pytest.approx(own["mean"] - 0.0677, rel=1e-3)
    other = beside(final_states(inputs.main), "resalign", ["tab1"], comparable=False)
    found = read(macros(other, paired_tests(inputs), {}, swept=()))
    assert "esdIpBeforePublished" in found
    assert "esdIpBeforeDifference" not in found


def test_a_sweeps_name_is_its_label_without_the_exhibits() -> None:
    row = {"series": "table4-dreambench", "variant": "1e-3", "model": "resalign", "metric": "ip", "attack": "lora-1e-3"}
    assert variant_name("table4", row, is_swept=True) == "tableFourDreambenchOneEThreeResalignIpAfter"
    assert variant_name("table4", row | {"series": "rates"}, is_swept=False) == (
        "tableFourRatesOneEThreeResalignIpLoraOneEThreeAfter"
    )


def test_names_are_letters() -> None:
    assert words("dreambench++") == "Dreambench"
    assert words("clip_score") == "ClipScore"
    assert words("lora-1e-5") == "LoraOneEFive"
    assert words("LoRA on Pokémon") == "LoRAOnPokemon"


def test_two_numbers_of_one_name_are_refused(inputs: ExhibitInputs) -> None:
    final = final_states(inputs.main)
    twin = final.assign(model=final["model"].replace({"esd": "resalign_"}))
    with pytest.raises(ConfigError, match="several numbers would be the macro"):
        macros(twin, paired_tests(inputs), {}, swept=())
