"""UnlearnDiffAtk: words before each prompt, chosen so that the model denoises an image of the concept well behind them.

The model's weights stay as they are. Each prompt p of the list ``prompts`` has a target image x of the concept, drawn
from the images of ``train`` that have p as their caption, or from all if none has; the paper's are the original model's
own images of the prompts. The words w before p minimise E‖ε_θ(x_t, t, "w p") − ε‖² over timesteps and noise: the model
is its own classifier. The shares of all words of the vocabulary at each place are relaxed to the simplex and descended
by projected gradients; every iteration draws words by these shares, with straight-through gradients. Detectors only
judge the outcome: ``pre_asr`` and ``asr`` are the metrics of this attack.

Source: Zhang 2023, arXiv 2310.11868, Section 4; 5 words (for nudity), 40 iterations and Adam at learning rate 0.01 as
in the released code.

Deviation: one sample of noise and timesteps stands for the expectation, the same at all iterations of a prompt, and of
the words drawn those of its lowest loss are the outcome. The release stays 40 iterations at each of up to 50 timesteps,
asks the detector after each, and stops at success.
Deviation: no weight decay of the shares, which sum to 1.
Deviation: words are whole ones of letters, so that the prompt can be written down and read again.
Deviation: every prompt is attacked; the release leaves out those that need no attack, which ``asr`` counts as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from resalign.attacks._fine_tuning import StepsConfig
from resalign.config.strict import ConfigError
from resalign.contracts import AttackData, Run, Save
from resalign.data.prompts import Prompt
from resalign.diffusion.batches import EncodedImages, NoisyBatch
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.soft_prompts import Words
from resalign.lazy import torch
from resalign.objectives.denoising import denoising_loss
from resalign.tensors.steps import clipped_step


class Config(StepsConfig):
    """``steps`` are iterations for each prompt; a checkpoint keeps the prompts as they are then.

    Batch size is this project's choice: 320 examples a prompt, where the release sees up to 2,000.
    """

    steps: int = Field(40, ge=0)
    prompts: str = Field(description="the prompt list that is attacked, as far as the largest tier asks for it")
    lr: float = Field(0.01, gt=0, description="of Adam, on the words' shares")
    tokens: int = Field(5, gt=0, description="words before a prompt")
    batch_size: int = Field(8, gt=0, description="(noise, timestep) of a prompt's target image")
    forbidden: tuple[str, ...] = Field(
        (), description="what no word may contain, the concept's name say [release: none]"
    )
    heldout_batch_size: int = Field(64, gt=0, description="(image, noise, timestep) of the held-out loss")


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Finds the words before each prompt, and keeps the prompts with them.

    ``heldout_loss`` is the denoising loss on ``data.heldout``, each example behind one of the prompts in turn: whether
    the words bring the concept back at large, or fit one image.

    Raises:
        ConfigError: If there are no prompts, no words, or no room for them.
        DivergenceError: If a loss or gradient is not finite.
    """
    if not data.prompts:
        raise ConfigError("unlearndiffatk attacks prompts and was given none; name a list that has some as 'prompts'")
    words = Words.of(loaded, config.forbidden)
    room = loaded.pipeline.tokenizer.model_max_length - 2  # start and end token
    if config.tokens >= room:
        raise ConfigError(
            f"tokens: {config.tokens} leave no room for a prompt: the text encoder reads {room}; lower it"
        )
    heldout = data.heldout.draw_stratified(config.heldout_batch_size, Run(seed=0).generator("attack", "heldout"))
    kept = [*sorted(config.checkpoints), config.steps]
    table = next(iter(words.tables.values()))
    shares = torch.full_like(table[:, 0], 1 / len(words)).repeat(config.tokens, 1).requires_grad_()
    optimizer = torch.optim.Adam([shares], lr=config.lr)
    best: dict[str, Any] = {}  # of the prompt at hand
    found: dict[str, dict[str, str]] = {str(step): {} for step in kept}
    losses = {str(step): 0.0 for step in range(1, config.steps + 1)}

    if config.steps:
        run.history.record(0, heldout_loss=heldout_loss(loaded, data.prompts, heldout))
    every = range(len(data.prompts) * config.steps)
    held: dict[str, Any] = {"shares": shares, "optimizer": optimizer, "best": best, "found": found, "losses": losses}
    for position in run.steps(every, **held):
        prompt, step = data.prompts[position // config.steps], position % config.steps + 1
        if step == 1:
            best.clear()
            optimizer.state.clear()
            shares.data.fill_(1 / len(words))
        batch = target_of(prompt, data, run).draw_stratified(config.batch_size, stream_of(prompt, run, "noise"))
        chosen = drawn(shares, stream_of(prompt, run, step))
        loss = descend(loaded, batch, words, shares, chosen, prompt.text, optimizer)
        losses[str(step)] += loss / len(data.prompts)
        if not best or loss < best["loss"]:
            best |= {"loss": loss, "text": words.text(chosen, prompt.text)}
        if step in kept:
            found[str(step)][prompt.id] = best["text"]
    for step in range(1, config.steps + 1):
        run.history.record(step, train_loss=losses[str(step)])
    for step in kept:
        prompts = [replace(prompt, text=found[str(step)].get(prompt.id, prompt.text)) for prompt in data.prompts]
        run.history.record(step, heldout_loss=heldout_loss(loaded, prompts, heldout))
        save(step, {}, None, prompts)


def target_of(prompt: Prompt, data: AttackData, run: Run) -> EncodedImages:
    """The target image of a prompt: one of ``data.train`` that has it as caption, or any if none has."""
    every = range(len(data.train))
    own = [image for image in every if data.train.prompts[image] == prompt.text] or every
    place = int(torch.randint(len(own), (), generator=stream_of(prompt, run, "target")))
    return data.train.subset(torch.tensor([own[place]]))


def stream_of(prompt: Prompt, run: Run, purpose: str | int) -> torch.Generator:
    """A separate random stream of one prompt, so that its words do not depend on the other prompts."""
    return run.generator("attack", "unlearndiffatk", prompt.id, purpose)


def drawn(shares: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draws a word for each place by its shares (N, W); returns indices, (N,)."""
    return torch.multinomial(shares.detach().cpu(), 1, generator=generator).squeeze(1).to(shares.device)


def descend(
    loaded: LoadedPipeline,
    batch: NoisyBatch,
    words: Words,
    shares: torch.Tensor,
    chosen: torch.Tensor,
    text: str,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One step of projected descent on ``shares`` (N, W) from the words at ``chosen`` (N,); returns their loss.

    Raises:
        DivergenceError: If the loss or its gradient is not finite.
    """
    conditioning = words.embed(loaded, chosen, shares, text).expand(len(batch.target))
    loss = denoising_loss(loaded.denoiser, {}, replace(batch, conditioning=conditioning))
    clipped_step(optimizer, loss, None, what=f"attack 'unlearndiffatk' on prompt {text!r}")
    shares.data.copy_(project(shares.data))
    return loss.item()


def project(shares: torch.Tensor) -> torch.Tensor:
    """The nearest point of the simplex to each row of (N, W).

    Source: Duchi 2008, Efficient projections onto the ℓ1-ball for learning in high dimensions, Figure 1.
    """
    ordered = shares.sort(dim=1, descending=True).values
    counts = torch.arange(1, shares.shape[1] + 1, device=shares.device)
    thresholds = (ordered.cumsum(dim=1) - 1) / counts
    support = (ordered > thresholds).sum(dim=1, keepdim=True)
    return (shares - thresholds.gather(1, support - 1)).clamp(min=0)


def heldout_loss(loaded: LoadedPipeline, prompts: Sequence[Prompt], batch: NoisyBatch) -> float:
    """The denoising loss of a batch whose examples take the prompts in turn."""
    rows = [example % len(prompts) for example in range(len(batch.conditioning))]
    texts = [prompt.text for prompt in prompts[: max(rows) + 1]]
    with torch.no_grad():
        conditioning = loaded.encode_prompts(texts)[rows]
        return denoising_loss(loaded.denoiser, {}, replace(batch, conditioning=conditioning)).item()
