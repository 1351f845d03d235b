"""What tells a stage that its inputs are those of the attempt before."""

import os
from pathlib import Path

import pytest

from resalign.stage import SMALL_BYTES, inputs_hash


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """A scoring job: a manifest, its images elsewhere, a network's folder."""
    images = tmp_path / "sample" / "images"
    images.mkdir(parents=True)
    (images / "0.png").write_bytes(bytes(10))
    manifest = tmp_path / "sample" / "smoke" / "images.csv"
    manifest.parent.mkdir()
    manifest.write_text(f"prompt_id,path\n0,{images / '0.png'}\n")
    network = tmp_path / "net"
    network.mkdir()
    (network / "run.json").write_text("{}")
    (network / "model.safetensors").write_bytes(bytes(SMALL_BYTES + 1))
    return {"images": str(manifest), "folder": str(network), "label": "a/b"}


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def test_small_files_that_were_written_again_are_the_same_inputs(job: dict[str, str]) -> None:
    before = inputs_hash(job)
    touch(Path(job["images"]))
    touch(Path(job["folder"]) / "run.json")
    (Path(job["folder"]) / "timing.json").write_text("{}")
    assert inputs_hash(job) == before


@pytest.mark.parametrize("changed", ["manifest", "image", "record", "weights"])
def test_other_contents_are_other_inputs(job: dict[str, str], changed: str, tmp_path: Path) -> None:
    before = inputs_hash(job)
    manifest, network = Path(job["images"]), Path(job["folder"])
    if changed == "manifest":
        manifest.write_text(manifest.read_text().replace("0,", "1,", 1))
    elif changed == "image":
        (tmp_path / "sample" / "images" / "0.png").write_bytes(b"another one")
    elif changed == "record":
        (network / "run.json").write_text("[]")
    else:
        touch(network / "model.safetensors")
    assert inputs_hash(job) != before
