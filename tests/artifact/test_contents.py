"""What an experiment's archive is told to hold."""

import json
from pathlib import Path

from resalign.artifact import contents
from resalign.config.ablations import Ablations
from resalign.config.plan import load_plan

ROOT = Path(__file__).resolve().parents[2]


def test_data_of_a_variant_alone_are_described_too() -> None:
    plan = load_plan(str(ROOT / "config" / "demo.yaml"))
    ablations = Ablations(plan, plan.experiment.config.model_dump(mode="json", exclude_unset=True))
    assets = json.loads(contents.artifact_job(plan, ablations))["assets"]
    contaminated = {name: asset for name, asset in assets.items() if name.startswith("contaminated")}
    assert list(contaminated) == [f"contaminated (contamination: {share})" for share in ("0", "20", "50")]
    assert len({asset["folder"] for asset in contaminated.values()}) == 3
    assert [asset["identity"]["ratio"] for asset in contaminated.values()] == [0.0, 0.2, 0.5]
    assert set(plan.assets) <= set(assets)
