"""Faulty configurations and inputs of the user's own, as the command line tells them."""

from pathlib import Path

import pytest

from .conftest import Checkout


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_text()) for path in files}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("unlearning:\n", "unlearning:\n  mce: {}\n", ["unlearning.mce", "no unlearning named 'mce'", "mean 'mace'?"]),
        ("tier: small\n", "tier: small\nsamplng: {}\n", ["unknown key 'samplng'", "mean 'sampling'?"]),
    ],
)
def test_a_faulty_configuration_ends_in_one_readable_error(
    finished: Checkout, old: str, new: str, expected: list[str]
) -> None:
    before = snapshot(finished.folder / "results")
    with finished.edited("config/demo.yaml", lambda text: text.replace(old, new, 1)):
        told = finished.snakemake("--dry-run")
    output = told.stdout + told.stderr
    assert told.returncode != 0
    assert "Traceback" not in output
    [line] = [line for line in output.splitlines() if "config/demo.yaml: " in line]
    assert all(part in line for part in expected), line
    assert snapshot(finished.folder / "results") == before


@pytest.mark.slow
def test_a_run_that_needs_a_gpu_ends_before_its_first_job_where_there_is_none(
    finished: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(finished.folder / "results")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    asks = 'resources={"unlearn": {"device": "cuda", "gpu": 1}}'
    said = "no GPU is visible (CUDA_VISIBLE_DEVICES is ''), and one is asked for by unlearn (device: cuda); run on"
    planned = finished.snakemake("--dry-run", overrides=(asks,))
    assert planned.returncode == 0, planned.stderr
    assert f"missing GPU: {said}" in planned.stdout
    told = finished.snakemake(overrides=(asks,))
    assert told.returncode == 1
    assert sum(line.startswith(said) for line in told.stderr.splitlines()) == 1
    assert snapshot(finished.folder / "results") == before
    # What is made without a GPU is made.
    assert finished.snakemake("--", "digits_data", overrides=(asks,)).returncode == 0
