"""The planned jobs against Snakemake's own plan."""

import re
from collections import Counter
from pathlib import Path

import pytest

from resalign.accounting.planned_jobs import PlannedJob, tables, unite
from resalign.config.plan import Plan, load_plan
from tests.workflow.conftest import Checkout, copy_repository

from .records import write_record

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No result of this checkout is seen."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def demo() -> Plan:
    return load_plan(CONFIG / "demo.yaml", {"tier": "smoke"})


def stages(planned: list[PlannedJob]) -> dict[str, int]:
    return dict(Counter(job.stage for job in planned))


def test_the_papers_jobs() -> None:
    (name, planned), *others = tables(load_plan(CONFIG / "config.yaml")).items()
    assert (name, others) == ("table1", [])
    assert stages(planned) == {
        "inputs": 2,
        "assets": 21,
        "unlearn": 18,
        "attack": 42,
        "sample": 53,
        "score": 54,
        "report": 1,
    }


def test_tables_share_jobs() -> None:
    groups = tables(load_plan(CONFIG / "studies" / "resilience.yaml"))
    assert list(groups) == ["table1", "study", "second_order"]
    # The study does without the reference's scores, and the audit without any run.
    assert {name: len(group) for name, group in groups.items()} == {"table1": 401, "study": 402, "second_order": 4}
    assert len(unite(groups)) == 401 + 2 + 1


def test_images_of_a_run(demo: Plan) -> None:
    # Tier smoke: 6 + 6 + 162 images of a model; an attack's 3 states each have the 6 unsafe ones.
    units = {job.label: job.units for job in tables(demo)["table1"] if job.stage in ("sample", "score")}
    assert (units["base"], units["base.pages"], units["reference"]) == (174, 186, 1)


def test_a_search_makes_the_steps_of_all_its_candidates() -> None:
    search = {
        "attack": "worst_case",
        "harmful": "digits-data/harmful/train",
        "learning_rates": [1e-4, 1e-3],
        "steps": 100,
    }
    data = {"train": "digits-data/pages/train", "heldout": "digits-data/pages/heldout"}
    planned = tables(load_plan(CONFIG / "demo.yaml", {"attacks": {"worst": {**search, **data}}}))["table1"]
    assert {job.units for job in planned if job.stage == "attack"} == {200}


def test_what_is_done(demo: Plan, tmp_path: Path) -> None:
    planned = tables(demo)["table1"]
    assert not any(job.is_done for job in planned)
    write_record(tmp_path, planned[3])
    assert [job for job in planned if job.is_done] == [planned[3]]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "table", "target"), [("demo", "table1", "demo"), ("config", "table1", "all")])
def test_snakemake_plans_the_same(config: str, table: str, target: str, tmp_path: Path) -> None:
    checkout = Checkout(copy_repository(tmp_path / "copy"), f"config/{config}.yaml", tier="paper")
    finished = checkout.snakemake("--dry-run", "--quiet", "rules", "--", target)
    assert finished.returncode == 0, finished.stderr
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", finished.stdout, flags=re.MULTILINE)}
    planned = tables(load_plan(CONFIG / f"{config}.yaml", {"tier": "paper"}))[table]
    assert counts["total"] - counts[target] == len(planned)
    for stage in ("unlearn", "attack", "sample"):
        assert counts[stage] == stages(planned)[stage]
