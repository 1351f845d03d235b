"""The pages' templates."""

from __future__ import annotations

from importlib import resources

import jinja2


def template(name: str) -> jinja2.Template:
    """A template beside this module; what it is given is escaped in HTML, and a name that it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=lambda shown: shown is not None and shown.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _text(name: str) -> str:
    return resources.files("resalign.report").joinpath(name).read_text(encoding="utf-8")
