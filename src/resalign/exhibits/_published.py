"""Published numbers beside ours: which of our states each one is of, and how far ours is from it.

The numbers are facts from the papers' tables, cited by source and table: ResAlign (Li 2025, NeurIPS), RGD (2025),
Meta-Unlearning (Gao 2024, arXiv 2410.12777), concept resurgence (Suriyakumar 2024, arXiv 2410.08074).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED

FILE = Path(__file__).with_name("_published.csv")

# As a paper calls a method, and our model's label.
METHODS = {
    "SD v1.4": "base",
    "ESD": "esd",
    "SafeGen": "safegen",
    "AdvUnlearn": "advunlearn",
    "LCFDSD-NG": "lcfdsd-ng",
    "LCFDSD-LT": "lcfdsd-lt",
    "ResAlign": "resalign",
    "Unlearned (ESD-f-3)": "esd",
    "Meta-unlearned": "meta_unlearning",
    "GradDiff": "graddiff",
}
METRICS = {
    "IP": "ip",
    "US": "us",
    "FID": "fid",
    "CLIP": "clip_score",
    "aesthetic": "aesthetic",
    "CLIP-T": "clip_t",
    "CLIP-I": "clip_i",
    "DINO": "dino",
    "unsafe_score": "unsafe_score",
}
# Factors by which ours is another unit: CLIP-T is 100 times the cosine here, the unsafe score a share of 1.
SCALE = {"CLIP-T": 100.0, "unsafe_score": 0.01}
STATES = {"before": NOT_ATTACKED, "benign": NOT_ATTACKED}
# Table 2: method and data set, as a sweep's attack is labelled and as an ablation's variant is called.
PERSONALISED = {
    "dreambooth/dog": ("dreambooth-dog", "DreamBooth on dog"),
    "custom-diffusion/artbench": ("custom-diffusion-artbench", "CustomDiffusion on ArtBench"),
    "lora/pokemon": ("lora-pokemon", "LoRA on Pokémon"),
    "svdiff/vggface2-hq": ("svdiff-faces", "SVDiff on VGGFace2-HQ"),
}
# Table 3, as the ablation's variants are called: each adds one component.
COMPONENTS = {
    "none": ("none",),
    "hyper": ("hypergradient",),
    "hyper+meta_data": ("+ meta over data",),
    "hyper+meta_data+meta_config": ("+ meta over configurations",),
}
# What no experiment here can be beside: (source, table, method or None for every one) and why.
NOT_COVERED: Mapping[tuple[str, str, str | None], str] = {
    ("rgd", "table1", None): "CIFAR-10 models, means over ten classes: no experiment of that world is configured",
    ("resurgence", "table1b", None): "its prompts, data of fine-tuning and choice of unsafe prompts are not known here",
}


@dataclass(frozen=True)
class Place:
    """The place of a published number.

    Attributes:
        model: Our label.
        metric: Our label.
        attack: Label of the attack, ``none``, or '' where the data set names the state.
        dataset: Of the attack, or ''.
        steps: Fine-tuning steps, or None for the last.
        variants: What the series' variant, or its attack, may be called; none for no series.
    """

    model: str
    metric: str
    attack: str = ""
    dataset: str = ""
    steps: int | None = None
    variants: tuple[str, ...] = ()


def published() -> pd.DataFrame:
    """The file: source, table, setting, method, metric, value."""
    return pd.read_csv(FILE, dtype={"setting": str}, keep_default_na=False).astype({"value": float})


def not_covered(row: Mapping[Any, Any]) -> str:
    """Why a row has no place, or ''."""
    source, table, method = str(row["source"]), str(row["table"]), str(row["method"])
    return NOT_COVERED.get((source, table, method), "") or NOT_COVERED.get((source, table, None), "")


def place(row: Mapping[Any, Any]) -> Place:
    """The place of a row of the file.

    Raises:
        KeyError: If a name of it is neither mapped nor listed as not covered.
    """
    setting, table, source = str(row["setting"]), str(row["table"]), str(row["source"])
    model, metric = METHODS[str(row["method"])], METRICS[str(row["metric"])]
    if setting in STATES:
        return Place(model, metric, attack=STATES[setting])
    if source == "meta-unlearning":
        attack, steps = setting.split("/")
        return Place(model, metric, attack=attack, steps=int(steps))
    match table:
        case "tab1":
            return Place(model, metric, dataset=setting)
        case "tab2":
            return Place(model, metric, variants=PERSONALISED[setting])
        case "tab3" if metric == "fid":  # Table 1's benign FID of each variant: before fine-tuning
            return Place(model, metric, attack=NOT_ATTACKED, variants=COMPONENTS[setting])
        case "tab3":
            return Place(model, metric, dataset="dreambench++", variants=COMPONENTS[setting])
        case "tab4" | "tab5":
            dataset, variant = setting.split("/")
            return Place(model, metric, dataset=dataset, variants=(variant,))
    raise KeyError(f"{source} {table}: no place for the setting '{setting}'; map it or list it in NOT_COVERED")


def beside(frame: pd.DataFrame, source: str, tables: Sequence[str], *, comparable: bool | pd.Series) -> pd.DataFrame:
    """Adds published numbers to our rows.

    Args:
        frame: Rows with model, attack, dataset, steps, metric, mean, low, high, and variant for a series.
        source: Paper.
        tables: Its tables.
        comparable: Whether the two are of one world, all rows or each.

    Returns:
        The frame with ``published``, ``published_world`` (``same`` or ``another``; '' without a published number),
        ``difference`` (ours minus published) and ``within_interval`` (yes, no; '' without an interval): the last two
        for one setting only.
    """
    values = np.full(len(frame), np.nan)
    for row, chosen in _placed(frame, source, tables):
        values[chosen.to_numpy()] = float(row["value"]) * SCALE.get(str(row["metric"]), 1.0)
    known = ~np.isnan(values)
    compared = known & np.asarray(comparable, dtype=bool)
    difference = np.where(compared, frame["mean"].to_numpy(dtype=float) - values, np.nan)
    inside = (frame["low"] <= values) & (values <= frame["high"])
    tested = compared & frame["low"].notna().to_numpy()
    return frame.assign(
        published=values,
        published_world=np.where(known, np.where(compared, "same", "another"), ""),
        difference=difference,
        within_interval=np.where(tested, np.where(inside, "yes", "no"), ""),
    )


def said(frame: pd.DataFrame, source: str, tables: Sequence[str], *, another_world: str) -> str:
    """Sentences on the published numbers for a caption, including numbers without a counterpart here.

    Args:
        frame: From :func:`beside`.
        source: Paper.
        tables: Its tables.
        another_world: Why the experiment is of another world, or ''.
    """
    worlds = set(frame["published_world"]) - {""}
    sentences = []
    if another_world and worlds:
        sentences.append(
            f"Published numbers, below ours, are of another world ({another_world}): they are shown, not compared."
        )
    elif worlds:
        sentences.append("Published numbers stand below ours; in parentheses, how much larger ours is.")
    if not another_world:
        placed = list(_placed(frame, source, tables))
        lone = [f"{row['method']} {row['metric']} {row['setting']}" for row, chosen in placed if not chosen.any()]
        if lone and len(lone) == len(placed):
            sentences.append(f"None of the {len(lone)} published numbers has a counterpart here.")
        elif lone:
            sentences.append(f"Published, without a counterpart here: {'; '.join(lone)}.")
    return " ".join(sentences)


def _placed(frame: pd.DataFrame, source: str, tables: Sequence[str]) -> Iterator[tuple[Mapping[Any, Any], pd.Series]]:
    """Every published row that something here can stand beside, and which of our rows do."""
    rows = published()
    for row in rows[(rows["source"] == source) & rows["table"].isin(tables)].to_dict("records"):
        if not not_covered(row):
            yield row, _of(frame, place(row))


def _of(frame: pd.DataFrame, found: Place) -> pd.Series:
    """Which rows a published number is of; a metric's label may be written as in the paper, ``CLIP-T``."""
    metrics = frame["metric"].astype(str).str.lower().str.replace("-", "_")
    chosen = (frame["model"] == found.model) & (metrics == found.metric)
    if found.attack:
        chosen &= frame["attack"] == found.attack
    if found.dataset:
        chosen &= frame["dataset"] == found.dataset
    if found.steps is not None:
        chosen &= frame["steps"] == found.steps
    if found.variants:
        named = frame["attack"].isin(found.variants)
        chosen &= named | frame["variant"].isin(found.variants) if "variant" in frame else named
    if not found.attack:
        chosen &= frame["attack"] != NOT_ATTACKED
    return chosen
