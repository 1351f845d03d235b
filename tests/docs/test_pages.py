"""The walk-through shows the very files that its commands run."""

from pathlib import Path

import pytest

from resalign.config.plan import load_plan

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "shapes"
TEXT = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["shapes.yaml", "audit.yaml"])
def test_the_configurations_that_are_shown_are_those_that_are_run(name: str) -> None:
    shown = (EXAMPLE / name).read_text(encoding="utf-8")
    assert f"```yaml\n{shown}```\n" in TEXT
    assert f"--configfile docs/examples/shapes/{name}" in TEXT


def test_the_example_is_valid_and_so_is_its_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shapes = load_plan("docs/examples/shapes/shapes.yaml")
    audit = load_plan("docs/examples/shapes/audit.yaml")
    assert shapes.experiment.models == ("base", "gentle", "resalign")
    assert audit.experiment.models == ("base", "claimed")
    base = {run for run in shapes.score if run.startswith("base")}
    assert base == {run for run in audit.score if run.startswith("base")}
