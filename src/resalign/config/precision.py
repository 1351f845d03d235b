"""Names of floating-point formats, as a configuration has them and as torch calls them."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]
# Without float16: its gradients underflow unless the loss is scaled.
TrainingPrecision = Literal["float32", "bfloat16"]
