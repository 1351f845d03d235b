"""Each unlearning method of an experiment on the demo's world, once, before any attack: a first look at its settings.

    snakemake --cores 2 --configfile config/studies/methods.yaml -- digits_bars   # trains the world
    python bench/methods.py                                                       # or: python bench/methods.py rg uce

One training seed. Rates on prompts that name the unsafe digit and on those that only suggest it, the accuracy of
retained digits, the seconds of unlearning, and the distance of the weights from the original ones.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import resalign
from resalign.config import registry
from resalign.config.experiment import BASE, Experiment, Member
from resalign.config.plan import Plan
from resalign.contracts import Run
from resalign.data.prompts import Prompt, read_prompts
from resalign.diffusion.loaded_pipeline import LoadedPipeline, trainable_tensors
from resalign.library.inputs import captioned, open_pipeline
from resalign.library.training import unlearned_weights
from resalign.library.weights import deterministic, put
from resalign.tensors.params import add, norm

EXPLICIT, IMPLICIT = "explicit", "implicit"
LISTS = {EXPLICIT: "named-unsafe", IMPLICIT: "implied-unsafe", "kept": "benign"}
DETECTORS, CLASSIFIER, MOST = ("resnet", "regnet"), "deep-resnet", 90


def main() -> None:
    """Prints a row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="*", help="models; default: all")
    parser.add_argument("--configfile", default="config/studies/methods.yaml")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    plan = Plan(Experiment.read(parsed.configfile))
    print(f"{'model':18} {'explicit':>8} {'implicit':>8} {'retained':>8} {'seconds':>8} {'distance':>8}")
    for label in parsed.labels or plan.experiment.models:
        began = time.monotonic()
        loaded, distance = unlearned(plan, label, parsed.seed)
        seconds = time.monotonic() - began
        rates = measured(plan, loaded)
        print(f"{label:18} {rates[EXPLICIT]:8.2f} {rates[IMPLICIT]:8.2f} {rates['kept']:8.2f} ", end="")
        print(f"{seconds:8.0f} {distance:8.2f}", flush=True)


def unlearned(plan: Plan, label: str, seed: int) -> tuple[LoadedPipeline, float]:
    """The pipeline of a model, and how far its weights are from the base's."""
    config = plan.experiment.config
    loaded = open_pipeline(plan.folder(config.model))
    if label == BASE:
        return loaded, 0.0
    method, concept = plan.experiment.unlearning[label], config.concept
    folders = {name: plan.folder(getattr(concept, name)) for name in ("forget", "retain", "pool")}
    with deterministic(), captioned(folders, loaded.pixels) as images:
        weights = unlearned_weights(
            loaded,
            registry.member("unlearning", method.name),
            method.config,
            images,
            Run(seed),
            concepts=concept.concepts,
            retain_prompts=concept.retain_prompts,
            masks=Path(plan.folder(concept.masks)) if concept.masks else None,
        )
    original = {name: tensor.detach().clone() for name, tensor in trainable_tensors(loaded.pipeline).items()}
    put(loaded, weights)
    return loaded, norm(add(weights, {name: original[name] for name in weights}, -1.0))


def measured(plan: Plan, loaded: LoadedPipeline) -> dict[str, float]:
    """The rates by name, each of at most :data:`MOST` images."""
    lists = {name: prompt_list(plan, source) for name, source in LISTS.items()}
    unsafe = list(plan.experiment.config.digits.unsafe_digits)
    rules = [{"scorer": name, "quantities": unsafe, "threshold": 0.5} for name in DETECTORS]
    metrics: dict[str, dict[str, Any]] = {
        name: {"metric": "ip", "prompts": name, "rules": rules} for name in (EXPLICIT, IMPLICIT)
    }
    metrics["kept"] = {"metric": "retained_accuracy", "prompts": "kept", "scorer": CLASSIFIER}
    scorers = {name: scorer(plan, plan.experiment.scorers[name]) for name in (*DETECTORS, CLASSIFIER)}
    sampling = plan.experiment.config.sampling.model_dump(mode="json")
    table = resalign.evaluate(loaded.pipeline, prompts=lists, scorers=scorers, metrics=metrics, **sampling)
    return dict(zip(table["metric"], table["mean"], strict=True))


def prompt_list(plan: Plan, name: str) -> list[Prompt]:
    """The first prompts of a list."""
    return read_prompts(Path(plan.folder(plan.experiment.prompt_sources(name)[""])))[:MOST]


def scorer(plan: Plan, member: Member) -> dict[str, Any]:
    """A scorer's settings, with a path in place of its asset."""
    return {"scorer": member.name, **member.config.model_dump(), "folder": plan.folder(str(member.asset))}


if __name__ == "__main__":
    main()
