"""Files and folders that are whole or absent, whatever is killed meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resalign.files import empty, remove_parts, whole, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "model"
    with pytest.raises(ZeroDivisionError), whole_folder(place) as part:
        (part / f"half {1 / len(names(part))}").touch()
    assert not place.exists()
    assert names(tmp_path) == []
    place.mkdir()  # an empty one is taken
    with whole_folder(place) as part:
        (part / "unet").mkdir()
    assert names(place) == ["unet"]
    assert names(tmp_path) == ["model"]


def test_what_the_dead_have_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "inner" / f".model.{dead.pid}.part").mkdir(parents=True)
    (tmp_path / f".scores.parquet.{dead.pid}.part").touch()
    others = [f".scores.parquet.{os.getppid()}.part", ".set.zip.download", ".theirs.part", "a.part"]
    for name in others:
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    assert names(tmp_path) == sorted([*others, "inner"])
    assert names(tmp_path / "inner") == []


def test_a_killed_write_is_removed_by_the_next_process(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from resalign.files import whole\n"
    code += "with whole(Path(sys.argv[1])) as part:\n part.write_text('half'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False)
    assert len(names(tmp_path)) == 1
    remove_parts(tmp_path)
    assert names(tmp_path) == []
    with whole(tmp_path / "file") as part:
        part.write_text("whole")
    assert names(tmp_path) == ["file"]


def test_a_set_that_is_made_anew_has_nothing_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "output" / "train").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").touch()
    (tmp_path / "output" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "output" / "drawn").mkdir()
    (tmp_path / "output" / "run.json").touch()
    empty(tmp_path / "output", keep=["drawn"])
    assert names(tmp_path / "output") == ["drawn"]
    assert names(tmp_path / "elsewhere") == ["mine"]
    empty(tmp_path / "nothing")
