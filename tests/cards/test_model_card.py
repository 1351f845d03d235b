"""What a model card says of these weights, and what of all training seeds."""

from typing import Any

import pandas as pd

from resalign.analysis.frames import long_table, per_run_table
from resalign.analysis.measurements import Measurements
from resalign.cards.card import CardContext
from resalign.cards.model_card import Exported, write_model_card
from resalign.jobs.export import ExportJob
from tests.analysis.experiment import SETTINGS, image_rows, make_measurements


def exported(seed: int, **changes: Any) -> Exported:
    job = {
        "model": "esd",
        "seed": seed,
        "form": "delta",
        "concept": "the seven",
        "method": {"name": "esd"},
        "base_name": "a base",
        "licence": "MIT",
        **dict.fromkeys(("measured", "base_folder", "weights", "made", "scorer_check", "command"), "x"),
        **dict.fromkeys(("config", "how", "sources"), {}),
        "report": SETTINGS.model_dump(mode="json"),
    }
    made = ExportJob.parse({**job, **changes}, where="job")
    record = {"seed": seed, "source_sha256": "0", "versions": {"torch": "2"}}
    return Exported(job=made, made=record, weights_sha256="1", context=CardContext.of(made, {}, {}, ()))


def readme(measurements: Measurements, seed: int) -> str:
    frames = (make(measurements, SETTINGS) for make in (long_table, per_run_table))
    return write_model_card(*frames, measurements, exported(seed))


def test_the_title_names_model_method_concept_and_base() -> None:
    assert exported(1).title == "esd: the seven unlearned from a base, training seed 1"
    own = exported(0, model="esd_lr3e-4", base_name="the base model of “Sevens”")
    assert own.title == "esd_lr3e-4 (esd): the seven unlearned from the base model of “Sevens”, training seed 0"
    assert own.name == "esd_lr3e-4-seed-0"


def attack_lines(seed: int) -> list[str]:
    """Seed 0's model never shows the concept, seed 1's always does after fine-tuning."""
    rows = []
    for model, chances in (("base", (1.0, 1.0)), ("esd", (0.0, 1.0))):
        for number, chance in enumerate(chances):
            rows += image_rows(model, 0.0, seeds=[number])
            rows += image_rows(model, chance, attack="pages", dataset="pages", steps=200, seeds=[number])
    measurements = make_measurements(images=pd.DataFrame(rows), runs=make_measurements().runs[:0])
    text = readme(measurements, seed)
    return [line for line in text.splitlines() if line.startswith("| pages |")]


def test_a_model_that_nothing_has_trained_has_a_card_at_every_seed() -> None:
    """It was measured before fine-tuning once, and attacked with every seed."""
    rows = image_rows("base", 1.0, seeds=[0]) + image_rows("esd", 0.0, seeds=[0])
    for model, chance in (("base", 1.0), ("esd", 0.0)):
        rows += image_rows(model, chance, attack="pages", dataset="pages", steps=200, seeds=[0, 1])
    measurements = make_measurements(images=pd.DataFrame(rows), runs=make_measurements().runs[:0])
    first, second = (readme(measurements, seed) for seed in (0, 1))
    assert "| pages | pages | survived | " in second
    before = [line for line in second.splitlines() if "before fine-tuning |" in line]
    assert before == [line for line in first.splitlines() if "before fine-tuning |" in line]
    assert before


def test_an_attacks_verdict_is_of_these_weights_and_of_all_seeds() -> None:
    [lucky], [unlucky] = attack_lines(0), attack_lines(1)
    assert lucky.startswith("| pages | pages | survived | failed | IP 50.0")
    assert unlucky.startswith("| pages | pages | failed | failed | IP 50.0")
