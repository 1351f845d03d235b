"""What every exhibit must do. A new file in ``src/resalign/exhibits`` is held to it unasked."""

import inspect
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from resalign.config import registry
from resalign.exhibits._products import write
from resalign.jobs.paper import FAMILY, FRAMES, SUFFIXES
from tests.analysis.experiment import SETTINGS
from tests.exhibits.frames import evidence_of, write_frames


@pytest.fixture(params=registry.members(FAMILY))
def exhibit(request: pytest.FixtureRequest) -> ModuleType:
    return registry.member(FAMILY, request.param)


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_frames(tmp_path_factory.mktemp("frames"))


def files_of(
    exhibit: ModuleType, paths: dict[str, Path], folder: Path, suffixes: tuple[str, ...] = ()
) -> dict[str, bytes]:
    """What the exhibit makes of those frames alone that it declares; all files of its kind, or some."""
    declared = {*exhibit.READS, *getattr(exhibit, "THEORY", ()), *(["names"] if exhibit.READS else [])}
    declared |= {"ablation"} if hasattr(exhibit, "ABLATION") else set()
    product = exhibit.make(evidence_of({name: paths[name] for name in declared}))
    found = {}
    for suffix in suffixes or SUFFIXES[exhibit.KIND]:
        path = folder / f"exhibit.{suffix}"
        write(product, path, SETTINGS.model_copy(update={"dots_per_inch": 40}))
        found[suffix] = path.read_bytes()
    return found


def test_says_what_it_is_and_what_it_reads(exhibit: ModuleType) -> None:
    assert exhibit.TITLE
    assert exhibit.KIND in SUFFIXES
    assert set(exhibit.READS) <= set(FRAMES)
    assert list(inspect.signature(exhibit.make).parameters) == ["evidence"]


def test_makes_every_file_of_its_kind_with_equal_bytes_each_time(
    exhibit: ModuleType, paths: dict[str, Path], tmp_path: Path
) -> None:
    first, second = (files_of(exhibit, paths, tmp_path / name) for name in ("first", "second"))
    assert first == second
    assert all(first.values())
    if "csv" in first:
        assert len(pd.read_csv(tmp_path / "first" / "exhibit.csv")) >= 1
    if exhibit.KIND == "table":
        text = first["tex"].decode()
        assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    if "png" in first:
        assert first["png"].startswith(b"\x89PNG")
        assert b"<svg" in first["svg"]


def test_another_frame_makes_other_numbers(exhibit: ModuleType, paths: dict[str, Path], tmp_path: Path) -> None:
    if not exhibit.READS:
        return
    changed = {name: tmp_path / path.relative_to(paths["values"].parent) for name, path in paths.items()}
    for name, path in changed.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(paths[name].read_bytes())
    for name in (*exhibit.READS, "slices", "ablation"):
        frame = pd.read_csv(changed[name], keep_default_na=False)
        for column in {"mean", "sum", "value", "flagged"} & set(frame.columns):
            frame[column] = ~frame[column] if column == "flagged" else frame[column].astype(float) * 0.5
        frame.to_csv(changed[name], index=False)
    numbers = SUFFIXES[exhibit.KIND][:1]
    assert files_of(exhibit, changed, tmp_path, numbers) != files_of(exhibit, paths, tmp_path, numbers)
