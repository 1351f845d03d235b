"""Random streams, each named by what it is for, so that no stage's draws depend on another's."""

from __future__ import annotations

import hashlib

from resalign.lazy import torch


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from names and numbers, equal on every platform.

    >>> derive_seed("attack", 1) == derive_seed("attack", 1) != derive_seed("attack", 2)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: str | int) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`; draws are made on the CPU and moved, equal on every device."""
    return torch.Generator("cpu").manual_seed(derive_seed(*parts))
