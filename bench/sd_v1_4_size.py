r"""Sampling, scoring, attack and unlearning on a pipeline of Stable Diffusion v1.4's size, without its weights.

    python bench/sd_v1_4_size.py WORLD         a step of the row `resalign` and all else on the CPU, 64 x 64 pixels
    sh bench/gpu.sh WORLD                      both rows of ResAlign and 16 images at 512 pixels on a GPU

A pipeline of v1.4's exact architecture (860 M parameters in the UNet) is written to WORLD with random weights, 4.3 GB,
and the workflow's own stages run on it with the settings of config/config.yaml; only numbers of steps, images and
prompts are others, and on a CPU the attack's optimizer and sampling's precision. Seconds and peak memory of each are
printed. WORLD/rates.csv has them as rows of config/rates.csv, which takes one row of each member: of two rows of
ResAlign, one. What the stages make shows nothing, and says nothing of safety.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resalign.accounting.rates import GPUS, RATES, read_gpus
from resalign.config.experiment import BASE, Experiment
from resalign.config.passes import Passes
from resalign.config.plan import Plan
from resalign.config.strict import read_yaml
from resalign.jobs.attack import AttackJob
from resalign.jobs.sample import SampleJob
from resalign.jobs.score import ScoreJob
from resalign.jobs.unlearn import UnlearnJob
from resalign.objectives.simulation import Configuration
from resalign.unlearning.resalign import Config

ROOT = Path(__file__).resolve().parents[1]
PAPER = read_yaml(ROOT / "config" / "config.yaml")
NAME = "sd-v1-4-size"
STAGES = ["sample", "score", "attack", "unlearn"]
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
SIZE = "sd-v1-4"  # whose rates they are
UNET_PARAMETERS = 859_520_964
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
IMAGES = 16  # of a few captions each
CAPTIONS = ("a photo of a dog", "a photo of a cat", "a red house", "a boat on a lake")


@dataclass(frozen=True)
class Measured:
    """One job that is measured.

    Attributes:
        stage, member: As config/rates.csv names them.
        label: The row of an unlearning, else the stage.
        text, folder, modules: Arguments of the stage's script; the folder is in the world.
    """

    stage: str
    member: str
    label: str
    text: str
    folder: str
    modules: tuple[str, ...] = ()


def main() -> None:
    """Writes the world, runs the stages on it and prints what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="folder for the pipeline, images, results, logs and rates")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of training")
    parser.add_argument("--rows", nargs="+", choices=PAPER["unlearning"], default=["resalign"])
    parser.add_argument("--outer-steps", type=int, default=1, help="of each row; the first bears what is done once")
    parser.add_argument("--attack-steps", type=int, default=1)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e4, help="after which a job is cut off, and none begins")
    arguments = parser.parse_args()
    deadline, world = time.monotonic() + 60 * arguments.minutes, arguments.world.resolve()
    write_pipeline(world / "pipeline", arguments.pixels)
    for seed, name in enumerate(("images", "heldout", "retain")):
        write_images(world / name, arguments.pixels, seed)
    (world / "prompts.csv").write_text("id,prompt,label\n" + "".join(f"{i},{c},\n" for i, c in enumerate(CAPTIONS)))
    plan, rows, failed = Plan(Experiment(experiment(world, arguments), where="bench")), [], False
    print("| job | steps | first step, s | later step, s | whole job, s | GPU GiB | GiB | draws halved | replaced |")
    print("|---|---|---|---|---|---|---|---|---|")
    for job in measured(plan, arguments.stages):
        fault = run(job, world, arguments.threads, deadline)
        failed = failed or bool(fault)
        if fault:
            print(f"| {job.label} | {fault} |", flush=True)
            continue
        record = json.loads((world / job.folder / "timing.json").read_text())
        print_record(job, record, rejected(world, job))
        setting = f"{arguments.pixels} pixels, {arguments.precision}, random weights"
        rows.append(rate(plan, world, job, record, setting))
        with (world / RATES.name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    sys.exit(failed)


def measured(plan: Plan, stages: list[str]) -> list[Measured]:
    """Sampling, scoring and the attack of the base model, then every unlearning, as far as the stages are asked for."""
    experiment, tier = plan.experiment, plan.tier
    found = {
        (stage.stage, stage.label): stage for of in (plan.sample, plan.score, plan.attack) for stage in of.values()
    }
    sample, score, attack = found["sample", BASE], found["score", BASE], found["attack", f"{BASE}.full"]
    image, member = f"{experiment.config.sampling.image_format} images", experiment.attacks["full"].name
    texts = [of.of(plan, stage, "0", tier).text() for of, stage in ((SampleJob, sample), (ScoreJob, score))]
    jobs = [
        Measured("sample", image, "sample", texts[0], f"{sample.folder(0)}/{tier}"),
        Measured("score", "images", "score", texts[1], f"{score.folder(0)}/{tier}", score.modules),
        Measured("attack", member, "attack", AttackJob.of(plan, attack, "0").text(), attack.folder(0), attack.modules),
    ]
    for stage in plan.unlearn.values():
        text, member = UnlearnJob.of(plan, stage).text(), experiment.unlearning[stage.model].name
        jobs.append(Measured("unlearn", member, stage.label, text, stage.folder(0), stage.modules))
    return [job for job in jobs if job.stage in stages]


def run(job: Measured, world: Path, threads: int, deadline: float) -> str:
    """Runs a job from its beginning; what became of it in words where it failed, else ''."""
    left = deadline - time.monotonic()
    if left <= 0:
        return "not begun: no time was left"
    for folder in (job.folder, f"results/.state/{Path(job.folder).relative_to('results')}"):
        shutil.rmtree(world / folder, ignore_errors=True)
    command = [sys.executable, str(ROOT / "scripts" / f"{job.stage}.py"), "--job", job.text, "--threads", str(threads)]
    log = world / f"{job.label}.log"
    with log.open("w") as file:
        try:
            command += ["--output", job.folder, "--modules", *job.modules]
            subprocess.run(command, cwd=world, stderr=file, timeout=left, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            ended = "failed" if isinstance(error, subprocess.CalledProcessError) else "cut off"
            return ": ".join([ended, *log.read_text().splitlines()[-2:]])  # a bar tells what a step took
    return ""


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


def experiment(world: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The paper's experiment with random weights, images of noise and few steps."""
    on_gpu, rows, sampling = arguments.device == "cuda", PAPER["unlearning"], PAPER["sampling"]
    attack = next(iter(PAPER["attacks"].values())) | {"train": "images", "heldout": "heldout"}
    attack |= {"steps": arguments.attack_steps}
    if not on_gpu:
        attack |= {"optimizer": "sgd"}  # without moments, for which a small machine has no memory
        sampling = sampling | {"num_inference_steps": 2, "precision": "float32"}
    once = {"training_seeds": [0], "prompts": {"few": {"prompts": len(CAPTIONS), "images": IMAGES // len(CAPTIONS)}}}
    device = {"threads": arguments.threads, "device": arguments.device, "gpu": int(on_gpu), "mem_mb": 18_000}
    training = {**device, "gradient_checkpointing": arguments.gradient_checkpointing}
    sets = {"forget": "images", "retain": "retain", "pool": "images", "prior": "retain"}
    folders = {"model": "pipeline", "images": "images", "heldout": "heldout", "retain": "retain", "prompts": "."}
    return {
        "name": NAME,
        "title": "Stable Diffusion v1.4's size",
        "pixels": arguments.pixels,
        "precision": arguments.precision,
        "assets": {name: {"path": str(world / folder)} for name, folder in folders.items()},
        "model": "model",
        "concept": PAPER["concept"] | sets,
        "unlearning": {row: rows[row] | {"steps": arguments.outer_steps} for row in arguments.rows},
        "attacks": {"full": attack},
        "prompts": {"few": {"source": "prompts/prompts.csv"}},
        "sampling": sampling,
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


def drawn(config: Config, step: int) -> list[Configuration]:
    """The fine-tunings that ResAlign simulates in an outer step, counted from 0, with training seed 0."""
    from resalign.contracts import Run

    run = Run(0)
    chosen = config.simulation.chosen(config.draws, run.generator("resalign", "configurations", step))
    return [
        config.simulation.drawn(run.generator("resalign", "simulation", step, draw), configuration)
        for draw, configuration in enumerate(chosen)
    ]


def passes(config: Config, draws: list[Configuration]) -> Passes:
    """Of an outer step, in the mean over these draws; without those that are tried again."""
    simulation = config.simulation.model_copy(update={"configurations": tuple(draws)})
    return config.model_copy(update={"simulation": simulation}).denoiser_passes


def rejected(world: Path, job: Measured, after: int = 0) -> tuple[str, str]:
    """How many of ResAlign's draws were tried again, accepted in the end or not, from a step on; dashes of no row."""
    if job.member != "resalign":
        return "–", "–"
    with (world / job.folder / "history.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) >= after]
    counts = [
        sum(float(r["value"]) for r in rows if r["quantity"] == f"{kind}_draws") for kind in ("halved", "replaced")
    ]
    return f"{counts[0]:g}", f"{counts[1]:g}"


def later_seconds(record: dict[str, Any]) -> float | None:
    """Of a step after the first, in the mean."""
    later = record["steps"] - 1
    return (record["step_seconds"] - record["first_step_seconds"]) / later if later > 0 else None


def rate(plan: Plan, world: Path, job: Measured, record: dict[str, Any], setting: str) -> dict[str, str]:
    """A job as a row of config/rates.csv: the row that is there, with what was measured in its place."""
    with (ROOT / RATES).open(encoding="utf-8", newline="") as file:
        known = {
            row["member"]: row for row in csv.DictReader(file) if (row["model"], row["stage"]) == (SIZE, job.stage)
        }
    row = {**(known.get(job.member) or known["*"]), "member": job.member}
    later, source = later_seconds(record), f"{job.label}, {setting}"
    seconds = record["first_step_seconds"] if later is None else later
    if job.stage in ("sample", "score"):
        seconds, source = record["step_seconds"] / IMAGES, f"{source}, {IMAGES} images"
    elif job.member == "resalign":
        config, begun = plan.experiment.unlearning[job.label].config, int(later is not None)
        draws = [configuration for step in range(begun, record["steps"]) for configuration in drawn(config, step)]
        halved, replaced = rejected(world, job, begun)
        found = passes(config, draws)
        row |= {"gradient_passes": f"{found.gradient:g}", "forward_passes": f"{found.forward:g}"}
        source += f", {'; '.join(map(str, draws))}: {halved} draws halved, {replaced} replaced"
    names = [gpu.name for gpu in read_gpus(ROOT / GPUS).values()]
    return row | {
        "seconds": f"{seconds:.3g}",
        "start_seconds": f"{record['start_seconds'] + record['seconds'] - record['step_seconds']:.3g}",
        "device": next((n for n in names if set(n.split()) <= set(record["device"].split())), record["device"]),
        "source": f"dev/LOG.md {datetime.date.today()}: {source}",
    }


def print_record(job: Measured, record: dict[str, Any], rejections: tuple[str, str]) -> None:
    """One row for a job."""
    later = later_seconds(record)
    seconds = [
        f"{record['first_step_seconds']:.2f}",
        "–" if later is None else f"{later:.2f}",
        f"{record['seconds']:.1f}",
    ]
    gpu = f"{record['peak_gpu_memory_mb'] / 1024:.1f}" if "peak_gpu_memory_mb" in record else "–"
    columns = [job.label, str(record["steps"]), *seconds, gpu, f"{record['peak_memory_mb'] / 1024:.1f}", *rejections]
    print("| " + " | ".join(columns) + " |", flush=True)


if __name__ == "__main__":
    main()
