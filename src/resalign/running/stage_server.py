"""Stages that start at once: a process that has loaded the heavy libraries forks for each of a command's jobs.

A stage of the demo works for a few seconds, and loads torch and diffusers for as long.
``python -m resalign.running.stage_server snakemake …`` loads them once: the server forks, and the fork runs the stage's
script. Only third-party libraries are loaded beforehand, so that a stage runs the code that lies on disk.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Python environment of the server, and its socket. A stage of another environment starts by itself.
VARIABLE = "RESALIGN_STAGE_SERVER"
# A name behind a colon is read from its module: diffusers and transformers load their parts at the first use.
LIBRARIES = (
    "torch",
    "torch._dynamo",  # torch.optim loads it
    "torch.func",
    "torchvision",
    "diffusers:StableDiffusionPipeline",
    "transformers:CLIPTextModel",
    "transformers:AutoModelForImageClassification",
    "open_clip",
    "peft",
    "torch_fidelity",
    "pandas",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "pydantic:BaseModel",
    "sklearn.datasets",
    "scipy.linalg",
)
_LENGTH = struct.Struct("!I")
_PASSED_ON = (signal.SIGINT, signal.SIGTERM)
# A caller that stops within its call would keep all others waiting: after 30 s it is left (struct timeval).
_CALL_LIMIT, _NO_LIMIT = struct.pack("ll", 30, 0), struct.pack("ll", 0, 0)


def hand_over() -> None:
    """Has the server, if there is one, run this process's script; ends this process with the same status.

    Called at the start of a script. Signals go on to the fork, and it is killed if this process is.
    """
    prefix, _, address = os.environ.pop(VARIABLE, "").rpartition(os.pathsep)
    if prefix != os.path.realpath(sys.prefix):
        return
    call = {"argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError as error:
            print(f"note: no stage server at {address} ({error}); starting without", file=sys.stderr)  # noqa: T201
            return
        message = json.dumps(call).encode()
        # A signal's byte must not stand within the message.
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        socket.send_fds(connection, [_LENGTH.pack(len(message))], [0, 1, 2])
        connection.sendall(message)
        for number in _PASSED_ON:
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        status = connection.recv(1)
    # No status: the server is gone, and the fork with it or after its end.
    os._exit(status[0] if status else 1)


@contextlib.contextmanager
def stage_server() -> Iterator[dict[str, str]]:
    """Starts a server, and ends it; gives the environment of commands whose stages it runs.

    Stages that are asked for before the libraries are loaded wait.
    """
    with tempfile.TemporaryDirectory(prefix="resalign-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(Path(folder) / "socket")
        listener.bind(address)
        listener.listen(64)
        # BLAS and OpenMP make their threads when they are loaded, and a fork has none of them.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        server = subprocess.Popen(
            [sys.executable, "-m", "resalign.running.stage_server", "--serve", str(listener.fileno())],
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            pass_fds=[listener.fileno()],
            start_new_session=True,  # a terminal's Ctrl-C reaches stages only through their own processes
            env=environment,
        )
        listener.close()
        try:
            yield {**os.environ, VARIABLE: f"{os.path.realpath(sys.prefix)}{os.pathsep}{address}"}
        finally:
            server.kill()
            server.communicate()


def _load_libraries() -> None:
    """Imports, and takes what they made out of the reach of garbage collection: forks then share its memory."""
    gc.disable()
    for library in LIBRARIES:
        module, _, name = library.partition(":")
        loaded = importlib.import_module(module)
        if name:
            getattr(loaded, name)
    gc.freeze()
    gc.enable()


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Forks for each call until the starter is gone; in a fork it returns the call."""
    running: dict[int, socket.socket] = {}
    # A child's end wakes the loop up.
    ended, at_end = os.pipe()
    os.set_blocking(at_end, False)
    signal.set_wakeup_fd(at_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([listener, ended, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        if ended in ready:
            os.read(ended, 4096)
            _send_statuses(running)
        if listener in ready:
            connection, _ = listener.accept()
            received = _received(connection)
            if received is None:
                continue
            call, files = received
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in (listener, *running.values()):
                    other.close()
                _become(call, files, connection)
                return call
            running[pid] = connection
            for file in files:
                os.close(file)


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A call and its standard streams; None, with everything closed, if the caller is gone or has stopped."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _CALL_LIMIT)
    files: list[int] = []
    try:
        head, files, _, _ = socket.recv_fds(connection, _LENGTH.size, 3, socket.MSG_WAITALL)
        message = connection.recv(_LENGTH.unpack(head)[0], socket.MSG_WAITALL)
        call = json.loads(message)
    except (OSError, ValueError, struct.error):
        for file in files:
            os.close(file)
        connection.close()
        return None
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _NO_LIMIT)
    return call, files


def _send_statuses(running: dict[int, socket.socket]) -> None:
    """Tells the processes whose forks have ended how they ended."""
    for pid in list(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            with running.pop(pid) as connection, contextlib.suppress(BrokenPipeError):
                connection.sendall(bytes([code if code >= 0 else 128 - code]))


def _become(call: dict[str, Any], files: list[int], connection: socket.socket) -> None:
    """Makes a fork the process that the call describes."""
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv, sys.path[:] = call["argv"], call["path"]
    # The call's own tree may be another than the server's.
    for name in [name for name in sys.modules if name.partition(".")[0] == "resalign"]:
        del sys.modules[name]
    atexit.register(gc.unfreeze)  # libraries complain of what is left when the interpreter ends

    def obey() -> None:
        while number := connection.recv(1):
            os.kill(os.getpid(), number[0])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=obey, daemon=True).start()


def main() -> None:
    """``stage_server COMMAND …`` runs a command with a server; ``--serve FILE`` is the server itself."""
    if sys.argv[1] != "--serve":
        with stage_server() as environment:
            status = _run(sys.argv[1:], environment)
        sys.exit(status)
    with socket.socket(fileno=int(sys.argv[2])) as listener:
        _load_libraries()
        call = _serve(listener)
    if call:
        runpy.run_path(sys.argv[0], run_name="__main__")


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The status of a command; a signal to this process is for the command."""
    with subprocess.Popen(command, env=environment) as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the command as well
        signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
        status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    main()
