"""Commands whose output nobody reads to its end."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    ["scripts/doctor.py", "--configfile", "config/demo.yaml"],
    ["-m", "resalign.accounting.costs", "--configfile", "config/demo.yaml"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: Path(command[-3]).stem)
def test_a_command_ends_without_a_word_when_its_reader_is_gone(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, ended.stderr) == (-13, "")


def test_whatever_prints_as_a_command_is_run_as_one() -> None:
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]):
        text = path.read_text(encoding="utf-8")
        [*_, last] = ast.parse(text).body
        if "__main__" in ast.unparse(last) and ("sys.stdout" in text or path.parent.name == "scripts"):
            started = ast.unparse(last).splitlines()[-1].strip()
            handled = started in ("run_command(main)", "run_stage(main)") or "pipes.end_with_the_reader()" in text
            assert handled, f"{path}: ends in {started}"
