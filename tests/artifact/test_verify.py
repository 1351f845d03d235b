"""What is said of an archive before anything is made again."""

from pathlib import Path

import pytest

from resalign.artifact import verify
from resalign.config.closure import ROOT


@pytest.mark.parametrize("other", ["src/resalign/exhibits/_published.csv", "src/resalign/exhibits/table1.py"])
def test_other_code_and_other_published_numbers_are_another_version(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_same_file", lambda theirs, ours: ours != ROOT / other)
    note = verify.version_note(tmp_path, ROOT, {"metrics": {"ip": {"name": "ip"}}})
    assert note is not None
    assert note.endswith(f"1 are not this checkout's, such as {other}")
