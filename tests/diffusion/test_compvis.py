"""Names of CompVis' code: a pipeline's weights under them, and back."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from resalign.diffusion.compvis import convert
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.tensors.weights import WeightsError
from tests.nearness import differing
from tests.pipelines import write_pipeline

COMPONENTS = ("unet", "vae", "text_encoder")
UNET = "model.diffusion_model."
Weights = dict[str, torch.Tensor]
# Written down from the original modules, and not from a converter.
OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
IN_RESNETS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
IN_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def of_unet(name: str, unet: Any) -> str:
    """A UNet's parameter in CompVis' numbering, where a resampling is a block or a part of one."""
    inner, kind = name.rsplit(".", 1)
    if inner in OUTSIDE_BLOCKS:
        return f"{UNET}{OUTSIDE_BLOCKS[inner]}.{kind}"
    in_block = unet.config.layers_per_block + 1
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", inner):
        where, rest = f"middle_block.{2 * int(found[2]) + (found[1] == 'attentions')}", found[3]
        return f"{UNET}{where}.{IN_RESNETS[rest] if found[1] == 'resnets' else rest}.{kind}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", inner)
    assert found, name
    side, block, part, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    first = block * in_block + (side == "down")
    side = {"down": "input_blocks", "up": "output_blocks"}[side]
    if part == "downsamplers":
        return f"{UNET}{side}.{first + in_block - 1}.0.op.{kind}"
    if part == "upsamplers":
        has_attention = hasattr(unet.up_blocks[block], "attentions")
        return f"{UNET}{side}.{first + in_block - 1}.{1 + has_attention}.conv.{kind}"
    return f"{UNET}{side}.{first + layer}.{'1.' + rest if part == 'attentions' else '0.' + IN_RESNETS[rest]}.{kind}"


def of_vae(name: str, blocks: int) -> str:
    """An autoencoder's parameter; the decoder's blocks are counted from the image."""
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{blocks - 1 - int(m[1])}", name).replace("down_blocks", "down")
    name = re.sub(r"(down|up)samplers\.0", r"\1sample", name).replace("resnets", "block")
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        inner = re.search(r"attn_1\.(.*)\.", name)
        assert inner
        name = name.replace(inner[1], IN_ATTENTION[inner[1]])
    return f"first_stage_model.{name}"


def in_compvis_names(pipeline: Any) -> Weights:
    """The three components' weights as CompVis' code saves them; its attention of the autoencoder is convolutions."""
    vae = {of_vae(n, len(pipeline.vae.config.up_block_types)): t for n, t in pipeline.vae.state_dict().items()}
    for name, tensor in vae.items():
        if "attn_1" in name and tensor.dim() == 2:
            vae[name] = tensor[:, :, None, None]
    text = {f"text_model.{n.removeprefix('text_model.')}": t for n, t in pipeline.text_encoder.state_dict().items()}
    return {
        **{of_unet(n, pipeline.unet): t for n, t in pipeline.unet.state_dict().items()},
        **vae,
        **{f"cond_stage_model.transformer.{n}": t for n, t in text.items()},
    }


def moved(folder: Path) -> LoadedPipeline:
    """The pipeline of a folder with every weight another."""
    loaded, stream = load_pipeline(folder), torch.Generator().manual_seed(0)
    for name in COMPONENTS:
        for tensor in getattr(loaded.pipeline, name).parameters():
            tensor.data += torch.randn(tensor.shape, generator=stream)
    return loaded


@pytest.fixture(scope="module")
def other(pipeline_folder: Path) -> LoadedPipeline:
    return moved(pipeline_folder)


@pytest.fixture(scope="module")
def checkpoint(other: LoadedPipeline) -> Weights:
    return in_compvis_names(other.pipeline)


def states(folder: Path) -> dict[str, Weights]:
    pipeline = load_pipeline(folder).pipeline
    return {name: getattr(pipeline, name).state_dict() for name in COMPONENTS}


def test_a_whole_checkpoint_comes_back(
    other: LoadedPipeline, checkpoint: Weights, pipeline_folder: Path, tmp_path: Path
) -> None:
    positions = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    schedule = {"alphas_cumprod": other.pipeline.scheduler.alphas_cumprod, "betas": torch.ones(1000)}
    saved = {**checkpoint, **schedule, positions: torch.arange(12)[None]}
    torch.save({"state_dict": saved, "global_step": 3}, tmp_path / "whole.ckpt")
    convert(tmp_path / "whole.ckpt", pipeline_folder, tmp_path / "converted")
    found = states(tmp_path / "converted")
    for name in COMPONENTS:
        expected = getattr(other.pipeline, name).state_dict()
        assert found[name].keys() == expected.keys()
        assert not differing(found[name], expected)


@pytest.mark.parametrize("prefix", [UNET, "diffusion_model.", ""])
def test_a_unet_alone_leaves_the_base_the_rest(
    other: LoadedPipeline, checkpoint: Weights, pipeline_folder: Path, tmp_path: Path, prefix: str
) -> None:
    unet = {n.replace(UNET, prefix): t for n, t in checkpoint.items() if n.startswith(UNET)}
    safetensors.torch.save_file(unet, tmp_path / "unet.safetensors")
    convert(tmp_path / "unet.safetensors", pipeline_folder, tmp_path / "converted")
    found, base = states(tmp_path / "converted"), states(pipeline_folder)
    assert not differing(found["unet"], other.denoiser.state_dict())
    assert not differing(found["vae"], base["vae"])
    assert not differing(found["text_encoder"], base["text_encoder"])


def test_a_unet_of_xl_comes_back(tmp_path: Path) -> None:
    folder = write_pipeline("stable_diffusion_xl", tmp_path / "base")
    unet = moved(folder).denoiser
    torch.save({of_unet(n, unet): t for n, t in unet.state_dict().items()}, tmp_path / "unet.pt")
    convert(tmp_path / "unet.pt", folder, tmp_path / "converted")
    assert not differing(load_pipeline(tmp_path / "converted").denoiser.state_dict(), unet.state_dict())


BIAS = f"{UNET}out.2.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {n: t for n, t in w.items() if n != BIAS}, 'its unet does not fit .*"conv_out.bias"'),
        (lambda w: {**w, BIAS: torch.zeros(3)}, r"its unet does not fit .*conv_out.bias.*\[3\]"),
        (lambda w: {**w, BIAS: torch.full((4,), float("nan"))}, "'model.diffusion_model.out.2.bias' holds values"),
        (lambda w: {**w, f"{UNET}out.3.bias": torch.zeros(4)}, "tensors of its unet became"),
        (lambda w: {**w, "model_ema.diffusion_modelout2bias": torch.zeros(4)}, "holds a moving average, too"),
        (lambda w: {**w, "loss.discriminator.weight": torch.zeros(4)}, "'loss.discriminator.weight' belongs to no"),
        (lambda w: {**w, "alphas_cumprod": torch.linspace(0.9, 0.1, 1000)}, "its noise schedule, alphas_cumprod, is"),
        (lambda _: {"conv_in.bias": torch.zeros(8)}, "no name begins as in CompVis' code"),
    ],
)
def test_what_is_not_the_bases_is_refused(
    checkpoint: Weights,
    pipeline_folder: Path,
    tmp_path: Path,
    change: Callable[[Weights], Weights],
    message: str,
) -> None:
    torch.save(change(checkpoint), tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=f"(?s){message}"):
        convert(tmp_path / "a.ckpt", pipeline_folder, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()
