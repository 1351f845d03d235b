"""Commands that end quietly when their reader closes the pipe."""

from __future__ import annotations

import signal
from collections.abc import Callable


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's main; what it prints may have a reader that leaves early, such as ``| head``."""
    end_with_the_reader()
    main()


def end_with_the_reader() -> None:
    """Ends this process quietly, as other commands do, when nobody reads its output any more."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
