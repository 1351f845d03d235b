"""One thread, no network, and a tiny randomly initialised pipeline with the data to train it on."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

# Before torch is imported anywhere: two processes of two threads each are many times slower than one thread each.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import numpy as np
import pytest
from PIL import Image

from resalign.analysis.measurements import Measurements
from resalign.config.concept import ConceptPrompts
from resalign.contracts import AttackData, Run, UnlearningData
from resalign.data.images import read_captioned_images
from resalign.data.prompts import Prompt, write_prompts
from resalign.diffusion.batches import EncodedImages, encode
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.lazy import torch
from resalign.tensors.tracing import Traces
from tests.pipelines import PIXELS, write_pipeline

# Of variables that the user has set for other work: a mirror, a token, a profile, the repository of a git hook.
USERS = ("GIT_", "HF_TOKEN", "RESALIGN_", "SBATCH_", "SLURM_", "SNAKEMAKE_")


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """No test depends on who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(USERS)]:
            patch.delenv(name)
        for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def pipeline_kind(request: pytest.FixtureRequest) -> str:
    """Which tiny pipeline a test runs on; a module that asks for several parametrises this fixture indirectly."""
    return str(getattr(request, "param", "stable_diffusion"))


@pytest.fixture(scope="session")
def pipeline_folder(pipeline_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder: real classes, tiny, random weights."""
    return write_pipeline(pipeline_kind, tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def loaded(pipeline_folder: Path) -> LoadedPipeline:
    """The tiny pipeline, loaded; shared, and so never to be changed, nor its computations to be recorded."""
    return replace(load_pipeline(pipeline_folder), traces=Traces(after=sys.maxsize))


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
def encoded_images(loaded: LoadedPipeline, image_folder: Path) -> EncodedImages:
    """The captioned images in latent space."""
    return encode(loaded, read_captioned_images(image_folder, pixels=PIXELS), Run(seed=0).generator("encode"))


@pytest.fixture(scope="session")
def unlearning_data(
    loaded: LoadedPipeline, encoded_images: EncodedImages, tmp_path_factory: pytest.TempPathFactory
) -> UnlearningData:
    """What a method may use; the checkpoint holds the tiny UNet's weights, a little moved."""
    from resalign.diffusion.parametrisation import named_weights
    from resalign.tensors.weights import save_weights

    checkpoint = tmp_path_factory.mktemp("checkpoint")
    moved = {name: tensor + 0.01 for name, tensor in named_weights(loaded.denoiser).items()}
    save_weights(checkpoint / "weights.safetensors", moved)
    forget, retain = torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7])
    mean = encoded_images.latents.mean(dim=(2, 3), keepdim=True)
    coarse = replace(encoded_images, latents=mean.expand_as(encoded_images.latents))
    return UnlearningData(
        forget=encoded_images.subset(forget),
        retain=encoded_images.subset(retain),
        pool=encoded_images.subset(retain),
        concepts=(ConceptPrompts(prompts=("a red seven", "a blue seven"), substitute="a one"),),
        retain_prompts=("a zero", "a two", "an eight"),
        mosaic=coarse.subset(forget),
        masks=torch.rand((4, *loaded.latent_shape[1:]), generator=Run(seed=0).generator("masks")),
        checkpoint=checkpoint,
    )


@pytest.fixture(scope="session")
def attack_data(encoded_images: EncodedImages) -> AttackData:
    """What an attack may use: images to train on, held out, of the class at large and of the concept; prompts."""
    sets = (encoded_images.subset(torch.tensor(rows)) for rows in ([2, 3], [6, 7], [0, 1], [4, 5]))
    return AttackData(*sets, prompts=(Prompt("named", "a red seven"), Prompt("hidden", "days in a week")))


@pytest.fixture(scope="session")
def measurements() -> Measurements:
    """The made-up experiment of the evidence's tests."""
    from tests.analysis.experiment import make_measurements

    return make_measurements()
