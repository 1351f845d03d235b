"""Every example runs, on the tests' tiny pipeline where it would use the demo's model."""

import ast
import runpy
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

from tests.scripts.conftest import settings_put_back

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.stem != "audit_checkpoint")


@pytest.fixture(autouse=True)
def _beside_the_examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The examples' folder is first on the path, as `python examples/X.py` has it; all files go to a folder apart."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source))
    monkeypatch.setattr(sys, "argv", [name, *(["--stand-in"] if "--stand-in" in source else [])])
    with settings_put_back():
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.is_file()], "in a clone, git would see what it wrote"


def test_an_audit_takes_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import resalign
    from resalign.diffusion.loaded_pipeline import trainable_tensors
    from resalign.tensors.weights import save_weights
    from tests.pipelines import write_pipeline

    folder = write_pipeline("stable_diffusion", tmp_path / "made")
    changed = resalign.unlearn(folder, "esd", prompts=["a red seven"], steps=1, num_inference_steps=2, lr=1e-3)
    weights = {name: t for name, t in trainable_tensors(changed).items() if name.startswith("unet.")}
    save_weights(tmp_path / "weights.safetensors", weights)
    monkeypatch.setattr(sys, "argv", ["x", "--stand-in", "--steps", "1", str(tmp_path / "weights.safetensors")])
    with settings_put_back():
        runpy.run_path(str(EXAMPLES / "audit_checkpoint.py"), run_name="__main__")
    assert "verdict: " in capsys.readouterr().out


def test_the_notebook_runs_and_is_kept_without_output(monkeypatch: pytest.MonkeyPatch) -> None:
    import unlearn_digits

    monkeypatch.setattr(unlearn_digits, "digits", lambda made=unlearn_digits.digits: made(stand_in=True))
    notebook = nbformat.read(EXAMPLES / "unlearn_digits.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    names: dict[str, object] = {}
    with settings_put_back():
        for cell in cells:
            exec(compile(cell.source, "unlearn_digits.ipynb", "exec"), names)
    assert [*names["stages"]] == ["original", "unlearned", "fine-tuned"]
