"""RO-Crate metadata of the archive, by the Workflow Run Crate profile.

Source: RO-Crate 1.1 (Soiland-Reyes et al. 2022, doi:10.3233/DS-210053); Workflow Run Crate 0.5 (Leo et al. 2024,
doi:10.1371/journal.pone.0309210); Workflow RO-Crate 1.0. Deviation: the action has no times, which two runs of one
commit do not share; they are in provenance/.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import yaml

from resalign.artifact import layout
from resalign.artifact.layout import PROVENANCE
from resalign.artifact.source import Source
from resalign.config.strict import ConfigError
from resalign.hashes import Entry

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
WORKFLOW = f"{layout.SOURCE}/workflow/Snakefile"
CITATION = "CITATION.cff"
_SPECIFICATION = "https://w3id.org/ro/crate/1.1"
_LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
_LICENCES = "https://spdx.org/licenses/"
_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}

Entity = dict[str, Any]


def metadata(job: dict[str, Any], source: Source, members: Mapping[str, bytes | Path]) -> Entity:
    """The whole document.

    Args:
        job: The archive's.
        source: Of which CITATION.cff names authors and licence.
        members: Every member so far; those below ``provenance/`` and the source's are described as folders.

    Raises:
        ConfigError: If the source has no CITATION.cff or no Snakefile.
    """
    for name in (CITATION, "workflow/Snakefile"):
        if name not in source.files:
            raise ConfigError(
                f"the source has no {name}, which the archive's metadata are made from; add and commit it"
            )
    citation = yaml.safe_load(source.files[CITATION])
    authors = [_author(number, author) for number, author in enumerate(citation["authors"], 1)]
    licence = {"@id": f"{_LICENCES}{citation['license']}", "@type": "CreativeWork", "name": citation["license"]}
    shown = [name for name in sorted(members) if not name.startswith((f"{layout.SOURCE}/", PROVENANCE))]
    files = [_file(name, members[name]) for name in shown]
    results = [_ref(quote(name)) for name in shown if name.startswith(f"{job['result']}/")]
    return {
        # RO-Crate 1.1 has no word for a hash; Workflow Run Crate has.
        "@context": [f"{_SPECIFICATION}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}],
        "@graph": [
            {
                "@id": layout.CRATE,
                "@type": "CreativeWork",
                "conformsTo": [_ref(_SPECIFICATION), _ref("https://w3id.org/workflowhub/workflow-ro-crate/1.0")],
                "about": _ref("./"),
            },
            _root(job, source, citation, licence, [file["@id"] for file in files], authors),
            *_workflow(job, source, citation, licence, authors),
            *_folders(),
            _action(job, authors, results),
            *({"@id": uri, "@type": "CreativeWork", "name": n, "version": v} for uri, (n, v) in PROFILES.items()),
            *authors,
            licence,
            *(_about(file, job) for file in files),
        ],
    }


def _root(
    job: dict[str, Any], source: Source, citation: Entity, licence: Entity, files: list[str], authors: list[Entity]
) -> Entity:
    return {
        "@id": "./",
        "@type": "Dataset",
        "name": job["title"],
        "description": f"Code, configuration, raw scores, tables and figures of the experiment '{job['name']}', "
        f"tier {job['tier']}. {citation['abstract'].strip()}",
        "datePublished": source.date,
        "license": _ref(licence["@id"]),
        "author": _compact([_ref(author["@id"]) for author in authors]),
        "publisher": _ref(authors[0]["@id"]),
        "keywords": citation.get("keywords", []),
        "version": citation["version"],
        "conformsTo": [_ref(uri) for uri in PROFILES],
        "mainEntity": _ref(WORKFLOW),
        "mentions": _ref("#run"),
        "hasPart": [_ref(name) for name in (WORKFLOW, f"{layout.SOURCE}/", PROVENANCE, *files)],
    }


def _workflow(
    job: dict[str, Any], source: Source, citation: Entity, licence: Entity, authors: list[Entity]
) -> list[Entity]:
    """The workflow, its language, and what goes in and comes out."""
    text = source.files["workflow/Snakefile"]
    configuration = layout.config_name(job["name"])
    parameters = {
        "#configuration": ("configuration", "the experiment, every default filled in", configuration),
        "#table": ("table", "the main table", f"{job['result']}/tables/table1.csv"),
    }
    return [
        {
            **_file(WORKFLOW, text),
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            "name": citation["title"],
            "description": citation["abstract"].strip(),
            "version": source.revision or "unknown",
            "dateCreated": source.date,
            "creator": _compact([_ref(author["@id"]) for author in authors]),
            "license": _ref(licence["@id"]),
            "programmingLanguage": _ref(_LANGUAGE),
            "conformsTo": _ref("https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"),
            "input": _ref("#configuration"),
            "output": _ref("#table"),
        },
        {
            "@id": _LANGUAGE,
            "@type": "ComputerLanguage",
            "name": "Snakemake",
            "alternateName": "Snakemake workflow language",
            "url": "https://snakemake.github.io",
            "identifier": _ref("https://snakemake.github.io"),
        },
        *(
            {
                "@id": identifier,
                "@type": "FormalParameter",
                "additionalType": "File",
                "name": name,
                "description": description,
                "conformsTo": _ref("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
                "workExample": _ref(example),
                "valueRequired": True,
            }
            for identifier, (name, description, example) in parameters.items()
        ),
    ]


def _folders() -> list[Entity]:
    described = {
        f"{layout.SOURCE}/": ("source", "every tracked file at its revision; manifest.json has their hashes"),
        PROVENANCE: ("provenance", "logs, times, machine, packages and the page: what differs between two runs"),
    }
    return [
        {"@id": folder, "@type": "Dataset", "name": name, "description": text}
        for folder, (name, text) in described.items()
    ]


def _action(job: dict[str, Any], authors: list[Entity], results: list[Entity]) -> Entity:
    return {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"Run of the experiment '{job['name']}'",
        "description": layout.command(job["command"], job["result"], f"{job['result']}/tables/table1.csv"),
        "instrument": _ref(WORKFLOW),
        "agent": _ref(authors[0]["@id"]),
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "object": [_ref(layout.config_name(job["name"])), _ref(layout.ASSETS)],
        "result": results,
    }


def _about(file: Entity, job: dict[str, Any]) -> Entity:
    """What else is said of some files."""
    if file["@id"] == layout.README:
        return {**file, "about": _ref("./")}
    examples = {
        layout.config_name(job["name"]): "#configuration",
        f"{job['result']}/tables/table1.csv": "#table",
    }
    return {**file, "exampleOfWork": _ref(examples[file["@id"]])} if file["@id"] in examples else file


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


def _compact(references: list[Entity]) -> Entity | list[Entity]:
    """One value for one, as RO-Crate recommends."""
    return references[0] if len(references) == 1 else references


def _ref(identifier: str) -> Entity:
    return {"@id": identifier}
