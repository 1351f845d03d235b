"""The JSON schema for editors is as strict as the classes that it is generated from."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from resalign.config.schema import schema_texts
from resalign.config.strict import read_yaml

from .conftest import DELETED, Demo

CONFIG = Path(__file__).resolve().parents[2] / "config"


def read_schema(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads(schema_texts()[name])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return read_schema("config.schema.json")


@pytest.mark.parametrize("path", sorted(CONFIG.glob("**/*.yaml")), ids=lambda path: path.stem)
def test_what_is_shipped_is_valid(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    values = read_yaml(path)
    if "extends" in values:
        read_schema("extension.schema.json").validate(values)
    elif "concept" in values:  # no catalogue, no table of ablations
        validator.validate(values)


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"attacks": {"pages": {"steps": 400}, "bold": None}}, True),
        ({"audit": {"mine": "folder", "theirs": {"checkpoint": "folder"}}}, True),
        ({"attacks": {"pages": {"stps": 400}}}, False),
        ({"sampling": None}, False),
        ({"name": DELETED}, False),
        ({"extends": DELETED}, False),
    ],
)
def test_a_file_that_extends_another_one(changes: dict[str, Any], valid: bool) -> None:
    values = {"extends": "config/demo.yaml", "name": "mine", **changes}
    given = {key: value for key, value in values.items() if value is not DELETED}
    assert read_schema("extension.schema.json").is_valid(given) == valid


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
