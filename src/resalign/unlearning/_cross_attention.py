"""Cross-attention's keys and values as linear maps of token embeddings, and the least squares that edit them.

Every matrix W (d_out, d) of them sees the same token embeddings (d), so that one solve serves all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resalign.config.strict import ConfigError
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import select
from resalign.lazy import torch
from resalign.tensors.params import Params

# Joint attention has no matrices that text alone passes through.
ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")
KEYS, VALUES = "to_k.weight", "to_v.weight"
BATCH_SIZE = 64  # prompts that the text encoders see at once


@dataclass(frozen=True)
class Tokens:
    """An embedded prompt.

    Attributes:
        ids: The tokenizer's ids of start, words and end, without padding.
        embeddings: Of all T positions, padding included, (T, d), float64.
    """

    ids: tuple[int, ...]
    embeddings: torch.Tensor

    @property
    def last(self) -> int:
        """Position of the last word's last token; that of the start token where there is no word."""
        return max(0, len(self.ids) - 2)


def token_ids(loaded: LoadedPipeline, prompt: str) -> tuple[int, ...]:
    """The ids of start, words and end, cut to the length that the text encoder takes."""
    return tuple(loaded.pipeline.tokenizer(prompt, truncation=True).input_ids)


def embed(loaded: LoadedPipeline, prompts: Sequence[str]) -> list[Tokens]:
    """Embeds prompts; one without words gets what the pipeline takes for no prompt, zeros in Stable Diffusion XL."""
    embedded = []
    for start in range(0, len(prompts), BATCH_SIZE):
        batch = prompts[start : start + BATCH_SIZE]
        states = loaded.encode_prompts(batch).encoder_hidden_states.double()
        for prompt, embeddings in zip(batch, states, strict=True):
            ids = token_ids(loaded, prompt)
            if len(ids) == 2:
                embeddings = loaded.unconditional(1).encoder_hidden_states[0].double()
            embedded.append(Tokens(ids, embeddings))
    return embedded


def tails(old: Tokens, new: Tokens, old_start: int, new_start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The embeddings from a position of each prompt on, (n, d) each: as many as the shorter tail has."""
    length = len(old.embeddings) - max(old_start, new_start)
    return old.embeddings[old_start : old_start + length], new.embeddings[new_start : new_start + length]


def gram(keys: torch.Tensor) -> torch.Tensor:
    """Σ kkᵀ (d, d) of keys (n, d)."""
    return keys.T @ keys


def prompts_gram(loaded: LoadedPipeline, prompts: Sequence[str], width: int) -> torch.Tensor:
    """Σ kkᵀ (d, d) over every position of prompts, a batch at a time; zeros (``width``, ``width``) without prompts."""
    total = torch.zeros(width, width, dtype=torch.float64, device=loaded.device)
    for start in range(0, len(prompts), BATCH_SIZE):
        for tokens in embed(loaded, prompts[start : start + BATCH_SIZE]):
            total += gram(tokens.embeddings)
    return total


@dataclass(frozen=True)
class Ridge:
    """The symmetric system M = λI + Σ kkᵀ of a ridge regression.

    Attributes:
        factor: Cholesky factor of M, (d, d), float64.
        condition: Condition number of M.
    """

    factor: torch.Tensor
    condition: float

    def right_divide(self, x: torch.Tensor) -> torch.Tensor:
        """``x M⁻¹`` for x (n, d)."""
        return torch.cholesky_solve(x.T, self.factor).T


def ridge(keys_gram: torch.Tensor, damping: float, *, what: str) -> Ridge:
    """Factors M = λI + Σ kkᵀ.

    Args:
        keys_gram: Σ kkᵀ, (d, d), float64.
        damping: λ.
        what: Whose system it is, for the error.

    Raises:
        ConfigError: If M is singular, as far as embeddings computed in float32 tell.
    """
    system = keys_gram + damping * torch.eye(len(keys_gram)).to(keys_gram)
    smallest, largest = torch.linalg.eigvalsh(system)[[0, -1]].tolist()
    # Keys are known to a relative 1.2e-7: an eigenvalue of Σ kkᵀ below its square is rounding.
    if not smallest > largest * torch.finfo(torch.float32).eps ** 2:
        raise ConfigError(
            f"{what}: the keys span less than the {len(system)} dimensions of a token's embedding (eigenvalues of the "
            f"system from {smallest:.3g} to {largest:.3g}); set damping above 0, or give more retain_prompts"
        )
    return Ridge(torch.linalg.cholesky(system), largest / smallest)


def remapping(keys: torch.Tensor, guides: torch.Tensor, system: Ridge) -> torch.Tensor:
    """T (d, d) of the edit W = W₀ + W₀T that gives keys the values of their guides.

    For every W₀ this W is the minimum of Σ_n ‖W kₙ − W₀ gₙ‖² + Σ_p ‖W p − W₀ p‖² + λ‖W − W₀‖², where the system holds
    λ, the keys and the kept vectors p; the kept ones add nothing to the right-hand side, written relative to W₀.

    Args:
        keys: k, each times the square root of its weight, (n, d), float64.
        guides: g, weighted in the same way, (n, d).
        system: λI + Σ kkᵀ + Σ ppᵀ.
    """
    return system.right_divide((guides - keys).T @ keys)


def projections(weights: Params, kinds: tuple[str, ...] = (KEYS, VALUES)) -> list[str]:
    """Names of cross-attention's matrices that make keys and values of a text."""
    return [name for name in select(weights, "cross_attention") if name.endswith(kinds)]


def edited(
    weights: Params, change: Callable[[str, torch.Tensor], torch.Tensor], kinds: tuple[str, ...] = (KEYS, VALUES)
) -> dict[str, torch.Tensor]:
    """The matrices after ``change(name, W₀)`` in float64, each cast once; by the denoiser's names."""
    names = projections(weights, kinds)
    return {name: change(name, weights[name].double()).to(weights[name]) for name in names}
