"""Soft prompts: prompts that begin with mixtures of words, differentiable in the shares of each mixture."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from resalign.config.strict import ConfigError
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch
from resalign.tensors.params import Params

ENDS_A_WORD = "</w>"  # in an entry of CLIP's vocabulary, whose letters are small ones


@dataclass(frozen=True)
class Words:
    """Alphabetic words that are single tokens in the vocabulary shared by a pipeline's CLIP tokenizers.

    Attributes:
        words: The words as text, W of them; joined by spaces, they are tokenized as just these tokens.
        tables: Each CLIP text encoder's embeddings of them, (W, width), by the component's name.
    """

    words: tuple[str, ...]
    tables: dict[str, torch.Tensor]

    @classmethod
    def of(cls, loaded: LoadedPipeline, forbidden: Sequence[str] = ()) -> Words:
        """All alphabetic words that the tokenizers read as one token.

        Args:
            loaded: The pipeline.
            forbidden: Strings that no word may contain, in either case.

        Raises:
            ConfigError: If the pipeline's CLIP tokenizers have different vocabularies, or no word is left.
        """
        names = [name for name, cls in loaded.architecture.text_encoders.items() if cls.startswith("CLIP")]
        tokenizers = [getattr(loaded.pipeline, name.replace("text_encoder", "tokenizer")) for name in names]
        vocabulary: dict[str, int] = tokenizers[0].get_vocab()
        if any(tokenizer.get_vocab() != vocabulary for tokenizer in tokenizers[1:]):
            raise ConfigError(f"tokenizers of {names} have different vocabularies: no entry is a word of all of them")
        parts = [part.lower() for part in forbidden]
        every = _whole_words(tokenizers[0]).items()
        ids = {word: index for word, index in every if not any(part in word for part in parts)}
        if not ids:
            raise ConfigError(f"forbidden {list(forbidden)} leaves no word of the vocabulary; forbid fewer")
        tables = {name: _embedding(loaded, name).weight.detach()[list(ids.values())] for name in names}
        return cls(tuple(ids), tables)

    def __len__(self) -> int:
        """Number of words."""
        return len(self.words)

    def text(self, chosen: torch.Tensor, prompt: str) -> str:
        """The words at ``chosen`` (N,), followed by a prompt."""
        return " ".join([*(self.words[index] for index in chosen.tolist()), *([prompt] if prompt else [])])

    def embed(self, loaded: LoadedPipeline, chosen: torch.Tensor, shares: torch.Tensor, prompt: str) -> Conditioning:
        """Embeds the words at ``chosen`` and a prompt, with the gradient of mixtures in the words' places.

        The value is that of the chosen words, the derivative that of ``shares`` times the words' embeddings
        (straight-through, Bengio 2013, arXiv 1308.3432). A T5 encoder reads the chosen words, without a derivative.

        Args:
            loaded: The pipeline of these words.
            chosen: Indices of words, (N,).
            shares: Of each word at each place, (N, W).
            prompt: The prompt after the words.
        """
        vectors = {}
        for name, table in self.tables.items():
            mixed = shares @ table
            vectors[name] = table[chosen] + (mixed - mixed.detach())
        return embed_behind(loaded, vectors, self.text(chosen, prompt), {})


def embed_behind(loaded: LoadedPipeline, vectors: Params, text: str, weights: Params) -> Conditioning:
    """Embeds a text with vectors in the places of its first tokens, differentiable in the vectors and the weights.

    Args:
        loaded: The pipeline.
        vectors: For each CLIP text encoder, by the component's name: (N, width).
        text: A prompt, of whose tokens the first N are replaced.
        weights: Text encoders' weights in place of their own, named ``component.parameter``.
    """
    with contextlib.ExitStack() as stack:
        for name, rows in vectors.items():
            stack.enter_context(_replacing(_embedding(loaded, name), rows))
        return loaded.encode_prompts([text], weights)


def _embedding(loaded: LoadedPipeline, component: str) -> torch.nn.Embedding:
    """The table of a text encoder's words."""
    embedding: torch.nn.Embedding = getattr(loaded.pipeline, component).get_input_embeddings()
    return embedding


@functools.lru_cache(maxsize=1)
def _whole_words(tokenizer: Any) -> dict[str, int]:
    """Token ids of the alphabetic words that the tokenizer reads as one token."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    by_text = {entry.removesuffix(ENDS_A_WORD): index for entry, index in vocabulary.items() if ENDS_A_WORD in entry}
    found = {text: by_text[text] for text in sorted(by_text) if text.isascii() and text.isalpha()}
    read = tokenizer(list(found), add_special_tokens=False).input_ids
    return {text: index for (text, index), ids in zip(found.items(), read, strict=True) if ids == [index]}


@contextlib.contextmanager
def _replacing(embedding: torch.nn.Embedding, words: torch.Tensor) -> Iterator[None]:
    """Within the block the embeddings (N, width) replace those after a prompt's start token."""

    def replace(_module: torch.nn.Module, _arguments: Any, output: torch.Tensor) -> torch.Tensor:
        rest = output[:, 1 + len(words) :]
        return torch.cat([output[:, :1], words.expand(len(output), -1, -1), rest], dim=1)

    handle = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
