from pathlib import Path

import pytest

from resalign.exhibits._inputs import ExhibitInputs

from .frames import inputs_of, write_frames


@pytest.fixture(scope="session")
def frame_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_frames(tmp_path_factory.mktemp("frames"))


@pytest.fixture
def inputs(frame_paths: dict[str, Path]) -> ExhibitInputs:
    return inputs_of(frame_paths)
