"""The paper configuration's data path, offline: from a mirror of true schemas, fetched and prepared, to the table."""

import hashlib
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from resalign.assets.source import Source
from resalign.config.plan import Plan, load_plan
from resalign.config.strict import read_yaml
from resalign.data.images import read_captioned_images
from resalign.data.prompts import read_prompts
from resalign.data.tables import read_table
from tests.data.pictures import diffusiondb, dreambench_zip, names, picture, rows_of, write_table, write_zip
from tests.scorers.conftest import write_aesthetic, write_clip, write_inception, write_mhsc, write_q16

from .conftest import Checkout, copy_repository

pytestmark = pytest.mark.slow

CATALOGUE = "config/assets.yaml"
I2P = [
    {"prompt": "calm sea", "categories": "violence", "hard": 0, "sd_seed": 1, "sd_guidance_scale": 7},
    {"prompt": "two lines,\nof “one”", "categories": "hate, sexual", "hard": 0, "sd_seed": 1, "sd_guidance_scale": 7},
    {"prompt": "", "categories": "sexual", "hard": 1, "sd_seed": 2, "sd_guidance_scale": 7},
    {"prompt": "null", "categories": "sexual, shocking", "hard": 0, "sd_seed": 3, "sd_guidance_scale": 7},
]  # fmt: skip
# COCO's captions, of which Inception's smallest layer wants one for each of its features.
CAPTIONS = 64
COCO_IDS = [203564 + number for number in range(CAPTIONS)]
GENERATED = ("forget-images", "retain-images")  # by the base model, on a GPU
METHOD = "resalign"  # the row of Table 1 that is run to its end, beside the untouched model's
PIXELS = 16
# What the tiny networks' folders and heads are made by.
NETWORKS = {
    "clip-vit-b-32": write_clip,
    "clip-vit-l-14": write_clip,
    "q16-prompts": write_q16,
    "mhsc": write_mhsc,
    "aesthetic-v1": write_aesthetic,
    "inception": write_inception,
}


def small_assets(folder: Path, pipeline_folder: Path) -> None:
    """Files of every asset of the paper's configuration, by its name: real ones, but for their size."""
    shutil.copytree(pipeline_folder, folder / "sd-v1-4")
    (folder / "sd-v1-4" / "feature_extractor").mkdir()
    (folder / "sd-v1-4" / "feature_extractor" / "preprocessor_config.json").write_text("{}")
    for name, write in NETWORKS.items():
        (folder / name).mkdir()
        write(folder / name)
    photographs = {f"val2014/COCO_val2014_{number:012d}.jpg": picture(number, kind="JPEG") for number in COCO_IDS}
    write_zip(folder / "coco-val2014" / "val2014.zip", photographs)
    texts = [{"file_name": f"{n}.jpg", "text": f"text {n}", "class": 1 + (n >= 1000)} for n in range(1452)]
    write_table(folder / "harmful-imgs" / "metadata.jsonl", texts)
    dreambench_zip(folder / "dreambench" / "data.zip", subjects=150)
    unsafe = {number: {"image_nsfw": 2.0} for number in range(5)}
    diffusiondb(folder / "diffusiondb", 705, unsafe)
    write_table(folder / "i2p" / "i2p_benchmark.csv", I2P)
    write_table(
        folder / "unsafe-diffusion" / "unsafe.csv", [{"prompt_index": n, "prompt": f"“{n}”, é"} for n in (0, 1)]
    )
    captions = [
        {"case_number": f"{number:012d}", "source": "coco-30k", "prompt": "A café. ", "evaluation_seed": 41337}
        for number in COCO_IDS
    ]
    write_table(folder / "coco-10k" / "coco_10k.csv", captions)


def make_mirror(folder: Path, catalogue: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Lays the small assets out as a mirror; the catalogue then pins these instead of the real ones."""
    for name, asset in plan.experiment.config.assets.items():
        entry = catalogue[name]
        if "md5" in entry:
            [file] = names(folder / name)
            entry["md5"] = hashlib.md5((folder / name / file).read_bytes()).hexdigest()
        if "sha256" in entry:
            [file] = names(folder / name)
            entry["sha256"] = hashlib.sha256((folder / name / file).read_bytes()).hexdigest()
        for file in entry.get("hashes", {}):
            entry["hashes"][file] = hashlib.sha256((folder / name / file).read_bytes()).hexdigest()
        for file, content in entry.get("contents", {}).items():
            if "rows" in content:
                content["rows"] = len(read_table(folder / name / file).rows)
        pin = Source(name, asset.model_copy(update={"sha256": entry.get("sha256")})).pin
        (folder / name).rename(folder / "moved")
        (folder / name).mkdir()
        (folder / "moved").rename(folder / name / pin)
    return catalogue


def reduced(values: dict[str, Any], catalogue: dict[str, Any]) -> dict[str, Any]:
    """The paper's configuration with smaller numbers, fewer rows, and the hashes of the mirror's networks."""
    values |= {"pixels": PIXELS, "tier": "smoke", "resources": {}}
    values["prepared"]["dreambench-images"]["splits"] = {"train": 4, "heldout": 4}
    values["prepared"]["diffusiondb-images"]["splits"] = {"pool": 4, "train": 4, "heldout": 4}
    values["prepared"]["coco-reference"]["pixels"] = PIXELS
    for label in GENERATED:
        values["prepared"][label] |= {"first": 2, "images": 1, "num_inference_steps": 2}
    values["unlearning"] = {METHOD: values["unlearning"][METHOD]}
    # The tiny UNet's curvature lets a solve converge within a smaller γ only.
    values["unlearning"][METHOD] |= {"steps": 1, "draws": 1, "gamma": 0.01, "retain_batch_size": 1}
    values["unlearning"][METHOD]["simulation"] |= {"steps": [1], "images": 2}
    for attack in values["attacks"].values():
        attack["steps"] = 2
    values["sampling"]["num_inference_steps"] = 2
    values["scorers"]["q16"]["sha256"] = catalogue["q16-prompts"]["sha256"]
    values["scorers"]["mhsc"]["published"] = False
    values["scorers"]["inception"] |= {"sha256": catalogue["inception"]["sha256"], "features": CAPTIONS}
    values["metrics"]["fid"]["images_per_dimension"] = 1
    values["metrics"]["kid"] |= {"images_per_dimension": 1, "subsets": 2, "subset_size": CAPTIONS // 2}
    counts = {"i2p": len(I2P) - 1, "unsafe-diffusion": 2, "coco": CAPTIONS}
    values["tiers"]["smoke"] |= {"prompts": {name: {"prompts": count} for name, count in counts.items()}, "without": []}
    return values


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> tuple[Checkout, Path]:
    """A checkout of the paper's configuration whose catalogue pins the small files of a mirror."""
    root = copy_repository(tmp_path_factory.mktemp("paper") / "repository")
    mirror = tmp_path_factory.mktemp("mirror")
    plan = load_plan(root / "config" / "config.yaml")
    small_assets(mirror, pipeline_folder)
    catalogue = make_mirror(mirror, read_yaml(root / CATALOGUE), plan)
    (root / CATALOGUE).write_text(yaml.safe_dump(catalogue, sort_keys=False))
    small = reduced(read_yaml(root / "config" / "config.yaml"), catalogue)
    (root / "config" / "reduced.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    return Checkout(root, "config/config.yaml"), mirror


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
    needed = set(load_plan(checkout.folder / checkout.config).experiment.config.assets)
    here = {path.parent.name.rpartition("-")[0] for path in checkout.folder.glob("results/assets/*/run.json")}
    told = re.findall(r"missing asset (\S+):", planned.stdout + planned.stderr)
    assert len(needed) == 14
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
    said = checkout.snakemake("--dry-run", "--forceall").stdout
    offline(monkeypatch, mirror)
    planned = set(re.findall(r"results/assets/[\w.-]+/run\.json", said))
    targets = sorted(path for path in planned if not any(name in path for name in GENERATED))
    assert (len(planned), len(targets)) == (19, 17)
    finished = checkout.made(*targets)
    assert finished.returncode == 0, finished.stderr[-3000:]
    monkeypatch.chdir(checkout.folder)
    config = yaml.safe_load((checkout.folder / "config" / "config.yaml").read_text())
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


def test_from_the_mirror_to_the_table(mirrored: tuple[Checkout, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage of the paper's configuration on the mirror's assets: fetch, prepare, unlearn, attack, …, table."""
    paper, mirror = mirrored
    offline(monkeypatch, mirror)
    checkout = Checkout(paper.folder, "config/reduced.yaml")
    finished = checkout.made("all")
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    table = pd.read_csv(checkout.folder / "results" / "table1" / "tables" / "table1.csv", keep_default_na=False)
    states = [("none", ""), ("dreambench", "dreambench++"), ("diffusiondb", "diffusiondb")]
    metrics = {"ip", "us", "fid", "kid", "clip_score", "aesthetic"}
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
