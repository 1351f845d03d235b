"""CLIP through open_clip: the similarity of image and prompt, and the image's embedding as features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resalign.config.strict import Strict
from resalign.lazy import open_clip, torch
from resalign.scores import Scorer


class Config(Strict):
    """Which model, and whether its embedding is kept.

    Attributes:
        folder: A folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``.
        features: Keep the unnormalised image embedding too, as quantities ``f000``, ``f001``, …
    """

    folder: str
    features: bool = False


def load(config: Config, folder: Path, device: str) -> Scorer:
    """Loads the model; the quantity ``similarity`` is 100 × cosine, as torchmetrics and the field report it.

    Source: CLIP score, Hessel 2021, arXiv 2104.08718. Deviation: scale 100 and no clipping at 0, as is usual.
    """
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
    model.eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    def score(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        from torchvision.transforms.functional import to_pil_image

        batch = torch.stack([preprocess(to_pil_image(image)) for image in images]).to(device)
        with torch.no_grad():
            image_features = model.encode_image(batch)
            text_features = model.encode_text(tokenize(list(prompts)).to(device))
        cosine = torch.nn.functional.cosine_similarity(image_features, text_features)
        columns = [100 * cosine[:, None], *([image_features] if config.features else [])]
        return torch.cat(columns, dim=1).cpu()

    size = model.text_projection.shape[1] if config.features else 0
    return Scorer(("similarity", *(f"f{index:03d}" for index in range(size))), score)
