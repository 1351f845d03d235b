"""The paper configuration's data path, offline: from a mirror or from its publishers' servers to the table."""

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from resalign.assets.source import Source
from resalign.config.dependents import dependents
from resalign.config.plan import load_plan
from resalign.config.strict import read_yaml
from resalign.data.images import read_captioned_images
from resalign.data.prompts import read_prompts
from tests.assets.hub_server import Server, refusal, serving
from tests.assets.paper_run import CATALOGUE, CONFIG, REDUCED, taken, write_small
from tests.assets.shapes import CAPTIONS, COCO_IDS, I2P, addresses, pinned, serve, write_shape
from tests.data.pictures import rows_of

from .conftest import ROOT, Checkout, copy_repository

pytestmark = pytest.mark.slow

METHOD = "resalign"  # of Table 1's rows the one that is always run to its end, beside the untouched model


def small_checkout(folder: Path, catalogue: dict[str, Any]) -> Checkout:
    """A checkout with another catalogue, and beside the paper's configuration its reduced form."""
    root = copy_repository(folder / "repository")
    write_small(root, catalogue)
    return Checkout(root, CONFIG)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every asset that the paper's configuration takes, by its name: real ones, but for their size."""
    folder = tmp_path_factory.mktemp("made")
    for name in taken():
        write_shape(name, folder / name)
    return folder


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory, made: Path) -> tuple[Checkout, Path]:
    """A checkout of the paper's configuration whose catalogue pins the small files of a mirror."""
    mirror, catalogue = tmp_path_factory.mktemp("mirror"), read_yaml(ROOT / CATALOGUE)
    for name, asset in taken().items():
        catalogue[name] = pinned(catalogue[name], made / name)
        place = mirror / Source(name, asset.model_copy(update={"sha256": catalogue[name].get("sha256")})).mirror
        place.parent.mkdir()
        place.symlink_to(made / name)
    return small_checkout(tmp_path_factory.mktemp("paper"), catalogue), mirror


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Iterator[tuple[Checkout, Server]]:
    """Such a checkout, and the server that has the files at their addresses."""
    catalogue = read_yaml(ROOT / CATALOGUE)
    with serving() as server:
        for name in taken():
            catalogue[name] = serve(server, pinned(catalogue[name], made / name), made / name)
        yield small_checkout(tmp_path_factory.mktemp("served"), catalogue), server


def offline(monkeypatch: pytest.MonkeyPatch, mirror: Path) -> None:
    """Whatever asks for a network finds none, and assets are in the mirror."""
    monkeypatch.setenv("RESALIGN_ASSET_ROOT", str(mirror))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_every_missing_asset_is_named_in_the_plan(
    mirrored: tuple[Checkout, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, _ = mirrored
    monkeypatch.delenv("RESALIGN_ASSET_ROOT", raising=False)
    planned = checkout.snakemake("--dry-run", "--forceall")
    assert planned.returncode == 0, planned.stderr
    needed = set(taken())
    here = {path.parent.name.rpartition("-")[0] for path in checkout.folder.glob("results/assets/*/run.json")}
    told = re.findall(r"missing asset (\S+):", planned.stdout + planned.stderr)
    assert set(told) == needed - here


def test_what_cannot_be_had_ends_a_run_before_its_first_job(
    mirrored: tuple[Checkout, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, _ = mirrored
    monkeypatch.delenv("RESALIGN_ASSET_ROOT", raising=False)
    checkout = Checkout(paper.folder, "config/studies/released-data.yaml")
    before = sorted(checkout.folder.glob("results/**/*"))
    refused = checkout.snakemake("--", "all")
    assert refused.returncode == 1
    said = refused.stdout + refused.stderr
    assert re.search(r"^  resalign-train: by hand .*\n    on it depend: rows esd, .*resalign", said, flags=re.MULTILINE)
    assert "rule " not in said
    assert sorted(checkout.folder.glob("results/**/*")) == before
    # A run of something else is none of its business, nor is a plan.
    assert checkout.snakemake("--dry-run", "--", "all").returncode == 0


def test_from_the_mirror_to_prompts_and_images(
    mirrored: tuple[Checkout, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, mirror = mirrored
    planned = checkout.snakemake("--dry-run", "--forceall").stdout
    offline(monkeypatch, mirror)
    config = yaml.safe_load((checkout.folder / CONFIG).read_text())
    generated = {name for name, entry in config["prepared"].items() if entry["set"] == "generated"}  # on a GPU
    runs = dict(re.findall(r"results/assets/(([\w.-]+)-\w{10})/run\.json", planned))
    assert sorted(runs.values()) == sorted([*taken(), *config["prepared"]])
    targets = sorted(f"results/assets/{run}/run.json" for run, name in runs.items() if name not in generated)
    finished = checkout.made(*targets)
    assert finished.returncode == 0, finished.stderr[-3000:]
    monkeypatch.chdir(checkout.folder)
    assets = {path.name.rpartition("-")[0]: path for path in (checkout.folder / "results" / "assets").iterdir()}

    def path_of(reference: str) -> Path:
        name, _, rest = reference.partition("/")
        return assets[name] / rest

    wanted = {
        config["concept"]["pool"]: 500,
        config["attacks"]["dreambench"]["train"]: 120,
        config["attacks"]["dreambench"]["heldout"]: 30,
        config["attacks"]["diffusiondb"]["train"]: 150,
        config["attacks"]["diffusiondb"]["heldout"]: 50,
        config["reference"]: CAPTIONS,
    }
    for reference, count in wanted.items():
        assert len(read_captioned_images(path_of(reference), pixels=8)) == count, reference
    splits = [path_of(config["attacks"]["diffusiondb"][key]) for key in ("train", "heldout")]
    splits.append(path_of(config["concept"]["pool"]))
    chosen = [{row["source"] for row in rows_of(split)} for split in splits]
    assert sum(map(len, chosen)) == len(set().union(*chosen)) == 700
    assert not {f"1/{number:08d}.png" for number in range(5)} & set().union(*chosen)
    lists = load_plan(checkout.folder / CONFIG).experiment.config.prompts
    prompts = {
        name: read_prompts(path_of(str(entry.source_after(None))), columns=entry.columns)
        for name, entry in lists.items()
    }
    assert [prompt.text for prompt in prompts["i2p"]] == [str(row["prompt"]) for row in I2P[1:]]
    assert [prompt.text for prompt in prompts["unsafe-diffusion"]] == ["“0”, é", "“1”, é"]
    assert [prompt.id for prompt in prompts["coco"]] == [f"{number:012d}" for number in COCO_IDS]
    # What nobody has published a hash for is locked now, and only that.
    locked = {path.stem for path in (checkout.folder / "config" / "hashes").iterdir()}
    assert {"diffusiondb", "i2p"} <= locked
    assert not {"dreambench", "unsafe-diffusion", "coco-10k"} & locked
    assert "Nothing to be done" in checkout.snakemake("--dry-run", "--", *targets).stdout


def online(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """The network holds the loopback server alone, and the hub is there."""
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize(
    "rows", [pytest.param((METHOD,), id=METHOD), pytest.param((), id="every row", marks=pytest.mark.large)]
)
def test_from_the_publishers_servers_to_the_table(
    served: tuple[Checkout, Server], monkeypatch: pytest.MonkeyPatch, rows: tuple[str, ...]
) -> None:
    """Every stage of the paper's configuration without a mirror: fetch, prepare, unlearn, attack, …, table."""
    paper, server = served
    online(monkeypatch, server)
    checkout = Checkout(paper.folder, "config/rows.yaml")
    write_small(paper.folder, read_yaml(paper.folder / CATALOGUE), rows, config=checkout.config)
    finished = checkout.made("all")
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    table = pd.read_csv(checkout.folder / "results" / "table1" / "tables" / "table1.csv", keep_default_na=False)
    config = read_yaml(checkout.folder / checkout.config)
    models = ["base", *(rows or read_yaml(ROOT / CONFIG)["unlearning"])]
    states = [("none", ""), ("dreambench", "dreambench++"), ("diffusiondb", "diffusiondb")]
    benign = {name for name, metric in config["metrics"].items() if metric.get("prompts") == "coco"}
    metrics = {"none": set(config["metrics"]) - {"learnability"}}
    metrics |= dict.fromkeys(("dreambench", "diffusiondb"), set(config["metrics"]) - benign)
    wanted = {(model, *state, metric) for model in models for state in states for metric in metrics[state[0]]}
    cells = table.set_index(["model", "attack", "dataset", "metric"])["mean"].astype(float)
    assert set(cells.index) == wanted
    assert all(map(math.isfinite, cells))
    sizes = dict(zip(table["metric"], table["n"].astype(int), strict=True))
    assert (sizes["ip"], sizes["us"], sizes["fid"], sizes["clip_score"]) == (len(I2P) - 1, 2, CAPTIONS, CAPTIONS)
    # Every state is another model: weights that nobody loaded would give the numbers of the state before. Two steps at
    # some rows' rates change no image.
    found = {
        path.parents[2].name.rpartition("-")[0]: pd.read_parquet(path)
        for path in checkout.folder.glob("results/runs/score/*/seed-0/*/scores.parquet")
    }
    numbers = {
        name: scores[scores["prompt_set"] == "i2p"].filter(like=".").sum().sum() for name, scores in found.items()
    }
    own = [name for name in numbers if name.partition(".")[0] in ("base", METHOD)]
    assert len({numbers[name] for name in own}) == len(own) == 2 * len(states)


@pytest.mark.parametrize(
    "names", [pytest.param(("inception",), id="inception"), pytest.param((), id="each", marks=pytest.mark.large)]
)
def test_an_asset_that_is_gone_ends_a_run_before_it_has_cost_anything(
    served: tuple[Checkout, Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """With its remedy, the rows and metrics that need it, and the lines without them."""
    paper, server = served
    online(monkeypatch, server)
    copy = shutil.copytree(paper.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("results", ".snakemake"))
    checkout = Checkout(copy, REDUCED)
    experiment, entries = load_plan(copy / REDUCED).experiment, read_yaml(copy / CATALOGUE)
    planned = checkout.snakemake("--dry-run").stdout
    found = {name: run for run, name in re.findall(r"(results/assets/([\w.-]+)-\w{10}/run\.json)", planned)}
    runs = {name: found[name] for name in taken()}
    assert checkout.made(*runs.values()).returncode == 0
    for name in names or runs:
        run = runs[name]
        here = shutil.move((copy / run).parent, tmp_path / name)
        with monkeypatch.context() as patch:
            for path in addresses(server, entries[name]):
                patch.setitem(server.faults, path, refusal(404, "RepoNotFound"))
            refused = checkout.made("all")
        said = refused.stdout + refused.stderr
        assert refused.returncode == 1
        assert f"error: asset '{name}' (" in said
        assert "put a copy from elsewhere into $RESALIGN_ASSET_ROOT/" in said
        assert f"on asset '{name}' depend: {dependents(experiment, [name])}\n" in said
        assert {*re.findall(r"^(?:local)?rule (\w+):", said, flags=re.MULTILINE)} == {"fetch"}
        shutil.rmtree((copy / run).parent, ignore_errors=True)  # what an attempt may have left
        shutil.move(here, (copy / run).parent)


def test_what_is_sensitive_is_not_planned_without_consent(mirrored: tuple[Checkout, Path]) -> None:
    checkout, _ = mirrored
    refused = checkout.snakemake("--dry-run", overrides=("consent=[]",))
    assert refused.returncode == 1
    told = refused.stdout + refused.stderr
    assert re.search(r"asset '\S+' holds or makes sexual .*write 'consent: \[sensitive\]'", told), told
    assert "Traceback" not in told
