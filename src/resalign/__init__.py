"""Resilient safety-driven unlearning of text-to-image diffusion models, after ResAlign (Li et al., NeurIPS 2025).

>>> import resalign
>>> unlearned = resalign.unlearn("path/to/pipeline", "esd", prompts=["a red seven"])

Every function is described where it is defined, in :mod:`resalign.library`.
"""

from __future__ import annotations

from typing import Any

# Where each function is defined: heavy libraries are imported at the first use of one.
_DEFINED = {
    **dict.fromkeys(("unlearn", "attack", "Computing"), "resalign.library.weights"),
    **dict.fromkeys(("sample", "evaluate", "audit", "Audit"), "resalign.library.measurements"),
}
__all__ = [*_DEFINED]


def __getattr__(name: str) -> Any:
    """Imports a function's module at its first use."""
    if name not in _DEFINED:
        raise AttributeError(f"module 'resalign' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_DEFINED[name]), name)


def __dir__() -> list[str]:
    """The functions, and what is imported already."""
    return sorted({*globals(), *_DEFINED})
