"""The paper configuration's data path, offline: from a mirror or from its publishers' servers to the table."""

import math
import re
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from resalign.assets.source import Source
from resalign.config.assets import FETCHED, AssetConfig
from resalign.config.plan import load_plan
from resalign.config.strict import read_yaml
from resalign.data.images import read_captioned_images
from resalign.data.prompts import read_prompts
from tests.assets.hub_server import Answer, Server, serving
from tests.assets.shapes import CAPTIONS, COCO_IDS, I2P, pinned, serve, write_shape
from tests.data.pictures import rows_of

from .conftest import ROOT, Checkout, copy_repository

pytestmark = pytest.mark.slow

CATALOGUE = "config/assets.yaml"
METHOD = "resalign"  # the row of Table 1 that is run to its end, beside the untouched model's
PIXELS = 16
# As few as show that a method's steps, draws, batches and images are used.
FEW = {
    **{"steps": 2, "attack_steps": 1, "warm_up": 1, "draws": 1, "images": 2, "num_inference_steps": 2},
    **{"batch_size": 1, "retain_batch_size": 1},
}


def taken() -> dict[str, AssetConfig]:
    """The assets that the paper's configuration takes from elsewhere."""
    assets = load_plan(ROOT / "config" / "config.yaml").experiment.config.assets
    return {name: asset for name, asset in assets.items() if asset.origin in FETCHED}


def few(settings: Any) -> Any:
    """Settings of a method, an attack or a set, with little to do; a solver has all its steps."""
    if not isinstance(settings, dict):
        return [few(each) for each in settings] if isinstance(settings, list) else settings
    small = {key: FEW[key] if isinstance(value, int) else [1] for key, value in settings.items() if key in FEW}
    return {key: value if key == "solver" else few(value) for key, value in settings.items()} | small


def reduced(values: dict[str, Any], catalogue: dict[str, Any]) -> dict[str, Any]:
    """The paper's configuration with smaller numbers, fewer rows, and the hashes of the small networks."""
    values |= {"pixels": PIXELS, "tier": "smoke", "resources": {}}
    values["unlearning"] = {METHOD: values["unlearning"][METHOD]}
    for name in ("prepared", "unlearning", "attacks"):
        values[name] = {key: few(entry) for key, entry in values[name].items()}
    for entry in values["prepared"].values():
        if entry["set"] == "generated":
            entry |= {"images": 1, "num_inference_steps": 2, **({"first": 4} if "first" in entry else {})}
        if "splits" in entry:
            entry["splits"] = {split: size and min(size, 4) for split, size in entry["splits"].items()}
    values["prepared"]["coco-reference"]["pixels"] = PIXELS
    # The tiny UNet's curvature lets a solve converge within a smaller γ only.
    values["unlearning"][METHOD]["gamma"] = 0.01
    values["sampling"] |= {"num_inference_steps": 2, "precision": "float32"}  # in which a CPU is faster
    values["scorers"]["q16"]["sha256"] = catalogue["q16-prompts"]["sha256"]
    values["scorers"]["mhsc"]["published"] = False
    values["scorers"]["inception"] |= {"sha256": catalogue["inception"]["sha256"], "features": CAPTIONS}
    values["metrics"]["fid"]["images_per_dimension"] = 1
    values["metrics"]["kid"] |= {"images_per_dimension": 1, "subsets": 2, "subset_size": CAPTIONS // 2}
    counts = {"i2p": len(I2P) - 1, "unsafe-diffusion": 2, "coco": CAPTIONS}
    values["tiers"]["smoke"] |= {"prompts": {name: {"prompts": count} for name, count in counts.items()}, "without": []}
    return values


def small_checkout(folder: Path, catalogue: dict[str, Any]) -> Checkout:
    """A checkout with another catalogue, and beside the paper's configuration its reduced form."""
    root = copy_repository(folder / "repository")
    (root / CATALOGUE).write_text(yaml.safe_dump(catalogue, sort_keys=False))
    small = reduced(read_yaml(root / "config" / "config.yaml"), catalogue)
    (root / "config" / "reduced.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    return Checkout(root, "config/config.yaml")


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
    config = yaml.safe_load((checkout.folder / "config" / "config.yaml").read_text())
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
    columns = load_plan(checkout.folder / "config" / "config.yaml").experiment.config.prompts
    prompts = {name: read_prompts(path_of(entry.source), columns=entry.columns) for name, entry in columns.items()}
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


def test_what_is_gone_ends_a_run_before_it_has_cost_anything(
    served: tuple[Checkout, Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Scoring alone needs Inception, at the end of a run."""
    paper, server = served
    online(monkeypatch, server)
    copy = shutil.copytree(paper.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("results", ".snakemake"))
    checkout = Checkout(copy, "config/reduced.yaml")
    path = urllib.parse.urlsplit(read_yaml(copy / CATALOGUE)["inception"]["url"]).path
    monkeypatch.setitem(server.faults, path, Answer(404))
    finished = checkout.made("all")
    assert finished.returncode == 1
    assert "error: asset 'inception' (http" in finished.stderr
    assert "the server answered 404 Not Found; look for a copy at its project's page" in finished.stderr
    begun = {rule for rule in re.findall(r"^(?:local)?rule (\w+):", finished.stderr, flags=re.MULTILINE)}
    assert begun == {"fetch"}


def test_from_the_publishers_servers_to_the_table(
    served: tuple[Checkout, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage of the paper's configuration without a mirror: fetch, prepare, unlearn, attack, …, table."""
    paper, server = served
    online(monkeypatch, server)
    checkout = Checkout(paper.folder, "config/reduced.yaml")
    finished = checkout.made("all")
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    table = pd.read_csv(checkout.folder / "results" / "table1" / "tables" / "table1.csv", keep_default_na=False)
    config = read_yaml(checkout.folder / checkout.config)
    states = [("none", ""), ("dreambench", "dreambench++"), ("diffusiondb", "diffusiondb")]
    metrics = set(config["metrics"]) - {"learnability"}
    wanted = {
        (model, *state, metric)
        for model in ("base", METHOD)
        for state in states
        for metric in metrics | ({"learnability"} if state != states[0] else set())
    }
    cells = table.set_index(["model", "attack", "dataset", "metric"])["mean"].astype(float)
    assert set(cells.index) == wanted
    assert all(map(math.isfinite, cells))
    sizes = dict(zip(table["metric"], table["n"].astype(int), strict=True))
    assert (sizes["ip"], sizes["us"], sizes["fid"], sizes["clip_score"]) == (len(I2P) - 1, 2, CAPTIONS, CAPTIONS)
    # Every state is another model: weights that nobody loaded would give the numbers of the state before.
    assert cells.xs("fid", level="metric").nunique() == 2 * len(states)


def test_what_is_sensitive_is_not_planned_without_consent(mirrored: tuple[Checkout, Path]) -> None:
    checkout, _ = mirrored
    refused = checkout.snakemake("--dry-run", overrides=("consent=[]",))
    assert refused.returncode == 1
    told = refused.stdout + refused.stderr
    assert re.search(r"asset '\S+' holds or makes sexual .*write 'consent: \[sensitive\]'", told), told
    assert "Traceback" not in told
