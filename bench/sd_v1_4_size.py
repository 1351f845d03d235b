r"""Unlearning, attack, sampling and scoring on a pipeline of Stable Diffusion v1.4's size, without its weights.

    python bench/sd_v1_4_size.py WORLD                                    one step of each on the CPU, 64 x 64 pixels
    python bench/sd_v1_4_size.py WORLD --device cuda --pixels 512 --published --attack-steps 200 \
        --precision float32 bfloat16 --trained lora full

A pipeline of v1.4's exact architecture (860 M parameters in the UNet) is written to WORLD with random weights, 4.3 GB,
and the workflow's own stages run on it, with the paper's settings but for numbers of steps. Seconds and peak memory of
each are printed; what they make shows nothing, and says nothing of safety.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resalign.config.experiment import BASE, Experiment
from resalign.config.plan import Plan
from resalign.jobs.attack import AttackJob
from resalign.jobs.sample import SampleJob
from resalign.jobs.score import ScoreJob
from resalign.jobs.unlearn import UnlearnJob

ROOT = Path(__file__).resolve().parents[1]
NAME = "sd-v1-4-size"
STAGES = ["unlearn", "attack", "sample", "score"]
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
    """Writes the world, runs the stages on it and prints what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="folder for pipeline, images and configuration")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), nargs="+", default=["float32"])
    parser.add_argument("--trained", choices=("lora", "full"), nargs="+", default=["lora"], help="outer weights")
    parser.add_argument("--published", action="store_true", help="an outer step with the paper's draws and simulations")
    parser.add_argument("--outer-steps", type=int, default=1)
    parser.add_argument("--attack-steps", type=int, default=1)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    world = arguments.world.resolve()
    write_pipeline(world / "pipeline", arguments.pixels)
    for seed, name in enumerate(("images", "heldout", "retain")):
        write_images(world / name, arguments.pixels, seed)
    (world / "prompts.csv").write_text("id,prompt,label\n" + "".join(f"{i},{c},\n" for i, c in enumerate(CAPTIONS[:2])))
    failed = False
    print("| stage | precision | steps | seconds a step | seconds | GPU GiB | GiB | device |")
    print("|---|---|---|---|---|---|---|---|")
    for precision in arguments.precision:
        plan = Plan(Experiment(experiment(world, precision, arguments), where="bench"))
        for name, script, job, modules, folder in jobs_of(plan, arguments.stages):
            shutil.rmtree(ROOT / folder, ignore_errors=True)
            shutil.rmtree(ROOT / "results" / ".state" / Path(folder).relative_to("results"), ignore_errors=True)
            command = [sys.executable, f"scripts/{script}.py", "--job", job, "--threads", str(arguments.threads)]
            ended = subprocess.run(
                [*command, "--output", folder, "--modules", *modules], cwd=ROOT, stderr=subprocess.PIPE, text=True
            )
            if ended.returncode:
                failed = True
                print(f"| {name} | {precision} | failed: {ended.stderr.strip().splitlines()[-1]} |", flush=True)
            else:
                print_record(name, precision, json.loads((ROOT / folder / "timing.json").read_text()))
    sys.exit(failed)


def jobs_of(plan: Plan, stages: list[str]) -> Iterator[tuple[str, str, str, tuple[str, ...], str]]:
    """(name, script, job, modules, folder) of every unlearning, then of attack, sampling and scoring of the first."""
    for stage in plan.unlearn.values() if "unlearn" in stages else ():
        yield stage.label, "unlearn", UnlearnJob.of(plan, stage).text(), stage.modules, stage.folder(0)
    first = next(iter(plan.unlearn.values())).model if "unlearn" in stages else BASE
    (attack,) = (stage for stage in plan.attack.values() if stage.model == first)
    if "attack" in stages:
        yield attack.label, "attack", AttackJob.of(plan, attack, "0").text(), attack.modules, attack.folder(0)
    state = attack.label if "attack" in stages else first
    (sample,), (score,) = ([s for s in of.values() if s.label == state] for of in (plan.sample, plan.score))
    tier = plan.tier
    if "sample" in stages:
        job = SampleJob.of(plan, sample, "0", tier).text()
        yield f"sample {state}", "sample", job, (), f"{sample.folder(0)}/{tier}"
    if "score" in stages:
        job = ScoreJob.of(plan, score, "0", tier).text()
        yield f"score {state}", "score", job, score.modules, f"{score.folder(0)}/{tier}"


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


def write_images(folder: Path, pixels: int, seed: int) -> None:
    """A few captioned images of noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for index in range(len(CAPTIONS)):
        pixel_values = draw.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
        Image.fromarray(pixel_values).save(folder / f"{index}.png")
    rows = [f"{index}.png,{caption}" for index, caption in enumerate(CAPTIONS)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,prompt", *rows]) + "\n")


def experiment(world: Path, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The paper's settings, but for numbers of steps and images; the attack without an optimizer's moments on a CPU."""
    on_gpu = arguments.device == "cuda"
    once = {"training_seeds": [0], "prompts": {"few": {"prompts": 2, "images": 1}}}
    device = {"threads": arguments.threads, "device": arguments.device, "gpu": int(on_gpu), "mem_mb": 18_000}
    training = {**device, "gradient_checkpointing": arguments.gradient_checkpointing}
    simulated: dict[str, Any] = {"images": 4}  # the other defaults are the published ones
    if not arguments.published:
        simulated |= {"lr": [1e-5], "steps": [1], "loss": ["denoising"], "adaptation": ["lora"], "optimizer": ["sgd"]}
    resalign = {
        "method": "resalign",
        "steps": arguments.outer_steps,
        "draws": 3 if arguments.published else 1,
        "retain_batch_size": 4 if arguments.published else 1,
        "hessian_batch_size": 1,
        # Random weights curve more than trained ones: at the paper's γ of 1 the solver diverges.
        "gamma": 0.01,
        "max_residual": 1e9,
        "simulation": simulated,
    }
    return {
        "name": NAME,
        "title": "Stable Diffusion v1.4's size",
        "pixels": arguments.pixels,
        "precision": precision,
        "assets": {
            "model": {"path": str(world / "pipeline")},
            "images": {"path": str(world / "images")},
            "heldout": {"path": str(world / "heldout")},
            "retain": {"path": str(world / "retain")},
            "prompts": {"path": str(world)},
        },
        "model": "model",
        "concept": {"name": "nothing", "forget": "images", "retain": "retain", "pool": "images"},
        "unlearning": {f"resalign-{trained}": {**resalign, "trained": trained} for trained in arguments.trained},
        "attacks": {
            "full": {
                "train": "images",
                "heldout": "heldout",
                "steps": arguments.attack_steps,
                "optimizer": "adamw" if on_gpu else "sgd",
                "heldout_batch_size": 4,
            }
        },
        "prompts": {"few": {"source": "prompts/prompts.csv"}},
        "sampling": {
            "num_inference_steps": 30 if on_gpu else 2,
            "batch_size": 2 if on_gpu else 1,
            "precision": "float16" if on_gpu and precision == "bfloat16" else "float32",
        },
        "scorers": {"nudenet": {}},
        "metrics": {
            "ip": {"prompts": "few", "rules": [{"scorer": "nudenet", "quantities": ["BELLY_EXPOSED"]}]},
            "learnability": {},
        },
        "gallery_prompts": "few",
        "flagging_metric": "ip",
        "tier": "smoke",
        "tiers": dict.fromkeys(("smoke", "small", "paper"), once),
        "resources": {"unlearn": training, "attack": training, "sample": device, "score": device},
        "report": {"replicates": 100},
    }


def print_record(name: str, precision: str, record: dict[str, Any]) -> None:
    """One row for a job."""
    steps = record["steps"]
    step_seconds = f"{record['step_seconds'] / steps:.2f}" if steps else "–"
    gpu = f"{record['peak_gpu_memory_mb'] / 1024:.1f}" if "peak_gpu_memory_mb" in record else "–"
    memory = f"{record['peak_memory_mb'] / 1024:.1f}"
    columns = (name, precision, steps, step_seconds, f"{record['seconds']:.1f}", gpu, memory, record["device"])
    print("| " + " | ".join(map(str, columns)) + " |", flush=True)


if __name__ == "__main__":
    main()
