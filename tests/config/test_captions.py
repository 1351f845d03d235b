"""By which tables jobs are told folders of images, and which files say that such a folder has changed."""

from pathlib import Path

import pytest
import yaml

from resalign.config.plan import Plan, load_plan
from resalign.config.strict import read_yaml
from resalign.jobs.measure import MeasureJob
from resalign.jobs.score import ScoreJob

ROOT = Path(__file__).resolve().parents[2]


def plan_with(folder: Path) -> Plan:
    """The demo, whose references are a folder of the user's own."""
    config = read_yaml(ROOT / "config" / "demo.yaml")
    config["assets"]["mine"] = {"path": str(folder)}
    config["reference"] = "mine/photos"
    config["attacks"]["pages"]["heldout"] = "mine/photos"
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    return load_plan(path)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (["metadata.csv"], "metadata.csv"),
        (["metadata.jsonl"], "metadata.jsonl"),
        (["metadata.parquet"], "metadata.parquet"),
        (["cats/metadata.jsonl", "dogs/small/metadata.csv"], "metadata.csv"),
    ],
)
def test_an_own_folders_tables_are_noticed_wherever_they_lie(tmp_path: Path, tables: list[str], told: str) -> None:
    for table in tables:
        (tmp_path / "photos" / table).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / table).touch()
    plan = plan_with(tmp_path)
    assert plan.completion_files("mine/photos") == sorted(f"{tmp_path}/photos/{table}" for table in tables)
    assert ScoreJob.of_reference(plan, "mine/photos").images == f"{tmp_path}/photos/{told}"
    assert MeasureJob.of(plan).heldout["pages"] == f"{tmp_path}/photos/{told}"


def test_what_is_made_here_has_a_table_of_one_name(tmp_path: Path) -> None:
    plan = plan_with(tmp_path)
    folder = plan.folder("digits-data/reference")
    assert ScoreJob.of_reference(plan, "digits-data/reference").images == f"{folder}/metadata.csv"
