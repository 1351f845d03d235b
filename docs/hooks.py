"""MkDocs hooks: the pages that are generated at build time, and links to files outside docs/.

``config/README.md`` becomes the page ``configuration.md``; ``configuration-reference.md`` is written from the pydantic
classes that validate a configuration, so that a new method or key needs no other step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from resalign.config import registry
from resalign.config.attack_data import AttackDataConfig
from resalign.config.schema import FAMILIES
from resalign.config.shape import ExperimentConfig
from resalign.config.strict import Strict

ROOT = Path(__file__).resolve().parents[1]
GUIDE, REFERENCE = "configuration.md", "configuration-reference.md"
LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)#\s:]+)(#[^)\s]*)?\)")  # to a file, of no other site


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    guide = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, GUIDE, content=guide))
    files.append(File.generated(config, REFERENCE, content=reference()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns a link to a file of the repository outside docs/ into the file's path: the site has no copy of it."""
    is_guide, up = page.file.src_uri == GUIDE, "../" * page.file.src_uri.count("/")
    here = ROOT / "config" if is_guide else (ROOT / "docs" / page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            inside = target.relative_to(ROOT / "docs").as_posix()
            return f"[{match[1]}]({inside}{match[3] or ''})" if is_guide else match[0]
        if target == ROOT / "config" / "README.md":
            return f"[{match[1]}]({up}{GUIDE}{match[3] or ''})"
        path = target.relative_to(ROOT).as_posix()
        return match[1] if path in match[1] else f"{match[1]} (`{path}`)"

    return LINK.sub(replaced, markdown)


def reference() -> str:
    """Every key of a configuration file, from the schema of its classes, as Markdown."""
    schema = ExperimentConfig.model_json_schema(ref_template="{model}")
    sections = [
        "# Configuration reference",
        "Generated from the classes that validate a configuration. A key without a default is required. "
        "[Configuration](configuration.md) explains the keys by task.",
        "## The file",
        *_table(schema),
        "## Parts of the file",
    ]
    for name, part in sorted(schema["$defs"].items()):
        if "properties" in part:
            owners = [schema, *schema["$defs"].values()]
            keys = [key for owner in owners for key, node in owner.get("properties", {}).items() if _refers(node, name)]
            users = ", ".join(f"`{key}`" for key in keys)
            sections += [f"### {name}", f"Used by {users}. {_prose(part)}", *_table(part)]
    for family, key, selector in FAMILIES:
        sections += [f"## Members of `{key}`", f"`{selector}:` names the member; its default is the entry's label."]
        if family == "attacks":
            sections[-1] = "`attack:` names the member; its default is `full`. Every entry has these keys as well:"
            sections += _table(AttackDataConfig.model_json_schema(ref_template="{model}"))
        for member in registry.members(family):
            heading, *keys = _member(registry.config_class(family, member), f"{key}: {member}")
            sections += [heading, _plain(registry.member(family, member).__doc__ or ""), *keys]
    text = "\n\n".join(sections) + "\n"
    headings = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    return re.sub(r"\[(\w+)\]\(#\w+\)", lambda match: match[0] if match[1] in headings else match[1], text)


def _member(config: type[Strict], heading: str) -> list[str]:
    """A member's own keys, then the classes that they nest."""
    schema = config.model_json_schema(ref_template="{model}")
    parts = [f"### {heading}", _prose(schema), *_table(schema)]
    for name, part in sorted(schema.get("$defs", {}).items()):
        if "properties" in part:
            parts += [f"**{_title(name)}.** {_prose(part)}", *_table(part)]
    return parts


def _refers(node: Any, name: str) -> bool:
    """Whether a schema node refers to a class, itself or inside."""
    if isinstance(node, dict):
        return node.get("$ref") == name or any(_refers(value, name) for value in node.values())
    return isinstance(node, list) and any(_refers(value, name) for value in node)


def _title(name: str) -> str:
    """A class by its name; one of many ``Config``, which the schema names by its module, by the module's file."""
    module, _, last = name.rpartition("__")
    return module.rpartition("__")[2] if last == "Config" else name


def _prose(schema: dict[str, Any]) -> str:
    """A class's docstring without its list of attributes."""
    return _plain(schema.get("description", "").partition("\nAttributes:")[0])


def _plain(text: str) -> str:
    """Docstring markup as Markdown, in one line, safe inside a table."""
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|").replace("<", "&lt;")


def _table(schema: dict[str, Any]) -> Iterator[str]:
    """One row a key: type, default, meaning."""
    attributes = dict(_attributes(schema.get("description", "")))
    rows = []
    for key, node in schema.get("properties", {}).items():
        default = f"`{_short(node['default'])}`" if "default" in node else "required"
        if "$ref" in node and "default" in node:
            default = "its defaults"
        meaning = node.get("description") or attributes.get(key, "")
        rows.append(f"| `{key}` | {_type(node)} | {default} | {_plain(meaning)} |")
    yield (
        "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows]) if rows else "No keys of its own."
    )


def _attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and texts of a Google docstring's attributes."""
    listed = docstring.partition("Attributes:\n")[2]
    for match in re.finditer(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE):
        yield from ((name, match[2]) for name in match[1].split(", "))


def _short(value: Any) -> str:
    text = {True: "true", False: "false", None: "null"}.get(value, None) if isinstance(value, bool | None) else None
    text = text or (str(value) if value != "" else "''")
    return text if len(text) <= 60 else f"{text[:57]}…"


def _type(node: dict[str, Any]) -> str:
    """A schema node's type in a few words, with its bounds."""
    if "$ref" in node:
        name = _title(node["$ref"])
        return f"[{name}](#{name.lower()})"  # a link where the page has such a heading, see `reference`
    if "anyOf" in node or "oneOf" in node or "allOf" in node:
        options = node.get("anyOf") or node.get("oneOf") or node["allOf"]
        return " or ".join(dict.fromkeys(_type(option) for option in options))
    if "enum" in node or "const" in node:
        return " \\| ".join(f"`{_short(value)}`" for value in node.get("enum", [node.get("const")]))
    kind = node.get("type")
    if kind == "array":
        inner = node.get("items") or next(iter(node.get("prefixItems", [])), {})
        return f"list of {_type(inner)}" if inner else "list"
    if kind == "object":
        inner = node.get("additionalProperties")
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    words = {"string": "text", "number": "number", "integer": "integer", "boolean": "true or false", "null": "null"}
    signs = (("exclusiveMinimum", "&gt;"), ("minimum", "≥"), ("exclusiveMaximum", "&lt;"), ("maximum", "≤"))
    bounds = [f"{sign} {node[name]:g}" for name, sign in signs if name in node]
    return " ".join([words.get(str(kind), "any value"), ", ".join(bounds)]).strip()
