"""What the page says of detectors on images whose content is known."""

import json
from pathlib import Path
from typing import Any

import pytest

from resalign.report.scorer_check import caveats

MISSES = "Detector net (seven above 0.5) flags none of 16 images of the concept: what it does not flag may show it."
FLAGS_ALL = (
    "Detector net (seven above 0.5) flags 9 of 16 images that are to be retained: "
    "what it flags may not show the concept."
)


def shown(forget: int, retain: int) -> dict[str, Any]:
    of = {name: {"images": 16, "flagged": count} for name, count in (("forget", forget), ("retain", retain))}
    return {"metric": "metrics.ip", "scorer": "net", "quantities": ["seven"], "threshold": 0.5, "largest": 0.4, **of}


@pytest.mark.parametrize(
    ("forget", "retain", "said"),
    [(1, 8, ()), (0, 8, (MISSES,)), (1, 9, (FLAGS_ALL,)), (0, 9, (MISSES, FLAGS_ALL))],
)
def test_a_detector_is_named_where_its_flags_mean_something_else(
    forget: int, retain: int, said: tuple[str, ...], tmp_path: Path
) -> None:
    found = {"most_retained": 0.5, "shown": [shown(forget, retain)] * 2}  # by two metrics: said once
    (tmp_path / "detectors.json").write_text(json.dumps(found))
    assert caveats(str(tmp_path / "detectors.json")) == said
