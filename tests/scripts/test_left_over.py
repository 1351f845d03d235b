"""What a killed attempt or an earlier experiment has left in a stage's folder is no part of its result."""

import json
import os
import subprocess
import sys
from pathlib import Path

from resalign import hashes
from tests.data.pictures import picture, write_table

from .conftest import ROOT


def test_a_prepared_set_has_nothing_of_the_attempts_before(tmp_path: Path) -> None:
    source, output = tmp_path / "mine", tmp_path / "results" / "assets" / "mine"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.png").write_bytes(picture(number))
    write_table(source / "metadata.csv", [{"file_name": f"{n}.png", "prompt": f"a dog {n}"} for n in range(3)])
    # Of an attempt at other splits that was killed while it wrote; its table is an earlier one's.
    for folder in ("train", "heldout"):
        (output / folder).mkdir(parents=True)
        (output / folder / "9.png").write_bytes(b"half")
        write_table(output / folder / "metadata.csv", [{"file_name": "9.png", "prompt": "another"}])
    (output / "train" / ".metadata.csv.99999999.part").touch()
    (output / "run.json").write_text("{}")
    settings = {"name": "image_folder", "source": str(source), "splits": {"train": 2}}
    command = ["--job", json.dumps({"name": "mine", "set": settings}), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "scripts/prepare.py", *command], cwd=ROOT, env=environment, check=True)
    found = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
    made = ["train/0.png", "train/1.png", "train/metadata.csv"]
    assert found == ["hashes.json", "run.json", "timing.json", *made]
    assert sorted(hashes.read(output) or ()) == ["run.json", "timing.json", *made]
