"""The pages' templates."""

from __future__ import annotations

import jinja2


def template(name: str) -> jinja2.Template:
    """A template by package and file (``report/page.html.j2``); HTML is escaped, an undefined name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resalign", ""),
        autoescape=lambda file: file is not None and file.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
