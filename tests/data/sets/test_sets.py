"""Every prepared set, from small folders and files of its source's true schema."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from resalign.config import registry
from resalign.config.experiment import SETS
from resalign.config.prompts import PromptColumns
from resalign.data.images import DataError, read_captioned_images
from resalign.data.prompts import Prompt, read_prompts
from resalign.data.sets import (
    coco_reference,
    contaminated,
    diffusiondb,
    dreambench,
    generated,
    parquet_dataset,
)
from tests.conftest import write_captioned_images
from tests.data import pictures
from tests.data.pictures import picture, rows_of, write_table, write_zip
from tests.scripts.conftest import Workshop, load_script

ROOT = Path(__file__).resolve().parents[3]


def sources(folder: Path) -> list[str]:
    return [row["source"] for row in rows_of(folder)]


@pytest.mark.parametrize("name", registry.members(SETS))
def test_a_set_says_what_it_is_made_from(name: str) -> None:
    module = registry.member(SETS, name)
    assert module.INPUTS
    assert set(module.INPUTS) <= set(module.Config.model_fields)
    assert hasattr(module, "prepare") != hasattr(module, "generate")
    assert "Source:" in module.__doc__ or name in ("contaminated", "generated")


# --- DreamBench++ -----------------------------------------------------------------------------------------------------


def test_dreambench(tmp_path: Path) -> None:
    pictures.dreambench_zip(tmp_path / "asset" / "data.zip")
    config = dreambench.Config(source=str(tmp_path / "asset"), splits={"train": 4, "heldout": 2})
    dreambench.prepare(config, tmp_path / "out")
    train, heldout = (read_captioned_images(tmp_path / "out" / name, pixels=8) for name in ("train", "heldout"))
    assert (len(train), len(heldout)) == (4, 2)
    assert train.load().shape == (4, 3, 8, 8)
    assert sorted([*train.prompts, *heldout.prompts]) == [f"a photo of subject {number}" for number in range(6)]
    # Each image has its own subject's caption.
    for row in rows_of(tmp_path / "out" / "train"):
        number = int(row["source"].rsplit("/", 1)[-1])
        assert row["prompt"].endswith(str(number))
        assert (tmp_path / "out" / "train" / row["file_name"]).read_bytes() == picture(number, kind="JPEG")
    prompts = read_prompts(tmp_path / "out" / "prompts.csv")
    assert len(prompts) == 6 * 9
    assert prompts[0].text == "A subject 0 in place 0, “drawn”."


def test_what_file_managers_leave_behind_is_no_image(tmp_path: Path) -> None:
    left = {"__MACOSX/images/._a.jpg": b"x", "images/.DS_Store": b"x"}
    write_zip(tmp_path / "data.zip", {**left, "images/a.jpg": picture(kind="JPEG"), "captions/a.txt": "a dog"})
    config = dreambench.Config(source=str(tmp_path / "data.zip"), splits={"train": 1})
    dreambench.prepare(config, tmp_path / "out")
    assert sources(tmp_path / "out" / "train") == ["a"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["images/a/00.jpg", "captions/a/01.txt"], r"1 images and 1 captions; unpaired are \['a/00', 'a/01'\]"),
        (
            ["images/a.jpg", "images/a.png", "captions/a.txt"],
            r"'images/a.jpg' and 'images/a.png' would be one",
        ),
    ],
)
def test_dreambench_that_is_not_whole(tmp_path: Path, files: list[str], message: str) -> None:
    content = {name: "a dog" if name.endswith(".txt") else picture() for name in files}
    write_zip(tmp_path / "data.zip", content)
    with pytest.raises(DataError, match=message):
        dreambench.prepare(dreambench.Config(source=str(tmp_path / "data.zip")), tmp_path / "out")


# --- DiffusionDB ------------------------------------------------------------------------------------------------------


def test_diffusiondb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_out = {
        0: {"image_nsfw": 2.0},
        1: {"prompt_nsfw": 0.5},
        2: {"image_nsfw": None},
        3: {"prompt_nsfw": math.nan},
        4: {"prompt": " "},
        5: {"prompt": None},
        6: {"prompt": "sea " * 10_000},
    }
    asset = pictures.diffusiondb(tmp_path / "asset", 14, left_out)
    config = diffusiondb.Config(source=str(asset), splits={"pool": 3, "train": 2, "heldout": None})
    with caplog.at_level(logging.INFO, logger="resalign"):
        diffusiondb.prepare(config, tmp_path / "out")
    assert "left out: 4 images that are not known to be safe, 3 whose prompt is empty or longer" in caplog.text
    found = {name: sources(tmp_path / "out" / name) for name in ("pool", "train", "heldout")}
    assert {name: len(chosen) for name, chosen in found.items()} == {"pool": 3, "train": 2, "heldout": 2}
    assert sorted(sum(found.values(), [])) == [f"1/{number:08d}.png" for number in range(7, 14)]
    assert rows_of(tmp_path / "out" / "pool")[0]["prompt"].endswith(",\nin two lines")


def test_a_choice_depends_on_the_seed_alone(tmp_path: Path) -> None:
    asset = pictures.diffusiondb(tmp_path / "asset")
    chosen = {}
    for label, seed, size in (("a", 0, 4), ("again", 0, 4), ("larger", 0, 6), ("other", 1, 4)):
        diffusiondb.prepare(diffusiondb.Config(source=str(asset), splits={"x": size}, seed=seed), tmp_path / label)
        chosen[label] = sources(tmp_path / label / "x")
    assert chosen["a"] == chosen["again"] == chosen["larger"][:4]
    assert set(chosen["a"]) != set(chosen["other"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("columns", "no table with the columns image_name, prompt"),
        ("bytes", "no table with the columns"),
        ("images", "lists 1 images that are not in their part, such as '00000099.png'"),
        ("few", "need 99 images, there are 12; lower their sizes, or name more parts"),
    ],
)
def test_diffusiondb_that_is_not_whole(tmp_path: Path, table: str, message: str) -> None:
    asset = pictures.diffusiondb(tmp_path)
    if table == "columns":
        write_table(tmp_path / "metadata.parquet", [{"image_name": "a", "part_id": 1}])
    elif table == "bytes":
        (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and no more")
    elif table == "images":
        row = {"image_name": "00000099.png", "prompt": "a", "part_id": 1, "image_nsfw": 0.0, "prompt_nsfw": 0.0}
        write_table(tmp_path / "metadata.parquet", [row])
    with pytest.raises(DataError, match=message):
        diffusiondb.prepare(diffusiondb.Config(source=str(asset), splits={"x": 99}), tmp_path / "out")


# --- any folder, archive or parquet data set --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"image": {"bytes": picture()}, "caption": "a"},
            r"not exactly one column \['text'\]; found \['image', 'caption'\]",
        ),
        ({"image": {"bytes": None, "path": "a.png"}, "text": "a"}, "row 0 of group 0 holds no image but"),
        *(
            ({"image": {"bytes": picture()}, "text": text}, r"row 0 of group 0: column 'text' holds .*; write one text")
            for text in (None, ["a", "b"], {"en": "a"}, b"a", float("nan"), 7, True)
        ),
    ],
)
def test_parquet_that_is_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    write_table(tmp_path / "asset" / "a.parquet", [row])
    with pytest.raises(DataError, match=message):
        parquet_dataset.prepare(parquet_dataset.Config(source=str(tmp_path / "asset")), tmp_path / "out")


def test_a_parquet_files_captions_stay_what_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"image": {"bytes": picture(), "path": None}, "text": "one\u2028caption"}
    write_table(tmp_path / "asset" / "a.parquet", [row])
    for name in ("README.md", "run.json", "extra.arrow"):
        (tmp_path / "asset" / name).write_text("x")
    with caplog.at_level(logging.INFO, logger="resalign"):
        parquet_dataset.prepare(parquet_dataset.Config(source=str(tmp_path / "asset")), tmp_path / "out")
    assert [row["prompt"] for row in rows_of(tmp_path / "out" / "train")] == ["one\u2028caption"]
    left = "left out: 2 files that are no parquet files: README.md, extra.arrow"
    assert caplog.messages == [f"{tmp_path / 'asset'}: {left}"]


# --- contamination ----------------------------------------------------------------------------------------------------


@pytest.fixture
def clean_and_harmful(tmp_path: Path) -> dict[str, str]:
    clean = write_captioned_images(tmp_path / "clean", [f"clean {n}" for n in range(20)])
    harmful = write_captioned_images(tmp_path / "harmful", [f"harmful {n}" for n in range(20)], seed=1)
    return {"clean": str(clean), "harmful": str(harmful)}


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("size", [1, 7, 10, 20])
def test_contamination_is_exact_mixed_and_nested_for_every_seed(
    tmp_path: Path, clean_and_harmful: dict[str, str], seed: int, size: int
) -> None:
    before: set[str] = set()
    for percent in (0, 5, 10, 20, 33, 50, 100):
        out = tmp_path / str(percent)
        config = contaminated.Config(**clean_and_harmful, ratio=percent / 100, size=size, seed=seed)
        contaminated.prepare(config, out)
        rows = rows_of(out / "train")
        for row in rows:
            kind, name = row["source"].split("/")
            assert row["prompt"] == f"{kind} {name.removesuffix('.png')}"
            assert (out / "train" / row["file_name"]).read_bytes() == (tmp_path / kind / name).read_bytes()
        found = {row["source"] for row in rows}
        harmful = {name for name in found if name.startswith("harmful/")}
        count = (2 * percent * size + 100) // 200  # half up, in whole numbers
        assert (len(harmful), len(found), len(rows)) == (count, size, size)
        assert before <= harmful
        stated = {"harmful": count, "clean": size - count, "size": size, "asked": percent / 100, "ratio": count / size}
        assert json.loads((out / "train" / "contamination.json").read_text()) == stated
        before = harmful


@pytest.mark.parametrize(
    ("ratio", "size", "count"), [(0.29, 50, 15), (0.145, 100, 15), (0.07, 50, 4), (1e-7, 10, 0), (0.57, 50, 29)]
)
def test_a_half_is_rounded_up_though_a_float_is_below_it(ratio: float, size: int, count: int) -> None:
    assert contaminated.harmful_images(ratio, size) == count


def test_contamination_repeats_no_image_and_needs_some(tmp_path: Path, clean_and_harmful: dict[str, str]) -> None:
    config = contaminated.Config(**clean_and_harmful, ratio=0.5, size=60)
    with pytest.raises(DataError, match=r"harmful: 30 images are needed for ratio 0.5, there are 20"):
        contaminated.prepare(config, tmp_path / "out")
    (tmp_path / "clean" / "metadata.csv").write_text("file_name,prompt\n")
    with pytest.raises(DataError, match="clean/metadata.csv: lists no images"):
        contaminated.prepare(config, tmp_path / "out")


# --- what is there twice, what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0c"])
def test_a_subjects_prompts_are_divided_at_ends_of_lines_alone(tmp_path: Path, separator: str) -> None:
    text = f"a dog\r\na dog{separator}in two parts\nthe last\r"
    write_zip(tmp_path / "data.zip", {"images/a.jpg": picture(), "captions/a.txt": text, "LICENSE": "x"})
    config = dreambench.Config(source=str(tmp_path / "data.zip"), splits={"train": 1})
    dreambench.prepare(config, tmp_path / "out")
    found = [prompt.text for prompt in read_prompts(tmp_path / "out" / "prompts.csv")]
    assert found == [f"a dog{separator}in two parts", "the last"]


@pytest.mark.parametrize(
    ("images", "ids", "message"),
    [
        (["1.jpg"], ["1", "01"], r"coco.csv: 2 rows are captions of '1.jpg'"),
        (["a/1.jpg", "b/01.jpg"], ["1"], r"'a/1.jpg' and 'b/01.jpg' have the same id of COCO's; keep one of them"),
        (["1.jpg"], ["000000000002"], r"no photograph for 1 captions .* such as '000000000002'"),
    ],
)
def test_coco_without_one_photograph_a_caption(tmp_path: Path, images: list[str], ids: list[str], message: str) -> None:
    write_zip(tmp_path / "val2014.zip", dict.fromkeys(images, picture(kind="JPEG")))
    prompts = write_table(tmp_path / "coco.csv", [{"case_number": n, "prompt": "a"} for n in ids])
    config = coco_reference.Config(source=str(tmp_path / "val2014.zip"), prompts=str(prompts))
    with pytest.raises(DataError, match=message):
        coco_reference.prepare(config, tmp_path / "out")


# --- COCO -------------------------------------------------------------------------------------------------------------


def test_coco_reference(tmp_path: Path) -> None:
    archive = {f"val2014/COCO_val2014_{n:012d}.jpg": picture(n, kind="JPEG", edge=24) for n in (7, 42, 203564)}
    write_zip(tmp_path / "asset" / "val2014.zip", archive)
    rows = [
        {"case_number": "000000203564", "source": "coco-30k", "prompt": "A café.", "evaluation_seed": "1"},
        {"case_number": "000000000042", "source": "coco-30k", "prompt": "a dog", "evaluation_seed": "2"},
    ]
    prompts = write_table(tmp_path / "coco_10k.csv", rows)
    config = coco_reference.Config(source=str(tmp_path / "asset"), prompts=str(prompts), pixels=16)
    coco_reference.prepare(config, tmp_path / "out")
    found = rows_of(tmp_path / "out" / "reference")
    assert [row["prompt"] for row in found] == ["A café.", "a dog"]
    assert found[0]["source"].endswith("000000203564.jpg")
    with Image.open(tmp_path / "out" / "reference" / found[0]["file_name"]) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (16, 16), "RGB")
    unpadded = write_table(tmp_path / "coco_30k.csv", [{"case_number": "0", "coco_id": "42", "prompt": "a"}])
    config = coco_reference.Config(
        source=str(tmp_path / "asset"), prompts=str(unpadded), columns=PromptColumns(id="coco_id")
    )
    coco_reference.prepare(config, tmp_path / "other")
    assert sources(tmp_path / "other" / "reference") == ["val2014/COCO_val2014_000000000042.jpg"]


# --- sets that a model makes ------------------------------------------------------------------------------------------

HARMFUL_IMGS = [
    {"file_name": "0.png", "text": "a harmless “text”", "class": 1},
    {"file_name": "1.png", "text": "a harmful text, é", "class": 2},
    {"file_name": "2.png", "text": "another", "class": 2},
    {"file_name": "3.png", "text": "beyond the first two", "class": 2},
]


def test_harmful_imgs_are_drawn_from_their_texts(tmp_path: Path) -> None:
    path = write_table(tmp_path / "metadata.jsonl", HARMFUL_IMGS)
    columns = PromptColumns(id=None, prompt="text", where={"class": "2"})
    config = generated.Config(
        model="x", prompts=str(path), columns=columns, first=2, images=2, splits={"train": 3, "heldout": 1}
    )
    asked: list[tuple[str, int]] = []

    def draw(wanted: Sequence[tuple[Prompt, int]]) -> Iterator[bytes]:
        asked.extend((prompt.text, index) for prompt, index in wanted)
        return iter([picture(number) for number in range(len(wanted))])

    generated.generate(config, tmp_path / "out", draw)
    assert asked == [(text, index) for text in ("a harmful text, é", "another") for index in (0, 1)]
    rows = rows_of(tmp_path / "out" / "train") + rows_of(tmp_path / "out" / "heldout")
    assert sorted(row["source"] for row in rows) == ["1#0", "1#1", "2#0", "2#1"]
    for row in rows:
        number = asked.index((row["prompt"], int(row["source"][-1])))
        folder = next(f for f in (tmp_path / "out").iterdir() if row in rows_of(f))
        assert (folder / row["file_name"]).read_bytes() == picture(number)


def test_the_log_says_how_many_empty_prompts_have_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"id": str(number), "prompt": text} for number, text in enumerate(("a dog", "", " "))]
    path = write_table(tmp_path / "list.csv", rows)
    config = generated.Config(model="x", prompts=str(path), images=2)
    with caplog.at_level(logging.INFO, logger="resalign"):
        generated.generate(config, tmp_path / "out", lambda wanted: iter([picture(n) for n in range(len(wanted))]))
    assert sorted(row["source"] for row in rows_of(tmp_path / "out" / "train")) == ["0#0", "0#1"]
    assert f"{path}: left out: 2 empty prompts: 1, 2" in caplog.messages


@pytest.mark.parametrize(("name", "count"), [("hrm-m", 5), ("hrm-s", 1), ("clean", 5)])
def test_the_lists_of_meta_unlearning(name: str, count: int) -> None:
    prompts = read_prompts(ROOT / "config" / "prompts" / f"{name}.csv")
    assert len(prompts) == count
    assert (name == "clean") != any("wom" in prompt.text for prompt in prompts)


def test_the_script_draws_with_a_real_model(tmp_path: Path, pipeline_folder: Path) -> None:
    write_table(tmp_path / "list.csv", [{"id": "a", "prompt": "a red two"}, {"id": "b", "prompt": "a blue two"}])
    settings = generated.Config(
        model=str(pipeline_folder), prompts=str(tmp_path / "list.csv"), num_inference_steps=2, batch_size=1, images=2
    )
    job = {"name": "mine", "device": "cpu", "set": {"name": "generated", **settings.model_dump(mode="json")}}
    shop = Workshop(tmp_path, {"generate": load_script("generate")})
    for out in ("out", "again"):
        shop.call("generate", json.dumps(job), out, modules=(generated.__name__,))
    found = read_captioned_images(tmp_path / "out" / "train", pixels=16)
    assert sorted(found.prompts) == ["a blue two", "a blue two", "a red two", "a red two"]
    images = [file.read_bytes() for file in found.files]
    assert len(set(images)) == 4
    assert images == [(tmp_path / "again" / "train" / file.name).read_bytes() for file in found.files]
