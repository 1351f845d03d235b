"""The base class of a stage's job: the settings and paths that its rule gives its script."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pydantic

from resalign.config.strict import Strict
from resalign.jobs.inputs import Input


class Part(Strict):
    """A job, or a part of one: fields that nobody has set are left out of its text, so that other jobs keep theirs."""

    @pydantic.model_serializer(mode="wrap")
    def _only_set(self, serialize: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if name in self.model_fields_set}

    def plain(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return self.model_dump(mode="json")


class Job(Part):
    """A stage's settings and paths, typed and validated.

    A rule builds it from the plan by the class method ``of`` of its class, declares :meth:`inputs` as its input, and
    hands :meth:`text` to the script, which reads it by :meth:`parse`.
    """

    def text(self) -> str:
        """The job as JSON, independent of the order of keys: Snakemake compares params as text."""
        return json.dumps(self.plain(), sort_keys=True)

    def digest(self) -> str:
        """Ten hexadecimal digits for a folder's name, by the rule of :func:`resalign.config.plan.digest`."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:10]

    def inputs(self) -> list[str]:
        """Files that the rule waits for: those of every path that the job reads, each once."""
        return sorted({file for path in self.paths() for file in path.files})

    def paths(self) -> list[Input]:
        """Every path that the job reads."""
        return list(_paths(self))


def _paths(value: Any) -> Iterator[Input]:
    """Every path in a job's fields, at any depth."""
    if isinstance(value, Input):
        yield value
    elif isinstance(value, pydantic.BaseModel):
        yield from _paths(dict(value))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _paths(inner)
