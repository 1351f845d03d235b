"""Hypergradients whose computations are replayed against those whose functions run each time: to the bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resalign.contracts import Run
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.precision import training_precision
from resalign.objectives.denoising import harmful_loss, repeated_loss
from resalign.objectives.simulated_hypergradient import HypergradientConfig, simulated_hypergradient
from resalign.objectives.simulation import Simulation
from resalign.tensors.cuda_graphs import Capture
from resalign.tensors.tracing import Traces
from tests.tensors.test_cuda_graphs import on_the_cpu

SETTINGS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "all weights, by differences": {"hessian_products": "finite_difference"},
    "attention, and prior images": {"adaptation": ["attention"], "loss": ["prior_preserving"]},
    "every step": {"through": "steps"},
}


def hypergradients(loaded: LoadedPipeline, images: EncodedImages, **settings: Any) -> list[Any]:
    """Of two draws, with what is logged."""
    simulated = {"lr": [1e-3], "steps": [2], "loss": ["denoising"], "adaptation": ["full"], "optimizer": ["adam"]}
    given = {name: settings.pop(name) for name in [*settings] if name in simulated}
    simulation = {**simulated, **given, "images": 4, "batch_size": 2}
    fields = {"gamma": 0.01, "solver": {"steps": 3}, "hessian_batch_size": 2, **settings, "simulation": simulation}
    config = HypergradientConfig.parse(fields, where="test")
    stream, theta, found = Run(3).generator("test"), named_weights(loaded.denoiser), []
    for _ in range(2):
        user = Simulation(loaded, images, images, config.simulation, stream, stream)
        outer = repeated_loss(harmful_loss, loaded, [images.draw(2, stream)], None)
        found.append(simulated_hypergradient(config, user, theta, outer, where="test"))
    return found


def recorded(
    loaded: LoadedPipeline, images: EncodedImages, capture: Capture | None = None, **settings: Any
) -> list[Any]:
    """The same by a model that records at once."""
    traces = Traces(after=0, capture=capture)
    found = hypergradients(replace(loaded, traces=traces), images, **settings)
    assert all(entry.recording for entries in traces._known.values() for entry in entries)
    assert "harmful_loss" in str([*traces._known])
    return found


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for (value, logged), (own, own_logged) in zip(found, expected, strict=True):
        assert logged == own_logged
        assert all(torch.equal(value[name], own[name]) for name in own)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_on_a_unet(loaded: LoadedPipeline, encoded_images: EncodedImages, settings: dict[str, Any]) -> None:
    expected = hypergradients(loaded, encoded_images, **settings)
    assert_same(recorded(loaded, encoded_images, **settings), expected)


@pytest.mark.parametrize("pipeline_kind", ["stable_diffusion_xl", "stable_diffusion_3"], indirect=True)
def test_on_other_architectures(loaded: LoadedPipeline, encoded_images: EncodedImages) -> None:
    expected = hypergradients(loaded, encoded_images, adaptation=["lora"])
    assert_same(recorded(loaded, encoded_images, adaptation=["lora"]), expected)


def test_in_memory_that_stays(loaded: LoadedPipeline, encoded_images: EncodedImages) -> None:
    expected = hypergradients(loaded, encoded_images, adaptation=["lora"])
    assert_same(recorded(loaded, encoded_images, on_the_cpu, adaptation=["lora"]), expected)


def test_in_parts_recomputed_and_in_another_precision(pipeline_folder: Path, encoded_images: EncodedImages) -> None:
    saving = load_pipeline(pipeline_folder, gradient_checkpointing=True)
    with micro_batches(1), training_precision("bfloat16"):
        assert_same(recorded(saving, encoded_images), hypergradients(saving, encoded_images))
