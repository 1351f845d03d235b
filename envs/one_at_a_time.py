"""Runs a command once no other process runs one under the same lock file: ``one_at_a_time.py LOCK COMMAND ...``.

The command inherits the lock and takes this process's place. The kernel gives the lock back when the last of its
processes has ended, so that no kill leaves one behind. Standard library alone: it runs before anything is installed.
"""

import fcntl
import os
import sys


def main() -> None:
    """Waits for the lock, then becomes the command."""
    path, *command = sys.argv[1:]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another process has {path}; waiting for it to end ...", file=sys.stderr, flush=True)  # noqa: T201
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        print(f"{path}: this file system has no locks ({error.strerror}); run one at a time", file=sys.stderr)  # noqa: T201
    os.set_inheritable(lock, True)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
