"""One thread, no network, and a tiny randomly initialised Stable Diffusion pipeline with the data to train it on."""

import os
from collections.abc import Sequence
from pathlib import Path

# Before torch is imported anywhere: two processes of two threads each are many times slower than one thread each.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import numpy as np
import pytest
from PIL import Image

from resalign.contracts import AttackData, Run, UnlearningData
from resalign.data.images import read_captioned_images
from resalign.data.prompts import Prompt, write_prompts
from resalign.diffusion.batches import EncodedImages, encode
from resalign.diffusion.models import Models, load_models
from resalign.lazy import diffusers, torch, transformers

PIXELS = 16
TEXT_WIDTH = 16
MAX_TOKENS = 12


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline folder: real classes, tiny, random weights; latents (4, 8, 8) of 16 x 16 pixels."""
    from resalign.digits.tokenizer import VOCABULARY_SIZE, clip_tokenizer

    folder = tmp_path_factory.mktemp("pipeline")
    tokenizer = clip_tokenizer(folder / "tokenizer", max_tokens=MAX_TOKENS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            sample_size=PIXELS // 2,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
            cross_attention_dim=TEXT_WIDTH,
            norm_num_groups=4,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=PIXELS,
        )
        text_encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=VOCABULARY_SIZE,
                hidden_size=TEXT_WIDTH,
                intermediate_size=2 * TEXT_WIDTH,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=MAX_TOKENS,
                projection_dim=TEXT_WIDTH,
            )
        )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1
    )
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(pipeline_folder: Path) -> Models:
    """The tiny pipeline, loaded; shared, and so never to be changed."""
    return load_models(pipeline_folder)


def write_captioned_images(folder: Path, captions: Sequence[str], *, pixels: int = PIXELS, seed: int = 0) -> Path:
    """An image folder with ``metadata.csv``: one random image a caption."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = ["file_name,prompt"]
    for index, caption in enumerate(captions):
        Image.fromarray(rng.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{caption}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight captioned images."""
    captions = ("a red seven", "a blue seven", "a red two", "a blue two") * 2
    return write_captioned_images(tmp_path_factory.mktemp("images") / "captioned", captions)


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt list of four prompts."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.csv"
    texts = ("a red seven", "a blue seven", "a red two", "a blue two")
    write_prompts(path, [Prompt(f"prompt-{index}", text, text.split()[-1]) for index, text in enumerate(texts)])
    return path


@pytest.fixture(scope="session")
def encoded_images(models: Models, image_folder: Path) -> EncodedImages:
    """The captioned images in latent space."""
    return encode(models, read_captioned_images(image_folder, pixels=PIXELS), Run(seed=0).generator("encode"))


@pytest.fixture(scope="session")
def unlearning_data(
    models: Models, encoded_images: EncodedImages, tmp_path_factory: pytest.TempPathFactory
) -> UnlearningData:
    """What a method may use; the checkpoint holds the tiny UNet's weights, a little moved."""
    from resalign.diffusion.parametrisation import named_weights
    from resalign.tensors.weights import save_weights

    checkpoint = tmp_path_factory.mktemp("checkpoint")
    moved = {name: tensor + 0.01 for name, tensor in named_weights(models.denoiser).items()}
    save_weights(checkpoint / "weights.safetensors", moved)
    forget, retain = torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7])
    return UnlearningData(
        forget=encoded_images.subset(forget),
        retain=encoded_images.subset(retain),
        pool=encoded_images.subset(retain),
        prompts=("a red seven", "a blue seven"),
        checkpoint=checkpoint,
    )


@pytest.fixture(scope="session")
def attack_data(encoded_images: EncodedImages) -> AttackData:
    """What an attack fine-tunes on, and what it holds out."""
    return AttackData(encoded_images.subset(torch.tensor([2, 3])), encoded_images.subset(torch.tensor([6, 7])))
