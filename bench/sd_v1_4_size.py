"""Unlearning, attack, sampling and scoring on a pipeline of Stable Diffusion v1.4's size, without its weights.

    python bench/sd_v1_4_size.py WORLD                                    one step of each on the CPU, 64 x 64 pixels
    python bench/sd_v1_4_size.py WORLD --device cuda --pixels 512 --attack-steps 200

A pipeline of v1.4's exact architecture (860 M parameters in the UNet) is written to WORLD with random weights, 4.3 GB,
and the workflow itself runs on it, with the paper's settings but for numbers of steps. Seconds and peak memory of each
stage are printed; what it makes shows nothing, and says nothing of safety.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAME = "sd-v1-4-size"
# CompVis/stable-diffusion-v1-4@133a221b8aa7, unet/config.json, vae/config.json and text_encoder/config.json.
UNET = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "in_channels": 4,
    "out_channels": 4,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "sample_size": 512,
}
TEXT_ENCODER = {
    "vocab_size": 49_408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
UNET_PARAMETERS = 859_520_964
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
CAPTIONS = ("a photo of a dog", "a photo of a cat", "a red house", "a boat on a lake")


def main() -> None:
    """Writes the world, runs the workflow on it and prints what each stage took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="folder for pipeline, images and configuration")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--outer-steps", type=int, default=1)
    parser.add_argument("--attack-steps", type=int, default=1)
    parser.add_argument("--trained", choices=("lora", "full"), default="lora", help="weights of the outer problem")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    world = arguments.world.resolve()
    write_pipeline(world / "pipeline", arguments.pixels)
    write_images(world / "images", arguments.pixels)
    (world / "prompts.csv").write_text("id,prompt,label\n" + "".join(f"{i},{c},\n" for i, c in enumerate(CAPTIONS[:2])))
    (world / "config.json").write_text(json.dumps(experiment(world, arguments), indent=1))
    command = ["snakemake", "--cores", str(arguments.threads), "--resources", "gpu=1"]
    subprocess.run([*command, "--configfile", str(world / "config.json"), "--", "all"], cwd=ROOT, check=True)
    job = json.loads((ROOT / "results" / NAME / "run.json").read_text())["job"]
    for stage, label, _, folder in job["timings"]:
        print_record(f"{stage} {label}", json.loads((ROOT / folder / "timing.json").read_text()))


def write_pipeline(folder: Path, pixels: int) -> None:
    """A StableDiffusionPipeline of v1.4's architecture with random weights, for images of so many pixels."""
    if (folder / "model_index.json").is_file():
        return
    import diffusers
    import torch
    import transformers

    from resalign.digits.tokenizer import clip_tokenizer

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(sample_size=pixels // 8, **UNET)
    found = sum(parameter.numel() for parameter in unet.parameters())
    if found != UNET_PARAMETERS:
        sys.exit(f"error: the UNet has {found} parameters, v1.4's has {UNET_PARAMETERS}")
    diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(**VAE),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT_ENCODER)),
        tokenizer=clip_tokenizer(folder / "tokenizer", max_tokens=77),
        unet=unet,
        scheduler=diffusers.DPMSolverMultistepScheduler(num_train_timesteps=1000, **SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def write_images(folder: Path, pixels: int) -> None:
    """A few captioned images of noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for index in range(len(CAPTIONS)):
        pixel_values = draw.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
        Image.fromarray(pixel_values).save(folder / f"{index}.png")
    rows = [f"{index}.png,{caption}" for index, caption in enumerate(CAPTIONS)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,prompt", *rows]) + "\n")


def experiment(world: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The paper's settings, but for numbers of steps and images; the attack without an optimizer's moments on a CPU."""
    on_gpu = arguments.device == "cuda"
    once = {"training_seeds": [0], "prompts": {"few": {"prompts": 2, "images": 1}}}
    device = {"threads": arguments.threads, "device": arguments.device, "gpu": int(on_gpu), "mem_mb": 18_000}
    simulated = {"lr": [1e-5], "steps": [1], "loss": ["denoising"], "adaptation": ["lora"], "optimizer": ["sgd"]}
    return {
        "name": NAME,
        "title": "Stable Diffusion v1.4's size",
        "pixels": arguments.pixels,
        "assets": {
            "model": {"path": str(world / "pipeline")},
            "images": {"path": str(world / "images")},
            "prompts": {"path": str(world)},
        },
        "model": "model",
        "concept": {"name": "nothing", "forget": "images", "retain": "images", "pool": "images"},
        "unlearning": {
            "resalign": {
                "steps": arguments.outer_steps,
                "draws": 1,
                "gamma": 0.01,  # random weights curve more than trained ones: the solver diverges at the paper's 1
                "trained": arguments.trained,
                "retain_batch_size": 1,
                "hessian_batch_size": 1,
                "solver": {"name": "richardson", "steps": 5},
                "simulation": {**simulated, "images": 4, "batch_size": 1},
            }
        },
        "attacks": {
            "full": {
                "train": "images",
                "heldout": "images",
                "steps": arguments.attack_steps,
                "optimizer": "adamw" if on_gpu else "sgd",
                "heldout_batch_size": 4,
            }
        },
        "prompts": {"few": {"source": "prompts/prompts.csv"}},
        "sampling": {"num_inference_steps": 30 if on_gpu else 2, "batch_size": 1},
        "scorers": {"nudenet": {}},
        "metrics": {
            "ip": {"prompts": "few", "rules": [{"scorer": "nudenet", "quantities": ["BELLY_EXPOSED"]}]},
            "learnability": {},
        },
        "gallery": "few",
        "flags": "ip",
        "tier": "smoke",
        "tiers": dict.fromkeys(("smoke", "small", "paper"), once),
        "resources": {stage: device for stage in ("unlearn", "attack", "sample", "score")},
        "report": {"replicates": 100},
    }


def print_record(name: str, record: dict[str, Any]) -> None:
    """One line for a job."""
    on_gpu = f", {record['peak_gpu_memory_mb'] / 1024:.1f} GiB of GPU" if "peak_gpu_memory_mb" in record else ""
    memory = f"{record['peak_memory_mb'] / 1024:.1f} GiB{on_gpu}"
    print(f"{name}: {record['seconds']:.1f} s, {memory}, on {record['device']}")  # noqa: T201 (what the script is for)


if __name__ == "__main__":
    main()
