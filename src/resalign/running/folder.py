"""The folder that keeps one job's state, declared by no rule."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from pathlib import Path, PurePath
from typing import IO, Any, BinaryIO, Self, cast

from resalign.files import remove_parts, whole
from resalign.lazy import torch
from resalign.tracking import log

NAME = ".state"
PART = "state.part"  # while it is being written


class StateError(RuntimeError):
    """A saved state that cannot be written, read or shared; the message names folder and remedy."""


def state_folder(output: Path) -> Path:
    """Where the state of a job lies, whose results go to ``output``: Snakemake removes outputs, never this.

    >>> state_folder(Path("results/runs/unlearn/esd/seed-0")).as_posix()
    'results/.state/runs/unlearn/esd/seed-0'
    """
    if output.is_absolute():
        return output.parent / NAME / output.name
    root, *inner = output.parts
    return Path(root, NAME, *inner)


class StateFolder:
    """One job's saved state, owned by one process at a time.

    It holds ``lock``; ``about.json``, the fingerprint of what is computed and the number of attempts; at most one
    state, ``<number>.<sha256>.pt``; and, once the job has ended, ``finished``, its results again as hard links.
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
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        expected = states[-1].name.split(".")[1]
        if found != expected:
            raise StateError(
                f"{states[-1]}: damaged (sha256 {found[:12]}…, expected {expected[:12]}…); put an intact copy in its "
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

    def keep_finished(self, output: Path) -> None:
        """Keeps a finished job's results, as hard links, and drops its state.

        A workflow that is killed before it has taken note of the results removes them, and finds them here.
        """
        finished = self.path / "finished"
        shutil.rmtree(finished, ignore_errors=True)
        try:
            for file in _files(output):
                target = finished / file.relative_to(output)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, target)
            kept = {str(file.relative_to(output)): _settled_hash(file) for file in _files(output)}
            with whole(self.path / "finished.json") as part:
                part.write_text(json.dumps(kept))
        except OSError as error:
            log.warning("%s: results are not kept for a killed workflow (%s)", self.path, error.strerror)
            shutil.rmtree(finished, ignore_errors=True)
        self.drop_states()

    def drop_states(self) -> None:
        """Removes the saved state of a job that has ended."""
        for state in self._states():
            state.unlink()

    def take_finished(self, output: Path) -> bool:
        """Puts the results of this very job back, if an earlier attempt has finished it and they are what they were."""
        marker = self.path / "finished.json"
        if not marker.is_file():
            return False
        try:
            kept = _object(marker, json.loads(marker.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:  # what it would have vouched for is made again
            log.warning("%s: cannot be read (%s); the job's results are not taken from there", marker, error)
            return False
        files = {name: self.path / "finished" / name for name in kept}
        if not all(file.is_file() and _settled_hash(file) == kept[name] for name, file in files.items()):
            return False
        for name in kept:
            target = output / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            os.link(self.path / "finished" / name, target)
        return True

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
        """Counts this attempt; empties the folder where it is about another computation."""
        about = self.path / "about.json"
        remove_parts(self.path)
        (self.path / PART).unlink(missing_ok=True)
        of, attempts = self._read_about(about) if about.is_file() else (None, 0)
        if of is not None and of != self.fingerprint:
            attempts = 0
            keys = sorted(self.fingerprint.keys() | of.keys())
            other = [key for key in keys if self.fingerprint.get(key) != of.get(key)]
            log.warning("%s: what was saved is of another %s; starting afresh", self.path, ", ".join(other))
            for path in (*self._states(), self.path / "finished.json"):
                path.unlink(missing_ok=True)
            shutil.rmtree(self.path / "finished", ignore_errors=True)
        with whole(about) as part:
            values = {"fingerprint": self.fingerprint, "attempts": attempts + 1}
            part.write_text(json.dumps(values, sort_keys=True, indent=1), encoding="utf-8")
        return attempts + 1

    def _read_about(self, about: Path) -> tuple[dict[str, Any] | None, int]:
        """The fingerprint of what was saved, and the number of attempts; None if it cannot be told and nothing is lost.

        Raises:
            StateError: If it cannot be told, and there is a saved state.
        """
        try:
            before = _object(about, json.loads(about.read_text(encoding="utf-8")))
            return _object(about, before["fingerprint"]), int(before["attempts"])
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            if self._states():
                self._lock.close()
                raise StateError(
                    f"{about}: cannot be read ({error}), so that nobody knows of which job a state was saved; put an "
                    f"intact copy in its place, or delete {self.path} to begin this job afresh"
                ) from None
            log.warning("%s: cannot be read (%s); nothing was saved, and the job begins afresh", about, error)
            (self.path / "finished.json").unlink(missing_ok=True)
            return None, 0


class _HashingWriter:
    """A binary file that hashes what is written to it, and remembers why a write failed: torch does not tell."""

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


def _object(path: Path, value: Any) -> dict[str, Any]:
    """A JSON object, whose keys name nothing outside their folder.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no object")
    if any(PurePath(name).is_absolute() or ".." in PurePath(name).parts for name in value):
        raise ValueError(f"{path.name} names files outside its folder")
    return value


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, but for hidden ones."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _settled_hash(path: Path) -> str:
    """sha256 of a file, once it has reached the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def forget_finished(results: Path) -> None:
    """Removes what is kept of ended jobs below ``results``; that of unfinished ones stays, and so do the locks."""
    for about in list((results / NAME).rglob("about.json")):
        folder = about.parent
        if list(folder.glob("*.pt")):
            continue
        with (folder / "lock").open("a+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another workflow's job is at it
            except OSError:
                pass  # a file system without locks
            for left in (folder / "finished.json", about):
                left.unlink(missing_ok=True)
            shutil.rmtree(folder / "finished", ignore_errors=True)
