from pathlib import Path

import pytest

from resalign.exhibits._evidence import Evidence

from .frames import evidence_of, write_frames


@pytest.fixture(scope="session")
def frame_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_frames(tmp_path_factory.mktemp("frames"))


@pytest.fixture
def evidence(frame_paths: dict[str, Path]) -> Evidence:
    return evidence_of(frame_paths)
