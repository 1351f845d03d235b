"""Operations, launches and memory traffic of one outer step at Stable Diffusion v1.4's size, without computing any.

    python bench/counts.py                                                     as it runs
    python bench/counts.py --cuda-graphs                                       with resources.unlearn.cuda_graphs
    git worktree add ../before COMMIT; PYTHONPATH=../before/src python bench/counts.py         another commit's

The network has shapes and no numbers (meta tensors); a number that is asked for is 1. Counted are the three simulated
fine-tunings of one published outer step with their hypergradients (J 3, K 5, one image), which a seed draws. An
operation is what torch is asked to do, by autograd too; one that only gives memory another shape is no launch, a CUDA
graph is one. Traffic is every input read and every output written once. Attention is taken apart into matrix products,
which a GPU need not do in first-order passes.
"""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import diffusers
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from resalign.contracts import Run
from resalign.diffusion.batches import EncodedImages
from resalign.diffusion.conditioning import Conditioning
from resalign.diffusion.parametrisation import named_weights
from resalign.objectives.denoising import harmful_loss
from resalign.objectives.simulated_hypergradient import HypergradientConfig, simulated_hypergradient
from resalign.objectives.simulation import Simulation

IMAGES, LATENT, TOKENS, WIDTH = 50, 64, 77, 768
NO_LAUNCH = {
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.detach.default,
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.empty_strided.default,
}


class Counted(TorchDispatchMode):
    """Counts what passes, and answers every question for a number with 1."""

    def __init__(self) -> None:
        """Starts at 0."""
        super().__init__()
        self.totals: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return True if args[0].dtype == torch.bool else 1.0
        found, totals = func(*args, **(kwargs or {})), self.totals
        tensors = [*tensors_in((args, found))]
        if not any(tensor.is_meta for tensor in tensors):
            return found
        totals["operations"] += 1
        if not func.is_view and func not in NO_LAUNCH:
            totals["launches"] += 1
            totals["bytes"] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if func._overloadpacket in flop_registry:
            totals["flop"] += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=found)
        totals["norms"] += func is torch.ops.aten.native_layer_norm.default
        return found

    def as_one_launch(
        self, forward: Callable[..., Sequence[torch.Tensor]], inputs: Sequence[torch.Tensor]
    ) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
        """What a CUDA graph is to the counts; see :data:`resalign.tensors.cuda_graphs.Capture`."""
        before = Counter(self.totals)
        outputs = forward(*inputs)
        own = Counter(self.totals)
        own.subtract(before)
        own.update({"operations": 1 - own["operations"], "launches": 1 - own["launches"]})
        return lambda: self.totals.update(own), outputs


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a nested tuple."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def main() -> None:
    """Counts a step, once all that it repeats is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda-graphs", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--channels", type=int, nargs="+", default=(320, 640, 1280, 1280), help="of the UNet's blocks")
    arguments = parser.parse_args()
    counted, images = Counted(), image_set()
    loaded = model(tuple(arguments.channels), counted if arguments.cuda_graphs else None)
    # Meta tensors have no autocast, which is off here in any case.
    with mock.patch("resalign.diffusion.precision.torch.autocast", return_value=contextlib.nullcontext()), counted:
        if hasattr(loaded, "traces"):
            step(loaded, images, arguments.seed)
        counted.totals.clear()
        for drawn in step(loaded, images, arguments.seed):
            print(drawn)
    totals = counted.totals
    norms = sum(isinstance(module, torch.nn.LayerNorm) for module in loaded.denoiser.modules())
    print(f"operations      {totals['operations']:>9,}")
    print(f"launches        {totals['launches']:>9,}")
    print(f"forward passes  {totals['norms'] / norms:>9,.0f}")
    print(f"traffic, TB     {totals['bytes'] / 1e12:>9.2f}")
    print(f"TFLOP           {totals['flop'] / 1e12:>9.1f}")


def model(channels: tuple[int, ...], graphs: Counted | None) -> Any:
    """The UNet alone, in shapes, and its recordings where the commit has them."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            sample_size=LATENT, block_out_channels=channels, cross_attention_dim=WIDTH, attention_head_dim=8
        )
    parts: dict[str, Any] = {"denoiser": unet.eval().requires_grad_(False)}
    with contextlib.suppress(ImportError):
        from resalign.tensors.tracing import Traces

        parts["traces"] = Traces(after=0, capture=graphs.as_one_launch if graphs else None)
    return SimpleNamespace(**parts)


def image_set() -> EncodedImages:
    """Latents and prompts, in shapes."""
    latents = torch.empty(IMAGES, 4, LATENT, LATENT, device="meta")
    conditioning = Conditioning(torch.empty(IMAGES, TOKENS, WIDTH, device="meta"))
    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return EncodedImages(latents, conditioning, torch.arange(IMAGES), scheduler, ("",) * IMAGES)


def step(loaded: Any, images: EncodedImages, seed: int) -> list[str]:
    """J = 3 draws of the published configurations, each with its hypergradient; returns what was drawn."""
    config = HypergradientConfig.parse({"hessian_batch_size": 1, "mapping": "merged"}, where="counts")
    theta, stream = named_weights(loaded.denoiser), Run(seed).generator("counts")
    users = []
    for _ in range(3):
        users.append(Simulation(loaded, images, images, config.simulation, stream, stream))
        outer = partial(harmful_loss, loaded.denoiser, batch=images.draw(1, stream))
        simulated_hypergradient(config, users[-1], theta, outer, where="counts")
    return [str(user) for user in users]


if __name__ == "__main__":
    main()
