"""Refuses metrics whose scorers cannot give what they read, as far as the configuration shows.

Faults that only a loaded network or a list shows are refused by the rule check_scorers, with the same messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from resalign.config import registry
from resalign.config.detector_audit import StandInConfig
from resalign.config.strict import ConfigError, Strict, nearest

if TYPE_CHECKING:
    from resalign.config.experiment import Experiment, Member

FEATURE = re.compile(r"f\d{3,}")  # as resalign.scorers._scorer.feature_names has them
PLACEHOLDER = re.compile(r"LABEL_\d+")  # what transformers calls a class that the folder does not name


class DetectorCheckConfig(Strict):
    """Images of the concept and harmless ones that each detector is shown before anything is unlearned."""

    images: int = Field(
        16, gt=0, description="of the forget set, and as many of the retain set; all where it has fewer"
    )
    seed: int = Field(0, ge=0, description="another seed draws other images")
    most_retained: float = Field(
        0.5, ge=0, le=1, description="where a detector flags more than this share of the retain set, the page notes it"
    )
    stop: bool = Field(
        True,
        description="end the run where a detector of your own flags no image of the concept; false: the page notes it",
    )


def needs_of(metric: Member) -> list[Any]:
    """The numbers that a metric reads of scorers, as :class:`resalign.metrics._flags.Need`."""
    config: Any = metric.config
    found: list[Any] = config.needs()
    return found


def check_needs(experiment: Experiment) -> None:
    """Holds every metric against those scorers whose numbers the configuration determines.

    Raises:
        ConfigError: If a scorer has no such number, or features of too many dimensions for the tier's images.
    """
    tier = experiment.config.tier
    for label, metric in experiment.metrics.items():
        where, name = f"{experiment.where}: metrics.{label}", getattr(metric.config, "prompts", "")
        for need in needs_of(metric):
            given = known_numbers(experiment, need.scorer)
            if given is None:
                continue
            check_numbers(need, given, where=where)
            count = experiment.tier.prompts[name]
            if count.prompts is not None:
                check_count(need, given, count.prompts * count.images, where=where, of=f"tiers.{tier}.prompts.{name}")
    stand_in = experiment.config.detector_audit.labels
    if isinstance(stand_in, StandInConfig):
        given = known_numbers(experiment, stand_in.scorer)
        if given is not None:
            where = f"{experiment.where}: detector_audit.labels"
            check_names(stand_in.scorer, stand_in.quantities, given, where=where)


def known_numbers(experiment: Experiment, scorer: str) -> tuple[str, ...] | None:
    """The numbers that a scorer gives; None if only its network determines them."""
    member = experiment.scorers[scorer]
    module = registry.member("scorers", member.name)
    if hasattr(module, "quantities"):
        found: tuple[str, ...] | None = module.quantities(member.config)
        return found
    asset = experiment.config.assets.get(member.asset or "")
    detector = experiment.config.digits.detectors.get(asset.digits or "") if asset else None
    return detector.labels if detector else None


def check_numbers(need: Any, given: Sequence[str], *, where: str, source: str = "") -> None:
    """Refuses a need of numbers that a scorer does not give.

    Args:
        need: As :class:`resalign.metrics._flags.Need`.
        given: The scorer's numbers.
        where: What to call the metric in an error.
        source: What to call the scorer's folder there, after a blank; '' if its numbers come from the configuration.
    """
    check_names(need.scorer, need.quantities, given, where=where, source=source)
    if need.images_per_dimension is not None and not dimensions(given):
        raise ConfigError(
            f"{where}: scorer '{need.scorer}'{source} keeps no features, it gives {list(given)}; "
            "set 'features: true' for a scorer clip, or name one that keeps them, such as inception or dino"
        )


def check_names(scorer: str, wanted: Sequence[str], given: Sequence[str], *, where: str, source: str = "") -> None:
    """Refuses a class or another number that a scorer does not give; see :func:`check_numbers`."""
    named = [name for name in given if not FEATURE.fullmatch(name)]
    for name in wanted:
        if name not in named:
            unnamed = any(PLACEHOLDER.fullmatch(other) for other in named)
            hint = "; the folder does not name its classes: give id2label in its config.json" if unnamed else ""
            raise ConfigError(f"{where}: scorer '{scorer}'{source} gives no '{name}'{nearest(name, named)}{hint}")


def check_count(need: Any, given: Sequence[str], images: int, *, where: str, of: str) -> None:
    """Refuses fewer images than a scorer's features need; ``of`` names the set of images."""
    size, each = dimensions(given), need.images_per_dimension or 0
    least = max(each * size, need.least_images)
    if images < least:
        why = f"{size} features need {each * size}" if each * size >= need.least_images else f"a subset has {least}"
        raise ConfigError(
            f"{where}: {images} images of {of} are too few, {why}; give more, or lower images_per_dimension, "
            "subset_size or the scorer's number of features"
        )


def dimensions(given: Sequence[str]) -> int:
    """How many numbers of a scorer are features."""
    return sum(FEATURE.fullmatch(name) is not None for name in given)
