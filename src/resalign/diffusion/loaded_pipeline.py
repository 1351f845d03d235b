"""A latent diffusion pipeline, loaded from a diffusers folder of any known architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resalign.config.precision import Precision
from resalign.diffusion.architectures import Architecture, architecture_in, architecture_of
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.forward_process import forward_process_in, forward_process_of
from resalign.diffusion.gradient_checkpointing import checkpointed
from resalign.diffusion.micro_batches import in_parts
from resalign.lazy import diffusers, torch, transformers
from resalign.tensors.params import Params
from resalign.tensors.pretrained import difference, load_network
from resalign.tensors.settings import first_sentence, read_json
from resalign.tensors.tokenizers import load_tokenizer
from resalign.tensors.tracing import Traces, captured
from resalign.tensors.weights import WeightsError, load_weights

# Maps changed tensors and their original values, by their names in a weight file, to the model's tensors.
Start = Callable[[Params, Params], Params]
# Images that the autoencoder sees at once: no more pixels than one image of Stable Diffusion XL has.
MOST_ENCODED, PIXELS_ENCODED = 32, 1024 * 1024


@dataclass(frozen=True)
class LoadedPipeline:
    """The parts of a pipeline, frozen and in evaluation mode.

    Attributes:
        pipeline: The diffusers pipeline, for sampling.
        noise_scheduler: The forward process, for training; see :func:`forward_process_of`.
        traces: Recordings of what training repeats.
    """

    pipeline: diffusers.DiffusionPipeline
    noise_scheduler: diffusers.SchedulerMixin
    traces: Traces = field(default_factory=Traces, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises WeightsError if two names of the denoiser are one weight: training would part them."""
        by_id: dict[int, str] = {}
        for name, weight in self.denoiser.named_parameters(remove_duplicate=False):
            if (other := by_id.setdefault(id(weight), name)) != name:
                raise WeightsError(f"the denoiser's {name} and {other} are one weight, and cannot be trained apart")

    @property
    def architecture(self) -> Architecture:
        """The family of the pipeline."""
        return architecture_of(self.pipeline)

    @property
    def denoiser(self) -> torch.nn.Module:
        """The network that predicts noise, velocity or flow: a UNet, or a transformer."""
        denoiser: torch.nn.Module = getattr(self.pipeline, self.architecture.denoiser)
        return denoiser

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents that images are sampled from."""
        config = getattr(self.pipeline, self.architecture.denoiser).config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def pixels(self) -> int:
        """Edge length of the images that the model generates."""
        return int(self.latent_shape[-1] * self.pipeline.vae_scale_factor)

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.pipeline.device

    def named(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The denoiser's parameters under the names that a weight file gives them."""
        return {f"{self.architecture.denoiser}.{name}": tensor for name, tensor in weights.items()}

    def encode_prompts(self, prompts: Sequence[str], weights: Params | None = None) -> Conditioning:
        """Embedded prompts (B), padded as the pipeline pads them; see :meth:`Architecture.encode_prompts`."""
        return self.architecture.encode_prompts(self.pipeline, prompts, weights)

    def unconditional(self, batch_size: int) -> Conditioning:
        """The pipeline's embedding of no prompt, repeated ``batch_size`` times."""
        return self.architecture.unconditional(self.pipeline).expand(batch_size)

    def encode_images(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Latents (B, C, h, w), scaled, sampled from the autoencoder's posterior of images (B, 3, H, W) in [-1, 1]."""
        latents = []
        for mean, std in self._posteriors(images):
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            latents.append(self._scaled(mean + std * noise))
        return torch.cat(latents)

    def posterior(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and standard deviations of the latents that :meth:`encode_images` samples, (B, C, h, w) each."""
        means, stds = zip(*self._posteriors(images), strict=True)
        return self._scaled(torch.cat(means)), torch.cat(stds) * self.pipeline.vae.config.scaling_factor

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.pipeline.vae.config
        return (latents - (config.shift_factor or 0.0)) * config.scaling_factor

    def _posteriors(self, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Unscaled means and standard deviations of the autoencoder's posterior, as many at once as it can take."""
        vae = self.pipeline.vae
        batch_size = min(MOST_ENCODED, max(1, PIXELS_ENCODED // (images.shape[2] * images.shape[3])))

        def posterior(part: torch.Tensor) -> torch.Tensor:
            found = vae.encode(part).latent_dist
            return torch.stack([found.mean, found.std], dim=1)

        for batch in images.split(batch_size):
            with torch.no_grad():
                mean, std = in_parts(posterior, (batch.to(self.device, vae.dtype),)).unbind(dim=1)
            yield mean, std


def load_pipeline(
    folder: Path,
    weights: Path | None = None,
    *,
    start: Start | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    gradient_checkpointing: bool = False,
    cuda_graphs: bool = False,
) -> LoadedPipeline:
    """Loads a pipeline folder of a known architecture, optionally with some of its weights replaced.

    Args:
        folder: A folder as ``save_pretrained`` writes it, safetensors only.
        weights: A safetensors file of changed tensors, named ``component.parameter`` (see :func:`trainable_tensors`).
        start: Maps them to the tensors to load; see :func:`apply_weights`.
        device: Device of the networks.
        precision: Precision of weights and sampling; a model to be trained needs float32.
        gradient_checkpointing: Whether backward passes recompute the denoiser's blocks, to save memory.
        cuda_graphs: Whether what training repeats is one launch of the GPU.

    Raises:
        WeightsError: If the folder or a weight file cannot be used.
    """
    architecture, components = architecture_in(folder)
    forward_process_in(folder)
    _class(folder, components, diffusers, "scheduler")
    networks = load_networks(folder, precision, "cpu")
    parts = {**networks, **_load_tokenizers(folder, networks)}
    pipeline_class = getattr(diffusers, architecture.pipeline)
    try:  # loads the scheduler and the pipeline's own settings
        pipeline = pipeline_class.from_pretrained(
            folder,
            **parts,
            **architecture.settings,
            dtype=getattr(torch, precision),
            local_files_only=True,
            trust_remote_code=False,
        )
    except (ValueError, OSError) as error:
        raise WeightsError(f"{folder}: {first_sentence(error)}; fetch or convert it again") from None
    pipeline.set_progress_bar_config(disable=True)
    for network in networks.values():
        if network is not None:
            network.requires_grad_(False)
    if weights is not None:
        apply_weights(pipeline, weights, start)
    pipeline.to(device)
    if gradient_checkpointing:
        getattr(pipeline, architecture.denoiser).enable_gradient_checkpointing(checkpointed)
    return LoadedPipeline(pipeline, forward_process_of(pipeline), captured() if cuda_graphs else Traces())


def load_networks(folder: Path, precision: Precision, device: str) -> dict[str, Any]:
    """A pipeline's networks by name; None for optional ones that it lacks.

    Args:
        folder: The pipeline.
        precision: See :func:`load_pipeline`.
        device: ``cpu``, or ``meta`` to check names and shapes without reading values.

    Raises:
        WeightsError: If one is missing, or lacks anything that its library would fill in.
    """
    architecture, components = architecture_in(folder)
    networks: dict[str, Any] = {}
    for name, class_name in architecture.text_encoders.items():
        network_class = getattr(transformers, class_name)
        lacks = name in architecture.without and not _is_there(components, name)
        networks[name] = None if lacks else load_network(network_class, folder / name, dtype=precision, device=device)
    file = folder / "vae" / "config.json"
    unsaid = [key for key in architecture.vae_settings if key not in read_json(file)]
    if unsaid:
        raise WeightsError(f"{file}: does not say {unsaid}; a default would be a guess: fetch the original file")
    for name in ("vae", architecture.denoiser):
        network_class = _class(folder, components, diffusers, name)
        networks[name] = load_network(network_class, folder / name, dtype=precision, device=device)
    return networks


def _load_tokenizers(folder: Path, networks: Mapping[str, Any]) -> dict[str, Any]:
    """A pipeline's tokenizers by name, checked against their text encoders; None where the text encoder is None."""
    architecture, components = architecture_in(folder)
    tokenizers: dict[str, Any] = {}
    for name in architecture.text_encoders:
        encoder, tokenizer = networks[name], name.replace("text_encoder", "tokenizer")
        if encoder is None:
            tokenizers[tokenizer] = None
            continue
        tokenizers[tokenizer] = load_tokenizer(
            _class(folder, components, transformers, tokenizer),
            folder / tokenizer,
            rows=encoder.get_input_embeddings().num_embeddings,
            positions=getattr(encoder.config, "max_position_embeddings", None),
        )
    return tokenizers


def autoencoder_difference(folder: Path, other: Path) -> str | None:
    """How two pipeline folders' autoencoders differ; None if they are the same, whatever their file names."""
    one, two = (
        load_network(_class(place, architecture_in(place)[1], diffusers, "vae"), place / "vae", pickled=True)
        for place in (folder, other)
    )
    return difference(one, two)


def _class(folder: Path, components: Mapping[str, Sequence[str | None]], library: Any, name: str) -> Any:
    """A component's class, as the pipeline's index names it; see :data:`architectures.CLASSES`."""
    class_name = components.get(name, (None, None))[-1]
    found = getattr(library, class_name, None) if class_name else None
    is_scheduler = isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)
    if found is None or (name == "scheduler" and not is_scheduler):
        raise WeightsError(
            f"{folder / 'model_index.json'}: names {class_name} as '{name}', expected a class of "
            f"{library.__name__}; save the pipeline with its library's own classes"
        )
    return found


def trainable_tensors(pipeline: diffusers.DiffusionPipeline) -> dict[str, torch.Tensor]:
    """Every tensor that a weight file may replace, by its name there: ``component.parameter``."""
    return {
        f"{component}.{name}": tensor
        for component in architecture_of(pipeline).trainable
        if getattr(pipeline, component) is not None
        for name, tensor in getattr(pipeline, component).named_parameters()
    }


def apply_weights(pipeline: diffusers.DiffusionPipeline, path: Path, start: Start | None = None) -> None:
    """Overwrites a pipeline's tensors with those of a weight file, or with the output of ``start`` for both."""
    tensors = trainable_tensors(pipeline)
    changed: Params = load_weights(path, tensors)
    if start:
        changed = start(changed, {name: tensors[name].detach() for name in changed})
    for name, value in changed.items():
        tensors[name].data.copy_(value)


def check_pipeline_folder(folder: Path) -> None:
    """Raises unless a folder is a known pipeline with complete networks, tokenizers and noise schedule.

    No weights are read: names and shapes are compared with those in the file headers.

    Raises:
        WeightsError: Naming folder or file, and the remedy.
    """
    _load_tokenizers(folder, load_networks(folder, "float32", "meta"))
    _class(folder, architecture_in(folder)[1], diffusers, "scheduler")
    forward_process_in(folder)


def _is_there(components: Mapping[str, Sequence[str | None]], name: str) -> bool:
    """Whether a pipeline has a component; its index lists a missing one as [null, null]."""
    return any(components.get(name, (None, None)))
