"""What every exhibit must do. A new file in ``src/resalign/exhibits`` is held to it unasked."""

import inspect
from pathlib import Path

import pandas as pd
import pytest

from resalign.display.products import write
from resalign.exhibits import _series
from resalign.jobs.exhibit import SUFFIXES, exhibits, member
from resalign.jobs.measure import FRAMES
from resalign.jobs.series import SERIES
from tests.analysis.experiment import SETTINGS
from tests.exhibits.frames import inputs_of, write_frames


@pytest.fixture(scope="module", params=exhibits())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_frames(tmp_path_factory.mktemp("frames"))


def files_of(name: str, paths: dict[str, Path], folder: Path) -> dict[str, bytes]:
    """What the exhibit makes of those frames alone that it declares, by suffix."""
    exhibit = member(name)
    declared = {*exhibit.READS, *getattr(exhibit, "THEORY", ()), *(["names"] if exhibit.READS else [])}
    declared |= {"ablation"} if hasattr(exhibit, "ABLATION") else set()
    inputs = inputs_of({frame: paths[frame] for frame in declared})
    product = _series.make(inputs, name) if name in SERIES else exhibit.make(inputs)
    write(product, folder / "exhibit", SETTINGS.model_copy(update={"dots_per_inch": 40}))
    return {suffix: (folder / f"exhibit{suffix}").read_bytes() for suffix in SUFFIXES[exhibit.KIND]}


@pytest.fixture(scope="module")
def made(name: str, paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files_of(name, paths, tmp_path_factory.mktemp("made"))


def test_says_what_it_is_and_what_it_reads(name: str) -> None:
    exhibit = member(name)
    assert exhibit.TITLE
    assert exhibit.KIND in SUFFIXES
    assert set(exhibit.READS) <= set(FRAMES)
    if name not in SERIES:
        assert list(inspect.signature(exhibit.make).parameters) == ["inputs"]


def test_makes_every_file_of_its_kind_with_equal_bytes_each_time(
    name: str, made: dict[str, bytes], paths: dict[str, Path], tmp_path: Path
) -> None:
    assert files_of(name, paths, tmp_path) == made
    assert all(made.values())
    if ".csv" in made:
        assert len(pd.read_csv(tmp_path / "exhibit.csv")) >= 1
    if member(name).KIND == "table":
        text = made[".tex"].decode()
        assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    if ".png" in made:
        assert made[".png"].startswith(b"\x89PNG")
        assert b"<svg" in made[".svg"]


def test_another_frame_makes_other_numbers(
    name: str, made: dict[str, bytes], paths: dict[str, Path], tmp_path: Path
) -> None:
    exhibit = member(name)
    if not exhibit.READS:
        return
    changed = {frame: tmp_path / path.relative_to(paths["values"].parent) for frame, path in paths.items()}
    for frame, path in changed.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(paths[frame].read_bytes())
    for read in (*exhibit.READS, "slices", "ablation"):
        frame = pd.read_csv(changed[read], keep_default_na=False)
        for column in {"mean", "sum", "value", "flagged"} & set(frame.columns):
            if column == "flagged":
                frame[column] = ~frame[column]
            elif read == "images":  # a rate's stay 0 or 1
                frame[column] = frame[column].where(~frame[column].isin([0, 1]), 0.0)
            else:
                frame[column] = frame[column].astype(float) * 0.5
        frame.to_csv(changed[read], index=False)
    numbers = SUFFIXES[exhibit.KIND][0]
    assert files_of(name, changed, tmp_path)[numbers] != made[numbers]
