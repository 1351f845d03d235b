"""The JSON schema of a configuration file, generated from the classes that hold the defaults.

``python -m resalign.config.schema`` writes ``workflow/schemas/config.schema.json``; a test holds it in sync.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resalign.config import registry
from resalign.config.experiment import SETS, AttackDataConfig, ExperimentConfig

SCHEMA = Path(__file__).resolve().parents[3] / "workflow" / "schemas" / "config.schema.json"
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
    """One member's entry: its settings, the key that selects it, and for attacks the data that it uses."""
    own = registry.config_class(family, name).model_json_schema()
    schema.setdefault("$defs", {}).update(own.pop("$defs", {}))
    own["title"] = f"{family}.{name}"
    own["properties"] = {selector: {"const": name}, **own.get("properties", {})}
    if family == "attacks":
        data = AttackDataConfig.model_json_schema()
        own["properties"] |= data["properties"]
        own["required"] = [*own.get("required", []), "train", "heldout"]
    return own


def schema_text() -> str:
    """The schema file's content."""
    return json.dumps(config_schema(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA.parent.mkdir(parents=True, exist_ok=True)
    SCHEMA.write_text(schema_text(), encoding="utf-8")
