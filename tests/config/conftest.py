import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resalign.config.experiment import Experiment
from resalign.config.strict import read_yaml

ROOT = Path(__file__).resolve().parents[2]
DELETED = object()
Demo = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def demo() -> Demo:
    """The demo's configuration with some values changed: ``demo({"sampling.seed": 1})``; DELETED takes a key out."""
    values = read_yaml(ROOT / "config" / "demo.yaml")

    def changed(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        result = copy.deepcopy(values)
        for path, value in (changes or {}).items():
            *parents, key = path.split(".")
            place = result
            for parent in parents:
                place = place.setdefault(parent, {})
            if value is DELETED:
                del place[key]
            else:
                place[key] = value
        return result

    return changed


@pytest.fixture(scope="session")
def read(demo: Demo) -> Callable[..., Experiment]:
    """The demo as an experiment, some values changed."""
    return lambda changes=None: Experiment(demo(changes), where="config/demo.yaml")
