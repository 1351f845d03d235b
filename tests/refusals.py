"""How a refusal reads: one line that names what is wrong and what to do."""

from collections.abc import Callable
from typing import Any

import pytest

from resalign.tensors.weights import WeightsError


def told(
    call: Callable[[], Any], *expected: str, kind: type[Exception] | tuple[type[Exception], ...] = WeightsError
) -> str:
    """The error's message, which must be one line that holds every expected part."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message, message
    return message
