"""RO-Crate metadata of the archive, by the Workflow Run Crate profile.

Source: RO-Crate 1.1 (Soiland-Reyes et al. 2022, doi:10.3233/DS-210053); Workflow Run Crate 0.5 (Leo et al. 2024,
doi:10.1371/journal.pone.0309210); Workflow RO-Crate 1.0. Deviation: the action has no times, since they differ
between two runs of one commit; they are in provenance/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import jinja2
import yaml

from resalign.artifact import layout
from resalign.artifact.layout import PROVENANCE
from resalign.artifact.source import Source
from resalign.config.strict import ConfigError
from resalign.hashes import Entry
from resalign.jobs.artifact import ArtifactJob

WORKFLOW = "workflow/Snakefile"
CITATION = "CITATION.cff"
_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".webp": "image/webp",
    ".yaml": "application/yaml",
    ".zip": "application/zip",
}

Entity = dict[str, Any]


def metadata(job: ArtifactJob, source: Source, members: Mapping[str, bytes | Path]) -> Entity:
    """The whole document.

    Args:
        job: The archive's.
        source: Of which CITATION.cff names authors and licence.
        members: Every member so far; those below ``provenance/`` and the source's are described as folders.

    Raises:
        ConfigError: If the source has no CITATION.cff or no Snakefile.
    """
    for name in (CITATION, WORKFLOW):
        if name not in source.files:
            raise ConfigError(
                f"the source has no {name}, which the archive's metadata are made from; add and commit it"
            )
    citation = yaml.safe_load(source.files[CITATION])
    authors = [_author(number, author) for number, author in enumerate(citation["authors"], 1)]
    references = [{"@id": author["@id"]} for author in authors]
    files = [name for name in sorted(members) if not name.startswith((f"{layout.SOURCE}/", PROVENANCE))]
    workflow, table = f"{layout.SOURCE}/{WORKFLOW}", f"{job.result}/tables/table1.csv"
    parameters = [
        ("configuration", "the experiment, every default filled in", layout.config_name(job.name)),
        ("table", "the main table", table),
    ]
    template = Path(__file__).with_name("crate.json.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": True}
    text = environment.from_string(template).render(
        job=job,
        source=source,
        citation=citation,
        abstract=citation["abstract"].strip(),
        licence=f"https://spdx.org/licenses/{citation['license']}",
        author=references[0] if len(references) == 1 else references,  # one value for one, as RO-Crate recommends
        agent=references[0],
        where=layout,
        workflow=workflow,
        entry=Entry.of(source.files[WORKFLOW]),
        configuration=layout.config_name(job.name),
        parameters=parameters,
        command=layout.command(job.command, job.result, table),
        parts=[{"@id": name} for name in (workflow, f"{layout.SOURCE}/", PROVENANCE, *map(quote, files))],
        results=[{"@id": quote(name)} for name in files if name.startswith(f"{job.result}/")],
    )
    crate: Entity = json.loads(text)
    crate["@graph"] += [*authors, *(_file(name, members[name]) for name in files)]
    for entity in crate["@graph"]:
        if entity["@id"] == layout.README:
            entity["about"] = {"@id": "./"}
        for name, _, example in parameters:
            if entity["@id"] == example:
                entity["exampleOfWork"] = {"@id": f"#{name}"}
    return crate


def _file(name: str, content: bytes | Path) -> Entity:
    entry = Entry.of(content)
    return {
        "@id": quote(name),
        "@type": "File",
        "name": name,
        "encodingFormat": _TYPES.get(PurePosixPath(name).suffix, "text/plain"),
        "contentSize": str(entry.size_bytes),
        "sha256": entry.sha256,
    }


def _author(number: int, author: Mapping[str, str]) -> Entity:
    """A person, or whoever else is named as one entity."""
    identifier = author.get("orcid") or author.get("website") or f"#author-{number}"
    if "name" in author:
        return {"@id": identifier, "@type": "Organization", "name": author["name"]}
    return {"@id": identifier, "@type": "Person", "name": f"{author['given-names']} {author['family-names']}"}
