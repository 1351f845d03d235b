"""Stages in forks of one process: what they get, how they end, and that none is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from resalign.running.stage_server import VARIABLE, stage_server

PATIENCE_SECONDS = 600  # of a busy machine; nothing waits for as long as that
# Its first lines are those of every stage's script, in short.
SCRIPT = """
import os, signal, sys, time
from resalign.running.stage_server import hand_over
hand_over()
print("loaded" if "torch" in sys.modules else "bare", os.getppid(), os.getpid(), flush=True)
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with stage_server() as environment:
        yield environment


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "stage.py"


def started(script: Path, body: str, environment: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    script.write_text(SCRIPT + body)
    command = [sys.executable, str(script), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, cwd=script.parent, text=True, **pipes)


def run(script: Path, body: str, environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    process = started(script, body, environment, *arguments)
    out, err = process.communicate("given", timeout=PATIENCE_SECONDS)
    return process.returncode, out, err


def test_a_fork_is_the_process_that_was_asked_for(script: Path, environment: dict[str, str]) -> None:
    body = "print(sys.argv[1:], os.getcwd(), os.environ['OWN'], sys.stdin.read(), sys.path[0], __name__); sys.exit(3)"
    status, out, err = run(script, body, {**environment, "OWN": "set here"}, "--job", "{}")
    first, second = out.splitlines()
    assert first.startswith("loaded"), "torch was there before the script asked for it"
    assert second == f"['--job', '{{}}'] {script.parent} set here given {script.parent} __main__"
    assert (status, err) == (3, "")


def test_a_fork_cannot_fork_again_by_the_server(script: Path, environment: dict[str, str]) -> None:
    status, out, _ = run(script, f"print(os.environ.get({VARIABLE!r}))", environment)
    assert (status, out.splitlines()[-1]) == (0, "None")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("sys.exit('error: in one line')", 1, "error: in one line\n"),
        ("raise ValueError('with a traceback')", 1, "ValueError: with a traceback\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL, ""),
        ("os._exit(75)", 75, ""),
    ],
)
def test_its_end_is_this_process_s_end(
    script: Path, environment: dict[str, str], body: str, status: int, says: str
) -> None:
    found, _, err = run(script, body, environment)
    assert found == status
    assert err.endswith(says)


def pid_of_fork(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline().split()[2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_fork(script: Path, environment: dict[str, str], number: signal.Signals) -> None:
    body = f"signal.signal({number}, lambda *_: sys.exit(9)); print('ready', flush=True); time.sleep(600)"
    process = started(script, body, environment)
    pid_of_fork(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(PATIENCE_SECONDS) == 9
    process.communicate()


def test_a_fork_does_not_outlive_its_process(script: Path, environment: dict[str, str]) -> None:
    process = started(script, "time.sleep(600)", environment)
    fork = psutil.Process(pid_of_fork(process))
    process.kill()
    process.communicate()
    fork.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize(
    "sent", [b"", b"\0", b"\0\0\0\x09", b"\0\0\0\x09{"], ids=["nothing", "half a head", "a head", "a part"]
)
def test_a_call_that_breaks_off_stops_nobody(script: Path, environment: dict[str, str], sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(environment[VARIABLE].split(os.pathsep)[1])
        if sent:
            socket.send_fds(caller, [sent], [0, 1, 2])
    assert run(script, "sys.exit(5)", environment)[0] == 5


def test_a_call_of_any_length_arrives(script: Path, environment: dict[str, str]) -> None:
    long = {f"LONG_{number}": "x" * 100_000 for number in range(8)}
    status, out, _ = run(
        script, "print(sum(len(v) for k, v in os.environ.items() if k[:5] == 'LONG_'))", environment | long
    )
    assert (status, out.splitlines()[-1]) == (0, "800000")


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of a signal."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    return bool(int(status[status.index("SigCgt:") + 1], 16) >> (number - 1) & 1)


@pytest.mark.slow
def test_a_signal_while_libraries_load_is_kept(script: Path) -> None:
    with stage_server() as fresh:
        process = started(script, f"signal.signal({signal.SIGTERM}, lambda *_: sys.exit(9)); time.sleep(600)", fresh)
        # Before it has called, the signal ends it, as it ends any process.
        while not catches(process.pid, signal.SIGTERM):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) in (9, 128 + signal.SIGTERM), (
            "it reaches the fork, before or after that has its handler"
        )
        process.communicate()


def test_scripts_of_many_jobs_hand_over_before_they_load_libraries() -> None:
    names = ("prepare", "unlearn", "attack", "sample", "score", "ablation", "exhibit", "measure", "theory")
    names += ("theory_shown",)
    code = (
        "import runpy, sys\n"
        "for name in sys.argv[1:]:\n"
        "    runpy.run_path(f'scripts/{name}.py', run_name=name)\n"
        "    print(name, *{'numpy', 'pandas', 'scipy', 'matplotlib', 'torch'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", code, *names]
    made = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert made.stdout.splitlines() == list(names)


def test_two_run_at_once(script: Path, environment: dict[str, str]) -> None:
    both = [started(script.with_name(name), "sys.stdin.read()", environment) for name in ("a.py", "b.py")]
    assert len({pid_of_fork(process) for process in both}) == 2
    for process in both:
        process.communicate("", timeout=PATIENCE_SECONDS)
        assert process.returncode == 0


def test_another_environment_s_stages_start_by_themselves(script: Path, environment: dict[str, str]) -> None:
    _, address = environment[VARIABLE].split(os.pathsep)
    status, out, err = run(script, "", {**environment, VARIABLE: f"/another/prefix{os.pathsep}{address}"})
    assert (status, out.split()[0], err) == (0, "bare", "")


def test_a_server_that_is_gone_is_said(script: Path, environment: dict[str, str]) -> None:
    status, out, err = run(
        script, "", {**environment, VARIABLE: f"{os.path.realpath(sys.prefix)}{os.pathsep}/no/such/socket"}
    )
    assert (status, out.split()[0]) == (0, "bare")
    assert err.startswith("note: no stage server at /no/such/socket")


def test_a_command_ends_with_its_server(tmp_path: Path) -> None:
    body = "import os, sys, psutil; print(*[p.pid for p in psutil.Process(os.getppid()).children()]); sys.exit(4)"
    command = [sys.executable, "-m", "resalign.running.stage_server", sys.executable, "-c", body]
    found = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert found.returncode == 4
    pids = [int(pid) for pid in found.stdout.split()]
    assert len(pids) == 2, "the server, and the command itself"
    limit = time.monotonic() + PATIENCE_SECONDS
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)
