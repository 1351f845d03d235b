"""What one switch at a time does to our own outer step: the second table of ``speed.py``."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from resalign.tensors.cuda_graphs import cuda_graph
from resalign.tensors.tracing import Traces

Work = Callable[[], Any]
Timed = Callable[[Work, str], tuple[float, float]]


@dataclass(frozen=True)
class Switch:
    """Our outer step with one thing changed.

    Attributes:
        name: What.
        seconds: Of a step when all is recorded.
        gib: Its peak memory on the GPU; 0 on a CPU.
        first_seconds: Of the step before, which records.
        off: 1 − the cosine to the hypergradient without the switch.
    """

    name: str
    seconds: float
    gib: float
    first_seconds: float
    off: float


def main() -> None:
    """Says where the switches are used."""
    argparse.ArgumentParser(description=f"{__doc__} Run `make bench`.").parse_args()


def measure(setting: Any, outer_step: Callable[..., Work], timed: Timed, device: str) -> list[dict[str, Any]]:
    """Prints and returns a row for each switch; one step records, the next one is timed.

    Args:
        setting: As ``speed.py`` has it.
        outer_step: Makes an outer step of a setting.
        timed: Seconds and GiB of a piece of work on a device.
        device: ``cpu`` or ``cuda``.
    """
    print("\n| outer step with | seconds | GiB | first time, s | 1 − cosine |", flush=True)
    print("|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    reference = None
    for name, (context, options, traces) in SWITCHES.items():
        if device == "cpu" and name in OF_A_GPU:
            continue
        found: list[torch.Tensor] = []
        own = replace(setting, loaded=replace(setting.loaded, traces=traces()))
        with context():
            work = outer_step(own, **options)
            first, _ = timed(work, device)
            seconds, gib = timed(lambda found=found, work=work: found.append(work()), device)  # type: ignore[misc]
        value = found[0].double().cpu()
        reference = value if reference is None else reference
        off = 1 - float(value @ reference / (value.norm() * reference.norm()))
        print(f"| {name} | {seconds:.2f} | {gib:.1f} | {first:.1f} | {off:.1e} |", flush=True)
        rows.append(asdict(Switch(name, seconds, gib, first, off)))
    return rows


@contextlib.contextmanager
def set_by(setter: Callable[[Any], None], value: Any, before: Any) -> Iterator[None]:
    """A global setting of torch within a block."""
    setter(value)
    try:
        yield
    finally:
        setter(before)


def fill(value: bool) -> None:
    """Whether all memory is written once before it is used."""
    options: Any = torch.utils.deterministic
    options.fill_uninitialized_memory = value


def plain_attention() -> contextlib.AbstractContextManager[None]:
    """Attention as matrix products in first-order passes, too."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


OF_A_GPU = ("TF32 in matrix products", "CUDA graphs")
Switches = dict[str, tuple[Callable[[], contextlib.AbstractContextManager[Any]], dict[str, Any], Callable[[], Traces]]]
at_once = partial(Traces, after=0)
SWITCHES: Switches = {
    "nothing changed": (contextlib.nullcontext, {}, at_once),
    "residual: before": (contextlib.nullcontext, {"residual": "before"}, at_once),
    "finite_difference": (contextlib.nullcontext, {"mode": "finite_difference"}, at_once),
    "nothing recorded": (contextlib.nullcontext, {}, partial(Traces, after=10**9)),
    "memory filled": (partial(set_by, fill, True, False), {}, at_once),
    "algorithms of any order": (partial(set_by, torch.use_deterministic_algorithms, False, True), {}, at_once),
    "plain attention": (plain_attention, {}, at_once),
    "TF32 in matrix products": (partial(set_by, torch.set_float32_matmul_precision, "high", "highest"), {}, at_once),
    "CUDA graphs": (contextlib.nullcontext, {}, partial(Traces, after=0, capture=cuda_graph)),
}

if __name__ == "__main__":
    main()
