"""The trained weights of a network and their variables: all weights, some, or low-rank changes of some."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from resalign.lazy import torch
from resalign.tensors.losses import Loss, loss_at
from resalign.tensors.params import Params, detached, gradient, zeros_like

P = TypeVar("P")
Scope = Literal["full", "attention", "cross_attention", "cross_attention_kv", "not_cross_attention", "noxattn"]
# What `noxattn` leaves out of a UNet besides cross-attention: the time embedding and the output layers, those named
# time_embed and out. in the first release of ESD (Gandikota 2023, arXiv 2303.07345). What projects the time embedding
# into the blocks is trained, as is the embedding of Stable Diffusion XL's pooled prompt, which the release has not.
NOT_IN_NOXATTN = ("time_embedding.", "conv_norm_out.", "conv_out.")
# LoRA on these projections of every attention layer, as diffusers' training scripts have it; the second line is the
# text's side of joint attention [Stable Diffusion 3].
LORA_TARGETS = (
    *("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"),
    *("add_q_proj.weight", "add_k_proj.weight", "add_v_proj.weight", "to_add_out.weight"),
)


def select(weights: Params, scope: Scope) -> list[str]:
    """Names of a network's weights in a scope.

    In diffusers' UNets attn1 is self-attention, attn2 cross-attention. A transformer of joint attention has attn, and
    perhaps an attn2 that attends to the image alone.

    Raises:
        ValueError: If the network has no weight in the scope, as one without cross-attention.
    """
    has_cross_attention = any(".attn1." in name for name in weights)
    inside = {
        "full": lambda name: True,
        "attention": lambda name: any(f".{part}." in name for part in ("attn", "attn1", "attn2")),
        "cross_attention": lambda name: has_cross_attention and ".attn2." in name,
        "cross_attention_kv": lambda name: has_cross_attention and (".attn2.to_k." in name or ".attn2.to_v." in name),
        "not_cross_attention": lambda name: has_cross_attention and ".attn2." not in name,
        "noxattn": lambda name: has_cross_attention and ".attn2." not in name and not name.startswith(NOT_IN_NOXATTN),
    }[scope]
    names = [name for name in weights if inside(name)]
    if not names:
        raise ValueError(f"the network has no weights in scope '{scope}'; does it have such attention layers?")
    return names


class Parametrisation(Protocol):
    """Variables ψ and the map from (θ, ψ) to the weights that a network runs with."""

    def initial(self, weights: Params, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """ψ₀, at which ``weights(θ, ψ₀)`` equals θ up to what a low-rank initialisation adds."""

    def weights(self, start: Params, variables: Params) -> dict[str, torch.Tensor]:
        """All weights θ + T(ψ), by name; differentiable in both arguments."""

    def fitted(self, start: Params, weights: Params) -> dict[str, torch.Tensor]:
        """Variables whose weights are the nearest to given ones (Frobenius norm), start being θ."""


@dataclass(frozen=True)
class FullRank:
    """The variables are the changes of the weights in a scope: T(ψ) = ψ there, zero elsewhere."""

    names: tuple[str, ...]

    def initial(self, weights: Params, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Zero changes."""
        return {f"delta.{name}": value for name, value in zeros_like({n: weights[n] for n in self.names}).items()}

    def weights(self, start: Params, variables: Params) -> dict[str, torch.Tensor]:
        """θ + ψ."""
        changed = torch._foreach_add([start[n] for n in self.names], [variables[f"delta.{n}"] for n in self.names])
        return {**start, **dict(zip(self.names, changed, strict=True))}

    def fitted(self, start: Params, weights: Params) -> dict[str, torch.Tensor]:
        """The changes."""
        return {f"delta.{name}": weights[name] - start[name] for name in self.names}


@dataclass(frozen=True)
class LowRank:
    """LoRA (Hu 2022, arXiv 2106.09685): T(ψ) = scale · B A for each target; A random, B zero.

    Attributes:
        names: Weight matrices (out, in) that are adapted.
        rank: Rank of the change.
        scale: alpha / rank; 1 as in diffusers' training scripts.
        down_std: Standard deviation of A; None for 1/rank, as in diffusers' LoRA.
        up_std: Standard deviation of B; 0 starts at the unchanged model.
    """

    names: tuple[str, ...]
    rank: int
    scale: float = 1.0
    down_std: float | None = None
    up_std: float = 0.0

    def initial(self, weights: Params, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """A ~ N(0, down_std²), B ~ N(0, up_std²)."""
        down_std = 1.0 / self.rank if self.down_std is None else self.down_std
        variables = {}
        for name in self.names:
            rows, columns = weights[name].shape
            down = torch.randn((self.rank, columns), generator=generator) * down_std
            up = torch.randn((rows, self.rank), generator=generator) * self.up_std
            variables[f"lora_down.{name}"] = down.to(weights[name])
            variables[f"lora_up.{name}"] = up.to(weights[name])
        return variables

    def weights(self, start: Params, variables: Params) -> dict[str, torch.Tensor]:
        """θ + scale · B A."""
        targets = set(self.names)
        return {
            n: start[n] + self.scale * variables[f"lora_up.{n}"] @ variables[f"lora_down.{n}"]
            if n in targets
            else start[n]
            for n in start
        }

    def fitted(self, start: Params, weights: Params) -> dict[str, torch.Tensor]:
        """B = US/scale and A = Vᵀ of the change's leading singular values and vectors."""
        variables = {}
        for name in self.names:
            u, s, vh = torch.linalg.svd(weights[name] - start[name], full_matrices=False)
            variables[f"lora_down.{name}"] = vh[: self.rank]
            variables[f"lora_up.{name}"] = u[:, : self.rank] * s[: self.rank] / self.scale
        return variables


def lora(weights: Params, rank: int, *, down_std: float | None = None, up_std: float = 0.0) -> LowRank:
    """Low-rank changes of every attention projection; see :class:`LowRank`."""
    names = tuple(name for name in weights if name.endswith(LORA_TARGETS))
    if not names:
        raise ValueError(f"the network has no attention projections named like {list(LORA_TARGETS)}")
    return LowRank(names, rank, down_std=down_std, up_std=up_std)


@functools.lru_cache(16)
def interned(parametrisation: P) -> P:
    """One object for all that are equal, so that its methods are equal, too."""
    return parametrisation


def vjp(
    parametrisation: Parametrisation, start: Params, variables: Params, weight_gradient: Params
) -> dict[str, torch.Tensor]:
    """Jᵀv: a gradient in weight space as one in the variables, J the Jacobian of ψ ↦ θ + T(ψ)."""
    leaves = detached(variables, requires_grad=True)
    moved = parametrisation.weights(start, leaves)
    pairing = torch.stack([(moved[name] * weight_gradient[name]).sum() for name in weight_gradient]).sum()
    return gradient(pairing, leaves)


@dataclass(frozen=True)
class Trained:
    """A network that is trained through variables φ: θ = θ₀ + T(φ).

    Attributes:
        parametrisation: T.
        original: θ₀.
        variables: φ, leaves that an optimizer changes in place.
    """

    parametrisation: Parametrisation
    original: Params
    variables: Params

    def weights(self, variables: Params | None = None) -> dict[str, torch.Tensor]:
        """θ₀ + T(φ), differentiable in φ, or in the ``variables`` that take its place."""
        return self.parametrisation.weights(self.original, self.variables if variables is None else variables)

    def loss_at(self, loss: Loss) -> Loss:
        """A loss of weights as one of φ."""
        return loss_at(loss, self.parametrisation.weights, self.original)

    def fitted(self, weights: Params) -> dict[str, torch.Tensor]:
        """Variables whose weights are the nearest to given ones."""
        return self.parametrisation.fitted(self.original, weights)

    def vjp(self, weight_gradient: Params) -> dict[str, torch.Tensor]:
        """A gradient in weight space as one in φ."""
        return vjp(self.parametrisation, self.original, self.variables, weight_gradient)


def named_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A network's parameters by name, detached."""
    return {name: parameter.detach() for name, parameter in module.named_parameters()}
