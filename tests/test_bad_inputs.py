"""Every fault of an input ends in one error that names the file and what to do about it."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from resalign.config.strict import ConfigError
from resalign.data.images import DataError, read_captioned_images
from resalign.diffusion.models import check_pipeline_folder, load_models
from resalign.running.stage import run_stage
from resalign.tensors.steps import DivergenceError
from resalign.tensors.weights import WeightsError

from .conftest import PIXELS, write_captioned_images
from .refusals import told

ROOT = Path(__file__).resolve().parents[1]
TABLE = "metadata.csv"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["columns"]),
        ("file_name,words\n0.png,a red two\n", ["columns 'file_name' and one of", "got ['file_name', 'words']"]),
        ("file_name,prompt\n", ["lists no images"]),
        ("file_name,prompt\n0.png,\n1.png,a\n", ["1 images have no caption", "'0.png'"]),
        ("file_name,prompt\n0.png,  \n", ["1 images have no caption"]),
        ('file_name,prompt\n0.png,"a red two\n', ["CSV"]),
        ("file_name,prompt\n0.png,a,red,two\n1.png,b,c,d,e\n", ["CSV"]),
        ("file_name,prompt\n9.png,a red two\n", ["row 0: there is no image '9.png' beside it"]),
        ("file_name,prompt\n0.png,größe\n", ["UTF-8"]),
        (None, ["missing", "columns file_name, prompt"]),
    ],
)
def test_captions_broken(tmp_path: Path, text: str | None, expected: list[str]) -> None:
    table = write_captioned_images(tmp_path / "images", ("a red two", "a blue three")) / TABLE
    table.unlink() if text is None else table.write_bytes(text.encode("latin-1"))
    told(lambda: read_captioned_images(table.parent, pixels=PIXELS), str(table.parent), *expected, kind=DataError)


@pytest.mark.parametrize(
    ("read", "kind", "expected"),
    [
        (lambda folder: read_captioned_images(folder, pixels=PIXELS), DataError, ["no such folder", TABLE]),
        (check_pipeline_folder, WeightsError, ["model_index.json is missing", "save_pretrained"]),
        (load_models, WeightsError, ["model_index.json is missing", "save_pretrained"]),
    ],
)
def test_missing_folder(
    tmp_path: Path, read: Callable[[Path], object], kind: type[Exception], expected: list[str]
) -> None:
    told(lambda: read(tmp_path / "nothing"), str(tmp_path / "nothing"), *expected, kind=kind)


# --- scripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ConfigError, DataError, WeightsError, DivergenceError])
def test_a_script_ends_with_one_line_and_no_traceback(kind: type[Exception]) -> None:
    def main() -> None:
        raise kind("file: what is wrong; what to do")

    with pytest.raises(SystemExit) as caught:
        run_stage(main)
    assert caught.value.code == "error: file: what is wrong; what to do"  # printed to stderr, status 1


def test_a_scripts_own_mistakes_keep_their_traceback() -> None:
    def main() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        run_stage(main)


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_every_script_is_run_so(script: Path) -> None:
    last = ast.parse(script.read_text()).body[-1]
    assert ast.unparse(last) == "if __name__ == '__main__':\n    run_stage(main)"
