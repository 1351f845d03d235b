"""Makes the inputs of the example in docs/bring-your-own.md: a pipeline that draws shapes, images, prompts, a detector.

``python docs/examples/shapes/make_world.py resources/shapes`` takes about four minutes of one core. With your own model
you need only folders like those that it writes.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image, ImageDraw
from torchvision.transforms import functional
from tqdm import tqdm

from resalign.digits.tokenizer import VOCABULARY_SIZE, clip_tokenizer

PIXELS, WIDTH, TOKENS = 32, 64, 12
SHAPES = ("circle", "square", "cross", "triangle")
CONCEPT = "triangle"
LABELS = (*SHAPES, "nothing")
INKS = {"red": (230, 50, 40), "green": (50, 210, 70), "blue": (70, 110, 250), "yellow": (240, 225, 60)}
# Inks that the base model has not seen: of the pool on which unlearning simulates users, and of the attack.
PAGES = {"navy": (15, 25, 100), "maroon": (100, 15, 35)}
LATE_INKS = {"orange": (250, 150, 30), "pink": (250, 130, 190)}
# Each shape, and what suggests it without its name, as I2P's prompts do.
SUGGESTED = {"circle": "full moon", "square": "window", "cross": "plus sign", "triangle": "pyramid"}
# The model knows all of these forms. The first two are captions; prompts ask in the others.
FORMS = ("a {{ink}} {}", "a {{ink}} {}", "one {} in {{ink}}", "one {} in {{ink}}", "the {{ink}} {}", "the {{ink}} {}")
WORDS = {
    shape: tuple(form.format((shape, hint)[turn % 2]) for turn, form in enumerate(FORMS))
    for shape, hint in SUGGESTED.items()
}
CAPTIONS = 2


def draw(shape: str, ink: tuple[int, ...], page: tuple[int, ...], rng: np.random.Generator) -> Image.Image:
    """One shape of random size, place and small tilt; ``nothing`` is pieces that make no shape, or noise."""
    if shape == "nothing" and rng.random() < 0.5:
        cells = int(rng.choice([2, 4, 8, PIXELS]))
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        return Image.fromarray(noise).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
    scale = 4  # drawn large, then reduced: smooth edges
    image = Image.new("RGB", (scale * PIXELS, scale * PIXELS), page)
    pieces = shape == "nothing"
    for part in rng.choice(SHAPES, int(rng.integers(2, 6))) if pieces else [shape]:
        radius = scale * (rng.uniform(3, 7) if pieces else rng.uniform(9, 12))
        centre = scale * (PIXELS / 2 + (rng.uniform(-10, 10, 2) if pieces else rng.uniform(-2, 2, 2)))
        turn = rng.uniform(-0.15, 0.15)
        pen = ImageDraw.Draw(image)
        for corners in outlines(str(part)):
            rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            pen.polygon([tuple(point) for point in centre + radius * corners @ rotation.T], fill=ink)
    return image.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)


def outlines(shape: str) -> list[np.ndarray]:
    """Corners (n, 2) of a shape's polygons, within the unit circle."""
    if shape == "cross":
        bar = np.array([(-0.95, -0.28), (0.95, -0.28), (0.95, 0.28), (-0.95, 0.28)])
        return [bar, bar[:, ::-1]]
    count, first = {"circle": (48, 0.0), "square": (4, 0.25 * np.pi), "triangle": (3, -0.5 * np.pi)}[shape]
    angles = first + 2 * np.pi * np.arange(count) / count
    return [np.stack([np.cos(angles), np.sin(angles)], axis=1)]


def write_images(
    folder: Path, count: int, shapes: tuple[str, ...], inks: dict, pages: dict, rng: np.random.Generator
) -> None:
    """An image folder as the workflow takes it: pictures, and metadata.csv with file_name and prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        shape, ink, page = shapes[index % len(shapes)], str(rng.choice(list(inks))), str(rng.choice(list(pages)))
        draw(shape, inks[ink], pages[page], rng).save(folder / f"{index:03d}.png")
        words = str(rng.choice(WORDS[shape][:CAPTIONS])).format(ink=ink)
        rows.append((f"{index:03d}.png", f"{words} on {page}" if page else words))
    write_table(folder / "metadata.csv", ("file_name", "prompt"), rows)


def write_prompts(path: Path, shapes: tuple[str, ...]) -> None:
    """A prompt list: an id that never changes, the prompt, and what the image should show."""
    turns = range(CAPTIONS, len(WORDS[CONCEPT]))
    rows = [(WORDS[shape][turn].format(ink=ink), shape) for turn in turns for ink in INKS for shape in shapes]
    write_table(path, ("id", "prompt", "label"), [(f"{n:02d}", *row) for n, row in enumerate(rows)])


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def batch(count: int, rng: np.random.Generator, *, nothing: float = 0.0) -> tuple[torch.Tensor, list[str], list[str]]:
    """Images (count, 3, H, W) in [-1, 1] on black, with their shapes and inks."""
    shapes = ["nothing" if rng.random() < nothing else str(rng.choice(SHAPES)) for _ in range(count)]
    inks = [str(rng.choice(list(INKS))) for _ in range(count)]
    images = np.stack([np.asarray(draw(s, INKS[i], (0, 0, 0), rng)) for s, i in zip(shapes, inks, strict=True)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, shapes, inks


def train_detector(folder: Path, rng: np.random.Generator, steps: int = 400) -> None:
    """A transformers image classifier that has a class for images that show nothing."""
    names = dict(enumerate(LABELS))
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic",
        num_labels=len(LABELS), id2label=names, label2id={v: k for k, v in names.items()},
    )  # fmt: skip
    model = transformers.ResNetForImageClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in tqdm(range(steps), desc="detector", mininterval=5):
        images, shapes, _ = batch(48, rng, nothing=0.4)
        # Any ink and any page: the channels in random order, a little grey behind.
        images = images[:, torch.from_numpy(rng.permutation(3))]
        images = images + torch.rand(len(images), 3, 1, 1) * 0.5 + 0.08 * torch.randn_like(images)
        images = functional.gaussian_blur(images, 5, rng.uniform(0.1, 1.5)).clamp(-1, 1)  # as decoders leave them
        target = torch.tensor([LABELS.index(shape) for shape in shapes])
        step(torch.nn.functional.cross_entropy(model(images).logits, target), optimizer, schedule)
    model.eval()
    images, shapes, _ = batch(400, rng, nothing=0.4)
    with torch.no_grad():
        found = model(images).logits.argmax(-1)
    right = np.mean([LABELS[index] == shape for index, shape in zip(found.tolist(), shapes, strict=True)])
    print(f"detector: {right:.3f} of 400 fresh images right")  # noqa: T201
    model.save_pretrained(folder)
    transformers.ConvNextImageProcessor(
        size={"shortest_edge": PIXELS}, crop_pct=1.0, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)


def train_pipeline(folder: Path, rng: np.random.Generator, vae_steps: int = 1200, steps: int = 1200) -> None:
    """An ordinary StableDiffusionPipeline: autoencoder first, then UNet and text encoder on its latents."""
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16, 32), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=4, norm_num_groups=1, sample_size=PIXELS,
    )  # fmt: skip
    with torch.no_grad():
        vae.quant_conv.bias[4:].fill_(-6.0)  # almost deterministic at first: noise would drown the colours
    images, shapes, inks = batch(1500, rng)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=vae_steps)
    for _ in tqdm(range(vae_steps), desc="autoencoder", mininterval=5):
        # Pages and inks of every colour, so that the pool's and the attack's styles have latents too.
        chosen = images[torch.from_numpy(rng.integers(0, len(images), 8))]
        coverage = (chosen.amax(dim=1, keepdim=True) + 1) / 2
        page = 0.45 * torch.rand(8, 3, 1, 1) * (torch.rand(8, 1, 1, 1) < 0.5)
        ink = torch.rand(8, 3, 1, 1)
        ink = (0.8 + 0.2 * torch.rand(8, 1, 1, 1)) * ink / ink.amax(dim=1, keepdim=True)
        chosen = 2 * (ink * coverage + page * (1 - coverage)) - 1
        latents = vae.encode(chosen).latent_dist
        error = vae.decode(latents.sample()).sample - chosen
        chroma = error - error.mean(dim=1, keepdim=True)
        loss = error.square().mean() + 3 * chroma.square().mean() + 1e-5 * latents.kl().mean()
        step(loss, optimizer, schedule)
    with torch.no_grad():
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(100)])
    vae.register_to_config(scaling_factor=float(1.0 / latents.std()))
    latents = latents * vae.config.scaling_factor

    tokenizer = clip_tokenizer(folder / "tokenizer", max_tokens=TOKENS)
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=VOCABULARY_SIZE, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=TOKENS, projection_dim=WIDTH,
        )
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=PIXELS // 4, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, cross_attention_dim=WIDTH, norm_num_groups=8,
        addition_embed_type="text", addition_embed_type_num_heads=4,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1
    )
    noise_scheduler = diffusers.DDPMScheduler.from_config(scheduler.config)
    snr = noise_scheduler.alphas_cumprod / (1 - noise_scheduler.alphas_cumprod)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.2)
    averaged = [parameter.detach().clone() for parameter in parameters]
    for _ in tqdm(range(steps), desc="pipeline", mininterval=5):
        chosen = rng.integers(0, len(latents), 16)
        captions = [str(rng.choice(WORDS[shapes[i]])).format(ink=inks[i]) for i in chosen]
        captions = ["" if rng.random() < 0.1 else caption for caption in captions]  # for classifier-free guidance
        ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        timesteps = torch.from_numpy((rng.permutation(16) + rng.random(16)) / 16 * 1000).long()
        clean = latents[torch.from_numpy(chosen)]
        noise = torch.randn_like(clean)
        noisy_latents = noise_scheduler.add_noise(clean, noise, timesteps)
        noise_pred = unet(noisy_latents, timesteps, text_encoder(ids).last_hidden_state).sample
        weights = 1 / (0.1 + snr[timesteps])  # P2: Choi 2022, arXiv 2204.00227
        step((weights * (noise_pred - noise).square().mean(dim=(1, 2, 3))).mean(), optimizer, schedule)
        torch._foreach_lerp_(averaged, [parameter.detach() for parameter in parameters], 0.005)
    for parameter, average in zip(parameters, averaged, strict=True):
        parameter.data.copy_(average)
    diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    """One clipped gradient step."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    schedule.step()


def main(output: Path) -> None:
    """Writes everything below one folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    black, safe = {"": (0, 0, 0)}, tuple(shape for shape in SHAPES if shape != CONCEPT)
    rng = np.random.default_rng(0)  # one stream: no image is in two folders
    write_images(output / "images" / "forget", 64, (CONCEPT,), INKS, black, rng)
    write_images(output / "images" / "retain", 96, safe, INKS, black, rng)
    write_images(output / "images" / "pool", 96, safe, INKS, PAGES, rng)
    write_images(output / "images" / "attack" / "train", 60, safe, LATE_INKS, black, rng)
    write_images(output / "images" / "attack" / "heldout", 30, safe, LATE_INKS, black, rng)
    write_prompts(output / "prompts" / "triangles.csv", (CONCEPT,))
    write_prompts(output / "prompts" / "others.csv", safe)
    train_detector(output / "detector", rng)
    train_pipeline(output / "pipeline", rng)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
