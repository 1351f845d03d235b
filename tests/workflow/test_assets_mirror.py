"""The paper configuration's data path, offline: from a mirror of the true schemas to prompts and prepared images."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from resalign.config.plan import Plan, load_plan
from resalign.config.strict import read_yaml
from resalign.data.images import read_captioned_images
from resalign.data.prompts import read_prompts
from resalign.data.source import Source
from tests.data.pictures import diffusiondb, dreambench_zip, names, picture, rows_of, write_table, write_zip

from .conftest import Checkout, copy_repository

CATALOGUE = "config/assets.yaml"
I2P = [
    {"prompt": "calm sea", "categories": "violence", "hard": 0, "sd_seed": 1, "sd_guidance_scale": 7},
    {"prompt": "two lines,\nof “one”", "categories": "hate, sexual", "hard": 0, "sd_seed": 1, "sd_guidance_scale": 7},
    {"prompt": "", "categories": "sexual", "hard": 1, "sd_seed": 2, "sd_guidance_scale": 7},
    {"prompt": "null", "categories": "sexual, shocking", "hard": 0, "sd_seed": 3, "sd_guidance_scale": 7},
]  # fmt: skip
# Stands for weights: what no step up to the prepared images reads.
WEIGHTS = b"\x08\0\0\0\0\0\0\0{}      "


HEADS = {
    "q16-prompts": ["prompts.p"],
    "mhsc": [f"{category}.pt" for category in ("sexual", "violent", "disturbing", "hateful", "political")],
    "aesthetic-v1": ["sa_0_4_vit_l_14_linear.pth"],
    "inception": ["weights-inception-2015-12-05-6726825d.pth"],
}


def small_assets(folder: Path) -> None:
    """Files of every asset of the paper's configuration, by its name."""
    for name, file in (
        ("sd-v1-4", "unet/diffusion_pytorch_model.safetensors"),
        ("sd-v1-4", "text_encoder/model.safetensors"),
        ("sd-v1-4", "vae/diffusion_pytorch_model.safetensors"),
        ("clip-vit-b-32", "open_clip_model.safetensors"),
        ("clip-vit-l-14", "open_clip_model.safetensors"),
        ("advunlearn", "nudity_unlearned/model.safetensors"),
        ("safegen", "unet/diffusion_pytorch_model.safetensors"),
        ("safegen", "text_encoder/model.safetensors"),
        ("safegen", "vae/diffusion_pytorch_model.safetensors"),
        ("lcfdsd-ng", "weights.safetensors"),
        ("lcfdsd-lt", "weights.safetensors"),
    ):
        (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_bytes(WEIGHTS)
    pipeline = ("model_index.json", "feature_extractor/preprocessor_config.json", "scheduler/scheduler_config.json")
    pipeline += ("text_encoder/config.json", "tokenizer/vocab.json", "unet/config.json", "vae/config.json")
    for file in pipeline:
        (folder / "sd-v1-4" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sd-v1-4" / file).write_text("{}")
    for name in ("clip-vit-b-32", "clip-vit-l-14"):
        (folder / name / "open_clip_config.json").write_text("{}")
    for name, files in HEADS.items():
        for number, file in enumerate(files):
            (folder / name).mkdir(exist_ok=True)
            torch.save({"weight": torch.full((2,), float(number))}, folder / name / file)
    write_zip(folder / "coco-val2014" / "val2014.zip", {"val2014/COCO_val2014_000000203564.jpg": picture(kind="JPEG")})
    for split in ("train", "retain", "db_prior", "down1", "down2", "down3"):
        rows = [{"file_name": f"{number}.png", "prompt": f"{split} {number}"} for number in range(2)]
        write_table(folder / "resalign-train" / split / "metadata.csv", rows)
        for number in range(2):
            (folder / "resalign-train" / split / f"{number}.png").write_bytes(picture(number))
    dreambench_zip(folder / "dreambench" / "data.zip", subjects=150)
    unsafe = {number: {"image_nsfw": 2.0} for number in range(5)}
    diffusiondb(folder / "diffusiondb", 705, unsafe)
    write_table(folder / "i2p" / "i2p_benchmark.csv", I2P)
    write_table(
        folder / "unsafe-diffusion" / "unsafe.csv", [{"prompt_index": n, "prompt": f"“{n}”, é"} for n in (0, 1)]
    )
    row = {"case_number": "000000203564", "source": "coco-30k", "prompt": "A café. ", "evaluation_seed": 41337}
    write_table(folder / "coco-10k" / "coco_10k.csv", [row])


def make_mirror(folder: Path, catalogue: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Lays the small assets out as a mirror; the catalogue then pins these instead of the real ones."""
    small_assets(folder)
    for name, asset in plan.experiment.config.assets.items():
        entry = catalogue[name]
        if "md5" in entry:
            [file] = names(folder / name)
            entry["md5"] = hashlib.md5((folder / name / file).read_bytes()).hexdigest()
        if "sha256" in entry:
            [file] = names(folder / name)
            entry["sha256"] = hashlib.sha256((folder / name / file).read_bytes()).hexdigest()
        for file in entry.get("hashes", {}):
            entry["hashes"][file] = hashlib.sha256((folder / name / file).read_bytes()).hexdigest()
        for file, content in entry.get("contents", {}).items():
            if "rows" in content:
                content["rows"] = len(rows_of(folder / name, file))
        pin = Source(name, asset.model_copy(update={"sha256": entry.get("sha256")})).pin
        (folder / name).rename(folder / "moved")
        (folder / name).mkdir()
        (folder / "moved").rename(folder / name / pin)
    return catalogue


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Path]:
    """A checkout of the paper's configuration whose catalogue pins the small files of a mirror."""
    root = copy_repository(tmp_path_factory.mktemp("paper") / "repository")
    mirror = tmp_path_factory.mktemp("mirror")
    plan = load_plan(root / "config" / "config.yaml")
    catalogue = make_mirror(mirror, read_yaml(root / CATALOGUE), plan)
    (root / CATALOGUE).write_text(yaml.safe_dump(catalogue, sort_keys=False))
    return Checkout(root, "config/config.yaml"), mirror


@pytest.mark.slow
def test_from_the_mirror_to_prompts_and_images(
    mirrored: tuple[Checkout, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, mirror = mirrored
    planned = checkout.snakemake("--dry-run").stdout
    assert len(re.findall(r"missing asset ", planned)) == 18
    monkeypatch.setenv("RESALIGN_ASSET_ROOT", str(mirror))
    # Whatever asked for a network would find none.
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    targets = sorted(set(re.findall(r"results/assets/[\w.-]+/run\.json", planned)))
    assert len(targets) == 21
    finished = checkout.snakemake("--", *targets)
    assert finished.returncode == 0, finished.stderr[-3000:]
    monkeypatch.chdir(checkout.folder)
    config = yaml.safe_load((checkout.folder / "config" / "config.yaml").read_text())
    assets = {path.name.rpartition("-")[0]: path for path in (checkout.folder / "results" / "assets").iterdir()}

    def path_of(reference: str) -> Path:
        name, _, rest = reference.partition("/")
        return assets[name] / rest

    wanted = {
        config["concept"]["forget"]: 2,
        config["concept"]["retain"]: 2,
        config["concept"]["pool"]: 500,
        config["attacks"]["dreambench"]["train"]: 120,
        config["attacks"]["dreambench"]["heldout"]: 30,
        config["attacks"]["diffusiondb"]["train"]: 150,
        config["attacks"]["diffusiondb"]["heldout"]: 50,
        config["reference"]: 1,
    }
    for reference, count in wanted.items():
        assert len(read_captioned_images(path_of(reference), pixels=8)) == count, reference
    splits = [path_of(config["attacks"]["diffusiondb"][key]) for key in ("train", "heldout")]
    splits.append(path_of(config["concept"]["pool"]))
    chosen = [{row["source"] for row in rows_of(split)} for split in splits]
    assert sum(map(len, chosen)) == len(set().union(*chosen)) == 700
    assert not {f"1/{number:08d}.png" for number in range(5)} & set().union(*chosen)
    columns = load_plan(checkout.folder / "config" / "config.yaml").experiment.config.prompts
    prompts = {name: read_prompts(path_of(entry.source), columns=entry.columns) for name, entry in columns.items()}
    assert [prompt.text for prompt in prompts["i2p"]] == [str(row["prompt"]) for row in I2P[1:]]
    assert [prompt.text for prompt in prompts["unsafe-diffusion"]] == ["“0”, é", "“1”, é"]
    assert prompts["coco"][0].id == "000000203564"
    # What nobody has published a hash for is locked now, and only that.
    locked = {path.stem for path in (checkout.folder / "config" / "hashes").iterdir()}
    assert {"diffusiondb", "i2p", "safegen", "resalign-train"} <= locked
    assert not {"dreambench", "unsafe-diffusion", "coco-10k"} & locked
    assert "Nothing to be done" in checkout.snakemake("--dry-run", "--", *targets).stdout
    assert not (checkout.folder / "results" / "runs").exists()


def test_what_is_sensitive_is_not_planned_without_consent(mirrored: tuple[Checkout, Path]) -> None:
    checkout, _ = mirrored
    refused = checkout.snakemake("--dry-run", overrides=("consent=[]",))
    assert refused.returncode == 1
    told = refused.stdout + refused.stderr
    assert re.search(r"asset '\S+' holds or makes sexual .*write 'consent: \[sensitive\]'", told), told
    assert "Traceback" not in told
