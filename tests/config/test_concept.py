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


@pytest.mark.parametrize("key", ["substitute", "retain_prompts", "masks"])
def test_what_a_method_needs_and_the_concept_lacks_is_named(read: Read, key: str) -> None:
    concept = read().config.concept
    check_methods(concept, {"mine": NeedsAll()}, where="x.yaml")
    lacking = read({f"concept.{key}": DELETED}).config.concept
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
    changes = {"concept.prompts": DELETED, "concept.substitute": DELETED, "concept.several": several}
    concept = read(changes).config.concept
    assert [words.prompts for words in concept.concepts] == [("a seven",), ("a two",)]
    assert concept.lacking(OPTIONAL) == ["several.two.substitute"]
    with pytest.raises(ConfigError, match="leave out prompts and substitute"):
        read({"concept.several": several})
    for words, message in (({"substitute": "a one"}, "several.two has no"), ({"prompts": ["a seven"]}, "'a seven' is")):
        with pytest.raises(ConfigError, match=message):
            read({**changes, "concept.several": {**several, "two": words}})


def test_only_who_needs_retain_prompts_and_masks_is_told_of_them(read: Read) -> None:
    plan = Plan(read({"unlearning.mine": {"method": "mace", "use_masks": True}}))
    jobs = {stage.model: UnlearnJob.of(plan, stage) for stage in plan.unlearn.values()}
    told = {model: {"retain_prompts", "masks"} & job.model_fields_set for model, job in jobs.items()}
    assert told.pop("mine") == {"retain_prompts", "masks"}
    assert told
    assert not any(told.values())
