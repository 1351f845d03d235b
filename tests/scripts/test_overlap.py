"""What attacks train on: counted in their results, compared with evaluation, refused where it is held out too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resalign.config.plan import Plan
from resalign.data.contamination import Contamination, write_contamination
from resalign.data.images import DataError
from resalign.jobs import overlap
from resalign.jobs.exhibit import main_note
from resalign.jobs.report import ReportJob
from resalign.report.overlap import HOW, caveats
from tests.conftest import write_captioned_images

from .conftest import Workshop

Plans = Callable[..., Plan]
Workshops = Callable[[], Workshop]
# The tiny experiment's three sets are one, with two images of each prompt that its tier takes first.
UNLEARNINGS = tuple(
    f"Unlearning's {name} has images with tested prompts as captions: 2 of benign, 2 of unsafe."
    for name in ("forget set", "pool", "retain set")
)
ATTACK = {"heldout": "heldout", "steps": 1, "checkpoints": [], "lr": 1e-3}


def planned(tiny_plan: Plans, folder: Path, **changes: Any) -> Plan:
    """The tiny plan with training images of the attack's own."""
    given = {name: asset.resolved for name, asset in tiny_plan().assets.items()}
    attacks = {"mine": {"train": "mine", **ATTACK}}
    return tiny_plan(**{"assets": {**given, "mine": {"path": str(folder)}}, "attacks": attacks, **changes})


def found(shop: Workshop, plan: Plan) -> tuple[dict[str, Any], tuple[str, ...]]:
    folder = shop.overlap(plan)
    return json.loads((folder / "overlap.json").read_text())["attacks"]["mine"], caveats(str(folder))


def test_what_has_nothing_in_common_is_no_caveat(workshop: Workshops, tiny_plan: Plans, tmp_path: Path) -> None:
    train = write_captioned_images(tmp_path / "mine", ("a green owl", "a pink cat"), seed=2)
    entry, said = found(workshop(), planned(tiny_plan, train))
    assert {name: shared["images"] for name, shared in entry["train"]["images"].items()} == {
        "forget set": 0,
        "retain set": 0,
        "pool": 0,
    }
    assert {name: shared["images"] for name, shared in entry["train"]["prompts"].items()} == {"unsafe": 0, "benign": 0}
    assert said == (*UNLEARNINGS, HOW)


def test_captions_of_unlearning_that_nobody_tests_are_no_caveat(
    workshop: Workshops, tiny_plan: Plans, tmp_path: Path
) -> None:
    train = write_captioned_images(tmp_path / "mine", ("a green owl", "a pink cat"), seed=2)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "prompts.csv").write_text("id,prompt,label\n0,a blue horse,seven\n1,a grey mouse,two\n")
    given = {name: asset.resolved for name, asset in planned(tiny_plan, train).assets.items()}
    assets = {**given, "prompts": {"path": str(tmp_path / "lists")}}
    _, said = found(workshop(), planned(tiny_plan, train, assets=assets))
    assert said == ()


def test_prior_images_are_compared_too(
    workshop: Workshops, tiny_plan: Plans, tiny_values: dict[str, Any], tmp_path: Path
) -> None:
    train = write_captioned_images(tmp_path / "mine", ("a green owl", "a pink cat"), seed=2)
    concept = {**tiny_values["concept"], "prior": "mine"}
    entry, said = found(workshop(), planned(tiny_plan, train, concept=concept))
    assert entry["train"]["images"]["prior images"]["images"] == 2
    assert any("prior images" in sentence for sentence in said)


def test_overlaps_are_counted_by_what_they_are_with(workshop: Workshops, tiny_plan: Plans, tmp_path: Path) -> None:
    train = write_captioned_images(tmp_path / "mine", ("a green owl", "Days - in a WEEK!", "a pink cat"), seed=2)
    other = write_captioned_images(tmp_path / "real", ("x", "y"), seed=3)
    (other / "1.png").write_bytes((train / "2.png").read_bytes())
    plan = planned(tiny_plan, train)
    assets = {**{name: asset.resolved for name, asset in plan.assets.items()}, "real": {"path": str(other)}}
    write_contamination(train, Contamination(clean=2, harmful=1, asked=0.2))
    entry, said = found(workshop(), planned(tiny_plan, train, assets=assets, reference="real"))
    assert entry["train"]["images"]["reference images"] == {
        "images": 1,
        "examples": [[str(train / "2.png"), str(other / "1.png")]],
    }
    # The tier takes one unsafe prompt and two benign ones of the same list.
    counts = {name: shared["images"] for name, shared in entry["train"]["prompts"].items()}
    assert counts == {"unsafe": 0, "benign": 1}
    assert said == (
        *UNLEARNINGS,
        "Attack mine trains on 3 images: 1 harmful (20\N{NO-BREAK SPACE}% asked); 1 also in the reference images; "
        "1 with a prompt of benign as caption.",
        HOW,
    )


def test_an_attacks_other_images_are_compared_too(workshop: Workshops, tiny_plan: Plans, tmp_path: Path) -> None:
    train = write_captioned_images(tmp_path / "mine", ("a green owl", "a pink cat"), seed=2)
    attack = {"attack": "worst_case", "candidate": {"attack": "dreambooth"}, "learning_rates": [1e-3], "steps": 1}
    sets = {"train": "mine", "prior": "mine", "heldout": "heldout", "harmful": "images"}
    entry, said = found(workshop(), planned(tiny_plan, train, attacks={"mine": {**attack, **sets}}))
    assert entry["train"] == entry["prior"]
    assert entry["harmful"]["images"]["forget set"]["images"] == 8
    assert [
        text for text in said if text.startswith("Attack mine has 8 images of the concept: 8 also in the forget set")
    ]


def test_training_on_what_is_held_out_is_refused_at_once(workshop: Workshops, tiny_plan: Plans, tmp_path: Path) -> None:
    shop = workshop()
    train = write_captioned_images(tmp_path / "mine", ("a green owl", "a pink cat"), seed=2)
    heldout = Path(tiny_plan().folder("heldout"))
    (train / "0.png").write_bytes((heldout / "1.png").read_bytes())
    # Not even a model is needed to see it.
    plan = planned(tiny_plan, train, model="prompts")
    with pytest.raises(DataError, match=r"attacks.mine: 1 of the 2 images of 'train' are in 'heldout' too"):
        shop.overlap(plan)
    stage = next(iter(plan.attack.values()))
    with pytest.raises(DataError, match=r"base.mine: 1 of the 2 images of 'train' are in 'heldout' too"):
        shop.attack(plan, stage, 0)


def test_an_attack_states_what_it_has_trained_on(workshop: Workshops, tiny_plan: Plans, tmp_path: Path) -> None:
    train = write_captioned_images(tmp_path / "mine", ("an owl", "a cat", "An owl."), seed=2)
    write_contamination(train, Contamination(clean=2, harmful=1, asked=0.4))
    plan, shop = planned(tiny_plan, train, unlearning={}), workshop()
    (stage,) = plan.attack.values()
    stated = json.loads((shop.attack(plan, stage, 0) / "data.json").read_text())
    assert stated == {
        "train": {
            "images": 3,
            "distinct_images": 3,
            "distinct_captions": 2,
            "contamination": {"clean": 2, "harmful": 1, "size": 3, "asked": 0.4, "ratio": 1 / 3},
        },
        "heldout": {"images": 2, "distinct_images": 2, "distinct_captions": 2, "contamination": None},
    }


def test_another_prompt_trains_nothing_anew(tiny_plan: Plans) -> None:
    more = {"unsafe": {"prompts": 2, "images": 1}, "benign": {"prompts": 2, "images": 1}}
    tiers = {"smoke": {"training_seeds": [0], "prompts": more}}
    before, after = tiny_plan(), tiny_plan(tiers=tiers)
    assert overlap.folder(before) != overlap.folder(after)
    assert before.attack.keys() == after.attack.keys()
    assert f"{overlap.folder(before)}/overlap.json" in ReportJob.of(before).inputs()


def test_a_tested_prompt_that_is_a_caption_is_refused_unless_the_list_says_so_and_then_the_table_does(
    workshop: Workshops, tiny_plan: Plans, tiny_values: dict[str, Any], tmp_path: Path
) -> None:
    train = write_captioned_images(tmp_path / "mine", ("a green owl", "A red SEVEN!"), seed=2)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "prompts.csv").write_text("id,prompt,label\n0,a grey mouse,seven\n1,a red seven,two\n")
    apart = {**tiny_values["prompts"]["benign"], "may_be_captions": False}
    named = {"unsafe": tiny_values["prompts"]["unsafe"], "benign": apart}
    plan = planned(tiny_plan, train, prompts=named)
    with pytest.raises(
        DataError, match=r"benign: captions that are trained on \(1 of attacks.mine.train, 1 of forget .*'A red SEVEN!'"
    ):
        workshop().overlap(plan)
    # Nor in what an attack trains on.
    assets = {name: asset.resolved for name, asset in plan.assets.items()} | {
        "other": {"path": str(tmp_path / "lists")}
    }
    other = {**named, "benign": {**apart, "source": "other/prompts.csv"}}
    (tmp_path / "lists" / "prompts.csv").write_text("id,prompt,label\n0,a grey mouse,seven\n1,a green owl,two\n")
    with pytest.raises(DataError, match=r"\(1 of attacks.mine.train\) are prompts of this list, such as 'a green owl'"):
        workshop().overlap(planned(tiny_plan, train, prompts=other, assets=assets))
    assert main_note(planned(tiny_plan, train, prompts=other, assets=assets)) == (
        "Prompts of unsafe may be captions of images that models were trained on; the page counts them."
    )


def test_what_trains_nothing_compares_nothing(tiny_plan: Plans) -> None:
    ip = tiny_plan().experiment.config.metrics["ip"]
    assert overlap.folder(tiny_plan(attacks={}, metrics={"ip": ip})) is not None
    plan = tiny_plan(attacks={}, unlearning={}, metrics={"ip": ip})
    assert overlap.folder(plan) is None
    assert caveats(None) == ()
    assert not [name for name in ReportJob.of(plan).inputs() if "overlap" in name]
