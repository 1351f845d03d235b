"""A study's counts: how many images of each prompt are hits, by model, state and training seed.

Tables and claims are made from this small frame and the manifest alone, so that a reader can make them again without
the runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED
from resalign.analysis.statistics import Crossed
from resalign.config.study import Compared
from resalign.hashes import verified

STATE = ["model", "attack", "steps"]
KEYS = [*STATE, "measure", "prompt_id"]
PREFIX = "hits_seed_"
FILE = "counts.csv"


def count_hits(images: pd.DataFrame, compared: Compared) -> pd.DataFrame:
    """Hits of every run's images: of safety in every state, of utilities before fine-tuning.

    Args:
        images: The measured frame of per-image values: model, attack, steps, seed, metric, prompt_id, value.
        compared: The metrics that are counted.

    Returns:
        Columns model, attack, steps, measure, prompt_id, images (a seed has of each prompt) and ``hits_seed_N`` for
        every training seed N; before fine-tuning, a model that nothing trained is the same for all seeds and has the
        first one's only.

    Raises:
        ValueError: If a value is missing, a state lacks a measure or a training seed, or seeds differ in their images.
    """
    before = images["attack"] == NOT_ATTACKED
    keep = (images["metric"] == compared.safety) | (before & images["metric"].isin(compared.utilities))
    counted = images[keep].rename(columns={"metric": "measure"})
    if counted["value"].isna().any():
        raise ValueError(f"{int(counted['value'].isna().sum())} images have no value; score them again")
    if counted.duplicated([*KEYS, "seed", "image_index"]).any():
        raise ValueError("a run is counted twice; give each attack a label of its own")
    long = counted.groupby([*KEYS, "seed"])["value"].agg(["sum", "size"]).reset_index()
    long = long.rename(columns={"size": "images"})
    _check_complete(images, long, compared)
    sizes = long.groupby(KEYS)["images"].agg(["min", "max"])
    uneven = sizes[sizes["min"] != sizes["max"]]
    if not uneven.empty:
        raise ValueError(f"training seeds differ in their images of {len(uneven)} prompts, first {uneven.index[0]}")
    table = long.pivot(index=[*KEYS, "images"], columns="seed", values="sum").astype("Int64")
    table.columns = [f"{PREFIX}{seed}" for seed in table.columns]
    return table.reset_index().sort_values(KEYS, ignore_index=True)


def _check_complete(images: pd.DataFrame, long: pd.DataFrame, compared: Compared) -> None:
    """Every state has its measures at every training seed, on the same prompts."""
    seeds = set(images["seed"])
    prompts = {measure: set(group["prompt_id"]) for measure, group in long.groupby("measure")}
    for key in images[STATE].drop_duplicates().itertuples(index=False, name=None):
        state = long[(long[STATE] == list(key)).all(axis=1)]
        expected = compared.measures if key[1] == NOT_ATTACKED else (compared.safety,)
        if missing := set(expected) - set(state["measure"]):
            raise ValueError(f"state {key} has no {sorted(missing)}; set 'along_the_way: true' for its prompt list")
        once = key[1] == NOT_ATTACKED and state["seed"].nunique() == 1
        for (measure, seed), run in state.groupby(["measure", "seed"]):
            if set(run["prompt_id"]) != prompts[str(measure)]:
                raise ValueError(
                    f"state {key}, seed {seed}: {measure} lacks some of {len(prompts[str(measure)])} prompts"
                )
        if set(state["seed"]) != seeds and not once:
            raise ValueError(f"state {key} lacks training seeds {sorted(seeds - set(state['seed']))}")


def write_counts(counts: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Writes the file; equal frames give equal bytes.

    Returns:
        File name to sha256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts.to_csv(folder / FILE, index=False, lineterminator="\n", encoding="utf-8")
    return {FILE: hashlib.sha256((folder / FILE).read_bytes()).hexdigest()}


def read_counts(folder: Path) -> pd.DataFrame:
    """Counts as :func:`write_counts` wrote them."""
    text = {"model": str, "attack": str, "measure": str, "prompt_id": str}
    counts = pd.read_csv(verified(folder / FILE), dtype=text, keep_default_na=False)
    for name in hit_columns(counts):
        counts[name] = pd.to_numeric(counts[name].replace("", pd.NA)).astype("Int64")
    return counts


def hit_columns(counts: pd.DataFrame) -> list[str]:
    """The training seeds' columns, in the seeds' order."""
    return sorted((n for n in counts.columns if n.startswith(PREFIX)), key=lambda name: int(name.removeprefix(PREFIX)))


def attack_states(counts: pd.DataFrame, attacks: Iterable[str]) -> list[tuple[str, int]]:
    """Every (attack, steps) after fine-tuning, in the given order of attacks."""
    attacked = counts.loc[counts["attack"] != NOT_ATTACKED, ["attack", "steps"]].drop_duplicates()
    order = list(attacks)
    unknown = sorted(set(attacked["attack"]) - set(order))
    if unknown:
        raise ValueError(f"counts have attacks {unknown}; the study's are {order}")
    pairs = [(str(attack), int(steps)) for attack, steps in attacked.itertuples(index=False, name=None)]
    return sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1]))


def crossed(counts: pd.DataFrame, model: str, attack: str, steps: int, measure: str) -> Crossed:
    """Hits and images of one state by training seed and prompt, prompts in alphabetical order.

    Raises:
        ValueError: If the state was not counted.
    """
    keep = (counts["model"] == model) & (counts["attack"] == attack) & (counts["steps"] == steps)
    rows = counts[keep & (counts["measure"] == measure)].sort_values("prompt_id")
    if rows.empty:
        raise ValueError(
            f"no counts of {measure} for {model}, {attack}, {steps} steps; models: {sorted(set(counts['model']))}"
        )
    hits = rows[hit_columns(counts)].dropna(axis="columns", how="all").to_numpy(np.float64).T
    return Crossed(sums=hits, counts=np.broadcast_to(rows["images"].to_numpy(np.float64), hits.shape))


def cell_sizes(counts: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Prompts, training seeds and images of one cell, by measure."""
    seeds, result = len(hit_columns(counts)), {}
    for measure, rows in counts.groupby("measure"):
        cells = rows.groupby(STATE, sort=False)["images"]
        images = int(cells.sum().iloc[0])
        result[str(measure)] = {"prompts": int(cells.size().iloc[0]), "seeds": seeds, "images": images * seeds}
    return result
