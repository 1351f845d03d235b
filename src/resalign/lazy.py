"""Heavy libraries, imported at their first use.

The Snakefile validates every configuration, so it imports every module that declares one; a module that imported
torch at its top would cost each of the workflow's processes seconds. Modules of this package write
``from resalign.lazy import torch`` instead of ``import torch``: the name is real for the type checker and a proxy at
run time. ``tests/test_architecture.py`` asserts that importing the package never imports torch.
"""

from __future__ import annotations

import gc
import importlib
import types
from typing import TYPE_CHECKING, Any

__all__ = ["diffusers", "open_clip", "peft", "torch", "torch_fidelity", "torchvision", "transformers"]


class _LazyModule(types.ModuleType):
    """A module that is imported when one of its attributes is first read."""

    def __getattr__(self, name: str) -> Any:
        # diffusers and transformers import their parts in turn, at the first use of a name.
        # An import makes a million objects and hardly any garbage: looking for some takes a fifth of its time.
        collects = gc.isenabled()
        gc.disable()
        try:
            value = getattr(importlib.import_module(self.__name__), name)
        finally:
            if collects:
                gc.enable()
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import diffusers
    import open_clip
    import peft
    import torch
    import torch_fidelity
    import torchvision
    import transformers
else:
    for _name in __all__:
        globals()[_name] = _LazyModule(_name)
