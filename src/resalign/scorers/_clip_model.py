"""A CLIP in a folder of open_clip's, of which several scorers read embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resalign.lazy import torch
from resalign.tensors.pretrained import load_open_clip
from resalign.tensors.tokenizers import load_open_clip_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image


class ClipModel:
    """Image and text embeddings in float32, not normalised.

    The released code of most detectors runs OpenAI's CLIP in float16 on a GPU; float32 differs by rounding only.

    Attributes:
        size: Dimensions of an embedding.
        logit_scale: By which CLIP multiplies a cosine before its softmax.
        prepare: An image as the network takes it, (3, H, W): resize, centre crop, normalise.
        prepare_train: As open_clip augments training images: a random crop.
    """

    def __init__(self, folder: Path, device: str) -> None:
        """Loads ``open_clip_config.json``, ``open_clip_model.safetensors`` and the tokenizer; no network is asked.

        Raises:
            WeightsError: If the folder lacks anything that open_clip would fill in.
        """
        self._model: Any
        self._model, train, inference = load_open_clip(folder, device)
        self._tokenize = load_open_clip_tokenizer(folder, self._model)
        self._device = device
        self.prepare: Callable[[Image], torch.Tensor] = inference
        self.prepare_train: Callable[[Image], torch.Tensor] = train
        self.size = int(self._model.text_projection.shape[1])
        self.logit_scale = float(self._model.logit_scale.detach().exp())

    def images(self, images: torch.Tensor, prepare: Callable[[Image], torch.Tensor] | None = None) -> torch.Tensor:
        """Embeddings of images.

        Args:
            images: (B, 3, H, W) uint8.
            prepare: In place of :attr:`prepare`.

        Returns:
            (B, D), on the model's device.
        """
        from torchvision.transforms.functional import to_pil_image

        prepare = prepare or self.prepare
        batch = torch.stack([prepare(to_pil_image(image)) for image in images]).to(self._device)
        with torch.no_grad():
            embeddings: torch.Tensor = self._model.encode_image(batch).float()
        return embeddings

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of texts, (B, D), on the model's device; what is longer than the model's context is cut."""
        with torch.no_grad():
            embeddings: torch.Tensor = self._model.encode_text(self._tokenize(list(texts)).to(self._device)).float()
        return embeddings
