"""The report's job: definitions of attacks and prompt lists."""

from pathlib import Path

import pytest

from resalign.config.plan import load_plan
from resalign.jobs.report import definitions

ROOT = Path(__file__).resolve().parents[2]


def test_a_prompt_list_is_defined_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = dict(definitions(load_plan("config/demo.yaml", {"tier": "small"})))
    assert found["unsafe prompts"].endswith('"). (24 prompts; 5 images per prompt and training seed)')
    assert found["retained prompts"].endswith("(180 prompts; 1 image per prompt and training seed)")
