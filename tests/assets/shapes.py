"""The published shape of every asset of the catalogue that a program can fetch: its files, small, their contents made.

Names, columns and keys are those of the published files; numbers of images and rows are as many as the paper's
configuration needs to run from fetch to table.
"""

import hashlib
import io
import json
import shutil
import tarfile
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
from safetensors.torch import load_file, save_file

from resalign.config.assets import AssetConfig
from resalign.data.tables import read_table
from resalign.lazy import torch, transformers
from tests.data.pictures import diffusiondb, dreambench_zip, names, picture, write_table, write_zip
from tests.json_files import edit_json
from tests.pipelines import WITH_T5, write_pipeline
from tests.scorers.conftest import (
    AestheticV2,
    onnx_weights,
    seeded,
    write_aesthetic,
    write_clip,
    write_dino,
    write_inception,
    write_mhsc,
    write_nsfw,
    write_q16,
    write_safety_checker,
)
from tests.scorers.onnx_file import write_onnx

from .hub_server import Server

I2P = [
    {"prompt": "calm sea", "categories": "violence", "hard": 0, "sd_seed": 1, "sd_guidance_scale": 7},
    {"prompt": "two lines,\nof “one”", "categories": "hate, sexual", "hard": 0, "sd_seed": 1, "sd_guidance_scale": 7},
    {"prompt": "", "categories": "sexual", "hard": 1, "sd_seed": 2, "sd_guidance_scale": 7},
    {"prompt": "null", "categories": "sexual, shocking", "hard": 0, "sd_seed": 3, "sd_guidance_scale": 7},
]  # fmt: skip
# COCO's captions, of which Inception's smallest layer wants one for each of its features.
CAPTIONS = 64
COCO_IDS = [203564 + number for number in range(CAPTIONS)]
# What the settings of Stable Diffusion v1.4 say; diffusers writes more today.
UNET_KEYS = (
    *("_class_name", "act_fn", "attention_head_dim", "block_out_channels", "center_input_sample"),
    *("cross_attention_dim", "down_block_types", "downsample_padding", "flip_sin_to_cos", "freq_shift", "in_channels"),
    *("layers_per_block", "mid_block_scale_factor", "norm_eps", "norm_num_groups", "out_channels", "sample_size"),
    "up_block_types",
)
VAE_KEYS = (
    *("_class_name", "act_fn", "block_out_channels", "down_block_types", "in_channels", "latent_channels"),
    *("layers_per_block", "norm_num_groups", "out_channels", "sample_size", "up_block_types"),
)
FLUX = (
    *("model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json"),
    *("text_encoder/model.safetensors", "text_encoder_2/config.json", "text_encoder_2/model.safetensors.index.json"),
    *(f"text_encoder_2/model-0000{part}-of-00002.safetensors" for part in (1, 2)),
    *("tokenizer/merges.txt", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json"),
    *("tokenizer_2/tokenizer.json", "tokenizer_2/tokenizer_config.json"),
    *("transformer/config.json", "transformer/diffusion_pytorch_model.safetensors.index.json"),
    *(f"transformer/diffusion_pytorch_model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)),
    *("vae/config.json", "vae/diffusion_pytorch_model.safetensors"),
)
PNDM = {
    **{"_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0.dev0", "beta_start": 0.00085, "beta_end": 0.012},
    **{"beta_schedule": "scaled_linear", "clip_sample": False, "num_train_timesteps": 1000, "set_alpha_to_one": False},
    **{"skip_prk_steps": True, "steps_offset": 1, "trained_betas": None},
}


def sd_v1(folder: Path) -> None:
    """Stable Diffusion v1: its index names a checker that no file is fetched of, and its texts have older names."""
    sd_folders(folder, "stable_diffusion")
    index = folder / "model_index.json"
    edit_json(index, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    edit_json(index, feature_extractor=["transformers", "CLIPImageProcessor"], scheduler=["diffusers", "PNDMScheduler"])
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(PNDM))
    # The real UNet is of 0.2.2, too; before 0.9.0 diffusers takes none for smaller than 64 latents a side.
    for component, keys, version in (("unet", UNET_KEYS, "0.9.0"), ("vae", VAE_KEYS, "0.2.2")):
        file = folder / component / "config.json"
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({key: settings[key] for key in keys} | {"_diffusers_version": version}))
    encoder = folder / "text_encoder"
    edit_json(encoder / "config.json", bos_token_id=0, eos_token_id=2, transformers_version="4.22.0.dev0")
    weights = {f"text_model.{name}": tensor for name, tensor in load_file(encoder / "model.safetensors").items()}
    tokens = len(weights["text_model.embeddings.position_embedding.weight"])
    weights["text_model.embeddings.position_ids"] = torch.arange(tokens)[None]
    save_file(weights, encoder / "model.safetensors", {"format": "pt"})


def sd_folders(folder: Path, kind: str) -> None:
    """A pipeline as the hub has it: tokenizers in two files with a list of their special tokens."""
    write_pipeline(kind, folder)
    for tokenizer in folder.glob("tokenizer*"):
        if (tokenizer / "merges.txt").exists():
            (tokenizer / "tokenizer.json").unlink()
        settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
        special = {key: value for key, value in settings.items() if key.endswith("_token")}
        (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
    if kind in ("stable_diffusion", "v_prediction"):
        transformers.CLIPImageProcessor().save_pretrained(folder / "feature_extractor")


def flux(folder: Path) -> None:
    """FLUX.1 [dev], which nothing here loads: the names of its files alone."""
    empty = {".json": {}, ".safetensors": {"a": torch.zeros(1)}, ".txt": b"#"}
    for name in FLUX:
        file = folder / name
        write_files(file.parent, {file.name: empty[file.suffix]})


def write_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Bytes as they are, tensors and settings in the format that the name says."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif name.endswith(".safetensors"):
            save_file(content, folder / name)
        elif name.endswith(".json"):
            (folder / name).write_text(json.dumps(content))
        else:
            torch.save(content, folder / name)


def resalign_train(folder: Path) -> None:
    for split in ("train", "retain", "db_prior", "down1", "down2", "down3"):
        rows = [{"file_name": f"{number}.png", "prompt": f"{split} {number}"} for number in range(2)]
        write_table(folder / split / "metadata.csv", rows)
        write_files(folder / split, {f"{number}.png": picture(number) for number in range(2)})


def diffusiondb_large(folder: Path) -> None:
    diffusiondb(folder)
    (folder / "metadata.parquet").rename(folder / "metadata-large.parquet")
    (folder / "images").rename(folder / "diffusiondb-large-part-1")


def pokemon(folder: Path) -> None:
    rows = [{"image": {"bytes": picture(n), "path": None}, "text": f"a drawing of a {n}"} for n in range(4)]
    write_table(folder / "data" / "train-00000-of-00001-566cc9b19d7203f8.parquet", rows)


def artbench(folder: Path) -> None:
    with tarfile.open(folder / "artbench-10-imagefolder-split.tar", "w") as archive:
        for part in ("train", "test"):
            info = tarfile.TarInfo(f"artbench-10-imagefolder-split/{part}/ukiyo_e/a-painter_a-view-1830.jpg")
            content = picture(kind="JPEG")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def coco_captions(folder: Path) -> None:
    captions = {"annotations": [{"image_id": number, "id": number, "caption": "A café. "} for number in COCO_IDS]}
    parts = ("captions", "instances", "person_keypoints")
    files = {f"annotations/{part}_{half}2014.json": json.dumps(captions) for part in parts for half in ("train", "val")}
    write_zip(folder / "annotations_trainval2014.zip", files)


def coco_prompts(path: Path, **more: object) -> None:
    shared = {"source": "coco-30k", "prompt": "A café. ", "evaluation_seed": 41337, **more}
    write_table(path, [{"case_number": f"{number:012d}", **shared} for number in COCO_IDS])


def nudity_prompts(folder: Path) -> None:
    shared = {"categories": "sexual", "evaluation_seed": 1, "evaluation_guidance": 7.5}
    write_table(folder / "nudity.csv", [{"case_number": n, "prompt": f"a sea, {n}", **shared} for n in range(4)])


def harmful_imgs(folder: Path) -> None:
    rows = [{"file_name": f"{n}.png", "text": f"a picture, number {n}", "class": 1 + (n >= 1000)} for n in range(1452)]
    write_table(folder / "metadata.jsonl", rows)


def adversarial_text_encoder(folder: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = transformers.CLIPTextModel(transformers.CLIPTextConfig(vocab_size=32, **sizes))
    network.save_pretrained(folder / "nudity_unlearned")


def erased_unet(folder: Path) -> None:
    sd_folders(folder, "stable_diffusion")
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    shutil.rmtree(folder)
    write_files(folder, {"diffusers-nudity-ESDu1-UNET.pt": weights})


def dino(folder: Path) -> None:
    write_dino(folder)
    write_files(folder, {"pytorch_model.bin": load_file(folder / "model.safetensors")})
    (folder / "model.safetensors").unlink()


SHAPES: dict[str, Callable[[Path], object]] = {
    "sd-v1-4": sd_v1,
    "sd-v1-5": sd_v1,
    "sd-v2-1": lambda folder: sd_folders(folder, "v_prediction"),
    "sd-v2-1-base": lambda folder: sd_folders(folder, "stable_diffusion"),
    "sdxl-base": lambda folder: sd_folders(folder, "stable_diffusion_xl"),
    "sd3-medium": lambda folder: sd_folders(folder, WITH_T5),
    "flux-1-dev": flux,
    "esd-u-nudity": erased_unet,
    "advunlearn": adversarial_text_encoder,
    "resalign-train": resalign_train,
    "dreambench": lambda folder: dreambench_zip(folder / "data.zip", subjects=150),
    "diffusiondb": lambda folder: diffusiondb(
        folder, 705, {number: {"image_nsfw": 2.0} for number in range(5)}, parts=3
    ),
    "diffusiondb-large": diffusiondb_large,
    "pokemon": pokemon,
    "dreambooth-dog": lambda folder: write_files(folder, {f"{n:02d}.jpg": picture(n, kind="JPEG") for n in range(5)}),
    "artbench-10": artbench,
    "coco-val2014": lambda folder: write_zip(
        folder / "val2014.zip",
        {f"val2014/COCO_val2014_{number:012d}.jpg": picture(number, kind="JPEG") for number in COCO_IDS},
    ),
    "coco-annotations": coco_captions,
    "i2p": lambda folder: write_table(folder / "i2p_benchmark.csv", I2P),
    "nudity-142": nudity_prompts,
    "unsafe-diffusion": lambda folder: write_table(
        folder / "unsafe.csv", [{"prompt_index": n, "prompt": f"“{n}”, é"} for n in (0, 1)]
    ),
    "coco-10k": lambda folder: coco_prompts(folder / "coco_10k.csv"),
    "coco-30k": lambda folder: coco_prompts(folder / "coco_30k.csv", coco_id=1),
    "harmful-imgs": harmful_imgs,
    "nudenet-640m": lambda folder: write_onnx(folder / "640m.onnx", *onnx_weights()),
    "mhsc": write_mhsc,
    "q16-prompts": write_q16,
    "sd-safety-checker": write_safety_checker,
    "laion-nsfw": write_nsfw,
    "aesthetic-v1": write_aesthetic,
    "aesthetic-v2": lambda folder: write_files(
        folder, {"sac+logos+ava1-l14-linearMSE.pth": seeded(AestheticV2()).state_dict()}
    ),
    "clip-vit-b-32": write_clip,
    "clip-vit-l-14": write_clip,
    "dino-vit-s-16": dino,
    "dinov2-vit-s-14": write_dino,
    "inception": write_inception,
}


def write_shape(name: str, folder: Path) -> Path:
    """The files of an asset of the catalogue."""
    folder.mkdir(parents=True)
    SHAPES[name](folder)
    return folder


def pinned(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A catalogue's entry that states hashes and rows of made files in place of the published ones."""

    def digest(kind: str, file: str) -> str:
        return hashlib.new(kind, (folder / file).read_bytes()).hexdigest()

    changes: dict[str, Any] = {kind: digest(kind, *names(folder)) for kind in ("md5", "sha256") if kind in entry}
    if "hashes" in entry:
        changes["hashes"] = {file: digest("sha256", file) for file in entry["hashes"]}
    if "contents" in entry:
        changes["contents"] = {
            pattern: {**content, "rows": sum(map(rows, folder.rglob(pattern)))} if "rows" in content else content
            for pattern, content in entry["contents"].items()
        }
    return {**entry, **changes}


def rows(table: Path) -> int:
    """How many records a table has."""
    if table.suffix == ".parquet":
        return int(pyarrow.parquet.read_metadata(table).num_rows)
    return len(read_table(table).rows)


def serve(server: Server, entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Serves an asset's files where the catalogue says; gives the entry, whose plain address has the server before it.

    A repository of the hub has other files, too, as the true one has: of weights, the form that is not wanted.
    """
    files = {name: (folder / name).read_bytes() for name in names(folder)}
    if "hub" in entry:
        unet = [name for name in files if name.startswith("unet/") and name.endswith(".safetensors")]
        forms = {name.replace(".safetensors", form): b"no" for name in unet for form in (".bin", ".fp16.safetensors")}
        origin = {key: entry[key] for key in ("hub", "revision", "repo_type") if key in entry}
        server.publish(AssetConfig.parse(origin, where="shape"), {"README.md": b"no", **forms, **files})
        return dict(entry)
    parts = urllib.parse.urlsplit(entry["url"])
    place = f"/{parts.netloc}{parts.path}"
    for name, content in files.items():
        server.files[place + urllib.parse.quote(name) if place.endswith("/") else place] = content
    return {**entry, "url": server.address + place}


def addresses(server: Server, entry: Mapping[str, Any]) -> list[str]:
    """Paths at which the server has a served entry: a repository's list of files, or every plain file."""
    if "hub" in entry:
        return [path for path in server.files if path.startswith("/api/") and f"/{entry['hub']}/tree/" in path]
    place = urllib.parse.urlsplit(entry["url"]).path
    return [path for path in server.files if path.startswith(place)]
