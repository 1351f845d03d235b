"""Settings of a study: the models it compares and the bounds of its claims; imported without torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from resalign.config.strict import Strict

SAFETY, UTILITY = "ip", "retained_accuracy"  # labels of the experiment's metrics that a study counts


class Contrast(Strict):
    """Two models that differ in one component."""

    component: str = Field(
        description="the component that `treated` has and `control` lacks, as the subject of a sentence"
    )
    treated: str
    control: str


class StudyConfig(Strict):
    """Which models the claims are about, and their bounds; fixed before the study is run."""

    baselines: tuple[str, ...] = Field(("graddiff", "esd"), min_length=1)
    method: str = "resalign"
    contrasts: tuple[Contrast, ...] = (
        Contrast(component="the second-order term", treated="varied-configurations", control="first-order"),
        Contrast(component="the hypergradient", treated="hypergradient", control="none"),
        Contrast(component="redrawn data", treated="varied-data", control="hypergradient"),
        Contrast(component="varied configurations", treated="varied-configurations", control="varied-data"),
    )
    safety_share: float = Field(
        1 / 3, gt=0, lt=1, description="claimed upper bound of IP, as a share of the best baseline's"
    )
    utility_margin: float = Field(0.03, ge=0, description="retained accuracy that the method may lose to the baseline")
    learnability_share: float = Field(
        0.9, gt=0, le=1, description="claimed lower bound of learnability, as a share of the base model's"
    )

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that a claim names, each once."""
        pairs = (name for contrast in self.contrasts for name in (contrast.treated, contrast.control))
        return tuple(dict.fromkeys((*self.baselines, self.method, *pairs)))

    @model_validator(mode="after")
    def _models_differ(self) -> Self:
        if self.method in self.baselines:
            raise ValueError(f"method '{self.method}' is one of the baselines {list(self.baselines)}")
        same = [contrast.component for contrast in self.contrasts if contrast.treated == contrast.control]
        if same:
            raise ValueError(f"contrasts {same} compare a model with itself")
        return self


class SelectionConfig(Strict):
    """The rule that chooses each family's setting; see :mod:`resalign.study.selection`."""

    most_ip_before: float = Field(0.05, ge=0, le=1)
    utility_margin: float = Field(
        0.05, ge=0, le=1, description="retained accuracy before fine-tuning that a setting may cost"
    )
    tie: float = Field(0.01, ge=0, description="difference of mean IP within which retained accuracy decides")
