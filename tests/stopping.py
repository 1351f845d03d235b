"""Work that is stopped after its first step, and taken up again."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from resalign.running.attempt import TIME_LIMIT_STATUS, Attempt, Interrupted
from resalign.running.folder import StateFolder

Result = TypeVar("Result")


def stopped_after_a_step(folder: Path, work: Callable[[Attempt], Result]) -> Result:
    """The result of a second attempt, the first one having been stopped by its time limit at the first moment."""
    with StateFolder(folder, {}) as state, pytest.raises(Interrupted) as stopped:
        work(Attempt(state, deadline=0.0))
    assert stopped.value.status == TIME_LIMIT_STATUS
    with StateFolder(folder, {}) as state:
        return work(Attempt(state))
