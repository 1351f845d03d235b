"""What a card says of its model: every file's hash, and what makes a comparison unfair."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from resalign.cards.described import describe
from resalign.hashes import file_hash
from resalign.jobs.cards import CardSource

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(pipeline_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline_folder, tmp_path / "audited"))


def caveats(folder: Path, base: Path) -> str:
    return " ".join(describe(CardSource(pipeline=str(folder)), base)[1])


def test_a_copy_has_no_caveat(copy: Path, pipeline_folder: Path) -> None:
    facts, found = describe(CardSource(pipeline=str(copy)), pipeline_folder)
    assert found == ()
    assert facts["vae"] == facts["unet"] == "the same files as the base's"


def test_an_autoencoder_saved_again_in_half_is_the_same(copy: Path, pipeline_folder: Path) -> None:
    save_file({name: tensor.half() for name, tensor in load_file(copy / VAE).items()}, copy / VAE)
    assert caveats(copy, pipeline_folder) == ""
    save_file({name: tensor + 0.01 for name, tensor in load_file(copy / VAE).items()}, copy / VAE)
    assert "Its autoencoder is another one" in caveats(copy, pipeline_folder)


def test_another_target_makes_losses_unlike(copy: Path, pipeline_folder: Path) -> None:
    file = copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "v_prediction"}))
    assert "one predicts v_prediction, the other epsilon" in caveats(copy, pipeline_folder)


def test_every_file_of_a_checkpoint_has_its_hash(copy: Path, pipeline_folder: Path) -> None:
    source = CardSource(method={"name": "imported"}, checkpoint=str(copy))
    facts, _ = describe(source, pipeline_folder)
    for name in (VAE, "unet/diffusion_pytorch_model.safetensors"):
        assert facts[f"sha256 of {name}"] == file_hash(copy / name)
