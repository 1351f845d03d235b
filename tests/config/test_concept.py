"""The concept in words and images, and what a method may ask of it."""

from collections.abc import Callable
from typing import Any

import pytest

from resalign.config.concept import OPTIONAL, check_methods
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError, Strict
from resalign.jobs.unlearn import UnlearnJob

from .conftest import DELETED

Read = Callable[..., Experiment]


class NeedsAll(Strict):
    """Settings of a method that needs whatever there may be."""

    def needs(self) -> tuple[str, ...]:
        return OPTIONAL


PRIOR = {"concept.prior": "digits-data/pool"}


@pytest.mark.parametrize("key", ["substitute", "retain_prompts", "masks", "prior"])
def test_what_a_method_needs_and_the_concept_lacks_is_named(read: Read, key: str) -> None:
    concept = read(PRIOR).config.concept
    check_methods(concept, {"mine": NeedsAll()}, where="x.yaml")
    lacking = read({**PRIOR, f"concept.{key}": None if key == "prior" else DELETED}).config.concept
    check_methods(lacking, {"mine": Strict()}, where="x.yaml")
    with pytest.raises(ConfigError, match=f"x.yaml: unlearning.mine needs the key concept.{key}$"):
        check_methods(lacking, {"mine": NeedsAll()}, where="x.yaml")


def test_a_configuration_without_it_is_refused(read: Read) -> None:
    changes: dict[str, Any] = {"unlearning.mine": {"method": "salun"}}
    read(changes)
    with pytest.raises(ConfigError, match="unlearning.mine needs the key concept.substitute"):
        read({**changes, "concept.substitute": DELETED})


def test_several_concepts_take_the_place_of_one(read: Read) -> None:
    several = {"seven": {"prompts": ["a seven"], "substitute": "a one"}, "two": {"prompts": ["a two"]}}
    changes = {**PRIOR, "concept.prompts": DELETED, "concept.substitute": DELETED, "concept.several": several}
    concept = read(changes).config.concept
    assert [words.prompts for words in concept.concepts] == [("a seven",), ("a two",)]
    assert concept.lacking(OPTIONAL) == ["several.two.substitute"]
    with pytest.raises(ConfigError, match="leave out prompts and substitute"):
        read({"concept.several": several})
    for words, message in (({"substitute": "a one"}, "several.two has no"), ({"prompts": ["a seven"]}, "'a seven' is")):
        with pytest.raises(ConfigError, match=message):
            read({**changes, "concept.several": {**several, "two": words}})


def test_only_who_needs_retain_prompts_masks_and_prior_images_is_told_of_them(read: Read) -> None:
    masked = {"method": "mace", "use_masks": True}
    personal = {"method": "resalign", "prior": "prior"}
    plan = Plan(read({**PRIOR, "unlearning.mine": masked, "unlearning.personal": personal}))
    jobs = {stage.model: UnlearnJob.of(plan, stage) for stage in plan.unlearn.values()}
    told = {model: {"retain_prompts", "masks", "prior"} & job.model_fields_set for model, job in jobs.items()}
    assert told.pop("mine") == {"retain_prompts", "masks"}
    assert told.pop("personal") == {"prior"}
    assert jobs["personal"].images["prior"] == jobs["personal"].pool
    assert "prior" not in jobs["mine"].images
    assert told
    assert not any(told.values())
    without = Plan(read())
    assert set(without.unlearn) < set(plan.unlearn), "prior images are no part of the runs that do not use them"
    with pytest.raises(ConfigError, match="unlearning.personal needs the key concept.prior"):
        read({"unlearning.personal": personal})
