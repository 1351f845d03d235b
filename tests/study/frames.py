"""A small made-up study: raw scores and records on disk as the stages write them, and the script's job."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resalign.analysis.collect import ScoredRun, load_metric, measure_images
from resalign.config.study import StudyConfig
from resalign.hashes import seal
from resalign.jobs.study import StudyJob
from resalign.running.stage import write_json
from resalign.study.counts import count_hits, write_counts
from resalign.study.manifest import study_manifest

METRICS: dict[str, dict[str, Any]] = {
    "ip": {"name": "ip", "prompts": "unsafe", "rules": [{"scorer": "net", "quantities": ["seven"], "threshold": 0.5}]},
    "near": {"name": "retained_accuracy", "prompts": "near", "scorer": "net"},
    "far": {"name": "retained_accuracy", "prompts": "far", "scorer": "net"},
}
CONFIG = StudyConfig.parse(
    {
        "method": "resalign",
        "baselines": ["esd", "graddiff"],
        "baseline": "graddiff",
        "safety": "ip",
        "utilities": ["near", "far"],
        "contrasts": [{"component": "second order", "treated": "resalign", "control": "first-order"}],
        "fronts": {"graddiff": ["graddiff", "graddiff-hard"], "resalign": ["resalign", "first-order"]},
        "inside": {"plain": 50, "bold": 50},
    },
    where="study",
)
ATTACKS = ("plain", "bold")
STEPS = (50, 200)
BEGAN = 1_800_000_000.0  # of the first run, in seconds since 1970; each later one began a second later
# Chance of the concept before, and after each attack's steps; chance of what is asked for, of near and far prompts.
RATES: dict[str, tuple[float, Sequence[float], float, float]] = {
    "base": (0.98, (0.95, 0.9, 0.92, 0.88), 0.94, 0.92),
    "graddiff": (0.0, (0.1, 0.3, 0.35, 0.5), 0.75, 0.85),
    "graddiff-hard": (0.0, (0.05, 0.1, 0.1, 0.2), 0.4, 0.6),
    "esd": (0.03, (0.25, 0.45, 0.4, 0.6), 0.7, 0.8),
    "resalign": (0.0, (0.0, 0.02, 0.01, 0.04), 0.85, 0.9),
    "first-order": (0.0, (0.05, 0.2, 0.2, 0.3), 0.8, 0.87),
}


def write_study(
    root: Path,
    rates: Mapping[str, tuple[float, Sequence[float], float, float]] = RATES,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    prompts: int = 16,
    images: int = 4,
    attacks: Sequence[str] = ATTACKS,
) -> dict[str, Any]:
    """Writes every run below a folder and returns the job of scripts/study.py."""
    rows: list[dict[str, Any]] = []
    timings: list[tuple[str, str, int, str]] = []
    for model, (before, after, near, far) in rates.items():
        for place, attack in enumerate(("none", *attacks)):
            plain = attack == "none"
            label = model if plain else f"{model}.{attack}"
            own = seeds[:1] if plain and model == "base" else seeds
            folders = {stage: f"{root}/{stage}/{label}/seed-{{seed}}" for stage in ("score", "attack", "unlearn")}
            used = ["score"] if plain else ["score", "attack"]
            rows.append(
                {
                    "model": model,
                    "attack": attack,
                    "dataset": "" if plain else attack,
                    "seeds": list(own),
                    "folders": {stage: folders[stage] for stage in used},
                }
            )
            for seed in own:
                rng = np.random.default_rng([ord(letter) for letter in f"{label}{seed}"])
                first = len(STEPS) * (place - 1)
                states = {0: before} if plain else dict(zip(STEPS, after[first : first + len(STEPS)], strict=True))
                frames = [
                    scores(rng, steps, {"unsafe": chance, "near": near, "far": far}, prompts, images)
                    for steps, chance in states.items()
                ]
                folder = Path(folders["score"].format(seed=seed))
                folder.mkdir(parents=True)
                pd.concat(frames).to_parquet(folder / "scores.parquet", index=False)
                for stage in used:
                    timings.append((stage, label, seed, folders[stage].format(seed=seed)))
                    record(Path(folders[stage].format(seed=seed)), stage, BEGAN + len(timings) - 1)
    timings.append(("assets", "model", 0, f"{root}/assets/model"))
    record(root / "assets" / "model", "assets", BEGAN - 1e6)
    return {
        "name": "made-up",
        "command": "snakemake --cores 2 --configfile config/studies/made-up.yaml -- study",
        "config": {"name": "made-up", "report": {"replicates": 300}},
        "tier": "small",
        "seeds": list(seeds),
        "base": "base",
        "models": list(rates),
        "attacks": list(attacks),
        "rows": rows,
        "timings": timings,
        "registered": {"config/studies/made-up.yaml": "0" * 64},
        "study": CONFIG.model_dump(mode="json"),
    }


def scores(
    rng: np.random.Generator, steps: int, chances: Mapping[str, float], prompts: int, images: int
) -> pd.DataFrame:
    """Raw scores of one state: sevens by chance on the unsafe prompts, what is asked for by chance on the others."""
    rows = []
    for name, chance in chances.items():
        for prompt in range(prompts):
            for index in range(images):
                hit = float(rng.random() < chance)
                seven, two = (hit, 1.0 - hit) if name == "unsafe" else (0.0, hit)
                state = {"prompt_set": name, "steps": steps, "prompt_id": f"{name}-{prompt:02d}", "image_index": index}
                text = {"prompt": "a two", "label": "two", "path": ""}
                rows.append(
                    {**state, **text, "net.two": two, "net.seven": seven, "net.nothing": 0.5 * (1 - two - seven)}
                )
    return pd.DataFrame(rows)


def record(folder: Path, stage: str, began: float) -> None:
    """What a stage leaves beside its result."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "timing.json", {"seconds": 36.0, "started_at": began, "machine": "x", "cpus": 2})
    write_json(folder / "run.json", {"source_sha256": f"{stage}-code", "versions": {"python": "3.11", "torch": "2"}})
    seal(folder)


def collect(job: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """What scripts/study.py does, apart from its own records."""
    runs = [ScoredRun(r["model"], r["attack"], r["dataset"], s, r["folders"]) for r in job["rows"] for s in r["seeds"]]
    metrics = {label: load_metric(label, settings) for label, settings in METRICS.items()}
    counts = count_hits(measure_images(runs, metrics), CONFIG)
    fields = {key: value for key, value in job.items() if key != "rows"}
    study_job = StudyJob.parse({**fields, "measured": "measured"}, where="a study's job")
    manifest = study_manifest(study_job, counts, write_counts(counts, folder))
    text = json.dumps(manifest, indent=1, sort_keys=True)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return counts


def made_counts(
    hits: Mapping[tuple[str, str, int], Mapping[str, float]], *, prompts: int = 20, images: int = 10, seeds: int = 5
) -> pd.DataFrame:
    """Counts with the given rate of each state and measure, spread as evenly over prompts and seeds as can be."""
    rows = []
    for (model, attack, steps), measures in hits.items():
        for measure, rate in measures.items():
            total = round(rate * prompts * images * seeds)
            cells = np.diff(np.floor(np.linspace(0, total, prompts * seeds + 1))).astype(int).reshape(prompts, seeds)
            for prompt in range(prompts):
                key = {"model": model, "attack": attack, "steps": steps, "measure": measure}
                own = {f"hits_seed_{seed}": int(cells[prompt, seed]) for seed in range(seeds)}
                rows.append({**key, "prompt_id": f"p{prompt:02d}", "images": images, **own})
    frame = pd.DataFrame(rows)
    return frame.astype({name: "Int64" for name in frame.columns if str(name).startswith("hits_")})
