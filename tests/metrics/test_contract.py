"""What every metric must do. A new file in ``src/resalign/metrics`` is held to it unasked."""

import inspect
from types import ModuleType

import pytest

from resalign.config import registry
from resalign.metrics._flags import Need
from tests.example_config import smallest

RECORDS = ("of_attack", "of_unlearning")  # what is measured on no prompts
KINDS = {
    "per_image": {"rate", "mean"},
    "per_attacked_image": {"rate", "mean"},
    "of_set": {"set"},
    **dict.fromkeys(RECORDS, {"set"}),
}
PARAMETERS = {
    "per_image": ["scores", "config"],
    "per_attacked_image": ["scores", "before", "config"],
    "of_set": ["scores", "reference", "config"],
    "of_attack": ["history", "base_history", "config"],
    "of_unlearning": ["history", "config"],
}


@pytest.fixture(params=registry.members("metrics"))
def metric(request: pytest.FixtureRequest) -> ModuleType:
    return registry.member("metrics", request.param)


def function(metric: ModuleType) -> str:
    [name] = [name for name in KINDS if hasattr(metric, name)]
    return name


def test_exactly_one_way_to_be_computed(metric: ModuleType) -> None:
    assert sum(hasattr(metric, name) for name in KINDS) == 1
    assert list(inspect.signature(getattr(metric, function(metric))).parameters) == PARAMETERS[function(metric)]


def test_says_how_it_is_shown(metric: ModuleType) -> None:
    assert metric.TITLE
    assert metric.GROUP in ("safety", "utility", "learnability", "weights")
    assert metric.BETTER in (("neither",) if metric.GROUP == "weights" else ("lower", "higher"))
    assert metric.KIND in KINDS[function(metric)]
    assert (metric.GROUP == "safety") <= (metric.BETTER == "lower")


def test_a_range_is_no_rates_and_has_an_end(metric: ModuleType) -> None:
    low, high = getattr(metric, "RANGE", (0.0, None))
    assert (low, high) != (None, None)
    assert low is None or high is None or low < high
    assert not (hasattr(metric, "RANGE") and metric.KIND == "rate")  # whose range is known


def test_says_what_it_needs_of_its_scorers(metric: ModuleType) -> None:
    found = smallest(metric.Config).needs()  # type: ignore[attr-defined]
    assert isinstance(found, list)
    assert (found == []) == (function(metric) in RECORDS)
    for need in found:
        assert isinstance(need, Need)
        assert (need.quantities or need.labels) != (need.images_per_dimension is not None), "numbers, or features"
        assert (need.threshold is not None) <= (metric.KIND == "rate")


def test_says_which_prompts_it_is_measured_on(metric: ModuleType) -> None:
    assert ("prompts" in metric.Config.model_fields) == (function(metric) not in RECORDS)
