"""ResAlign as AntigoneRandy/ResAlign@14775d3 trains it, against a plain transcription of that code's formulas.

The transcription has its own LoRA, optimizers, fine-tunings, fixed-point iteration and outer loop, in float64. Given to
it are the initial LoRA, the batches in the order in which the method drew them, and which configurations were chosen.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.parametrisation import lora, named_weights
from resalign.unlearning import resalign
from tests.nearness import assert_near
from tests.weight_names import of_denoiser

STEPS, LR, ALPHA, BETA, META_RATE, K, RANK, LIMIT = 3, 2e-4, (1.6, 2.0), 0.8, 0.3, 5, 4, 0.01
# Every kind of the released list, at rates that this network feels; (rate, steps) tells them apart.
CONFIGURATIONS: list[dict[str, Any]] = [
    {"adaptation": "outer", "optimizer": "sgd", "lr": 1e-2, "steps": 3},
    {"adaptation": "outer", "optimizer": "adam_twice_corrected", "lr": 1e-2, "steps": 2},
    {"adaptation": "outer", "optimizer": "sgd", "lr": 1e-2, "steps": 1, "loss": "prior_preserving"},
    {"adaptation": "projected", "optimizer": "adamw", "lr": 1e-4, "steps": 2},
]
CONFIG = {
    "steps": STEPS,
    "lr": LR,
    "alpha": {"start": ALPHA[0], "end": ALPHA[1]},
    "beta": BETA,
    "meta_rate": META_RATE,
    "batches": "redrawn",
    "trained": "lora",
    "max_grad_norm": None,
    "solver": {"name": "fixed_point", "steps": K},
    "hessian_batch_size": 1,
    "on_divergence": "reject",
    "max_draw_norm": LIMIT,
    "max_damping": 5,
    "simulation": {"configurations": CONFIGURATIONS, "adam_state": "kept", "images": 2},
}
Tensors = list[torch.Tensor]  # A and B of each weight in turn, or weights


@dataclass
class Moments:
    """Adam's m and v with its count of steps, of whatever is given to it first."""

    steps: int = 0
    m: Tensors = field(default_factory=list)
    v: Tensors = field(default_factory=list)

    def direction(self, gradients: Tensors) -> Tensors:
        """m̂ / (√v̂ + ε)."""
        zeros = [torch.zeros_like(g) for g in gradients]
        self.steps += 1
        self.m = [0.9 * m + 0.1 * g for m, g in zip(self.m or zeros, gradients, strict=True)]
        self.v = [0.999 * v + 0.001 * g * g for v, g in zip(self.v or zeros, gradients, strict=True)]
        m_scale, v_scale = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        return [(m / m_scale) / ((v / v_scale).sqrt() + 1e-8) for m, v in zip(self.m, self.v, strict=True)]


def decayed(tensors: Tensors, lr: float, direction: Tensors) -> Tensors:
    """A step of AdamW at PyTorch's weight decay."""
    return [(1 - lr * 1e-2) * p - lr * d for p, d in zip(tensors, direction, strict=True)]


def length(tensors: Tensors) -> float:
    return math.sqrt(sum(float((t * t).sum()) for t in tensors))


class Released:
    """The transcription; ``outcomes`` has the number of halvings of each draw, or None for a direct gradient."""

    def __init__(self, unet: torch.nn.Module, lora: Tensors, batches: Iterator[NoisyBatch], chosen: list[int]) -> None:
        self.unet, self.lora, self.batches, self.chosen = unet, lora, batches, iter(chosen)
        self.base = {name: p.detach() for name, p in unet.named_parameters()}
        self.names = [n for n in self.base if n.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "out.0.weight"))]
        self.kept, self.outer = {index: Moments() for index in range(len(CONFIGURATIONS))}, Moments()
        self.outcomes: list[int | None] = []

    def merged(self, lora: Tensors) -> dict[str, torch.Tensor]:
        pairs = zip(self.names, lora[::2], lora[1::2], strict=True)
        return self.base | {name: self.base[name] + up @ down for name, down, up in pairs}

    def prediction(self, weights: dict[str, torch.Tensor], batch: NoisyBatch) -> torch.Tensor:
        arguments = (batch.noisy_latents, batch.timesteps, batch.conditioning.encoder_hidden_states)
        predicted: torch.Tensor = functional_call(self.unet, weights, arguments).sample
        return predicted

    def error(self, weights: dict[str, torch.Tensor], batch: NoisyBatch) -> torch.Tensor:
        return ((self.prediction(weights, batch) - batch.target) ** 2).mean()

    def fine_tuning_loss(self, configuration: dict[str, Any]) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
        batches = [next(self.batches) for _ in range(2 if configuration.get("loss") else 1)]
        return lambda weights: torch.stack([self.error(weights, batch) for batch in batches]).sum()

    def fine_tuned(self, index: int) -> Tensors:
        configuration, lora = CONFIGURATIONS[index], self.lora
        lr, kind = configuration["lr"], configuration["optimizer"]
        if configuration["adaptation"] == "projected":
            return self.projected(configuration)
        for _ in range(configuration["steps"]):
            loss = self.fine_tuning_loss(configuration)
            leaves = [p.clone().requires_grad_() for p in lora]
            gradients = list(torch.autograd.grad(loss(self.merged(leaves)), leaves))
            rate = lr
            if kind != "sgd":
                gradients = self.kept[index].direction(gradients)
                t = self.kept[index].steps
                rate = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            lora = [p - rate * g for p, g in zip(lora, gradients, strict=True)]
        return lora

    def projected(self, configuration: dict[str, Any]) -> Tensors:
        weights, moments = self.merged(self.lora), Moments()
        for _ in range(configuration["steps"]):
            loss = self.fine_tuning_loss(configuration)
            leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
            gradients = list(torch.autograd.grad(loss(leaves), list(leaves.values())))
            moved = decayed(list(weights.values()), configuration["lr"], moments.direction(gradients))
            weights = dict(zip(weights, moved, strict=True))
        lora = []
        for name in self.names:
            u, s, vh = torch.linalg.svd(weights[name] - self.base[name], full_matrices=False)
            lora += [vh[:RANK], u[:, :RANK] @ torch.diag(s[:RANK])]
        return lora

    def draw(self, alpha: float) -> Tensors:
        """The gradient of one draw."""
        before, after, retained = (next(self.batches) for _ in range(3))
        index = next(self.chosen)
        star = [p.detach().requires_grad_() for p in self.fine_tuned(index)]
        theta = [p.clone().requires_grad_() for p in self.lora]
        harmful, harmful_star = -self.error(self.merged(theta), before), -self.error(self.merged(star), after)
        with torch.no_grad():
            original = self.prediction(self.base, retained)
        retain = ((self.prediction(self.merged(theta), retained) - original) ** 2).mean()
        loss = harmful + BETA * (harmful_star - harmful) + alpha * retain
        gradients = torch.autograd.grad(loss, [*star, *theta])
        g, direct = list(gradients[: len(star)]), list(gradients[len(star) :])
        for halvings in range(6):
            found = self.fixed_point(index, star, theta, g, 0.5**halvings)
            if found:
                total = [a + b for a, b in zip(found, direct, strict=True)]
                if length(total) <= LIMIT:
                    self.outcomes.append(halvings)
                    return total
        self.outcomes.append(None)
        return direct

    def fixed_point(self, index: int, star: Tensors, theta: Tensors, g: Tensors, rate: float) -> Tensors | None:
        """K products with the Jacobian of a step of descent on L_FT + ½‖θ* − θ‖²; None if one lengthens its vector."""
        loss = self.fine_tuning_loss(CONFIGURATIONS[index])
        with sdpa_kernel(SDPBackend.MATH):
            bound = sum(((p - h) ** 2).sum() for p, h in zip(star, theta, strict=True)) / 2
            slopes = torch.autograd.grad(loss(self.merged(star)) + bound, star, create_graph=True)
            mapped = [p - rate * slope for p, slope in zip(star, slopes, strict=True)]
            v = [torch.zeros_like(p) for p in star]
            for _ in range(K):
                product = torch.autograd.grad(mapped, star, v, retain_graph=True)
                ratios = [float(jv.norm() / u.norm()) for jv, u in zip(product, v, strict=True) if u.norm() > 0]
                if ratios and sum(ratios) / len(ratios) > 1:
                    return None
                v = [a + b for a, b in zip(product, g, strict=True)]
            return list(torch.autograd.grad(mapped, theta, v))

    def step(self, i: int) -> None:
        progress, alpha = (i + 1 - STEPS / 2) / (STEPS / 2), ALPHA[0]
        if progress >= 0:
            alpha += (ALPHA[1] - ALPHA[0]) / (1 + math.exp(-10 * (progress - 0.5)))
        draws = [self.draw(alpha) for _ in range(3)]
        mean = [sum(parts) / 3 * META_RATE for parts in zip(*draws, strict=True)]
        self.lora = [p.detach() for p in decayed(self.lora, LR, self.outer.direction(mean))]


@pytest.fixture(scope="module")
def double(pipeline_folder: Path) -> LoadedPipeline:
    """The tiny pipeline with a UNet in float64."""
    loaded = load_pipeline(pipeline_folder)
    loaded.denoiser.double()
    return loaded


@pytest.fixture(scope="module")
def double_data(unlearning_data: UnlearningData) -> UnlearningData:
    def converted(images: EncodedImages) -> EncodedImages:
        latents, conditioning = images.latents.double(), images.conditioning.to(torch.float64)
        return replace(images, latents=latents, conditioning=conditioning)

    sets = {name: converted(getattr(unlearning_data, name)) for name in ("forget", "retain", "pool")}
    return replace(unlearning_data, **sets)


def test_three_outer_steps_are_the_released_ones(
    double: LoadedPipeline, double_data: UnlearningData, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[NoisyBatch] = []
    at = EncodedImages.at

    def recorded(images: EncodedImages, *arguments: Any) -> NoisyBatch:
        batches.append(at(images, *arguments))
        return batches[-1]

    monkeypatch.setattr(EncodedImages, "at", recorded)
    run, original = Run(0), named_weights(double.denoiser)
    config = resalign.Config.parse(CONFIG, where="test")
    changed = of_denoiser(double, resalign.unlearn(double, double_data, config, run))

    values: dict[str, list[float]] = {}
    for _, quantity, value in run.history.rows:
        values.setdefault(quantity, []).append(value)
    pairs = [(configuration["lr"], configuration["steps"]) for configuration in CONFIGURATIONS]
    chosen = [pairs.index(pair) for pair in zip(values["inner_lr"], values["inner_steps"], strict=True)]
    initial = lora(original, RANK, down_std=0.008, up_std=0.002).initial(original, run.generator("resalign", "outer"))
    remaining = iter(batches)
    released = Released(double.denoiser, list(initial.values()), remaining, chosen)
    for i in range(STEPS):
        released.step(i)

    assert next(remaining, None) is None, "the transcription has used every batch"
    assert all(len(set(chosen[3 * i : 3 * i + 3])) == 3 for i in range(STEPS)), "no configuration twice in a step"
    assert set(chosen) == set(range(len(CONFIGURATIONS)))
    expected = released.merged(released.lora)
    assert set(changed) == set(released.names)
    change = {name: expected[name] - original[name] for name in changed}
    assert_near({name: changed[name] - original[name] for name in changed}, change, 1e-6)
    found = [None if relaxation == 0 else -math.log2(relaxation) for relaxation in values["relaxation"]]
    assert found == released.outcomes
    assert 0 in found, "a draw is accepted at once"
    assert None in found, "a draw is replaced by the direct gradient"
    assert any(halvings for halvings in found), "a draw is accepted after halvings"
    assert sum(values["replaced_draws"]) == found.count(None)
    assert sum(values["halved_draws"]) == sum(bool(halvings) for halvings in found)
