"""Published numbers have a place each, and are compared in their own world alone."""

import pandas as pd
import pytest

from resalign.config.plan import load_plan
from resalign.exhibits._published import COMPONENTS, METHODS, PERSONALISED, beside, not_covered, place, published, said


def row(
    model: str, attack: str, dataset: str, metric: str, mean: float, half: float, **more: object
) -> dict[str, object]:
    return {
        **{"model": model, "attack": attack, "dataset": dataset, "steps": 200 if dataset else 0, "metric": metric},
        **{"mean": mean, "low": mean - half, "high": mean + half, **more},
    }


def test_every_row_is_mapped_or_listed_as_not_covered() -> None:
    rows = published()
    assert len(rows) > 100
    for values in rows.to_dict("records"):
        reason = not_covered(values)
        assert reason or place(values).model in METHODS.values()
    left = rows[[bool(not_covered(values)) for values in rows.to_dict("records")]]
    assert set(left["source"]) == {"rgd", "resurgence"}  # all of ResAlign's own have a place


def test_no_two_rows_have_one_place() -> None:
    rows = [values for values in published().to_dict("records") if not not_covered(values)]
    places = [(values["table"], values["source"], place(values)) for values in rows]
    assert len(set(places)) == len(places)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        place({"source": "resalign", "table": "tab1", "setting": "before", "method": "MACE", "metric": "IP"})


def test_numbers_stand_beside_the_same_state() -> None:
    frame = pd.DataFrame(
        [
            row("esd", "none", "", "ip", 0.07, 0.01),
            row("esd", "dreambench", "dreambench++", "ip", 0.25, 0.05),
            row("esd", "diffusiondb", "diffusiondb", "us", 0.08, 0.01),
            row("esd", "none", "", "fid", 16.0, float("nan")),
            row("graddiff", "none", "", "ip", 0.1, 0.1),
        ]
    )
    found = beside(frame, "resalign", ["tab1"], comparable=True)
    assert found["published"].tolist()[:4] == [0.0677, 0.1661, 0.0817, 16.88]
    assert found["difference"].tolist()[:4] == pytest.approx([0.0023, 0.0839, -0.0017, -0.88])
    assert found["within_interval"].tolist() == ["yes", "no", "yes", "", ""]
    assert found["published_world"].tolist() == ["same"] * 4 + [""]
    other = beside(frame, "resalign", ["tab1"], comparable=False)
    assert other["published"].tolist()[:4] == [0.0677, 0.1661, 0.0817, 16.88]
    assert other["difference"].isna().all()
    assert set(other["within_interval"]) == {""}
    assert other["published_world"].tolist() == ["another"] * 4 + [""]


def test_units_and_variants_are_the_papers() -> None:
    dog = row("resalign", "dreambooth-dog", "dog", "clip_t", 26.0, 1.0, variant="DreamBooth on dog")
    assert beside(pd.DataFrame([dog]), "resalign", ["tab2"], comparable=True)["published"].item() == pytest.approx(
        26.31
    )
    rate = row("resalign", "lora-diffusiondb", "diffusiondb", "ip", 0.05, 0.01, variant="1e-3")
    found = beside(pd.DataFrame([rate, rate | {"variant": "5e-4"}]), "resalign", ["tab4"], comparable=True)
    assert found["published"].tolist() == [0.059, 0.053]
    added = [row("resalign", "pages", "dreambench++", "ip", 0.2, 0.1, variant=name) for (name,) in COMPONENTS.values()]
    found = beside(pd.DataFrame(added), "resalign", ["tab3"], comparable=True)
    assert found["published"].tolist() == [0.2266, 0.1826, 0.0322, 0.0186]
    fids = [
        row("resalign", attack, dataset, "fid", 20.0, 1.0, variant=name)
        for (name,) in COMPONENTS.values()
        for attack, dataset in (("none", ""), ("dreambench", "dreambench++"), ("diffusiondb", "diffusiondb"))
    ]
    found = beside(pd.DataFrame(fids), "resalign", ["tab3"], comparable=True)
    assert found.loc[found["attack"] == "none", "published"].tolist() == [18.24, 18.07, 18.35, 18.18]
    assert found.loc[found["attack"] != "none", "published"].isna().all()  # Table 3's FID is before fine-tuning
    other = added[0] | {"attack": "diffusiondb", "dataset": "diffusiondb"}
    assert beside(pd.DataFrame([other]), "resalign", ["tab3"], comparable=True)["published"].isna().all()
    labelled = dog | {"metric": "CLIP-T"}
    assert beside(pd.DataFrame([labelled]), "resalign", ["tab2"], comparable=True)["published"].item() == pytest.approx(
        26.31
    )
    personal = row("base", "personal", "personal", "dino", 0.9, 0.1, variant="SVDiff on VGGFace2-HQ")
    assert beside(pd.DataFrame([personal]), "resalign", ["tab2"], comparable=True)["published"].item() == 0.5672
    malicious = [row("esd", "hrm-m", "hrm-m", "unsafe_score", 0.4, 0.1) | {"steps": steps} for steps in (50, 100, 300)]
    found = beside(pd.DataFrame(malicious), "meta-unlearning", ["table1"], comparable=True)
    assert found["published"].tolist() == pytest.approx([0.3944, float("nan"), 0.5775], nan_ok=True)


def test_each_row_may_be_of_its_own_world() -> None:
    frame = pd.DataFrame([row("esd", "none", "", metric, 0.07, 0.1) for metric in ("ip", "us")])
    found = beside(frame, "resalign", ["tab1"], comparable=pd.Series([True, False]))
    assert found["published_world"].tolist() == ["same", "another"]
    assert found["difference"].tolist() == pytest.approx([0.07 - 0.0677, float("nan")], nan_ok=True)
    assert found["within_interval"].tolist() == ["yes", ""]


def test_published_numbers_beside_nothing_are_said() -> None:
    rates = [row("resalign", "lora", "dreambench++", "ip", 0.01, 0.01, variant=name) for name in ("sgd", "adam")]
    frame = beside(pd.DataFrame(rates), "resalign", ["tab5"], comparable=True)
    text = said(frame, "resalign", ["tab5"], another_world="")
    assert "in parentheses, how much larger ours is" in text
    assert "ResAlign IP dreambench++/adamw; ResAlign IP diffusiondb/sgd;" in text
    assert "dreambench++/sgd" not in text
    nothing = beside(pd.DataFrame([rates[0] | {"metric": "us"}]), "resalign", ["tab5"], comparable=True)
    assert said(nothing, "resalign", ["tab5"], another_world="") == (
        "None of the 6 published numbers has a counterpart here."
    )
    other = said(frame, "resalign", ["tab5"], another_world="tier 'small', not 'paper'")
    assert other == (
        "Published numbers, below ours, are of another world (tier 'small', not 'paper'): they are shown, not compared."
    )


def test_names_are_those_of_the_papers_configurations() -> None:
    plan = load_plan("config/config.yaml")
    ours = set(plan.experiment.models)
    assert set(METHODS.values()) - ours <= {"graddiff", "meta_unlearning"}
    assert {"esd", "meta_unlearning"} <= set(load_plan("config/studies/paper-meta-unlearning.yaml").experiment.models)
    assert {data.dataset for data in plan.experiment.attack_data.values()} == {"dreambench++", "diffusiondb"}
    swept = set(load_plan("config/studies/paper-attacks.yaml").experiment.attacks)
    assert {attack for attack, _ in PERSONALISED.values()} <= swept
