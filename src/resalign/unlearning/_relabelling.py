"""The substitute prompts that relabelling predicts with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resalign.contracts import UnlearningData
from resalign.data.images import DataError
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline


def substitutes_of(loaded: LoadedPipeline, data: UnlearningData) -> Callable[[Sequence[str]], Conditioning]:
    """The embedded substitute of the concept that each caption is of.

    Raises:
        DataError: If there are several concepts and a caption of the forget set is none of their prompts.
    """
    rows = {prompt: row for row, concept in enumerate(data.concepts) for prompt in concept.prompts}
    unknown = sorted(set(data.forget.prompts) - rows.keys())
    if unknown and len(data.concepts) > 1:
        raise DataError(
            f"images of {len(data.concepts)} concepts need captions that say which: {unknown[0]!r} is no concept's "
            "prompt; add it to one of concept.several"
        )
    embedded = loaded.encode_prompts([concept.substitute for concept in data.concepts])
    return lambda prompts: embedded[[rows.get(prompt, 0) for prompt in prompts]]
