"""A study's counts: how many images of each prompt are hits, by model, state and training seed; and held-out losses.

Tables, claims and figures are made from these two small frames and the manifest alone, so that a reader can make them
again without the runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED
from resalign.analysis.statistics import Crossed
from resalign.config.study import SAFETY, UTILITY
from resalign.hashes import verified

STATE = ["model", "attack", "steps"]
KEYS = [*STATE, "measure", "prompt_id"]
LOSS_COLUMNS = [*STATE, "seed", "heldout_loss"]
PREFIX = "hits_seed_"
LOSS_FORMAT = "%.8g"
FILES = ("counts.csv", "losses.csv")


def count_hits(images: pd.DataFrame, measures: Collection[str]) -> pd.DataFrame:
    """Hits of every run's images.

    Args:
        images: The measured frame of per-image values: model, attack, steps, seed, metric, prompt_id, value.
        measures: The metrics that are counted.

    Returns:
        Columns model, attack, steps, measure, prompt_id, images (a seed has of each prompt) and ``hits_seed_N`` for
        every training seed N; the base model before fine-tuning is the same for all seeds and has the first one's only.

    Raises:
        ValueError: If a state lacks a measure or a training seed, or seeds differ in their images.
    """
    counted = images[images["metric"].isin(measures)].rename(columns={"metric": "measure"})
    if counted.duplicated([*KEYS, "seed", "image_index"]).any():
        raise ValueError("a run is counted twice; give each attack a label of its own")
    long = counted.groupby([*KEYS, "seed"])["value"].agg(["sum", "size"]).reset_index()
    long = long.rename(columns={"size": "images"})
    _check_complete(long, set(measures))
    sizes = long.groupby(KEYS)["images"].agg(["min", "max"])
    uneven = sizes[sizes["min"] != sizes["max"]]
    if not uneven.empty:
        raise ValueError(f"training seeds differ in their images of {len(uneven)} prompts, first {uneven.index[0]}")
    table = long.pivot(index=[*KEYS, "images"], columns="seed", values="sum").astype("Int64")
    table.columns = [f"{PREFIX}{seed}" for seed in table.columns]
    return table.reset_index().sort_values(KEYS, ignore_index=True)


def _check_complete(long: pd.DataFrame, measures: set[str]) -> None:
    """Every state has every measure at every training seed, on the same prompts."""
    seeds = set(long["seed"])
    prompts = {measure: set(group["prompt_id"]) for measure, group in long.groupby("measure")}
    for key, state in long.groupby(STATE):
        missing = measures - set(state["measure"])
        if missing:
            raise ValueError(f"state {key} has no {sorted(missing)}; set 'along_the_way: true' for its prompt list")
        once = str(key[1]) == NOT_ATTACKED and state["seed"].nunique() == 1
        for (measure, seed), run in state.groupby(["measure", "seed"]):
            if set(run["prompt_id"]) != prompts[str(measure)]:
                raise ValueError(
                    f"state {key}, seed {seed}: {measure} lacks some of {len(prompts[str(measure)])} prompts"
                )
        if set(state["seed"]) != seeds and not once:
            raise ValueError(f"state {key} lacks training seeds {sorted(seeds - set(state['seed']))}")


def heldout_losses(histories: pd.DataFrame) -> pd.DataFrame:
    """Held-out losses of every attack as recorded: before (0 steps), at each checkpoint and at the end.

    Args:
        histories: The measured frame of training curves; an attack's label is ``model/attack``.

    Returns:
        Columns model, attack, steps, seed, heldout_loss, sorted.
    """
    records = histories[(histories["stage"] == "attack") & (histories["quantity"] == "heldout_loss")]
    parts = records["label"].str.partition("/")
    losses = records.rename(columns={"step": "steps", "value": "heldout_loss"}).assign(model=parts[0], attack=parts[2])
    return losses[LOSS_COLUMNS].sort_values(LOSS_COLUMNS[:-1], ignore_index=True)


def write_counts(counts: pd.DataFrame, losses: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Writes both files; equal frames give equal bytes.

    Returns:
        File name to sha256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(FILES, (counts, losses), strict=True):
        frame.to_csv(folder / name, index=False, float_format=LOSS_FORMAT, lineterminator="\n", encoding="utf-8")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def read_counts(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts and losses as :func:`write_counts` wrote them."""
    text = {"model": str, "attack": str}
    first, second = (verified(folder / name) for name in FILES)
    counts = pd.read_csv(first, dtype={**text, "measure": str, "prompt_id": str}, keep_default_na=False)
    for name in hit_columns(counts):
        counts[name] = pd.to_numeric(counts[name].replace("", pd.NA)).astype("Int64")
    return counts, pd.read_csv(second, dtype=text, keep_default_na=False)


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
    seeds = len(hit_columns(counts))
    result = {}
    for measure in (SAFETY, UTILITY):
        first = counts[counts["measure"] == measure].groupby(STATE, sort=False)
        images = int(first["images"].sum().iloc[0])
        result[measure] = {"prompts": int(first.size().iloc[0]), "seeds": seeds, "images": images * seeds}
    return result
