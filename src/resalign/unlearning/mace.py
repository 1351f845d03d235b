"""MACE: maps the words around a concept to a substitute's, then takes attention off the concept with a LoRA each.

Source: mass concept erasure, Lu 2024, CVPR, arXiv 2403.06135. Stage 1 edits cross-attention's keys and values in closed
form, stage 2 trains one LoRA a concept, stage 3 fuses the LoRAs in closed form.
Deviations: the prior's weight enters both closed forms once (in the release stage 1's is squared), and its captions are
the retain prompts, where the release sums over all of COCO 2014; the images are the forget set's, with the
autoencoder's own normalisation, and by default without masks (the release segments each); the templates are this
file's. A LoRA serves all prompts of a concept. Solved in float64. A domain's own captions have no weight.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import Annotated, Literal

from pydantic import Field

from resalign.config.concept import ConceptPrompts
from resalign.config.strict import ConfigError
from resalign.contracts import Run, UnlearningData
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import LowRank, named_weights
from resalign.lazy import torch
from resalign.objectives.attention import concept_attention_loss
from resalign.tensors.params import Params
from resalign.unlearning import _cross_attention
from resalign.unlearning._cross_attention import Ridge, Tokens, embed, gram, prompts_gram, remapping, ridge, tails
from resalign.unlearning._descent import DescentConfig, Logged, descend, of_loss

ARCHITECTURES = _cross_attention.ARCHITECTURES
MEDIA = ("photo", "picture", "painting", "drawing", "sketch", "poster", "portrait", "print", "render", "still")
TEMPLATES = tuple(form.format(m) for m in MEDIA for form in ("a {} of {{}}", "{{}} in a {}", "a {} that shows {{}}"))


class Config(DescentConfig):
    """Published defaults for explicit content."""

    steps: int = Field(120, ge=0, description="of each concept's LoRA")
    lr: float = Field(1e-5, gt=0)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0)
    batch_size: int = Field(1, gt=0)
    rank: int = Field(1, gt=0)
    templates: tuple[Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")], ...] = Field(
        TEMPLATES, min_length=1, description="sentences; {}, once in each, stands for the concept"
    )
    damping: float = Field(0.0, ge=0, description="λ, weight of the distance from a stage's first weights")
    prior_weight: float = Field(
        7e-7,
        ge=0,
        description="s, weight of each token of the retain prompts; published for all of COCO's",
    )
    use_masks: bool = Field(False, description="whether attention is taken off the concept's pixels alone")
    use_pooler: bool = Field(True, description="whether the end token and the padding count as the concept's tokens")
    timesteps: Literal["uniform", "focused"] = Field(
        "uniform", description="of stage 2; focused: mostly 200 to 400 of 1000, as the release has it for objects"
    )

    def needs(self) -> tuple[str, ...]:
        """The substitute; the retain prompts where they weigh, the masks where they are used."""
        return ("substitute", *["retain_prompts"] * (self.prior_weight > 0), *["masks"] * self.use_masks)


@dataclass(frozen=True)
class Sentences:
    """A concept's prompts in every template.

    Attributes:
        texts: S sentences.
        tokens: The same, embedded.
        substituted: The sentences with the substitute in the concept's place.
        starts, ends: The tokens of each that the substitute's sentence lacks, from and to (exclusive).
    """

    texts: tuple[str, ...]
    tokens: list[Tokens]
    substituted: list[Tokens]
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def concept_tokens(self, *, use_pooler: bool) -> torch.Tensor:
        """Which tokens are the concept's, (S, T), bool."""
        rows = torch.zeros(len(self.texts), len(self.tokens[0].embeddings), dtype=torch.bool)
        for row, tokens, start, end in zip(rows, self.tokens, self.starts, self.ends, strict=True):
            row[start:end] = True
            if use_pooler:
                row[len(tokens.ids) - 1 :] = True
        return rows


def unlearn(loaded: LoadedPipeline, data: UnlearningData, config: Config, run: Run) -> dict[str, torch.Tensor]:
    """The three stages.

    Returns:
        The changed weights, by their names in a weight file.

    Raises:
        ConfigError: If a closed form is singular, or a concept has no image or no word that its substitute lacks.
        ValueError: If masks are to be used, and the data has none.
        DivergenceError: If a gradient is not finite.
    """
    original = named_weights(loaded.denoiser)
    concepts = [sentences_of(loaded, concept, config.templates) for concept in data.concepts]
    width = concepts[0].tokens[0].embeddings.shape[1]
    prompts = data.retain_prompts if config.prior_weight else ()
    prior = config.prior_weight * prompts_gram(loaded, prompts, width)
    change, system = refinement(concepts, prior, config.damping)
    run.history.record(0, refinement_condition_number=system.condition)
    refined = {**original, **_cross_attention.edited(original, lambda _, start: start + start @ change)}
    parametrisation = LowRank(tuple(_cross_attention.projections(refined)), config.rank)
    loras: list[Params] = []
    for concept in concepts:
        loras.append(_lora(loaded, data, config, run, refined, parametrisation, concept, loras))
    adapted = [parametrisation.weights(refined, lora) for lora in loras]
    grams = [sum((gram(t.embeddings) for t in concept.tokens), torch.zeros_like(prior)) for concept in concepts]
    fused = ridge(sum(grams, prior), config.damping, what="mace's fusion")
    run.history.record(config.steps * len(concepts), fusion_condition_number=fused.condition)

    def fuse(name: str, start: torch.Tensor) -> torch.Tensor:
        changes = [weights[name].double() - start for weights in adapted]
        return fusion(start, original[name].double(), changes, grams, prior, fused)

    return loaded.named(_cross_attention.edited(refined, fuse))


def sentences_of(loaded: LoadedPipeline, concept: ConceptPrompts, templates: Sequence[str]) -> Sentences:
    """A concept's prompts and its substitute in every template."""
    filled = [(template, prompt) for template in templates for prompt in concept.prompts]
    texts = [template.replace("{}", prompt) for template, prompt in filled]
    tokens = embed(loaded, texts)
    substituted = embed(loaded, [template.replace("{}", concept.substitute) for template, _ in filled])
    shared = [_shared(old, new) for old, new in zip(tokens, substituted, strict=True)]
    ends = tuple(len(old.ids) - suffix for old, (_, suffix) in zip(tokens, shared, strict=True))
    return Sentences(tuple(texts), tokens, substituted, tuple(prefix for prefix, _ in shared), ends)


def refinement(concepts: Sequence[Sentences], prior: torch.Tensor, damping: float) -> tuple[torch.Tensor, Ridge]:
    """Stage 1: T (d, d) of the edit W₁ = W₀ + W₀T, and its system.

    The words that a sentence shares with the substitute's, and all that follows, get the values that they have there;
    the concept's own tokens are left out.

    Args:
        concepts: Their sentences.
        prior: s Σ ppᵀ, (d, d), float64.
        damping: λ.
    """
    keys, guides = [], []
    for c in concepts:
        for old, new, start, end in zip(c.tokens, c.substituted, c.starts, c.ends, strict=True):
            old_tail, new_tail = tails(old, new, end, end + len(new.ids) - len(old.ids))
            keys += [old.embeddings[:start], old_tail]
            guides += [new.embeddings[:start], new_tail]
    system = ridge(gram(torch.cat(keys)) + prior, damping, what="mace's refinement")
    return remapping(torch.cat(keys), torch.cat(guides), system), system


def fusion(
    refined: torch.Tensor,
    original: torch.Tensor,
    changes: Sequence[torch.Tensor],
    grams: Sequence[torch.Tensor],
    prior: torch.Tensor,
    system: Ridge,
) -> torch.Tensor:
    """Stage 3: W* of Σ_i Σ_e ‖We − (W₁ + ΔWᵢ)e‖² + s Σ_p ‖Wp − W₀p‖² + λ‖W − W₁‖².

    Args:
        refined: W₁, (d_out, d), float64.
        original: W₀.
        changes: ΔWᵢ of each concept's LoRA.
        grams: Σ eeᵀ over each concept's sentences, (d, d).
        prior: s Σ ppᵀ.
        system: λI + the sum of these.
    """
    pulls = [change @ concept for change, concept in zip(changes, grams, strict=True)]
    return refined + system.right_divide(sum(pulls, (original - refined) @ prior))


def _lora(
    loaded: LoadedPipeline,
    data: UnlearningData,
    config: Config,
    run: Run,
    refined: Params,
    parametrisation: LowRank,
    concept: Sentences,
    earlier: Sequence[Params],
) -> dict[str, torch.Tensor]:
    """Stage 2 for the concept after ``earlier`` ones: its LoRA, trained at W₁ to look less at the concept's tokens.

    The loop holds the earlier LoRAs: a run that goes on in it finds their own loops without a step left.
    """
    places = zip(concept.texts, concept.starts, concept.ends, strict=True)
    if config.steps and (bare := [text for text, start, end in places if start == end]):
        raise ConfigError(f"mace: the substitute leaves no word of {bare[0]!r} out; name another substitute")
    index = len(earlier)
    variables = parametrisation.initial(refined, run.generator("mace", "lora", index))
    conditioning = loaded.encode_prompts(concept.texts)
    concept_tokens = concept.concept_tokens(use_pooler=config.use_pooler)
    images, masks = images_of(data, index), data.masks if config.use_masks else None
    if config.use_masks and masks is None:
        raise ValueError("mace needs the masks of the forget set, and the data has none")
    positions = position_weights(config, int(data.forget.noise_scheduler.config.num_train_timesteps))

    def loss(weights: Params, stream: torch.Generator) -> tuple[torch.Tensor, Logged]:
        rows = images[torch.randint(len(images), (config.batch_size,), generator=stream)]
        drawn = torch.multinomial(positions, config.batch_size, replacement=True, generator=stream)
        sentences = torch.randint(len(concept.texts), (config.batch_size,), generator=stream)
        batch = replace(data.forget.at(rows, drawn, stream), conditioning=conditioning[sentences])
        shown = None if masks is None else masks[rows].to(batch.noisy_latents)
        trained = parametrisation.weights(refined, weights)
        value = concept_attention_loss(loaded.denoiser, trained, batch, concept_tokens[sentences], shown)
        return value, {"attention_loss": value.item()}

    phase = f"concept {index}"
    gradient = of_loss(loss)
    return descend(variables, variables, gradient, config, run, method=f"mace, {phase}", phase=phase, earlier=earlier)


def images_of(data: UnlearningData, index: int) -> torch.Tensor:
    """Indices of a concept's images: all of one, of several those in whose caption one of its prompts begins a word."""
    if len(data.concepts) == 1:
        return torch.arange(len(data.forget))
    wanted = list(data.concepts[index].prompts)
    named = re.compile("|".join(rf"(?<!\w){re.escape(prompt)}" for prompt in wanted), re.IGNORECASE)
    rows = [row for row, caption in enumerate(data.forget.prompts) if named.search(caption)]
    if not rows:
        raise ConfigError(
            f"no image to forget has a caption with one of {wanted}; each concept needs images of its own"
        )
    return torch.tensor(rows)


def position_weights(config: Config, train_timesteps: int) -> torch.Tensor:
    """How often each position of the schedule is drawn in stage 2, not normalised; (``train_timesteps``,)."""
    if config.timesteps == "uniform":
        return torch.ones(train_timesteps)
    t = 1000 / train_timesteps * torch.arange(train_timesteps)
    return torch.sigmoid(0.05 * (t - 200)) - torch.sigmoid(0.05 * (t - 400))


def _shared(x: Tokens, y: Tokens) -> tuple[int, int]:
    """Lengths of the longest common prefix and, behind it, of the longest common suffix."""
    prefix = len(commonprefix([x.ids, y.ids]))
    return prefix, len(commonprefix([x.ids[prefix:][::-1], y.ids[prefix:][::-1]]))
