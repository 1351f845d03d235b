"""Trains the demo world's text-to-image model and saves it as an ordinary Stable Diffusion pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from resalign.config.digits import DigitsConfig
from resalign.digits.captions import explicit, implicit, name_of
from resalign.digits.scans import COLOURS, Ints, Scans, jitter, load_splits, tint
from resalign.digits.tokenizer import VOCABULARY_SIZE, clip_tokenizer
from resalign.digits.training import one_cycle, seeded
from resalign.lazy import diffusers, torch, transformers
from resalign.running.attempt import Attempt
from resalign.tensors.pretrained import load_network
from resalign.tensors.steps import clipped_step

# Augmented copies of every scan in every colour whose latents are encoded once, before training.
COPIES = 2


def train_generator(config: DigitsConfig, autoencoder: Path, output: Path, attempt: Attempt) -> None:
    """Trains UNet and text encoder jointly on captioned latents; writes a StableDiffusionPipeline folder.

    Args:
        config: The world; ``config.generator`` holds the numbers used here.
        autoencoder: Folder of the trained AutoencoderKL.
        output: Pipeline folder to write.
        attempt: Saves the training's state and goes on from it.
    """
    settings = config.generator
    rng = seeded(config, "generator")
    vae = load_network(diffusers.AutoencoderKL, autoencoder)
    tokenizer = clip_tokenizer(output / "tokenizer", max_tokens=settings.max_tokens)
    text_encoder, unet = networks(config, vae)
    scheduler = sampling_scheduler()
    noise_scheduler = diffusers.DDPMScheduler.from_config(scheduler.config)

    latents, labels, colours = _encode_scans(config, vae, load_splits(config)["generator"], rng)
    captions = _Captions(tokenizer, settings.implicit_share, settings.caption_dropout)
    _pretrain_text_encoder(text_encoder, captions, config, rng, attempt)
    snr = noise_scheduler.alphas_cumprod / (1 - noise_scheduler.alphas_cumprod)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    averaged = [parameter.detach().clone() for parameter in parameters]
    train_timesteps = noise_scheduler.config["num_train_timesteps"]

    options: dict[str, Any] = {"phase": "unet", "weight_decay": 1e-4, "warm_up": 0.2, "rng": rng}
    options |= {"networks": [unet, text_encoder], "averaged": averaged}
    for descend in one_cycle(parameters, settings, attempt, "generator", **options):
        chosen = rng.integers(0, len(latents), settings.batch_size)
        # Stratified timesteps: one from each of batch_size equal parts, in random order.
        strata = (rng.permutation(settings.batch_size) + rng.random(settings.batch_size)) / settings.batch_size
        timesteps = torch.from_numpy((strata * train_timesteps).astype(np.int64))
        clean = latents[chosen]
        noise = torch.randn_like(clean)
        noisy_latents = noise_scheduler.add_noise(clean, noise, timesteps)
        ids, inverse = captions.draw(labels[chosen], colours[chosen], rng)
        encoder_hidden_states = text_encoder(ids).last_hidden_state[inverse]
        noise_pred = unet(noisy_latents, timesteps, encoder_hidden_states).sample
        weights = 1.0 / (settings.p2_k + snr[timesteps])  # [Choi 2022, Eq. 8], its gamma 1
        descend((weights * (noise_pred - noise).square().mean(dim=(1, 2, 3))).mean())
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1 - settings.ema_decay)
    with torch.no_grad():
        for parameter, average in zip(parameters, averaged, strict=True):
            parameter.copy_(average)

    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(output)


def sampling_scheduler() -> diffusers.DPMSolverMultistepScheduler:
    """Stable Diffusion's noise schedule with DPM-Solver++ (Lu 2022, arXiv 2211.01095), which needs few steps."""
    return diffusers.DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1
    )


def networks(
    config: DigitsConfig, vae: diffusers.AutoencoderKL
) -> tuple[transformers.CLIPTextModel, diffusers.UNet2DConditionModel]:
    """Untrained text encoder and UNet; cross-attention at the coarsest resolution only."""
    settings = config.generator
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=settings.text_width,
            intermediate_size=2 * settings.text_width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=settings.text_heads,
            max_position_embeddings=settings.max_tokens,
            projection_dim=settings.text_width,
        )
    )
    plain = len(settings.block_out_channels) - 1
    unet = diffusers.UNet2DConditionModel(
        sample_size=config.image_pixels // 2 ** (len(config.autoencoder.block_out_channels) - 1),
        in_channels=vae.config["latent_channels"],
        out_channels=vae.config["latent_channels"],
        block_out_channels=settings.block_out_channels,
        layers_per_block=settings.layers_per_block,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * plain,
        attention_head_dim=settings.attention_head_dim,
        cross_attention_dim=settings.text_width,
        # The pooled text also joins the time embedding, as in DeepFloyd IF: so small a network learns it far sooner.
        addition_embed_type="text",
        addition_embed_type_num_heads=settings.text_heads,
        norm_num_groups=8,
    )
    return text_encoder, unet


def _pretrain_text_encoder(
    text_encoder: transformers.CLIPTextModel,
    captions: _Captions,
    config: DigitsConfig,
    rng: np.random.Generator,
    attempt: Attempt,
) -> None:
    """Teaches the text encoder which digit and colour a caption means: Stable Diffusion's comes pretrained too."""
    settings = config.generator
    heads = torch.nn.ModuleList([torch.nn.Linear(settings.text_width, size) for size in (10, len(COLOURS))])
    optimizer = torch.optim.AdamW([*text_encoder.parameters(), *heads.parameters()], lr=settings.text_lr)
    networks = [text_encoder, heads]
    for _ in attempt.steps(range(settings.text_steps), phase="text", networks=networks, optimizer=optimizer, rng=rng):
        labels = rng.integers(0, 10, settings.batch_size)
        colours = rng.integers(0, len(COLOURS), settings.batch_size)
        ids, inverse = captions.draw(labels, colours, rng, dropout=0.0)
        pooled = text_encoder(ids).pooler_output[inverse]
        targets = (torch.from_numpy(labels), torch.from_numpy(colours))
        losses = [
            torch.nn.functional.cross_entropy(head(pooled), target) for head, target in zip(heads, targets, strict=True)
        ]
        clipped_step(optimizer, torch.stack(losses).sum(), None, what="the training of the text encoder")


def _encode_scans(
    config: DigitsConfig, vae: diffusers.AutoencoderKL, scans: Scans, rng: np.random.Generator
) -> tuple[torch.Tensor, Ints, Ints]:
    """Latents of jittered scans in every colour, with the index of each one's digit and colour."""
    inks = np.array(list(COLOURS.values()), dtype=np.float32)
    latents, labels, colours = [], [], []
    for _ in range(COPIES):
        for colour, ink in enumerate(inks):
            page = np.zeros((len(scans), 3), dtype=np.float32)
            images = torch.from_numpy(tint(jitter(scans.masks, rng), np.tile(ink, (len(scans), 1)), page)) * 2 - 1
            with torch.no_grad():
                means = [vae.encode(batch).latent_dist.mean for batch in images.split(200)]
            latents.append(torch.cat(means) * vae.config["scaling_factor"])
            labels.append(scans.labels)
            colours.append(np.full(len(scans), colour))
    return torch.cat(latents), np.concatenate(labels), np.concatenate(colours)


class _Captions:
    """Draws captions for digits and colours, tokenised once."""

    def __init__(self, tokenizer: transformers.CLIPTokenizer, implicit_share: float, dropout: float) -> None:
        self.texts = [""]
        self.pools: dict[tuple[int, int, bool], list[int]] = {}
        for label in range(10):
            for colour, name in enumerate(COLOURS):
                for hidden, write in ((False, explicit), (True, implicit)):
                    texts = write(name_of(label), (name,))
                    self.pools[label, colour, hidden] = list(range(len(self.texts), len(self.texts) + len(texts)))
                    self.texts += texts
        self.ids = tokenizer(self.texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        self.implicit_share = implicit_share
        self.dropout = dropout

    def draw(
        self, labels: Ints, colours: Ints, rng: np.random.Generator, dropout: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of the distinct captions drawn (M, tokens), and each example's row in them (N,)."""
        rows = []
        dropout = self.dropout if dropout is None else dropout
        for label, colour in zip(labels, colours, strict=True):
            pool = self.pools[int(label), int(colour), bool(rng.random() < self.implicit_share)]
            rows.append(0 if rng.random() < dropout else pool[rng.integers(len(pool))])
        distinct, inverse = np.unique(rows, return_inverse=True)
        return self.ids[distinct], torch.from_numpy(inverse)
