"""One GPU for each process: real processes and locks; ``nvidia-smi`` is a script, and CUDA is said to be there."""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from resalign.running import devices
from resalign.running.devices import VISIBLE, DeviceError, Lease, check_precision, lease, visible, warn_of_threads

LISTING = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-0)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-1)
  MIG 1g.10gb     Device  0: (UUID: MIG-cccc-2)
"""
# A stage's process: takes a GPU, says which, and works until its standard input ends.
HOLDER = """
import logging, os, sys
from types import SimpleNamespace
from resalign.running import devices
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
devices.POLL_SECONDS = 0.05
devices.torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, is_initialized=lambda: False))
found = devices.lease("cuda")
print(found.device, os.environ["CUDA_VISIBLE_DEVICES"], found.waited_seconds > 0, flush=True)
sys.stdin.read()
"""
Holder = subprocess.Popen[str]
Starts = Callable[..., Holder]


def cuda(*, available: bool) -> SimpleNamespace:
    """A torch that knows as much of CUDA as a lease asks."""
    found = SimpleNamespace(is_available=lambda: available, is_initialized=lambda: False)
    return SimpleNamespace(cuda=found, __version__="2.0", version=SimpleNamespace(cuda="13.2"))


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs and a lock folder of its own."""
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    (script.parent / "listing").write_text(LISTING)
    script.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && exec cat '{script.parent / 'listing'}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(devices.tempfile, "tempdir", None)  # read TMPDIR anew
    monkeypatch.delenv(VISIBLE, raising=False)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leases of this very process are given back at the end of the test."""
    monkeypatch.setenv(VISIBLE, "")  # so that what a lease sets is put back
    monkeypatch.delenv(VISIBLE)
    lease.cache_clear()
    yield
    lease.cache_clear()
    for file in devices._held:
        file.close()
    devices._held.clear()


@pytest.fixture
def start(two_gpus: None) -> Iterator[Starts]:
    """Starts a process that takes a GPU."""
    with ExitStack() as stack:

        def started(**environment: str) -> Holder:
            holder = subprocess.Popen(
                [sys.executable, "-c", HOLDER],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(holder)
            stack.callback(holder.kill)
            return holder

        yield started


def said(holder: Holder) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def logged(holder: Holder) -> str:
    assert holder.stderr is not None
    return holder.stderr.readline().strip()


def test_each_process_gets_a_gpu_of_its_own_and_a_third_waits_for_one(start: Starts) -> None:
    first, second = start(), start()
    taken = [said(first), said(second)]
    assert sorted(taken) == ["cuda GPU-aaaa-0 False", "cuda GPU-bbbb-1 False"]
    third = start()
    assert logged(third) == "all 2 visible GPUs are taken by other jobs; waiting for one"
    time.sleep(0.2)
    assert third.poll() is None
    second.kill()  # SIGKILL: nothing of the process can tidy up
    assert said(third) == taken[1].replace("False", "True")
    assert logged(third).startswith("running on NVIDIA H100 80GB HBM3")


def test_the_visible_devices_are_respected(start: Starts) -> None:
    assert said(start(CUDA_VISIBLE_DEVICES="1")) == "cuda GPU-bbbb-1 False"
    # The same GPU by another name is taken, too.
    waiting = start(CUDA_VISIBLE_DEVICES="GPU-bbbb")
    assert logged(waiting) == "the one visible GPU is taken by other jobs; waiting for one"
    assert said(start(CUDA_VISIBLE_DEVICES="1,0")) == "cuda GPU-aaaa-0 False"
    assert waiting.poll() is None


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, ["GPU-aaaa-0", "GPU-bbbb-1"]),
        ("0", ["GPU-aaaa-0"]),
        ("1,0", ["GPU-bbbb-1", "GPU-aaaa-0"]),
        (" GPU-bbbb-1", ["GPU-bbbb-1"]),
        ("MIG-cccc-2", ["MIG-cccc-2"]),
        ("0,7,1", ["GPU-aaaa-0"]),
        ("-1,0", []),
        ("GPU-", []),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_visible(two_gpus: None, monkeypatch: pytest.MonkeyPatch, wanted: str | None, expected: list[str]) -> None:
    if wanted is not None:
        monkeypatch.setenv(VISIBLE, wanted)
    assert [gpu.uuid for gpu in visible()] == expected


def test_names_are_the_models(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0,MIG-cccc-2")
    assert [gpu.name for gpu in visible()] == ["NVIDIA H100 80GB HBM3", "MIG 1g.10gb Device 0"]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [("", f"{VISIBLE} is ''"), ("7", f"{VISIBLE} is '7'"), (None, "nvidia-smi lists none")],
)
def test_without_a_gpu_cuda_is_refused_and_auto_is_the_cpu(
    here: None,
    two_gpus: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wanted: str | None,
    reason: str,
) -> None:
    if wanted is None:
        monkeypatch.setenv("PATH", "/nonexistent")  # no driver
    else:
        monkeypatch.setenv(VISIBLE, wanted)
    remedy = r"run where one is, or set resources\.<stage>\.device: auto or cpu$"
    with pytest.raises(DeviceError, match=f"^no GPU is visible {re.escape(f'({reason})')}; {remedy}"):
        lease("cuda")
    with caplog.at_level(logging.INFO, logger="resalign"):
        assert lease("auto") == Lease("cpu", "cpu")
        lease("auto")
    assert caplog.messages == [f"no GPU is visible ({reason}): running on the CPU"]


@pytest.mark.parametrize("names", [("bfloat16", None), (None, "bfloat16"), ("float32", "float16")])
def test_a_precision_that_a_gpu_would_emulate_is_refused(
    names: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SimpleNamespace(
        is_bf16_supported=lambda including_emulation: including_emulation, get_device_name=lambda: "T4"
    )
    monkeypatch.setattr(devices, "torch", SimpleNamespace(cuda=old))
    check_precision("cpu", *names)
    if "bfloat16" in names:
        with pytest.raises(DeviceError, match=r"T4 does not compute in bfloat16; .* float32"):
            check_precision("cuda", *names)
    else:
        check_precision("cuda", *names)


def test_more_threads_than_cores_are_said(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_threads(1)
    assert not caplog.messages
    warn_of_threads(10_000)
    assert re.fullmatch(r"10000 threads on (\d+) cores are slower than \1; lower --cores", caplog.messages[0])


def test_the_cpu_needs_no_lease(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "visible", lambda: pytest.fail("GPUs were looked for"))
    assert lease("cpu") == Lease("cpu", "cpu")


@pytest.mark.parametrize("requested", ["auto", "cuda"])
def test_a_process_leases_once(here: None, two_gpus: None, monkeypatch: pytest.MonkeyPatch, requested: str) -> None:
    monkeypatch.setattr(devices, "torch", cuda(available=True))
    assert lease(requested) is lease(requested)
    assert lease(requested) == Lease("cuda", "NVIDIA H100 80GB HBM3")
    assert os.environ[VISIBLE] == "GPU-aaaa-0"


@pytest.mark.parametrize(
    ("driver", "available", "said"),
    [
        (None, False, r"torch 2\.0 cannot use NVIDIA H100 .*update the driver"),
        ("#!/bin/sh\nexit 0\n", True, "is nvidia-smi on the PATH"),
        (
            "#!/bin/sh\necho 'Driver/library version mismatch'; exit 18\n",
            True,
            r"nvidia-smi -L failed \(Driver/library version mismatch\); repair",
        ),
    ],
)
def test_a_gpu_that_is_of_no_use_is_an_error(
    here: None, two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, available: bool, said: str
) -> None:
    if driver:
        (tmp_path / "bin" / "nvidia-smi").write_text(driver)
    monkeypatch.setattr(devices, "torch", cuda(available=available))
    with pytest.raises(DeviceError, match=said):
        lease("cuda")
