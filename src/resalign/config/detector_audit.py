"""Settings of the detector audit: how many images are labelled, and where the labels come from."""

from __future__ import annotations

from pydantic import Field

from resalign.config.references import OwnPath
from resalign.config.strict import Strict


class StandInConfig(Strict):
    """A further detector that labels in place of people, by a rule like a metric's; the tables state this."""

    scorer: str
    quantities: tuple[str, ...] = Field(min_length=1)
    threshold: float = 0.5


class DetectorAuditConfig(Strict):
    """The sample that is labelled, and its labels."""

    metric: str | None = Field(None, description="the rate whose detectors are audited; null for the flagging_metric")
    images: int = Field(200, gt=0, description="images to label, equally many of each stratum if it has enough")
    seed: int = Field(0, ge=0, description="another seed draws other images; a larger sample contains a smaller one")
    shown_pixels: int = Field(320, gt=0, description="width of an image on the labelling page")
    labels: StandInConfig | OwnPath | tuple[OwnPath, ...] | None = Field(
        None,
        description="CSV files saved by labellers, one each; null for "
        "results/<experiment>/detector-labels/*.csv; or {scorer, quantities, threshold} of a stand-in",
    )
