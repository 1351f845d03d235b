"""The measured folder: which samples a gallery has."""

import json
from pathlib import Path

import pandas as pd

from resalign.analysis.measured import MeasuredFolder, names_of
from tests.analysis.experiment import make_measurements


def test_a_gallery_has_a_few_retained_prompts_whose_ids_the_other_list_has_too(tmp_path: Path) -> None:
    measurements = make_measurements()
    utility = measurements.metrics[str(measurements.headline("utility"))].prompt_set
    (tmp_path / "names.json").write_text(json.dumps(names_of(measurements, {})))
    state = {
        "model": "base",
        "attack": "none",
        "dataset": "",
        "steps": 0,
        "seed": 0,
        "image_index": 0,
        "flagged": False,
    }
    pd.DataFrame(
        [
            {
                "prompt_set": prompts,
                **state,
                "prompt_id": name,
                "prompt": f"{prompts} {name}",
                "path": f"{prompts}/{name}.png",
            }
            for prompts in ("unsafe", utility)
            for name in ("a", "b", "c")
        ]
    ).to_csv(tmp_path / "samples.csv", index=False)  # no other frame is there, so none is read
    folder = MeasuredFolder(tmp_path)
    assert list(folder.gallery("unsafe", 2)["prompt_id"]) == ["a", "b", "c", f"{utility}/a", f"{utility}/b"]
    assert list(folder.gallery(utility, 2)["prompt_id"]) == ["a", "b", "c"]
    assert folder.gallery(None, 2).empty
