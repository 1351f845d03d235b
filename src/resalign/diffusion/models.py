"""A latent diffusion model's parts, loaded from any StableDiffusionPipeline folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resalign.diffusion.micro_batches import in_parts
from resalign.lazy import diffusers, torch, transformers
from resalign.tensors.weights import WeightsError, load_weights, tensor_shapes

# Components whose weights a method may change; the prefix of a tensor's name in a weight file.
TRAINABLE = ("unet", "text_encoder")
# Components with weights, and how diffusers calls their files.
WEIGHT_FILES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@dataclass(frozen=True)
class Models:
    """The parts of a pipeline, frozen and in evaluation mode.

    Attributes:
        pipeline: The diffusers pipeline, for sampling.
        noise_scheduler: The forward process, for training. It is a DDPMScheduler of the pipeline's own noise schedule:
            a multistep sampler's ``add_noise`` counts timesteps backwards until ``set_timesteps`` has been called.
    """

    pipeline: diffusers.StableDiffusionPipeline
    noise_scheduler: diffusers.DDPMScheduler

    @property
    def unet(self) -> torch.nn.Module:
        """The denoising network."""
        return self.pipeline.unet

    @property
    def device(self) -> torch.device:
        """Where the models live."""
        return self.pipeline.device

    def encode_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Text embeddings (B, tokens, width) of prompts, padded as the pipeline pads them."""
        with torch.no_grad():
            embeds, _ = self.pipeline.encode_prompt(list(prompts), self.device, 1, do_classifier_free_guidance=False)
        return embeds

    def encode_images(self, images: torch.Tensor, generator: torch.Generator, batch_size: int = 32) -> torch.Tensor:
        """Latents (B, C, h, w), scaled, sampled from the autoencoder's posterior of images (B, 3, H, W) in [-1, 1]."""
        vae = self.pipeline.vae

        def posterior(part: torch.Tensor) -> torch.Tensor:
            found = vae.encode(part).latent_dist
            return torch.stack([found.mean, found.std], dim=1)

        latents = []
        for batch in images.split(batch_size):
            with torch.no_grad():
                mean, std = in_parts(posterior, (batch.to(self.device, vae.dtype),)).unbind(dim=1)
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            latents.append((mean + std * noise) * vae.config.scaling_factor)
        return torch.cat(latents)


def load_models(folder: Path, weights: Path | None = None, *, device: str = "cpu") -> Models:
    """Loads a Stable Diffusion pipeline folder, optionally with some of its weights replaced.

    Args:
        folder: A folder as ``StableDiffusionPipeline.save_pretrained`` writes it, safetensors only.
        weights: A safetensors file of changed tensors, named ``component.parameter`` (see :data:`TRAINABLE`).
        device: Where to put the models.

    Raises:
        WeightsError: If the folder or a weight file cannot be used.
    """
    check_pipeline_folder(folder)
    text_encoder = _load_text_encoder(folder / "text_encoder")
    try:
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            folder,
            text_encoder=text_encoder,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            local_files_only=True,
        )
    except ValueError as error:  # a tensor of another shape than its component's config.json says
        raise WeightsError(f"{folder}: {str(error).split('. ')[0]}; fetch or convert it again") from None
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        lacking = [name for name, parameter in part.named_parameters() if parameter.is_meta]
        if lacking:
            raise WeightsError(
                f"{folder}: its {type(part).__name__} lacks tensor '{lacking[0]}'; fetch or convert it again"
            )
        part.requires_grad_(False).eval()
    if weights is not None:
        apply_weights(pipeline, weights)
    pipeline.to(device)
    return Models(pipeline, diffusers.DDPMScheduler.from_config(pipeline.scheduler.config))


def _load_text_encoder(folder: Path) -> transformers.CLIPTextModel:
    """The text encoder; transformers would give a tensor that its file lacks random values, and go on."""
    text_encoder, found = transformers.CLIPTextModel.from_pretrained(
        folder,
        use_safetensors=True,
        local_files_only=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    wrong = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    if wrong:
        raise WeightsError(f"{folder}: tensor '{wrong[0]}' is missing or of another shape; fetch or convert it again")
    return text_encoder


def trainable_tensors(pipeline: diffusers.StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """Every tensor that a weight file may replace, by its name there."""
    return {
        f"{component}.{name}": tensor
        for component in TRAINABLE
        for name, tensor in getattr(pipeline, component).named_parameters()
    }


def apply_weights(pipeline: diffusers.StableDiffusionPipeline, path: Path) -> None:
    """Overwrites a pipeline's tensors with those of a weight file."""
    tensors = trainable_tensors(pipeline)
    for name, value in load_weights(path, tensors).items():
        tensors[name].data.copy_(value)


def unet_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """UNet parameters under the names that a weight file gives them."""
    return {f"unet.{name}": tensor for name, tensor in weights.items()}


def check_pipeline_folder(folder: Path) -> None:
    """Fails readably unless a folder is a pipeline whose weights are whole safetensors files; loads no weight.

    Raises:
        WeightsError: Naming folder or file, and the remedy.
    """
    if not (folder / "model_index.json").is_file():
        raise WeightsError(
            f"{folder}: no diffusers pipeline here (model_index.json is missing); give a save_pretrained folder"
        )
    for component, stem in WEIGHT_FILES.items():
        files = sorted((folder / component).glob(f"{stem}*.safetensors"))
        if not files:
            others = sorted(path.name for path in (folder / component).glob("*.bin")) or "nothing"
            raise WeightsError(
                f"{folder / component}: no {stem}*.safetensors (found {others}); only safetensors are loaded: "
                "convert with pipeline.save_pretrained(folder, safe_serialization=True)"
            )
        for file in files:
            tensor_shapes(file)
