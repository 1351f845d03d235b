"""Custom Diffusion: fine-tuning of the keys and values of cross-attention, with prior preservation.

Source: Kumari 2023, arXiv 2212.04488, Section 3.

Deviation: no new token V* whose embedding is trained too; a subject is named by the words of its captions.
Deviation: training images keep their size; the paper scales them at random.
"""

from __future__ import annotations

from resalign.contracts import AttackData, Run, Save
from resalign.diffusion.models import Models
from resalign.diffusion.parametrisation import named_weights
from resalign.fine_tuning import PriorPreservingConfig, Tuning, fine_tune, prior_preservation
from resalign.tensors.named import detached

# Those whose denoiser attends to the text by cross-attention; that of Stable Diffusion 3 has joint attention.
ARCHITECTURES = ("stable_diffusion", "stable_diffusion_xl")
TARGETS = (".attn2.to_k.weight", ".attn2.to_v.weight")


class Config(PriorPreservingConfig):
    """Learning rate 1e-5 and weight 1 are the defaults of diffusers' training script."""


def attack(models: Models, data: AttackData, config: Config, run: Run, save: Save) -> None:
    """Fine-tunes keys and values of cross-attention; see :func:`resalign.fine_tuning.fine_tune`.

    Raises:
        ConfigError: If ``prior_weight`` is above 0 and there are no prior images.
    """
    loss, streams = prior_preservation(models, data, config, run)
    original = named_weights(models.denoiser)
    targets = {name: weight for name, weight in original.items() if name.endswith(TARGETS)}
    variables = detached(targets, requires_grad=True)
    tuning = Tuning("custom_diffusion", variables, weights=lambda variables: variables, loss=loss, streams=streams)
    fine_tune(models, data, config, run, save, tuning)
