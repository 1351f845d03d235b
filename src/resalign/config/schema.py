"""The JSON schemas of configuration files, generated from the classes that hold the defaults.

``make schema`` writes ``workflow/schemas/config.schema.json`` for an editor, and ``extension.schema.json`` for files
that extend another one and may leave out what that one has. Git ignores both files: they follow from the code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.config.attack_data import AttackDataConfig
from resalign.config.experiment import SETS
from resalign.config.extension import LABELLED
from resalign.config.shape import ExperimentConfig, ModelWords

SCHEMAS = Path(__file__).resolve().parents[3] / "workflow" / "schemas"
# Family, key of the configuration file, key that names the member, and that name's default.
FAMILIES = (
    (SETS, "prepared", "set"),
    ("unlearning", "unlearning", "method"),
    ("attacks", "attacks", "attack"),
    ("scorers", "scorers", "scorer"),
    ("metrics", "metrics", "metric"),
)


def config_schema() -> dict[str, Any]:
    """The schema, with every member's own settings under its family's key."""
    schema = ExperimentConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "resalign experiment"
    for family, key, selector in FAMILIES:
        members = {name: _member_schema(schema, family, name, selector) for name in registry.members(family)}
        schema["properties"][key]["additionalProperties"] = {"anyOf": list(members.values())}
    return schema


def _member_schema(schema: dict[str, Any], family: str, name: str, selector: str) -> dict[str, Any]:
    """One member's entry: its settings, the key that selects it, a model's words, and an attack's data."""
    own = registry.config_class(family, name).model_json_schema()
    schema.setdefault("$defs", {}).update(own.pop("$defs", {}))
    own["title"] = f"{family}.{name}"
    own["properties"] = {selector: {"const": name}, **own.get("properties", {})}
    if family == "unlearning":
        own["properties"] |= ModelWords.model_json_schema()["properties"]
    if family == "attacks":
        data = AttackDataConfig.model_json_schema()
        own["properties"] |= data["properties"]
        own["required"] = [*own.get("required", []), "train", "heldout"]
    return own


def extension_schema() -> dict[str, Any]:
    """The schema of a file that extends another one: the same keys, of which only two are required."""
    schema: dict[str, Any] = _without_required(config_schema())
    schema["required"] = ["extends", "name"]
    schema["title"] = "resalign experiment that extends another one"
    for key in LABELLED:
        entries = schema["properties"][key]
        entries["additionalProperties"] = {"anyOf": [entries["additionalProperties"], {"type": "null"}]}
    concept = schema["$defs"]["ConceptConfig"]["properties"]
    concept |= {key: {"anyOf": [value, {"type": "null"}]} for key, value in concept.items()}
    return schema


def _without_required(schema: Any) -> Any:
    """A schema of which every part may be left out."""
    if isinstance(schema, dict):
        # A property may be called `required` too; only the list of names is the keyword.
        kept = {key: value for key, value in schema.items() if not (key == "required" and isinstance(value, list))}
        return {key: _without_required(value) for key, value in kept.items()}
    return [_without_required(value) for value in schema] if isinstance(schema, list) else schema


def schema_texts() -> dict[str, str]:
    """The schema files' contents by name."""
    schemas = {"config.schema.json": config_schema(), "extension.schema.json": extension_schema()}
    return {name: json.dumps(schema, indent=1, sort_keys=True) + "\n" for name, schema in schemas.items()}


if __name__ == "__main__":
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    for name, text in schema_texts().items():
        (SCHEMAS / name).write_text(text, encoding="utf-8")
