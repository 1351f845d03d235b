"""The folder that keeps one job's state, declared by no rule."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
from pathlib import Path
from typing import IO, Any, BinaryIO, Self, cast

from resalign.files import remove_parts, whole
from resalign.lazy import torch
from resalign.tracking import log

NAME = ".state"
PART = "state.part"  # while it is being written


class StateError(RuntimeError):
    """A saved state that cannot be written, read or shared; the message names folder and remedy."""


def state_folder(output: Path) -> Path:
    """Folder of the state of a job whose results go to ``output``: Snakemake removes outputs, never this.

    >>> state_folder(Path("results/runs/unlearn/esd/seed-0")).as_posix()
    'results/.state/runs/unlearn/esd/seed-0'
    """
    if output.is_absolute():
        return output.parent / NAME / output.name
    root, *inner = output.parts
    return Path(root, NAME, *inner)


class StateFolder:
    """One job's saved state, owned by one process at a time.

    It holds ``lock``; ``about.json``, the fingerprint of the computation and the number of attempts; and at most one
    state, ``<number>.<sha256>.pt``. Of an ended job only the lock is left.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any]) -> None:
        """Takes the folder for this process, and empties it if it belongs to another computation.

        Args:
            path: The folder.
            fingerprint: Everything that determines the result, as plain values.

        Raises:
            StateError: If another process has the folder, or it cannot be written.
        """
        self.path, self.fingerprint = path, json.loads(json.dumps(fingerprint, sort_keys=True))
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "lock").open("a+b")
            self._take_lock()
            self.attempts = self._begin()
        except OSError as error:
            raise StateError(f"{path}: cannot be written ({error.strerror}); results must be writable") from None

    def __enter__(self) -> Self:
        """The folder; the end of the block lets other processes have it, as the kernel does when a process dies."""
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the lock back."""
        self._lock.close()

    def load(self) -> dict[str, Any] | None:
        """The saved state; None if there is none.

        Raises:
            StateError: If it is damaged. Nothing is removed then.
        """
        states = self._states()
        if not states:
            return None
        with states[-1].open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        expected = states[-1].name.split(".")[1]
        if digest != expected:
            raise StateError(
                f"{states[-1]}: damaged (sha256 {digest[:12]}…, expected {expected[:12]}…); put an intact copy in its "
                f"place, or delete {self.path} to begin this job afresh"
            )
        state: dict[str, Any] = torch.load(states[-1], weights_only=True, map_location="cpu")
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the saved state; a process that is killed meanwhile leaves the one before.

        Raises:
            StateError: If it cannot be written, for lack of space, say. The state before is kept.
        """
        before = self._states()
        number = int(before[-1].name.split(".")[0]) + 1 if before else 1
        part, writer = self.path / PART, None
        try:
            with part.open("wb") as stream:
                writer = _HashingWriter(stream)
                torch.save(state, cast(IO[bytes], writer))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, self.path / f"{number:09d}.{writer.digest.hexdigest()}.pt")
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else writer and writer.error
            if not cause:
                raise  # no fault of the disk: of memory, say
            part.unlink(missing_ok=True)
            raise StateError(
                f"{self.path}: the state cannot be saved ({cause.strerror}); the one before is kept; free some space, "
                "run again"
            ) from None
        for old in before:
            old.unlink()

    def clear(self) -> None:
        """Removes everything about a job that has ended."""
        for path in (*self._states(), self.path / "about.json"):
            path.unlink(missing_ok=True)

    def _states(self) -> list[Path]:
        """Saved states, oldest first; two, if a process was killed between writing one and removing the other."""
        return sorted(path for path in self.path.glob("*.*.pt"))

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().decode(errors="replace").strip()
            self._lock.close()
            raise StateError(
                f"{self.path}: {holder or 'another process'} is at this very job; wait for it or end it, then run again"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            log.warning("%s: this file system has no locks; make sure that one workflow runs at a time", self.path)
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        self._lock.flush()

    def _begin(self) -> int:
        """Counts this attempt; empties the folder if it is about another computation."""
        about = self.path / "about.json"
        remove_parts(self.path)
        (self.path / PART).unlink(missing_ok=True)
        before, attempts = self._read_about(about) if about.is_file() else (self.fingerprint, 0)
        if before != self.fingerprint:
            attempts = 0
            keys = sorted(self.fingerprint.keys() | before.keys())
            other = [key for key in keys if self.fingerprint.get(key) != before.get(key)]
            log.warning("%s: what was saved is of another %s; starting afresh", self.path, ", ".join(other))
            self.clear()
        with whole(about) as part:
            values = {"fingerprint": self.fingerprint, "attempts": attempts + 1}
            part.write_text(json.dumps(values, sort_keys=True, indent=1), encoding="utf-8")
        return attempts + 1

    def _read_about(self, about: Path) -> tuple[dict[str, Any], int]:
        """The fingerprint of the saved state, and the number of attempts.

        Raises:
            StateError: If the file cannot be read, and there is a saved state.
        """
        try:
            before = json.loads(about.read_text(encoding="utf-8"))
            return dict(before["fingerprint"]), int(before["attempts"])
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            if not self._states():
                log.warning("%s: cannot be read (%s); nothing was saved, and the job begins afresh", about, error)
                return self.fingerprint, 0
            self._lock.close()
            raise StateError(
                f"{about}: cannot be read ({error}), so that the job of the saved state is unknown; put an intact copy "
                f"in its place, or delete {self.path} to begin this job afresh"
            ) from None


class _HashingWriter:
    """A binary file that hashes what is written to it, and keeps the error of a failed write: torch drops it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._stream.flush()
