"""Runs untrusted code without network, without the caller's environment, and with one writable folder.

Linux only: a process in namespaces of its own (unshare(1)), for which every file system is read-only but one folder.
It may read what the user may read; nothing of that can leave. As a program of its own, ``python isolation.py FOLDER
COMMAND …``, this module makes the mounts and becomes the command: it imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

# No user, network, mounts, processes, host names or shared memory in common; killed with the process that started it.
_NAMESPACES = "--user --map-root-user --net --mount --pid --fork --kill-child --mount-proc --ipc --uts".split()
# Where services listen on sockets that lie in the file system, which no network namespace cuts off.
_HIDDEN = ("/run", "/tmp", "/var/tmp", "/dev")  # noqa: S108
# Only these devices stay: where root verifies, a disk could be written to past its file system.
_DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "random", "urandom"))
_POLL_SECONDS = 0.2
_SAID_BYTES = 4000  # of what a command printed, from its end
# mount(2) and mount_setattr(2), of which the C library knows nothing before glibc 2.36.
_MS_BIND, _AT_FDCWD, _AT_RECURSIVE, _RDONLY, _MOUNT_SETATTR = 4096, -100, 0x8000, 1, 442
# prctl(2) and capabilities(7): a root that no program gives any right to.
_CAPBSET_DROP, _SET_SECUREBITS, _SET_NO_NEW_PRIVS, _NOROOT_LOCKED, _CAPABILITIES = 24, 28, 38, 0b11, 64


class IsolationError(RuntimeError):
    """This system cannot isolate a process."""


def check_isolation() -> None:
    """Checks whether isolation works, by starting a process that does nothing.

    Raises:
        IsolationError: If it does not, with the system's reason.
    """
    with tempfile.TemporaryDirectory(prefix="resalign-isolation-") as folder:
        error = run(["true"], folder=Path(folder), cwd=Path(folder), limit_seconds=60, limit_bytes=1 << 20)
    if error is not None:
        raise IsolationError(
            f"this system has no namespaces of its own for a process ({error}), so that nothing can be cut off; to run "
            "it all the same, with your network and your files, say --without-isolation"
        )


def run(
    command: Sequence[str],
    *,
    folder: Path,
    cwd: Path,
    limit_seconds: float,
    limit_bytes: int,
    text: str = "",
    environment: Mapping[str, str] | None = None,
    isolated: bool = True,
) -> str | None:
    """Runs a command with limits, and ends whatever it leaves running.

    Args:
        command: Program and arguments.
        folder: The one that it may write to, made by the caller for this run alone: what an earlier run has left may be
            links. It gets ``home`` and ``tmp``.
        cwd: Where it runs.
        limit_seconds: Of the clock.
        limit_bytes: Of everything in ``folder``.
        text: For its standard input.
        environment: All that it finds beside PATH, HOME, TMPDIR and LANG.
        isolated: Whether it is cut off; if not, it may do all that the user may.

    Returns:
        None if it ended well, else why not, in a line.
    """
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    variables = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(folder / "home")}
    variables |= {"TMPDIR": str(folder / "tmp"), **(environment or {})}
    if isolated:
        if not shutil.which("unshare"):
            return "the program unshare is not installed"
        command = ["unshare", *_NAMESPACES, sys.executable, "-I", __file__, str(folder), str(cwd), *command]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as stdin:
        stdin.write(text.encode())
        stdin.seek(0)
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=variables,
            stdin=stdin,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
        )
        try:
            return _waited(process, folder, limit_seconds, limit_bytes) or _said(process.returncode, output)
        finally:
            if process.poll() is None:
                process.kill()
            _kill_group(process.pid)
            process.wait()


def _waited(process: subprocess.Popen[bytes], folder: Path, limit_seconds: float, limit_bytes: int) -> str | None:
    """Waits for the end; returns the limit that was exceeded, if any."""
    end = time.monotonic() + limit_seconds
    while process.poll() is None:
        if time.monotonic() > end:
            return f"did not end within {limit_seconds:g} seconds"
        if _size(folder) > limit_bytes:
            return f"wrote more than {limit_bytes:,} bytes"
        time.sleep(_POLL_SECONDS)
    return None


def _said(status: int, output: BinaryIO) -> str | None:
    if status == 0:
        return None
    output.seek(max(0, output.seek(0, os.SEEK_END) - _SAID_BYTES))
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {status}"


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _kill_group(number: int) -> None:
    try:
        os.killpg(number, signal.SIGKILL)
    except ProcessLookupError:
        return


def _enter(folder: str, cwd: str) -> None:
    """Makes every mount but one folder read-only, and hides the folders that hold sockets of other processes."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result:
            sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")

    def mount(source: str, target: str, kind: str | None, flags: int) -> None:
        arguments = (source.encode(), target.encode(), kind.encode() if kind else None, flags, None)
        check(libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(arguments[3]), arguments[4]), target)

    def set_attributes(path: str, flags: int, *, add: int = 0, clear: int = 0) -> None:
        attributes = (ctypes.c_uint64 * 4)(add, clear, 0, 0)  # struct mount_attr
        arguments = (_AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), ctypes.sizeof(attributes))
        check(libc.syscall(_MOUNT_SETATTR, *arguments), f"mount_setattr of {path}")

    # What is needed of the hidden places is kept open, and put back where it was.
    visible = [os.path.realpath(path) for path in (folder, cwd, sys.prefix, sys.base_prefix, *_DEVICES)]
    needed = {path: os.open(path, os.O_PATH) for path in visible if path.startswith(tuple(f"{p}/" for p in _HIDDEN))}
    for place in _HIDDEN:
        if os.path.isdir(place) and not os.path.islink(place):
            mount("tmpfs", place, "tmpfs", 0)
    for path, number in needed.items():
        if path in _DEVICES:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        else:
            os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{number}", path, None, _MS_BIND)
        os.close(number)
    if visible[0] not in needed:
        mount(visible[0], visible[0], None, _MS_BIND)
    set_attributes("/", _AT_RECURSIVE, add=_RDONLY)
    set_attributes(visible[0], 0, clear=_RDONLY)
    # Whoever may mount could undo all that; a user namespace of its own owns none of these mounts.
    for capability in range(_CAPABILITIES):
        libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL of those that this kernel has not
    check(libc.prctl(_SET_SECUREBITS, _NOROOT_LOCKED, 0, 0, 0), "securebits")
    check(libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    os.chdir(cwd)


if __name__ == "__main__":
    _enter(sys.argv[1], sys.argv[2])
    os.execvp(sys.argv[3], sys.argv[3:])
