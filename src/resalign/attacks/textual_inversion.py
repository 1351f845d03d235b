"""Textual inversion: fine-tuning of one token's embedding, with all other weights fixed.

Captions of ``train`` and ``heldout`` contain the token ("a photo of sks").

Source: Gal 2022, arXiv 2208.01618, Eq. 2: v* = argmin_v E‖ε − ε_θ(z_t, t, c_θ(y))‖², v the embedding of the token.

Deviation: no token is added to the vocabulary; v takes the place of a rare token's row, the same variable under a name
that every tokenizer has already, so that a weight file holds it. What the rare token meant before is lost.
Deviation: captions are those of the images; the paper draws templates ("a rendition of S*").
Deviation: every CLIP text encoder has its own v, all trained together; T5's embedding of the token stays as it is.
"""

from __future__ import annotations

from pydantic import Field

from resalign.attacks._fine_tuning import FineTuningConfig, Tuning, fine_tune, trained_token
from resalign.contracts import AttackData, Run, Save
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.token_embedding import token_embedding
from resalign.tensors.params import detached


class Config(FineTuningConfig):
    """Learning rate 5e-4 is that of the command in diffusers' README; AdamW at 1e-2, unclipped, that of its script.

    The command's ``--scale_lr`` multiplies the rate by batch size and accumulation (to 2e-3), and it takes 3,000 steps.
    """

    token: str = Field("sks", min_length=1, description="one entry of the tokenizers' vocabulary, which captions have")
    initializer_token: str | None = Field(
        None, min_length=1, description="whose embedding it starts from, as a class's name; null for its own"
    )
    lr: float = Field(5e-4, gt=0)
    max_grad_norm: float | None = Field(None, gt=0)


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Trains the token's embedding; see :func:`resalign.attacks._fine_tuning.fine_tune`.

    Raises:
        ConfigError: If a token is not one entry of the vocabulary.
        DataError: If no caption of ``train`` or ``heldout`` has the token.
    """
    token = trained_token(loaded, data, config.token)
    initializer = token_embedding(loaded, config.initializer_token or config.token)
    # Without a step the attack returns the model unchanged.
    start = initializer if config.steps else token
    variables = detached(start.row, requires_grad=True)
    tuning = Tuning("textual_inversion", variables, weights=lambda _: {}, text_weights=token.weights)
    fine_tune(loaded, data, config, run, save, tuning)
