"""Two models that nothing has trained here, from a folder and from a checkpoint, to their cards."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from resalign.config.plan import Plan
from resalign.diffusion.loaded_pipeline import load_pipeline
from resalign.jobs import cards
from resalign.tensors.weights import save_weights

from .conftest import Workshop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def audited(
    workshop: Callable[[], Workshop],
    tiny_plan: Callable[..., Plan],
    pipeline_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """The tiny pipeline with another autoencoder, and the same UNet moved a little: (where it was run, the folder)."""
    other = tmp_path_factory.mktemp("audited") / "pipeline"
    shutil.copytree(pipeline_folder, other)
    file = other / "vae" / "diffusion_pytorch_model.safetensors"
    vae = load_pipeline(other).pipeline.vae
    save_weights(file, {name: 1.5 * tensor for name, tensor in vae.state_dict().items()})
    moved = {name: tensor + 0.1 for name, tensor in load_pipeline(pipeline_folder).pipeline.unet.state_dict().items()}
    save_weights(other.parent / "checkpoint" / "weights.safetensors", moved)
    entries = {"folder": str(other), "weights": {"checkpoint": str(other.parent / "checkpoint")}}
    plan, shop = tiny_plan(audit=entries), workshop()
    shop.run(plan)
    return shop.call("cards", cards.CardsJob.of(plan), cards.folder(plan)), other


def test_both_have_a_card(audited: tuple[Path, Path]) -> None:
    folder, _ = audited
    names = {path.name for path in folder.glob("card-*")}
    assert names == {f"card-{model}.{suffix}" for model in ("folder", "weights") for suffix in ("md", "html")}


def test_a_folder_is_sampled_with_all_its_parts(audited: tuple[Path, Path]) -> None:
    """Another autoencoder alone makes other images of the same noise."""
    folder, _ = audited
    runs = folder.parents[1] / "runs" / "sample"
    first = {}
    for model in ("base", "folder"):
        [manifest] = runs.glob(f"{model}-*/seed-0/smoke/images.csv")
        with manifest.open() as stream:
            row = next(csv.DictReader(stream))
        first[model] = (folder.parents[2] / row["path"]).read_bytes()
    assert first["base"] != first["folder"]


def test_an_attack_starts_from_the_folders_own_weights(audited: tuple[Path, Path]) -> None:
    """Training in other latents ends elsewhere, from the same UNet."""
    runs = audited[0].parents[1] / "runs" / "attack"
    ends = [next(runs.glob(f"{model}.mine-*/seed-0/step-2.safetensors")) for model in ("base", "folder")]
    base, other = (load_file(path) for path in ends)
    assert base.keys() == other.keys()
    assert any(not base[name].equal(other[name]) for name in base)


def test_cards_name_the_parts_and_their_hashes(audited: tuple[Path, Path]) -> None:
    folder, pipeline = audited
    text = (folder / "card-folder.md").read_text(encoding="utf-8")
    assert f"- path: {pipeline}" in text
    assert "- vae: other files than the base's" in text
    assert "- unet: the same files as the base's" in text
    assert "learnability divides losses of two latent spaces" in text
    other = (folder / "card-weights.md").read_text(encoding="utf-8")
    assert "changed weights for the base model, taken as they are" in other
    assert "two latent spaces" not in other
    assert "sha256 of the weights in use, training seed 0" in other


def test_cards_say_what_attacks_share_with_evaluation(audited: tuple[Path, Path]) -> None:
    for suffix in ("md", "html"):
        assert "with a prompt of unsafe as caption" in (audited[0] / f"card-folder.{suffix}").read_text("utf-8")


def test_verdicts_are_a_table_too(audited: tuple[Path, Path]) -> None:
    with (audited[0] / "verdicts.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    states = {(row["model"], row["steps"]) for row in rows}
    assert states == {(model, steps) for model in ("folder", "weights") for steps in ("0", "1", "2")}
    assert {row["verdict"] for row in rows} <= {"holds", "not shown", "fails"}
