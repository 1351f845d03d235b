"""The JSON schema beside the workflow: generated, in sync, and as strict as the classes that it comes from."""

import json
from typing import Any

import jsonschema
import pytest

from resalign.config.schema import SCHEMA, schema_text

from .conftest import DELETED, Demo


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_written_schema_is_what_the_classes_say() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run 'python -m resalign.config.schema'"


def test_the_demo_is_valid(validator: jsonschema.Draft202012Validator, demo: Demo) -> None:
    validator.validate(demo())


@pytest.mark.parametrize(
    "changes",
    [
        {"samplng": {}},
        {"sampling.sead": 1},
        {"pixels": "32"},
        {"unlearning.esd.varient": "x"},
        {"unlearning.esd.lr": -1.0},
        {"unlearning.resalign.simulation.lrs": [0.1]},
        {"attacks.pages.train": DELETED},
        {"metrics.us.rules": []},
        {"model": DELETED},
    ],
)
def test_what_the_classes_refuse_the_schema_refuses(
    validator: jsonschema.Draft202012Validator, demo: Demo, changes: dict[str, Any]
) -> None:
    assert not validator.is_valid(demo(changes))
