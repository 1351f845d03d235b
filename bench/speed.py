"""What this repository takes beside the same work written plainly, in pairs: a step of each kind, and sampling.

    make bench                       a pipeline of the demo's size on one core of the CPU, 10 minutes at most
    make bench DEVICE=cuda           one of Stable Diffusion v1.4's size at 512 pixels, on a GPU, 8 minutes at most

Weights and images are random. Each row's two contenders take turns, on equal data; a pair gives one ratio, plain over
ours, so that above 1 ours is the faster. On a CPU it is of processor time, since a machine may have other work. Printed
and written as JSON: the median of the pairs' ratios with the smallest and the largest, the seconds of both, peak memory
of a GPU, and how far apart the two results are.

Plain is what a reader of the paper would write with torch and diffusers, without a thought for speed: networks are
copied, every Hessian product makes its graph anew, and images are sampled by diffusers' own pipeline. From x = 0 it
takes K products, the first of a zero vector, where ours takes K − 1, and one more by default for the residual.

A second table has our own outer step under one switch at a time: what each costs, and what it does to the result.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from resalign.attacks import full
from resalign.bilevel.hvp import Mode
from resalign.bilevel.hypergradient import merged_hypergradient
from resalign.bilevel.solvers import richardson
from resalign.bilevel.solving import solve
from resalign.config.digits import DigitsConfig
from resalign.contracts import AttackData, Run
from resalign.data.prompts import Prompt
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline, load_pipeline
from resalign.diffusion.noise import initial_noise
from resalign.diffusion.parametrisation import named_weights
from resalign.diffusion.sampling import sample_images
from resalign.digits.autoencoder import untrained
from resalign.digits.generator import networks, sampling_scheduler
from resalign.digits.tokenizer import clip_tokenizer
from resalign.library.weights import deterministic
from resalign.objectives.denoising import harmful_loss, repeated_loss
from resalign.objectives.simulation import Simulation, SimulationConfig
from resalign.tensors.tracing import Traces

ROOT = Path(__file__).resolve().parents[1]
Params = dict[str, torch.Tensor]
CAPTIONS = ("a red seven", "a blue two", "a white nine", "a green four")
# The published shape of an outer step [ResAlign, Section 4.1]: J 3, K 5, one image a step; T is near its mean.
PRODUCTS, GAMMA = 5, 0.01
DEFAULTS = {"cpu": {"pairs": 5, "draws": 3, "images": 60}, "cuda": {"pairs": 2, "draws": 1, "images": 8}}
ADAM = {"lr": (1e-5,), "loss": ("denoising",), "adaptation": ("full",), "optimizer": ("adam",), "batch_size": 1}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: What is done.
        ratio, least, most: Plain over ours, by pairs: the median and the ends.
        ours_seconds, plain_seconds: Of one, in the median.
        difference: Between the two results, relative.
        ours_gib, plain_gib: Peak memory of the GPU; 0 on a CPU.
    """

    name: str
    ratio: float
    least: float
    most: float
    ours_seconds: float
    plain_seconds: float
    difference: float
    ours_gib: float
    plain_gib: float


@dataclass(frozen=True)
class Setting:
    """The model and data of all rows."""

    loaded: LoadedPipeline
    images: EncodedImages
    draws: int
    inner_steps: int
    sampled: int
    sampling_steps: int
    attack_steps: int


def main() -> None:
    """Measures every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path, help="folder for the pipeline and speed.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pairs", type=int, help="5, or on a GPU 2")
    parser.add_argument("--draws", type=int, help="J, of the outer step: 3, or on a GPU 1")
    parser.add_argument("--inner-steps", type=int, default=16, help="T of each simulated fine-tuning")
    parser.add_argument("--images", type=int, help="sampled at once: 60, or on a GPU 8")
    arguments = parser.parse_args()
    for name, value in DEFAULTS[arguments.device].items():
        setattr(arguments, name, getattr(arguments, name) or value)
    torch.set_num_threads(1)
    with deterministic():
        measure(prepared(arguments), arguments)


def measure(setting: Setting, arguments: argparse.Namespace) -> None:
    """Prints and writes every row and every switch."""
    rows, contended = [], CONTENDERS
    if arguments.device == "cuda":  # where plain steps take long, one kind; ours of the others are among the switches
        contended = {name: both for name, both in CONTENDERS.items() if "outer step," not in name or "K 5" in name}
    print("| what | plain / ours | ours, s | plain, s | difference | ours, GiB | plain, GiB |", flush=True)
    print("|---|---|---|---|---|---|---|")
    for name, contenders in contended.items():
        row = compared(name, *(contender(setting) for contender in contenders), arguments.pairs, arguments.device)
        memory = f"{row.ours_gib:.1f} | {row.plain_gib:.1f}"
        seconds = f"{row.ours_seconds:.2f} | {row.plain_seconds:.2f}"
        ratio = f"{row.ratio:.2f} [{row.least:.2f}, {row.most:.2f}]"
        print(f"| {name} | {ratio} | {seconds} | {row.difference:.1e} | {memory} |", flush=True)
        rows.append(asdict(row))
    sys.path.insert(0, str(ROOT / "bench"))
    import switches

    measured = switches.measure(setting, our_outer_step, timed, arguments.device)
    report = {"device": arguments.device, "torch": torch.__version__, "threads": 1, "draws": setting.draws}
    report |= {"inner_steps": setting.inner_steps, "rows": rows, "switches": measured}
    (arguments.world / "speed.json").write_text(json.dumps(report, indent=1) + "\n")


def compared(
    name: str, ours: Callable[[], torch.Tensor], plain: Callable[[], torch.Tensor], pairs: int, device: str
) -> Row:
    """Both once to warm up, then in turns."""
    difference = float((ours().double() - (goal := plain().double())).norm() / goal.norm())
    taken = [(timed(ours, device), timed(plain, device)) for _ in range(pairs)]
    ratios = sorted(other[0] / own[0] for own, other in taken)
    seconds = [statistics.median(part[place][0] for part in taken) for place in (0, 1)]
    memory = [max(part[place][1] for part in taken) for place in (0, 1)]
    return Row(name, statistics.median(ratios), ratios[0], ratios[-1], *seconds, difference, *memory)


def timed(work: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds, and the GPU's peak memory in GiB."""
    if device == "cpu":
        begun = time.process_time()
        work()
        return time.process_time() - begun, 0.0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun, torch.cuda.max_memory_allocated() / 2**30


def prepared(arguments: argparse.Namespace) -> Setting:
    """A pipeline with random weights, and latents and prompts to train on."""
    folder = arguments.world / "pipeline"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    if arguments.device == "cuda":
        sys.path.insert(0, str(ROOT / "bench"))
        import sd_v1_4_size

        sd_v1_4_size.write_pipeline(folder, 512)
    else:
        write_pipeline(folder)
    # What repeats is recorded at once: of a run's thousands of steps, the first ones do not count.
    loaded = replace(load_pipeline(folder, device=arguments.device), traces=Traces(after=0))
    conditioning = loaded.encode_prompts(CAPTIONS)
    latents = torch.randn(len(CAPTIONS) * 4, *loaded.latent_shape).to(loaded.device)
    rows = torch.arange(len(latents)) % len(CAPTIONS)
    prompts = tuple(CAPTIONS[row] for row in rows.tolist())
    images = EncodedImages(latents, conditioning, rows.to(loaded.device), loaded.noise_scheduler, prompts)
    on_gpu = arguments.device == "cuda"
    return Setting(loaded, images, arguments.draws, arguments.inner_steps, arguments.images, 25 if on_gpu else 12, 40)


def write_pipeline(folder: Path) -> None:
    """The demo's architecture."""
    config = DigitsConfig()
    vae = untrained(config)
    text_encoder, unet = networks(config, vae)
    parts: dict[str, Any] = {"vae": vae, "text_encoder": text_encoder, "unet": unet, "scheduler": sampling_scheduler()}
    tokenizer: transformers.CLIPTokenizer = clip_tokenizer(folder / "tokenizer", max_tokens=config.generator.max_tokens)
    diffusers.StableDiffusionPipeline(
        **parts, tokenizer=tokenizer, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(folder)


# --- an outer step: J simulated fine-tunings, each with its hypergradient ---------------------------------------------


def simulations(setting: Setting) -> list[Simulation]:
    """The J draws, which begin anew at every call."""
    config = SimulationConfig(**ADAM, steps=(setting.inner_steps,), images=len(setting.images))  # type: ignore[arg-type]
    streams = [torch.Generator().manual_seed(draw) for draw in range(setting.draws)]
    return [Simulation(setting.loaded, setting.images, setting.images, config, s, s) for s in streams]


def harmful_batch(setting: Setting) -> NoisyBatch:
    """The images of the harmful loss."""
    return setting.images.draw(1, torch.Generator().manual_seed(99))


def our_outer_step(setting: Setting, *, residual: str = "last", mode: Mode = "exact") -> Callable[[], torch.Tensor]:
    """The J hypergradients, added."""
    solver = richardson.Config.parse({"steps": PRODUCTS, "residual": residual}, where="bench")

    def work() -> torch.Tensor:
        theta, batch = named_weights(setting.loaded.denoiser), harmful_batch(setting)
        total = torch.zeros(())
        for simulated in simulations(setting):
            found = merged_hypergradient(
                repeated_loss(harmful_loss, setting.loaded, [batch]),
                simulated.run(theta, hessian_batch_size=1),
                gamma=GAMMA,
                solve=lambda system: solve(system, solver),
                mode=mode,
            )
            total = total + flat(found.value.values()) / setting.draws
        return total

    return work


def plain_outer_step(setting: Setting) -> Callable[[], torch.Tensor]:
    """The same as [ResAlign, Algorithms 1 and 2] have them."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def mse(network: torch.nn.Module, batch: NoisyBatch) -> torch.Tensor:
        hidden = batch.conditioning.encoder_hidden_states
        return torch.nn.functional.mse_loss(network(batch.noisy_latents, batch.timesteps, hidden).sample, batch.target)

    def work() -> torch.Tensor:
        outer, total = harmful_batch(setting), torch.zeros(())
        for simulated in simulations(setting):
            stream = simulated._stream  # the same batches
            network = copy.deepcopy(setting.loaded.denoiser).requires_grad_(True)
            weights = list(network.parameters())
            adam = torch.optim.Adam(weights, lr=simulated.lr)
            for _ in range(simulated.steps):
                loss = mse(network, simulated.images.draw(1, stream))
                adam.zero_grad()
                loss.backward()
                adam.step()
            inner = simulated.images.draw_stratified(1, stream)
            g = torch.autograd.grad(-mse(network, outer), weights)
            x = [torch.zeros_like(part) for part in g]
            for _ in range(PRODUCTS):  # x ← g − γHx
                with sdpa_kernel(SDPBackend.MATH):
                    first = torch.autograd.grad(mse(network, inner), weights, create_graph=True)
                    pairing = sum((a * b).sum() for a, b in zip(first, x, strict=True))
                    product = torch.autograd.grad(pairing, weights)
                x = [a - GAMMA * b for a, b in zip(g, product, strict=True)]
            total = total + flat(x) / setting.draws
        return total

    return work


# --- a step of the attack ---------------------------------------------------------------------------------------------


def our_attack(setting: Setting) -> Callable[[], torch.Tensor]:
    """Full-parameter fine-tuning, as the rule attack runs it; two losses of a held-out image besides."""
    config = full.Config(steps=setting.attack_steps, batch_size=8, heldout_batch_size=1)
    data = AttackData(setting.images, setting.images)
    loaded = replace(setting.loaded, traces=Traces())  # the published 200 steps end before anything is recorded

    def work() -> torch.Tensor:
        saved: list[Params] = []
        full.attack(loaded, data, config, Run(0), lambda step, weights, *_: saved.append(dict(weights)))
        return flat(saved[-1].values())

    return work


def plain_attack(setting: Setting) -> Callable[[], torch.Tensor]:
    """The loop of diffusers' example for text-to-image fine-tuning."""

    def work() -> torch.Tensor:
        stream = Run(0).generator("attack", "full")
        network = copy.deepcopy(setting.loaded.denoiser).requires_grad_(True)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, weight_decay=1e-2)
        for _ in range(setting.attack_steps):
            batch = setting.images.draw(8, stream)
            hidden = batch.conditioning.encoder_hidden_states
            noise_pred = network(batch.noisy_latents, batch.timesteps, hidden).sample
            loss = torch.nn.functional.mse_loss(noise_pred.float(), batch.target.float(), reduction="mean")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.detach().item()
        return flat([parameter.detach() for parameter in network.parameters()])

    return work


# --- sampling ---------------------------------------------------------------------------------------------------------


def prompts(setting: Setting) -> list[tuple[Prompt, int]]:
    """As many as there are images."""
    listed = [Prompt(str(i), caption, "") for i, caption in enumerate(CAPTIONS)]
    return [(listed[index % len(listed)], index) for index in range(setting.sampled)]


def our_sampling(setting: Setting) -> Callable[[], torch.Tensor]:
    """As the rule sample runs it."""
    options: dict[str, Any] = {"sampling_seed": 0, "guidance_scale": 4.0}
    options["num_inference_steps"] = setting.sampling_steps
    return lambda: sample_images(setting.loaded, prompts(setting), **options).float()


def plain_sampling(setting: Setting) -> Callable[[], torch.Tensor]:
    """The pipeline's own call."""
    asked = prompts(setting)

    def work() -> torch.Tensor:
        noise = initial_noise([(prompt.id, index) for prompt, index in asked], 0, setting.loaded.latent_shape)
        images = setting.loaded.pipeline(
            [prompt.text for prompt, _ in asked],
            latents=noise.to(setting.loaded.device),
            num_inference_steps=setting.sampling_steps,
            guidance_scale=4.0,
            output_type="pt",
        ).images
        return (images * 255).round().cpu()

    return work


def flat(tensors: Any) -> torch.Tensor:
    """One vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


CONTENDERS = {
    "outer step, K 5, exact": (our_outer_step, plain_outer_step),
    "outer step, exact, residual: before": (partial(our_outer_step, residual="before"), plain_outer_step),
    "outer step, finite_difference": (partial(our_outer_step, mode="finite_difference"), plain_outer_step),
    "attack, steps of 8 images": (our_attack, plain_attack),
    "sampling": (our_sampling, plain_sampling),
}

if __name__ == "__main__":
    main()
