"""How a command ends whose output nobody reads to its end."""

from __future__ import annotations

import signal
from collections.abc import Callable


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's main; what it prints may have a reader that leaves early, such as ``| head``."""
    end_with_the_reader()
    main()


def end_with_the_reader() -> None:
    """Has this process end without a word, as other commands do, when it prints what nobody reads any more."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
