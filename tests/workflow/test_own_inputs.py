"""Folders and files of the user's own: checked first, noticed when they change, and no reason to repeat anything."""

from pathlib import Path

import pytest
import yaml

from tests.conftest import write_captioned_images

from .conftest import Checkout, copy_repository

PROMPTS = "id,prompt,label\n" + "".join(f"p{index},a red two,two\n" for index in range(400))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The demo with a pool and a prompt list of the user's own, all made."""
    folder = copy_repository(tmp_path_factory.mktemp("own") / "repository")
    write_captioned_images(folder / "mine" / "pool", ("a red two", "a blue three"))
    (folder / "mine" / "prompts.csv").write_text(PROMPTS)
    config = yaml.safe_load((folder / "config" / "demo.yaml").read_text())
    config["assets"]["mine"] = {"path": "mine"}
    config["concept"]["pool"] = "mine/pool"
    config["prompts"]["benign"]["source"] = "mine/prompts.csv"
    (folder / "config" / "own.yaml").write_text(yaml.safe_dump(config))
    checkout = Checkout(folder, "config/own.yaml")
    checkout.make_everything()
    return checkout


def test_nothing_is_to_be_done_when_all_is_made(own: Checkout) -> None:
    assert own.planned() == {}


def test_they_are_checked_before_any_training(own: Checkout) -> None:
    fresh = Checkout(copy_repository(own.folder.parent / "fresh"), own.config)
    (fresh.folder / own.config).write_text((own.folder / own.config).read_text())
    (fresh.folder / "mine").symlink_to(own.folder / "mine")
    planned = fresh.snakemake("--dry-run").stdout
    order = [line.split()[1].rstrip(":") for line in planned.splitlines() if line.startswith(("rule ", "localrule "))]
    first = {rule: order.index(rule) for rule in ("check_inputs", "digits_model", "unlearn", "attack", "sample")}
    assert min(first, key=lambda rule: first[rule]) == "check_inputs", first


def test_a_changed_prompt_list_is_sampled_anew(own: Checkout) -> None:
    with own.edited("mine/prompts.csv", lambda text: text.replace("p0,a red two", "p0,a crimson two")):
        planned = own.planned()
    assert "base" in planned.get("sample", set())
    assert "unlearn" not in planned


def test_changed_captions_are_trained_on_anew(own: Checkout) -> None:
    with own.edited("mine/pool/metadata.csv", lambda text: text.replace("a red two", "a crimson two")):
        planned = own.planned()
    assert planned.get("unlearn") == {"graddiff", "esd", "resalign"}


def test_a_larger_tier_keeps_every_weight(own: Checkout) -> None:
    planned = Checkout(own.folder, own.config, "small").snakemake("--dry-run").stdout
    assert "seed=1" in planned
    trained = [block for block in planned.split("\nrule ")[1:] if block.startswith(("unlearn:", "attack:"))]
    assert not [block for block in trained if "seed=0" in block]


def test_another_experiment_shares_equal_runs(own: Checkout) -> None:
    config = yaml.safe_load((own.folder / own.config).read_text())
    with own.edited("config/other.yaml", lambda _: yaml.safe_dump({**config, "name": "other"})):
        planned = Checkout(own.folder, "config/other.yaml").planned()
    assert set(planned) <= {"check_inputs", "report"}


@pytest.mark.parametrize("name", ["pool", "prompts.csv"])
def test_a_missing_one_is_named_before_anything_runs(own: Checkout, name: str) -> None:
    path = own.folder / "mine" / name
    hidden = path.rename(path.with_name(f"{name}.hidden"))
    try:
        fresh = Checkout(own.folder, own.config, "paper").snakemake("--until", "check_inputs", "--quiet", "all")
    finally:
        hidden.rename(path)
    output = (
        fresh.stdout + fresh.stderr + "".join(p.read_text() for p in Path(own.folder / "logs").rglob("check_inputs*"))
    )
    assert fresh.returncode != 0
    assert f"mine/{name}" in output
