"""Custom Diffusion: fine-tuning of the keys and values of cross-attention, with prior preservation.

With a ``token`` its embedding is trained too: the paper's V*, which begins as a rare token's embedding.

Source: Kumari 2023, arXiv 2212.04488, Section 3.

Deviation: V* takes the place of the rare token, whose row of the table it is; none is added to the vocabulary. Without
a ``token`` (the default) a subject is named by the words of its captions.
Deviation: training images keep their size; the paper scales them at random.
"""

from __future__ import annotations

from pydantic import Field

from resalign.attacks._fine_tuning import Tuning, fine_tune, trained_token
from resalign.attacks._prior_preservation import PriorPreservingConfig, prior_preservation
from resalign.contracts import AttackData, Run, Save
from resalign.data.images import DataError
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.diffusion.parametrisation import named_weights
from resalign.tensors.params import detached

# Families whose denoiser has cross-attention to the text; Stable Diffusion 3's has joint attention.
ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")
TARGETS = (".attn2.to_k.weight", ".attn2.to_v.weight")


class Config(PriorPreservingConfig):
    """Learning rate 1e-5, for both parts, and weight 1 are the defaults of diffusers' training script."""

    token: str | None = Field(
        None, min_length=1, description="one entry of the tokenizers' vocabulary whose embedding is trained too"
    )


def attack(loaded: LoadedPipeline, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Fine-tunes keys and values of cross-attention; see :func:`resalign.attacks._fine_tuning.fine_tune`.

    Raises:
        ConfigError: If ``prior_weight`` is above 0 and there are no prior images; if the token is not one entry of the
            vocabulary.
        DataError: If no caption of ``train`` or ``heldout`` has the token, or one of ``prior`` does.
    """
    token = trained_token(loaded, data, config.token) if config.token else None
    loss, streams = prior_preservation(loaded, data, config, run)
    # Prior prompts are embedded once, which holds as long as the token is not in them.
    if token and loss and data.prior and token.is_in(data.prior.prompts):
        raise DataError(f"prior: a caption has the token '{config.token}'; let these captions name the class alone")
    original = named_weights(loaded.denoiser)
    targets = {name: weight for name, weight in original.items() if name.endswith(TARGETS)}
    tuning = Tuning(
        "custom_diffusion",
        detached({**targets, **token.row} if token else targets, requires_grad=True),
        weights=lambda variables: {name: variables[name] for name in targets},
        text_weights=token.weights if token else None,
        loss=loss,
        streams=streams,
    )
    fine_tune(loaded, data, config, run, save, tuning)
