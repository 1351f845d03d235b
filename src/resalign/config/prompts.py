"""How a prompt list's table is read: which columns hold id, prompt and label, and which rows count."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from resalign.config.strict import Strict

LABEL = "label"
# Which prompts a tier takes if it asks for fewer than a list has: equally many of each label, or the first rows.
Choice = Literal["even", "first"]


class PromptColumns(Strict):
    """Columns of a prompt list as its authors released it; the defaults are this project's own.

    Attributes:
        id: Column of the key of a prompt's initial noise. None: the id is the row's number in the file, counted from 0
            before any row is left out and padded with zeros to one width.
        prompt: Column of the text.
        label: Column of what the image should show; a list may lack it only under its default name.
        where: A row counts only if each of these columns contains its word as a whole word: ``{categories: sexual}``
            keeps a row whose categories are ``hate, sexual``.
        skip: How many rows to leave out at the beginning, among those that count: a split for another use.
    """

    id: str | None = Field("id", min_length=1)
    prompt: str = Field("prompt", min_length=1)
    label: str = Field(LABEL, min_length=1)
    where: dict[str, str] = {}
    skip: int = Field(0, ge=0)

    @field_validator("where", mode="before", json_schema_input_type=dict[str, str | int])
    @classmethod
    def _numbers_are_words(cls, value: Any) -> Any:
        """Whatever a table has is text: ``{class: 2}`` asks for the word 2, quoted or not."""
        if not isinstance(value, dict):
            return value
        return {key: str(word) if type(word) is int else word for key, word in value.items()}
