"""A small made-up experiment: two attacks, each called as its data set, four models, seeds, images on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from resalign.accounting.job_records import JobRecord
from resalign.accounting.times import Timings
from resalign.analysis.frames import long_table, per_run_table
from resalign.analysis.measurements import Measurements, MetricInfo, Sweep
from resalign.config.report import ReportConfig
from resalign.report.build import Results
from resalign.report.page import ReportContext

METRICS = {
    "ip": MetricInfo("IP", "lower", "rate", "safety", "40 prompts of a seven", 2, "share flagged by either detector"),
    "us": MetricInfo("US", "lower", "rate", "safety", "40 prompts of a seven"),
    "retained_accuracy": MetricInfo("Retained accuracy", "higher", "rate", "utility", "20 prompts of other digits"),
    "fid": MetricInfo("FID", "lower", "set", "utility", "200 benign images", 1),
    "kid": MetricInfo("KID", "lower", "set", "utility", "200 benign images", 4),
    "clip_score": MetricInfo("CLIP", "higher", "mean", "utility", "20 prompts of other digits"),
    "learnability": MetricInfo("Learnability", "higher", "set", "learnability", "the attack's held-out images"),
}
MODELS = ("base", "graddiff", "esd", "resalign")
DATASETS = ("pages", "bold")
TITLES = {"base": "Base", "graddiff": "GradDiff", "esd": "ESD", "resalign": "ResAlign"}
# Chance of the concept before fine-tuning and after 100 and 200 steps.
RATES = {
    "base": (0.68, 0.62, 0.60),
    "graddiff": (0.01, 0.20, 0.31),
    "esd": (0.02, 0.10, 0.15),
    "resalign": (0.0, 0.0, 0.01),
}
SETTINGS = ReportConfig(replicates=200)


def image_rows(
    model: str,
    chance: float,
    *,
    metric: str = "ip",
    attack: str = "none",
    dataset: str = "",
    steps: int = 0,
    seeds: Sequence[int] = (0, 1, 2),
    prompts: int = 20,
    images: int = 2,
    kind: str = "rate",
) -> list[dict[str, object]]:
    """Rows of one state and metric: 0 or 1 with the given chance, or a number near it."""
    key = [ord(letter) for letter in f"{model}{metric}{attack}{dataset}{steps}"]
    rng = np.random.default_rng(key)
    state = {"model": model, "attack": attack, "dataset": dataset, "steps": steps, "metric": metric}
    return [
        state
        | {
            "seed": seed,
            "prompt_id": f"p{prompt:03d}",
            "image_index": index,
            "value": float(rng.random() < chance) if kind == "rate" else chance + 0.05 * rng.standard_normal(),
        }
        for seed in seeds
        for prompt in range(prompts)
        for index in range(images)
    ]


def run_row(model: str, metric: str, value: float, seed: int, **state: object) -> dict[str, object]:
    plain = {"model": model, "attack": "none", "dataset": "", "steps": 0}
    return plain | state | {"metric": metric, "seed": seed, "value": value, "n": 200}


def make_measurements(**changes: object) -> Measurements:
    """The whole made-up experiment; ``changes`` replace fields."""
    images: list[dict[str, object]] = []
    runs: list[dict[str, object]] = []
    for place, model in enumerate(MODELS):
        for metric in ("ip", "us"):
            images += image_rows(model, RATES[model][0], metric=metric)
        images += image_rows(model, 0.9 - 0.02 * place, metric="retained_accuracy")
        images += image_rows(model, 0.31, metric="clip_score", kind="mean")
        for seed in range(3):
            runs.append(run_row(model, "fid", 16.0 + place + 0.3 * seed, seed))
            runs.append(run_row(model, "kid", 0.01 + 0.002 * place + 0.0005 * seed, seed))
        for number, dataset in enumerate(DATASETS):
            state = {"attack": dataset, "dataset": dataset}
            for when, steps in enumerate((100, 200), start=1):
                chance = RATES[model][when] / (1 + number)
                images += image_rows(model, chance, **state, steps=steps)
            images += image_rows(model, chance, metric="us", **state, steps=200)
            images += image_rows(model, 0.85 - 0.02 * place, metric="retained_accuracy", **state, steps=200)
            for seed in range(3):
                value = 0.9 - 0.03 * place + 0.01 * seed
                runs.append(run_row(model, "learnability", value, seed, **state, steps=200))
    fields: dict[str, object] = {
        "images": pd.DataFrame(images),
        "runs": pd.DataFrame(runs),
        "metrics": METRICS,
        "models": MODELS,
        "attacks": {dataset: dataset for dataset in DATASETS},
        "base": "base",
        "titles": TITLES,
    }
    return Measurements(**(fields | changes))  # type: ignore[arg-type]


# Value of the sweep to its attack, that attack's chance of the concept by the model's place, and what it learns.
SWEPT = {"gentle": ("pages-gentle", 0.2, 0.3), "as it is": ("pages", 1.0, 0.9), "harsh": ("pages-harsh", 1.5, 0.95)}
SWEEP = Sweep(
    title="Learning rates on pages",
    axis="learning rate",
    note="Three rates & a name.",
    attacks={value: attack for value, (attack, _, _) in SWEPT.items()},
)


def make_swept() -> Measurements:
    """The made-up experiment with two more attacks on pages, which a sweep alone shows."""
    plain = make_measurements()
    images, runs = [], []
    for value in ("gentle", "harsh"):
        attack, factor, learnt = SWEPT[value]
        state = {"attack": attack, "dataset": "pages", "steps": 200}
        for model in MODELS:
            images += image_rows(model, min(1.0, factor * RATES[model][2]), **state)
            runs += [run_row(model, "learnability", learnt + 0.01 * seed, seed, **state) for seed in range(3)]
    return make_measurements(
        images=pd.concat([plain.images, pd.DataFrame(images)], ignore_index=True),
        runs=pd.concat([plain.runs, pd.DataFrame(runs)], ignore_index=True),
        attacks={**plain.attacks, "pages-gentle": "pages", "pages-harsh": "pages"},
        sweeps={"rates": SWEEP},
        main_attacks=DATASETS,
    )


def make_histories() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for stage, labels, quantities in (
        ("unlearn", ["graddiff", "esd", "resalign"], ["forget_loss", "retain_loss"]),
        ("attack", [f"{model}/{dataset}" for dataset in DATASETS for model in MODELS], ["loss"]),
    ):
        for label in labels:
            for quantity in quantities:
                for seed in range(3):
                    for step in range(0, 200, 2):
                        value = np.exp(-step / 60) + 0.1 * len(label) + 0.1 * rng.standard_normal()
                        rows.append((stage, label, seed, step, quantity, float(value)))
    return pd.DataFrame(rows, columns=["stage", "label", "seed", "step", "quantity", "value"])


def make_timings() -> Timings:
    jobs = [("unlearn", model, seed, 83.4567, 912.5, 1) for model in MODELS[1:] for seed in range(3)]
    jobs += [("attack", model, seed, 41.0, 700.0, 2) for model in MODELS for seed in range(3)]
    records = []
    for stage, label, seed, seconds, peak_memory_mb, threads in jobs:
        own = {"on_gpu": False, "threads": threads, "attempts": 1, "peak_memory_mb": peak_memory_mb}
        own |= {"seconds": seconds, "start_seconds": 2.0}
        records.append(JobRecord(stage, label, seed, f"results/{len(records)}", device="core", **own))
    return Timings(tuple(records))


def make_gallery(folder: Path, *, size: int = 32) -> pd.DataFrame:
    """Noise images; one of each model is flagged."""
    rows = []
    states = [("none", "", 0), ("pages", "pages", 100), ("pages", "pages", 200)]
    for model in MODELS:
        for attack, dataset, steps in states:
            for prompt in range(3):
                rng = np.random.default_rng([len(rows)])
                path = folder / f"{model}-{steps}-{prompt}.png"
                Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
                rows.append(
                    {
                        "model": model,
                        "attack": attack,
                        "dataset": dataset,
                        "steps": steps,
                        "seed": 0,
                        "prompt_id": f"p{prompt:03d}",
                        "prompt": f"a <red> seven, number {prompt}",
                        "image_index": 0,
                        "path": str(path),
                        "flagged": prompt == 1,
                    }
                )
    return pd.DataFrame(rows)


def make_results(measurements: Measurements, gallery: pd.DataFrame, histories: pd.DataFrame | None = None) -> Results:
    return Results(
        measurements=measurements,
        values=long_table(measurements, SETTINGS),
        per_run=per_run_table(measurements, SETTINGS),
        histories=make_histories() if histories is None else histories,
        gallery=gallery,
        timings=make_timings(),
    )


def make_context(settings: ReportConfig = SETTINGS) -> ReportContext:
    return ReportContext(
        title="Does the seven come back?",
        subtitle="A made-up experiment",
        concept="a seven",
        config_yaml="seeds: [0, 1, 2]\n# 2 < 3\n",
        provenance={"source hash": "0123abcd", "python": "3.11", "seeds": "0, 1, 2"},
        settings=settings,
        command="snakemake --cores 2 --configfile config/made-up.yaml -- ",
        folder="results/made-up",
    )
