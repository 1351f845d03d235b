"""The objects of a loop as plain values that can be saved, and restored into the same objects."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from resalign.lazy import torch

_PLAIN = (type(None), bool, int, float, str)


def capture(held: Any) -> Any:
    """The state of an object as tensors and plain values.

    Args:
        held: A tensor, a random generator of torch or numpy, anything with ``state_dict`` and ``load_state_dict``
            (modules, optimizers, schedules), a dictionary of plain values, or a dictionary or list of such.

    Raises:
        TypeError: For anything else; a plain value by itself could not be put back into its name.
    """
    if isinstance(held, torch.Tensor):
        return held.detach()
    if isinstance(held, torch.Generator):
        return held.get_state()
    if hasattr(held, "bit_generator"):
        return json.dumps(held.bit_generator.state, default=lambda array: array.tolist())
    if hasattr(held, "state_dict"):
        return _readable(held.state_dict(), type(held).__name__)
    if isinstance(held, dict) and _is_plain(held):
        return held
    if isinstance(held, Mapping):
        return {name: capture(value) for name, value in held.items()}
    if isinstance(held, list | tuple):
        return [capture(value) for value in held]
    raise TypeError(
        f"a {type(held).__name__} cannot be saved between steps; hold tensors, generators, a state_dict, or plain "
        "values in a dictionary"
    )


def restore(held: Any, saved: Any) -> None:
    """Puts a captured state back into the object that it was captured from, or into its like.

    Tensors are filled in place, so that whoever else refers to them sees the state too.
    """
    if isinstance(held, torch.Tensor):
        if held.shape != saved.shape:
            raise ValueError(f"a saved tensor has shape {tuple(saved.shape)}, its place {tuple(held.shape)}")
        with torch.no_grad():
            held.copy_(saved)
    elif isinstance(held, torch.Generator):
        held.set_state(saved.cpu())
    elif hasattr(held, "bit_generator"):
        held.bit_generator.state = json.loads(saved)
    elif hasattr(held, "load_state_dict"):
        held.load_state_dict(saved)
    elif isinstance(held, dict) and _is_plain(held):
        held.clear()
        held.update(saved)
    elif isinstance(held, Mapping):
        for name, value in held.items():
            restore(value, saved[name])
    elif isinstance(held, Sequence):
        for value, part in zip(held, saved, strict=True):
            restore(value, part)
    else:
        raise TypeError(f"a {type(held).__name__} cannot be put back")


def _is_plain(value: Any) -> bool:
    """Whether a value holds no object that a captured state is put back into."""
    if isinstance(value, dict | list | tuple):
        return all(_is_plain(part) for part in (value.values() if isinstance(value, dict) else value))
    return type(value) in _PLAIN


def _readable(state: Any, owner: str) -> Any:
    """A state_dict of tensors and plain values only: nothing else is read back from a file.

    Raises:
        TypeError: Naming the owner, if it holds anything else, such as a number of numpy's.
    """
    if isinstance(state, Mapping | list | tuple):
        for part in state.values() if isinstance(state, Mapping) else state:
            _readable(part, owner)
    elif not isinstance(state, torch.Tensor) and type(state) not in _PLAIN:
        raise TypeError(f"the state_dict of a {owner} holds a {type(state).__name__}, which would not be read back")
    return state


def capture_randomness() -> dict[str, Any]:
    """The process's own random states: torch's on every device, numpy's, Python's."""
    import numpy as np

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    legacy = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": json.dumps(legacy, default=lambda array: array.tolist()),
        "python": json.dumps(random.getstate()),
    }


def restore_randomness(saved: Mapping[str, Any]) -> None:
    """Puts :func:`capture_randomness`'s states back."""
    import numpy as np

    torch.set_rng_state(saved["torch"].cpu())
    if saved["cuda"]:
        torch.cuda.set_rng_state_all([state.cpu() for state in saved["cuda"]])
    np.random.set_state(json.loads(saved["numpy"]))
    version, internal, gauss = json.loads(saved["python"])
    random.setstate((version, tuple(internal), gauss))
