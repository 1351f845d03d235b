"""The text conditioning of a denoising network, for a batch of examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from resalign.lazy import torch


@dataclass(frozen=True)
class Conditioning:
    """Embedded prompts.

    Attributes:
        encoder_hidden_states: Text embeddings, (B, tokens, width).
        added: Further inputs of the architecture, by the names of diffusers: pooled embeddings (B, width), and the
            image's size and crop (B, 6) in Stable Diffusion XL.
    """

    encoder_hidden_states: torch.Tensor
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.encoder_hidden_states)

    def __getitem__(self, rows: torch.Tensor | slice | list[int]) -> Conditioning:
        """The examples at ``rows``."""
        added = {name: tensor[rows] for name, tensor in self.added.items()}
        return Conditioning(self.encoder_hidden_states[rows], added)

    def expand(self, batch_size: int) -> Conditioning:
        """Repeats one example ``batch_size`` times."""
        return self[[0] * batch_size]

    def to(self, dtype: torch.dtype) -> Conditioning:
        """Converts all tensors to another precision."""
        added = {name: tensor.to(dtype) for name, tensor in self.added.items()}
        return Conditioning(self.encoder_hidden_states.to(dtype), added)


def concatenate(parts: Iterable[Conditioning]) -> Conditioning:
    """Joins several batches into one."""
    parts = list(parts)
    added = {name: torch.cat([part.added[name] for part in parts]) for name in parts[0].added}
    return Conditioning(torch.cat([part.encoder_hidden_states for part in parts]), added)
