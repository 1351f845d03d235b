"""UCE's edit of cross-attention: the concept's tokens get the values of a guide's; RECE starts from it.

Source: Gandikota 2023, WACV 2024, arXiv 2308.14761, Eq. 7.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError, Strict
from resalign.contracts import UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.unlearning._cross_attention import Tokens, embed, gram, prompts_gram, remapping, ridge, tails

Guide = Literal["empty", "substitute"]


class ConceptEdit(Strict):
    """Defaults of the newer release."""

    tokens: Literal["last", "aligned"] = Field(
        "last", description="one vector a prompt, that of its last word; or all from there on, with the guide's"
    )
    guide: Guide = Field("empty", description="whose values the concept gets: no prompt's, or the substitute's")
    keep: bool = Field(False, description="whether the retain prompts keep their values")
    erase_weight: float = Field(1.0, gt=0, description="a, weight of each erased vector")
    keep_weight: float | None = Field(
        None, gt=0, description="b, weight of each kept vector; null for the release's: 1, or with aligned 0.1 or more"
    )
    damping: float = Field(0.5, gt=0, description="λ, weight of ‖W − W₀‖²")

    def needs(self) -> tuple[str, ...]:
        """The substitute as a guide, the retain prompts to be kept."""
        return guide_needs(self.guide) + (("retain_prompts",) if self.keep else ())


def guide_needs(guide: Guide) -> tuple[str, ...]:
    """What of the concept's data a guide is made of."""
    return ("substitute",) if guide == "substitute" else ()


def guided(loaded: LoadedPipeline, data: UnlearningData, guide: Guide) -> list[tuple[Tokens, Tokens]]:
    """Every prompt of every concept with its guide.

    Raises:
        ConfigError: If there is no prompt.
    """

    def text(concept: ConceptPrompts) -> str:
        return concept.substitute if guide == "substitute" else ""

    pairs = [(prompt, text(concept)) for concept in data.concepts for prompt in concept.prompts]
    if not pairs:
        raise ConfigError("no prompt names the concept; give concept.prompts, or captioned images to forget")
    old, new = (embed(loaded, texts) for texts in zip(*pairs, strict=True))
    return list(zip(old, new, strict=True))


def concept_edit(loaded: LoadedPipeline, data: UnlearningData, config: ConceptEdit) -> tuple[torch.Tensor, float]:
    """T (d, d) of the edit W = W₀ + W₀T, and the condition number of its system."""
    keys, guides = [], []
    for old, new in guided(loaded, data, config.guide):
        if config.tokens == "last":
            keys.append(old.embeddings[old.last : old.last + 1])
            guides.append(new.embeddings[new.last : new.last + 1])
        else:
            old_tail, new_tail = tails(old, new, old.last, new.last)
            keys.append(old_tail)
            guides.append(new_tail)
    scale = config.erase_weight**0.5
    erased, given = scale * torch.cat(keys), scale * torch.cat(guides)
    system = ridge(gram(erased) + _kept(loaded, data, config, erased.shape[1]), config.damping, what="the concept edit")
    return remapping(erased, given, system), system.condition


def _kept(loaded: LoadedPipeline, data: UnlearningData, config: ConceptEdit, width: int) -> torch.Tensor:
    """The kept vectors' b Σ ppᵀ: retain prompts' last words; with aligned all their tokens, and those of no prompt."""
    prompts = data.retain_prompts if config.keep else ()
    if config.tokens == "last":
        weight = 1.0 if config.keep_weight is None else config.keep_weight
        last = [tokens.embeddings[tokens.last] for tokens in embed(loaded, prompts)]
        return weight * gram(torch.stack(last)) if last else prompts_gram(loaded, (), width)
    prompts = ("", *prompts)
    weight = max(0.1, 1 / len(prompts)) if config.keep_weight is None else config.keep_weight
    return weight * prompts_gram(loaded, prompts, width)
