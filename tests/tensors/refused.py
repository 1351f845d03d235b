"""What a folder that cannot be used is told."""

from collections.abc import Callable
from typing import Any

import pytest

from resalign.tensors.weights import WeightsError


def told(call: Callable[[], Any], *expected: str) -> str:
    """The error's message: one line that holds every expected part."""
    with pytest.raises(WeightsError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message, message
    return message
