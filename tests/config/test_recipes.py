"""Every recipe in config/recipes, on top of the paper's experiment, and on a small source of the true schema."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from snakemake.utils import update_config

from resalign.config import registry
from resalign.config.experiment import SETS, Experiment
from resalign.config.plan import Plan
from resalign.config.prompts import PromptColumns
from resalign.config.strict import ConfigError, read_yaml
from resalign.data.prompts import read_prompts
from tests.data.pictures import picture, rows_of, write_table, write_zip

ROOT = Path(__file__).resolve().parents[2]
# For every published set that Table 1 does not use.
NAMES = ("artbench-10", "dreambooth-dog", "harmful-imgs", "meta-unlearning", "pokemon", "vggface2-hq")
RECIPES = {name: ROOT / "config" / "recipes" / f"{name}.yaml" for name in NAMES}


def merged(name: str) -> dict[str, Any]:
    """As ``--configfile config/config.yaml config/recipes/<name>.yaml`` merges them."""
    values = copy.deepcopy(read_yaml(ROOT / "config" / "config.yaml"))
    update_config(values, read_yaml(RECIPES[name]))
    return values


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_adds_an_attack_on_its_set_to_every_model(name: str) -> None:
    paper = Plan(Experiment(read_yaml(ROOT / "config" / "config.yaml"), where="config.yaml"))
    plan = Plan(Experiment(merged(name), where=name))
    added = set(plan.experiment.attacks) - set(paper.experiment.attacks)
    assert added == set(read_yaml(RECIPES[name])["attacks"])
    models = {stage.model for stage in paper.attack.values()}
    assert {(stage.model, stage.attack) for stage in plan.attack.values()} >= {(m, a) for m in models for a in added}
    assert set(plan.attack) > set(paper.attack), "what the paper's experiment has trained is used again"
    for attack in added:
        data = plan.experiment.attack_data[attack]
        assert data.train.split("/")[0] in plan.experiment.prepared
        assert data.train != data.heldout


@pytest.mark.parametrize("name", ["pokemon", "vggface2-hq"])
def test_a_recipe_says_what_must_be_agreed_to(name: str) -> None:
    values = merged(name) | {"consent": ["sensitive"]}
    with pytest.raises(ConfigError, match=r"write 'consent: \[sensitive, "):
        Experiment(values, where=name)


def as_parquet(folder: Path) -> None:
    rows = [{"image": {"bytes": picture(n), "path": None}, "text": f"a Pokémon,\nnumber {n}"} for n in range(40)]
    write_table(folder / "data" / "train-00000-of-00001.parquet", rows)


def as_photographs(folder: Path) -> None:
    for number in range(5):
        (folder / f"{number:02d}.jpg").write_bytes(picture(number, kind="JPEG"))


def as_styles(folder: Path) -> None:
    top = "artbench-10-imagefolder-split"
    files: dict[str, bytes | str] = {
        f"{top}/{split}/{style}/{number}.jpg": picture(number, kind="JPEG")
        for split in ("train", "test")
        for style in ("art_nouveau", "ukiyo_e")
        for number in range(130)
    }
    write_zip(folder / f"{top}.zip", files)


def as_faces(folder: Path) -> None:
    for number in range(252):
        (folder / f"n{number % 3:06d}").mkdir(exist_ok=True)
        (folder / f"n{number % 3:06d}" / f"{number}.jpg").write_bytes(picture(number, kind="JPEG"))


@pytest.mark.parametrize(
    ("name", "write", "sizes", "caption"),
    [
        ("pokemon", as_parquet, {"train": 7, "heldout": 33}, "a Pokémon,\nnumber "),
        ("dreambooth-dog", as_photographs, {"train": 4, "heldout": 1}, "a photo of sks dog"),
        ("artbench-10", as_styles, {"train": 200, "heldout": 50}, "a painting in the style of "),
        ("vggface2-hq", as_faces, {"train": 200, "heldout": 50}, "a photo of a person"),
    ],
)
def test_a_recipe_prepares_its_source(
    tmp_path: Path, name: str, write: Callable[[Path], None], sizes: dict[str, int], caption: str
) -> None:
    [label] = read_yaml(RECIPES[name])["prepared"]
    member = Experiment(merged(name), where=name).prepared[label]
    (tmp_path / "source").mkdir()
    write(tmp_path / "source")
    config = member.config.model_copy(update={"source": str(tmp_path / "source")})
    registry.member(SETS, member.name).prepare(config, tmp_path / "out")
    rows = {split: rows_of(tmp_path / "out" / split) for split in sizes}
    assert {split: len(found) for split, found in rows.items()} == sizes
    assert all(row["prompt"].startswith(caption) for found in rows.values() for row in found)
    assert not {row["source"] for row in rows["train"]} & {row["source"] for row in rows["heldout"]}


def test_the_prompts_of_clip_t_are_the_captions_that_are_held_out(tmp_path: Path) -> None:
    columns = Experiment(merged("pokemon"), where="pokemon").config.prompts["pokemon"].columns
    rows = [{"file_name": "00.png", "prompt": "a Pokémon,\nin two lines", "source": "x#0.0"}]
    [prompt] = read_prompts(write_table(tmp_path / "metadata.csv", rows), columns=columns)
    assert (prompt.id, prompt.text) == ("00.png", "a Pokémon,\nin two lines")


def test_harmful_imgs_are_the_texts_of_class_2(tmp_path: Path) -> None:
    columns = Experiment(merged("harmful-imgs"), where="x").prepared["harmful-images"].resolved()["columns"]
    rows = [{"file_name": f"{n}.png", "text": f"text {n}", "class": n} for n in (1, 2, 12, 2)]
    path = write_table(tmp_path / "metadata.jsonl", rows)
    assert [prompt.id for prompt in read_prompts(path, columns=PromptColumns(**columns))] == ["1", "3"]


def test_the_nudity_list_is_read_as_released(tmp_path: Path) -> None:
    columns = Experiment(merged("meta-unlearning"), where="x").config.prompts["nudity-142"].columns
    rows = [{"Unnamed: 0": 21, "prompt": " a “calm” sea", "categories": "sexual, shocking", "case_number": 21}]
    [prompt] = read_prompts(write_table(tmp_path / "nudity.csv", rows), columns=columns)
    assert (prompt.id, prompt.text) == ("21", " a “calm” sea")
