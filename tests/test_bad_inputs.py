"""Every fault of a configuration or an input ends in one error that names the file and says what to do."""

import ast
import pickle
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from resalign.config.experiment import Experiment
from resalign.config.strict import ConfigError, read_yaml
from resalign.data.images import DataError, read_captioned_images
from resalign.data.prompts import read_prompts
from resalign.diffusion.models import check_pipeline_folder, load_models
from resalign.running.stage import run_stage
from resalign.tensors.steps import DivergenceError
from resalign.tensors.weights import WeightsError, load_weights, save_weights

from .conftest import PIXELS, write_captioned_images

ROOT = Path(__file__).resolve().parents[1]
UNET = "unet/diffusion_pytorch_model.safetensors"


def told(kind: type[Exception], call: Callable[[], Any], *expected: str) -> str:
    """The error's message, which must be one line that holds every expected part."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message
    return message


# --- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            lambda config: config["unlearning"].update(edd={}),
            ["unlearning.edd: no unlearning named 'edd'; did you mean 'esd'? allowed: ['esd'"],
        ),
        (
            lambda config: config["unlearning"]["esd"].update(varient="x"),
            ["unlearning.esd: unknown key 'varient'; did you mean 'variant'? allowed: ["],
        ),
        (
            lambda config: config["unlearning"]["esd"].update(lr=-1e-4),
            ["unlearning.esd: key 'lr': Input should be greater than 0 (got -0.0001)"],
        ),
    ],
    ids=["unknown method", "misspelt key", "negative lr"],
)
def test_configurations(tmp_path: Path, edit: Callable[[dict[str, Any]], None], expected: list[str]) -> None:
    config = read_yaml(ROOT / "config" / "demo.yaml")
    edit(config)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    told(ConfigError, lambda: Experiment.read(path), str(path), *expected)


# --- image folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_captioned_images(tmp_path / "images", ("a red two", "a blue three"))


def read(folder: Path) -> Callable[[], Any]:
    return lambda: read_captioned_images(folder, pixels=PIXELS)


def test_a_whole_folder_is_read(images: Path) -> None:
    found = read_captioned_images(images, pixels=PIXELS)
    assert found.prompts == ("a red two", "a blue three")
    assert found.load().shape == (2, 3, PIXELS, PIXELS)


def test_missing_folder(tmp_path: Path) -> None:
    told(DataError, read(tmp_path / "nothing"), str(tmp_path / "nothing"), "no such folder", "metadata.csv")


def test_captions_missing(images: Path) -> None:
    table = images / "metadata.csv"
    table.unlink()
    told(DataError, read(images), str(table), "missing", "columns file_name, prompt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["columns"]),
        (
            "file_name,words\n0.png,a red two\n",
            ["wanted the columns 'file_name' and one of", "got ['file_name', 'words']"],
        ),
        ("file_name,prompt\n", ["lists no images"]),
        ("file_name,prompt\n0.png,\n1.png,a\n", ["1 images have no caption", "'0.png'"]),
        ("file_name,prompt\n0.png,  \n", ["1 images have no caption"]),
        ('file_name,prompt\n0.png,"a red two\n', ["CSV"]),
        ("file_name,prompt\n0.png,a,red,two\n1.png,b,c,d,e\n", ["CSV"]),
        ("file_name,prompt\n9.png,a red two\n", ["row 0: there is no image '9.png' beside it"]),
    ],
    ids=[
        "empty",
        "other column",
        "header only",
        "no caption",
        "blank caption",
        "open quote",
        "commas",
        "no such image",
    ],
)
def test_captions_broken(images: Path, text: str, expected: list[str]) -> None:
    (images / "metadata.csv").write_text(text)
    told(DataError, read(images), str(images), *expected)


def test_captions_that_are_no_text(images: Path) -> None:
    (images / "metadata.csv").write_bytes("file_name,prompt\n0.png,größe\n".encode("latin-1"))
    told(DataError, read(images), str(images / "metadata.csv"), "UTF-8")


def truncated(image: bytes) -> bytes:
    return image[: len(image) // 2]


def giant(image: bytes) -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return image[:12] + header + struct.pack(">I", zlib.crc32(header)) + image[33:]


@pytest.mark.parametrize(
    "broken",
    [truncated, giant, lambda image: b"", lambda image: b"<html>not found</html>", lambda image: image[:-30]],
    ids=["truncated", "a bomb", "empty", "a page", "its end cut off"],
)
def test_corrupt_image(images: Path, broken: Callable[[bytes], bytes]) -> None:
    file = images / "1.png"
    file.write_bytes(broken(file.read_bytes()))
    message = told(DataError, read(images), str(file))
    assert re.search("replace it or take its row out|at most \\d+ are read", message)


# --- prompt lists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["is empty", "expected columns ['id', 'prompt']"]),
        ("id,prompt\n", ["holds no prompts"]),
        ("id,prompt\np0,\np1,  \n", ["holds no prompts"]),
        ("id,text\np0,a red two\n", ["['prompt']", "found ['id', 'text']"]),
        ("id,prompt\np0,a red two\np0,a blue two\n", ["'p0'", "occurs"]),
        ("id,prompt\np0,a red two\n", ["the tier asks for 3 prompts, the list has 1", "lower the tier's number"]),
    ],
    ids=["empty file", "header only", "blank prompts", "other column", "repeated id", "too few"],
)
def test_prompt_lists(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text(text)
    told(DataError, lambda: read_prompts(path, 3), str(path), *expected)


def test_missing_prompt_list(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    told(DataError, lambda: read_prompts(path), str(path), "no such prompt list", "columns")


# --- pipelines --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(pipeline_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline, to be broken."""
    return Path(shutil.copytree(pipeline_folder, tmp_path / "pipeline"))


def both_ways(folder: Path, *expected: str) -> None:
    """The check before long work says it, and so does loading."""
    told(WeightsError, lambda: check_pipeline_folder(folder), *expected)
    told(WeightsError, lambda: load_models(folder), *expected)


def test_missing_pipeline(tmp_path: Path) -> None:
    both_ways(tmp_path / "nothing", str(tmp_path / "nothing"), "model_index.json is missing", "save_pretrained")


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_truncated_safetensors(pipeline: Path, component: str) -> None:
    [file] = (pipeline / component).glob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    both_ways(pipeline, str(file), "truncated", "fetch or make it again")


def test_a_pickle_under_its_own_name(pipeline: Path) -> None:
    weights = safetensors.torch.load_file(pipeline / UNET)
    (pipeline / UNET).unlink()
    torch.save(weights, pipeline / "unet" / "diffusion_pytorch_model.bin")
    both_ways(pipeline, str(pipeline / "unet"), "diffusion_pytorch_model.bin", "only safetensors are loaded", "convert")


def test_a_pickle_under_a_false_name_is_never_unpickled(pipeline: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    (pipeline / UNET).write_bytes(pickle.dumps(Trap()))
    both_ways(pipeline, str(pipeline / UNET), "renamed pickle", "fetch or make it again")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("fault", ["another shape", "missing"])
def test_tensors_that_do_not_fit_their_pipeline(pipeline: Path, component: str, fault: str) -> None:
    # Where a tensor is missing, diffusers and transformers would go on with none, or with random numbers.
    [file] = (pipeline / component).glob("*.safetensors")
    weights = safetensors.torch.load_file(file)
    name = sorted(weights)[0]
    del weights[name]
    if fault == "another shape":
        weights[name] = torch.zeros(3)
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    told(WeightsError, lambda: load_models(pipeline), str(pipeline), name, "fetch or convert it again")


# --- weight files -----------------------------------------------------------------------------------------------------

EXPECTED = {"unet.a": torch.zeros(2, 3), "unet.b": torch.zeros(4)}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {name: tensor + 1 for name, tensor in EXPECTED.items()})
    return path


def test_whole_weights_are_read(weights: Path) -> None:
    found = load_weights(weights, EXPECTED)
    assert {name: tensor.unique().tolist() for name, tensor in found.items()} == {"unet.a": [1.0], "unet.b": [1.0]}


def test_missing_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    told(WeightsError, lambda: load_weights(path, EXPECTED), str(path), "no such weight file", "make it")


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_truncated_weights(weights: Path, length: int) -> None:
    weights.write_bytes(weights.read_bytes()[:length])
    told(WeightsError, lambda: load_weights(weights, EXPECTED), str(weights), "truncated", "fetch or make it again")


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"unet.a": torch.zeros(3, 2)}, ["'unet.a' has shape (3, 2), the model expects (2, 3)"]),
        ({"unet.c": torch.zeros(1)}, ["no tensor named 'unet.c'", "another architecture"]),
        ({"unet.b": torch.tensor([0.0, 1.0, float("nan"), 2.0])}, ["'unet.b'", "not finite"]),
    ],
    ids=["shape", "name", "NaN"],
)
def test_weights_that_do_not_fit(weights: Path, tensors: dict[str, torch.Tensor], expected: list[str]) -> None:
    save_weights(weights, tensors)
    told(WeightsError, lambda: load_weights(weights, EXPECTED), str(weights), *expected)


def test_no_weights_at_all(weights: Path) -> None:
    told(WeightsError, lambda: save_weights(weights, {}), str(weights), "no tensors to write", "more steps")


def test_pickled_weights(weights: Path) -> None:
    pickled = weights.with_suffix(".pt")
    torch.save(EXPECTED, pickled)
    told(WeightsError, lambda: load_weights(pickled, EXPECTED), str(pickled), "expected a .safetensors", "convert")
    pickled.rename(weights)
    told(WeightsError, lambda: load_weights(weights, EXPECTED), str(weights), "renamed pickle")


def test_a_killed_save_leaves_no_half_of_a_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights.read_bytes()

    def killed(tensors: Any, path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_weights(weights, EXPECTED)
    assert weights.read_bytes() == before


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
