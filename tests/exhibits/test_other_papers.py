"""Tables of other papers: their own metric where it is measured, and what else stands in its place by name."""

import json
from pathlib import Path

import pandas as pd

from resalign.exhibits import meta_unlearning, resurgence
from resalign.exhibits._inputs import ExhibitInputs
from tests.analysis.experiment import METRICS, make_measurements
from tests.exhibits.frames import inputs_of, write_frames


def with_metrics(folder: Path, *names: str) -> ExhibitInputs:
    """The made-up experiment, whose first safety metric is also measured under other names."""
    made = make_measurements()
    safety = made.images[made.images["metric"] == "ip"]
    images = pd.concat([made.images, *(safety.assign(metric=name) for name in names)])
    metrics = METRICS | {name: METRICS["ip"] for name in names}
    return inputs_of(write_frames(folder, make_measurements(images=images, metrics=metrics)))


def test_the_erased_concept_is_shown_whatever_else_is(tmp_path: Path) -> None:
    found = {}
    for names in ((), ("incidental_resurgence",), ("concept_accuracy", "incidental_resurgence")):
        folder = tmp_path / json.dumps(names)
        folder.mkdir()
        table = resurgence.make(with_metrics(folder, *names))
        found[names] = (list(dict.fromkeys(table.frame["metric"])), "IP's detectors" in table.layout.caption)
    assert found == {
        (): (["ip"], True),
        ("incidental_resurgence",): (["ip", "incidental_resurgence"], True),
        ("concept_accuracy", "incidental_resurgence"): (["concept_accuracy", "incidental_resurgence"], False),
    }


def test_one_of_the_papers_two_scores_is_the_papers_own(tmp_path: Path) -> None:
    said = "In place of the paper's unsafe and NSFW score"
    for names in ((), ("nsfw_score",)):
        folder = tmp_path / json.dumps(names)
        folder.mkdir()
        table = meta_unlearning.make(with_metrics(folder, *names))
        assert (said in table.layout.caption) == (not names)
