"""The paper's configuration in small: its own assets, rows, attacks and metrics, with less to do on tiny networks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from resalign.config.assets import FETCHED, AssetConfig
from resalign.config.plan import load_plan
from resalign.config.strict import read_yaml

from .shapes import CAPTIONS, I2P

ROOT = Path(__file__).resolve().parents[2]
CONFIG, CATALOGUE, REDUCED = "config/config.yaml", "config/assets.yaml", "config/reduced.yaml"
PIXELS = 16
# As few as show that a method's steps, draws, batches and images are used.
FEW = {
    **{"steps": 2, "attack_steps": 1, "warm_up": 1, "draws": 1, "images": 2, "num_inference_steps": 2},
    **{"batch_size": 1, "retain_batch_size": 1},
}


def taken() -> dict[str, AssetConfig]:
    """The assets that the paper's configuration takes from elsewhere."""
    assets = load_plan(ROOT / CONFIG).experiment.config.assets
    return {name: asset for name, asset in assets.items() if asset.origin in FETCHED}


def few(settings: Any) -> Any:
    """Settings of a method, an attack or a set, with little to do; a solver has all its steps."""
    if not isinstance(settings, dict):
        return [few(each) for each in settings] if isinstance(settings, list) else settings
    small = {key: FEW[key] if isinstance(value, int) else [1] for key, value in settings.items() if key in FEW}
    return {key: value if key == "solver" else few(value) for key, value in settings.items()} | small


def reduced(values: dict[str, Any], catalogue: dict[str, Any], rows: Sequence[str] = ()) -> dict[str, Any]:
    """The paper's configuration with smaller numbers and the hashes of the small networks.

    Args:
        values: Of the configuration's file; changed.
        catalogue: Of the small assets.
        rows: Unlearned models to keep; empty for all.
    """
    values |= {"pixels": PIXELS, "tier": "smoke", "resources": {}}
    if rows:
        values["unlearning"] = {row: values["unlearning"][row] for row in rows}
    for name in ("prepared", "unlearning", "attacks"):
        values[name] = {key: few(entry) for key, entry in values[name].items()}
    for entry in values["prepared"].values():
        if entry["set"] == "generated":
            entry |= {"images": 1, "num_inference_steps": 2, **({"first": 4} if "first" in entry else {})}
        if "splits" in entry:
            entry["splits"] = {split: size and min(size, 4) for split, size in entry["splits"].items()}
    values["prepared"]["coco-reference"]["pixels"] = PIXELS
    for row in values["unlearning"].values():
        if "gamma" in row:  # the tiny UNet's curvature lets a solve converge within a smaller γ only
            row["gamma"] = 0.01
    values["sampling"] |= {"num_inference_steps": 2, "precision": "float32"}  # in which a CPU is faster
    values["scorers"]["q16"]["sha256"] = catalogue["q16-prompts"]["sha256"]
    values["scorers"]["mhsc"]["published"] = False
    values["scorers"]["inception"] |= {"sha256": catalogue["inception"]["sha256"], "features": CAPTIONS}
    values["metrics"]["fid"]["images_per_dimension"] = 1
    values["metrics"]["kid"] |= {"images_per_dimension": 1, "subsets": 2, "subset_size": CAPTIONS // 2}
    counts = {"i2p": len(I2P) - 1, "unsafe-diffusion": 2, "coco": CAPTIONS}
    values["tiers"]["smoke"] |= {"prompts": {name: {"prompts": count} for name, count in counts.items()}, "without": []}
    return values


def write_small(root: Path, catalogue: dict[str, Any], rows: Sequence[str] = (), *, config: str = REDUCED) -> None:
    """Gives a checkout another catalogue, and beside the paper's configuration its reduced form."""
    (root / CATALOGUE).write_text(yaml.safe_dump(catalogue, sort_keys=False))
    small = reduced(read_yaml(root / CONFIG), catalogue, rows)
    (root / config).write_text(yaml.safe_dump(small, sort_keys=False))
