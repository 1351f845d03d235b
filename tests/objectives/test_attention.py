"""Attention maps against the network's own attention, and the loss against its definition by hand."""

import copy

import pytest
import torch

from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.batches import NoisyBatch
from resalign.diffusion.gradient_checkpointing import checkpointed
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.micro_batches import micro_batches
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.prediction import predict
from resalign.objectives.attention import concept_attention_loss, cross_attention_maps
from resalign.tensors.params import detached, gradient
from tests.nearness import assert_near

TOKENS = 12


@pytest.fixture
def batch(unlearning_data: UnlearningData) -> NoisyBatch:
    return unlearning_data.forget.draw(3, Run(0).generator("test"))


def test_maps_are_what_the_network_attends_with(loaded: LoadedPipeline, batch: NoisyBatch) -> None:
    denoiser = copy.deepcopy(loaded.denoiser)
    layers = [module for name, module in denoiser.named_modules() if name.endswith(".attn2")]
    outputs: dict[torch.nn.Module, torch.Tensor] = {}
    for module in (m for layer in layers for m in (layer, layer.to_v)):
        module.register_forward_hook(lambda module, inputs, output: outputs.update({module: output}))
    maps = cross_attention_maps(denoiser, named_weights(denoiser), batch)
    assert len(maps) == len(layers) > 1
    for layer, attention in zip(layers, maps, strict=True):
        assert attention.shape[0] == 3
        assert attention.shape[3] == TOKENS
        assert_near(attention.sum(dim=-1), torch.ones(attention.shape[:3]), 1e-5)
        heads = attention @ outputs[layer.to_v].unflatten(2, (layer.heads, -1)).transpose(1, 2)
        assert_near(layer.to_out[0](heads.transpose(1, 2).flatten(2)), outputs[layer], 1e-5)


def test_the_network_is_left_without_hooks(loaded: LoadedPipeline, batch: NoisyBatch) -> None:
    cross_attention_maps(loaded.denoiser, named_weights(loaded.denoiser), batch)
    assert not any(module._forward_hooks for module in loaded.denoiser.modules())


def test_the_loss_is_the_norm_of_the_looked_at_entries(loaded: LoadedPipeline, batch: NoisyBatch) -> None:
    weights = named_weights(loaded.denoiser)
    maps = cross_attention_maps(loaded.denoiser, weights, batch)
    tokens = torch.zeros(3, TOKENS, dtype=torch.bool)
    tokens[0, 2], tokens[1, 3], tokens[1, 4] = True, True, True
    masks = torch.zeros(3, 8, 8)
    masks[0, :4], masks[1, :, 4:] = 0.6, 1.0
    expected = 0.0
    for attention in maps:
        edge = int(attention.shape[2] ** 0.5)
        grid = attention.unflatten(2, (edge, edge))
        expected += float(grid[0, :, : edge // 2, :, 2].square().sum().sqrt())
        expected += float(grid[1, :, :, edge // 2 :, 3:5].square().sum().sqrt())
    found = concept_attention_loss(loaded.denoiser, weights, batch, tokens, masks)
    assert float(found) == pytest.approx(expected / 3, rel=1e-5)  # the third example has no token
    everywhere = concept_attention_loss(loaded.denoiser, weights, batch, tokens)
    assert torch.equal(everywhere, concept_attention_loss(loaded.denoiser, weights, batch, tokens, torch.ones(3, 8, 8)))
    assert everywhere > found


def test_the_gradient_goes_through_replaced_weights_and_ignores_what_is_not_looked_at(
    loaded: LoadedPipeline, batch: NoisyBatch
) -> None:
    weights = named_weights(loaded.denoiser)
    variables = detached({n: w for n, w in weights.items() if n.endswith("attn2.to_k.weight")}, requires_grad=True)
    tokens = torch.arange(TOKENS).expand(3, -1) == 2
    for masks in (None, torch.zeros(3, 8, 8)):
        with micro_batches(1):
            value = concept_attention_loss(loaded.denoiser, {**weights, **variables}, batch, tokens, masks)
        slopes = gradient(value, variables)
        assert all(torch.isfinite(slope).all() for slope in slopes.values())
        assert any(slope.any() for slope in slopes.values()) == (masks is None)


def test_gradient_checkpointing_is_refused(loaded: LoadedPipeline, batch: NoisyBatch) -> None:
    denoiser = copy.deepcopy(loaded.denoiser)
    denoiser.enable_gradient_checkpointing(checkpointed)
    denoiser.train()
    weights = detached(named_weights(denoiser), requires_grad=True)
    assert predict(denoiser, weights, batch).requires_grad
    with pytest.raises(ConfigError, match="turn it off for this method"):
        cross_attention_maps(denoiser, weights, batch)
