"""Prompts that a step takes of the concepts in words."""

from __future__ import annotations

from collections.abc import Sequence

from resalign.config.concept import ConceptPrompts
from resalign.lazy import torch


def draw_rows(concepts: Sequence[ConceptPrompts], count: int, stream: torch.Generator) -> torch.Tensor:
    """Rows of ``UnlearningData.prompts``, (count,): one concept, and of its prompts as many as asked for, repeated.

    Concepts are equally likely, however many prompts each has [ESD's releases, which take one concept a step].
    """
    chosen = int(torch.randint(len(concepts), (1,), generator=stream)) if len(concepts) > 1 else 0
    before = sum(len(concept.prompts) for concept in concepts[:chosen])
    return before + torch.randint(len(concepts[chosen].prompts), (count,), generator=stream)
