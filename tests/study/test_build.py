"""The study from raw scores to text: counts, numbers, signs, verdicts, and the committed study's own files."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from resalign.config.report import ReportConfig
from resalign.config.study import Contrast, StudyConfig
from resalign.hashes import seal
from resalign.metrics.learnability import RANGE
from resalign.study import build as entry
from resalign.study import counts as study_counts
from resalign.study.claims import ALL, claims
from resalign.study.table import Study, learnability, study_table
from resalign.study.text import claim_sentences, claims_table, opening, study_markdown

from . import frames as made

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ReportConfig(replicates=500)
CONTRAST = Contrast(component="second order", treated="resalign", control="first-order")
CONFIG = StudyConfig(contrasts=(CONTRAST,))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made.write_study(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def folder(job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "docs" / "studies" / "made-up"
    made.collect(job, folder)
    entry.write_study(folder)
    return folder


def one_attack(safety: dict[str, float], utility: dict[str, float] | None = None, **sizes: int) -> Study:
    """A study of one attack; IP after it and retained accuracy (0.9 where not given) by model."""
    rates = {}
    for model, ip in safety.items():
        kept = {"retained_accuracy": (utility or {}).get(model, 0.9)}
        rates[model, "none", 0] = {"ip": 0.0, **kept}
        rates[model, "pages", 200] = {"ip": ip, **kept}
    counts = made.made_counts(rates, **sizes)
    losses = pd.DataFrame(
        [(model, "pages", steps, seed, loss) for model in safety for steps, loss in LOSSES for seed in range(5)],
        columns=study_counts.LOSS_COLUMNS,
    )
    return Study(counts, losses, tuple(safety), ("pages",), "base", SETTINGS)


LOSSES = ((0, 0.5), (200, 0.2))
MODELS = {"base": 0.9, "graddiff": 0.6, "esd": 0.5, "resalign": 0.05, "first-order": 0.3}


def claim(study: Study, name: str, *, quantity: str | None = None, state: str = "pages") -> dict[str, Any]:
    rows = claims(study, CONFIG)
    rows = rows[(rows["claim"] == name) & (rows["state"] == state)]
    rows = rows if quantity is None else rows[rows["quantity"] == quantity]
    assert len(rows) == 1
    return {str(key): value for key, value in rows.iloc[0].items()}


# --- counts ----------------------------------------------------------------------------------------------------------


def test_counts_are_what_was_flagged(job: dict[str, Any], folder: Path) -> None:
    counts, losses = study_counts.read_counts(folder)
    row = counts[
        (counts["model"] == "esd")
        & (counts["attack"] == "bold-strong")
        & (counts["steps"] == 200)
        & (counts["measure"] == "ip")
        & (counts["prompt_id"] == "unsafe-03")
    ].iloc[0]
    source = next(r for r in job["rows"] if (r["model"], r["attack"]) == ("esd", "bold-strong"))
    scores = pd.read_parquet(Path(source["folders"]["score"].format(seed=2)) / "scores.parquet")
    cell = scores[(scores["steps"] == 200) & (scores["prompt_id"] == "unsafe-03")]
    assert row["images"] == len(cell) == 4
    assert row["hits_seed_2"] == (cell["net.seven"] > 0.5).sum()
    history = pd.read_csv(Path(source["folders"]["attack"].format(seed=2)) / "history.csv")
    end = history.loc[(history["step"] == 200) & (history["quantity"] == "heldout_loss"), "value"].iloc[0]
    found = losses.query("model == 'esd' and attack == 'bold-strong' and steps == 200 and seed == 2")
    assert found["heldout_loss"].iloc[0] == pytest.approx(end, rel=1e-7)


def test_counts_are_read_back_as_written(job: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    counts, losses = study_counts.read_counts(folder)
    hashes = study_counts.write_counts(counts, losses, tmp_path)
    assert (tmp_path / "counts.csv").read_bytes() == (folder / "counts.csv").read_bytes()
    assert (tmp_path / "losses.csv").read_bytes() == (folder / "losses.csv").read_bytes()
    again, _ = study_counts.read_counts(tmp_path)
    pd.testing.assert_frame_equal(again, counts)
    assert entry.read_study(folder)[2]["files"] == hashes


@pytest.mark.slow
def test_collecting_in_another_order_gives_the_same_bytes(job: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    made.collect({**job, "rows": job["rows"][::-1], "timings": job["timings"][::-1]}, tmp_path)
    for name in ("counts.csv", "losses.csv", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_manifest_sums_hours_and_names_sources(job: dict[str, Any], folder: Path) -> None:
    manifest = entry.read_study(folder)[2]
    runs = len(job["timings"])
    assert sum(manifest["runs"].values()) == runs
    assert manifest["hours"]["total"] == pytest.approx(runs * 36 / 3600, abs=1e-3)
    assert manifest["source_sha256"] == {"attack": ["attack-code"], "score": ["score-code"]}
    assert manifest["cells"]["ip"] == {"prompts": 16, "seeds": 5, "images": 320}
    assert manifest["versions"] == [{"python": "3.11", "torch": "2"}]
    assert manifest["cpus"] == [2]


def test_a_state_without_a_measure_is_an_error(tmp_path: Path) -> None:
    rates = {"base": made.RATES["base"], "esd": made.RATES["esd"]}
    job = made.write_study(tmp_path / "runs", rates, seeds=(0,))
    path = Path(job["rows"][-1]["folders"]["score"].format(seed=0)) / "scores.parquet"
    scores = pd.read_parquet(path)
    scores[(scores["steps"] != 50) | (scores["prompt_set"] != "benign")].to_parquet(path)
    seal(path.parent)
    with pytest.raises(ValueError, match=r"'esd', 'bold-strong', 50.*retained_accuracy.*along_the_way"):
        made.collect(job, tmp_path / "study")


def test_a_missing_run_is_an_error(tmp_path: Path) -> None:
    rates = {"base": made.RATES["base"], "esd": made.RATES["esd"]}
    job = made.write_study(tmp_path / "runs", rates, seeds=(0, 1))
    job["rows"][-1]["seeds"] = [0]
    with pytest.raises(ValueError, match=r"'esd', 'bold-strong', 50.* lacks training seeds \[1\]"):
        made.collect(job, tmp_path / "study")


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_tables_numbers_are_those_of_the_scores(job: dict[str, Any], folder: Path) -> None:
    table = pd.read_csv(folder / "table.csv", keep_default_na=False).set_index(["model", "attack", "steps"])
    row = table.loc[("graddiff", "pages-gentle", 50)]
    source = next(r for r in job["rows"] if (r["model"], r["attack"]) == ("graddiff", "pages-gentle"))
    runs = [pd.read_parquet(Path(source["folders"]["score"].format(seed=s)) / "scores.parquet") for s in range(5)]
    scores = pd.concat(runs)
    scores = scores[scores["steps"] == 50]
    unsafe, benign = (scores[scores["prompt_set"] == name] for name in ("unsafe", "benign"))
    assert float(row["ip"]) == pytest.approx((unsafe["net.seven"] > 0.5).mean(), rel=1e-5)
    assert float(row["retained_accuracy"]) == pytest.approx((benign["net.two"] > 0.5).mean(), rel=1e-5)
    assert (int(row["ip_images"]), int(row["retained_accuracy_images"]), int(row["seeds"])) == (320, 180, 5)
    assert float(row["ip_low"]) < float(row["ip"]) < float(row["ip_high"])
    assert int(table.loc[("base", "none", 0), "seeds"]) == 1
    assert len(table) == len(made.RATES) * 5


def test_learnability_is_what_is_gained_of_the_base_models_loss(folder: Path) -> None:
    study, _, _ = entry.read_study(folder)
    losses = study.losses.set_index(["model", "attack", "steps", "seed"])["heldout_loss"]
    values = learnability(study, "esd", ("bold-strong", 200))
    expected = [
        1 - losses["esd", "bold-strong", 200, seed] / losses["base", "bold-strong", 0, seed] for seed in range(5)
    ]
    np.testing.assert_allclose(values, expected)
    table = study_table(study).set_index(["model", "attack", "steps"])
    assert table.loc[("esd", "bold-strong", 200), "learnability"] == pytest.approx(np.mean(expected))
    assert table.loc[("base", "bold-strong", 200), "learnability_ratio"] == pytest.approx(1.0)
    assert table.loc[("esd", "bold-strong", 200), "learnability_ratio"] == pytest.approx(0.5 / 0.6, abs=0.02)
    assert np.isnan(table.loc[("esd", "none", 0), "learnability"])


def test_learnability_is_held_to_the_metrics_range_and_its_share_is_not(folder: Path) -> None:
    study, _, _ = entry.read_study(folder)
    losses = study.losses.copy()
    losses.loc[(losses["model"] == "esd") & (losses["steps"] > 0) & (losses["seed"] > 0), "heldout_loss"] = 0.0
    row = study_table(replace(study, losses=losses)).set_index(["model", "attack", "steps"])
    found = row.loc[("esd", "bold-strong", 200)]
    assert found["learnability"] < found["learnability_high"] == RANGE[1]
    assert found["learnability_ratio_high"] > RANGE[1]


# --- the claims ------------------------------------------------------------------------------------------------------


def test_a_claim_that_holds() -> None:
    found = claim(one_attack(MODELS), "safety")
    assert found["other"] == "esd"  # the lower of the baselines
    assert found["estimate"] == pytest.approx(0.05 - 0.5 / 3)
    assert found["low"] < found["estimate"] < found["high"] < 0
    assert (found["value"], found["other_value"]) == pytest.approx((0.05, 0.5))
    assert found["verdict"] == "holds"


@pytest.mark.parametrize(("ip", "verdict"), [(0.3, "fails"), (0.16, "not shown"), (0.6, "fails")])
def test_a_claim_that_does_not_hold(ip: float, verdict: str) -> None:
    # The first prompts carry all hits of the method, so that the interval is wide.
    study = one_attack({**MODELS, "resalign": ip})
    hits = study_counts.hit_columns(study.counts)
    own = (study.counts["model"] == "resalign") & (study.counts["measure"] == "ip") & (study.counts["steps"] == 200)
    totals = study.counts.loc[own, hits].to_numpy(int).sum(axis=0)
    spread = np.zeros((20, 5), int)
    for seed, total in enumerate(totals):
        spread[:, seed] = np.clip(total - 10 * np.arange(20), 0, 10)
    study.counts.loc[own, hits] = spread
    found = claim(study, "safety")
    assert found["estimate"] == pytest.approx(ip - 0.5 / 3)
    assert not found["rare"]
    assert found["verdict"] == verdict


def test_nothing_is_shown_against_a_baseline_that_shows_nothing() -> None:
    found = claim(one_attack({**MODELS, "esd": 0.0, "resalign": 0.0}), "safety")
    assert (found["estimate"], found["low"], found["high"]) == (0, 0, 0)
    assert found["verdict"] == "not shown"
    assert claim(one_attack({**MODELS, "esd": 0.0}), "safety")["verdict"] == "fails"


def test_an_event_in_a_few_prompts_shows_nothing() -> None:
    # Two hits in 1,000 images: the bootstrap's upper end is 0, which it would be for no difference too.
    study = one_attack({**MODELS, "esd": 0.002, "resalign": 0.0})
    found = claim(replace(study, settings=SETTINGS.model_copy(update={"interval": "bootstrap"})), "safety")
    assert found["rare"]
    assert found["high"] <= 0
    assert found["verdict"] == "not shown"
    assert "too few prompts" in claim_sentences(claims(study, CONFIG), CONFIG)[0]


def test_nothing_holds_with_two_training_seeds() -> None:
    study = one_attack({**MODELS, "resalign": 0.0}, seeds=2)
    found = claim(study, "safety")
    assert (found["seeds"], found["verdict"]) == (2, "not shown")
    assert found["high"] < 0  # the interval alone would let it hold
    utility = claim(study, "utility")
    assert (utility["verdict"], utility["low"]) == ("not shown", 0.0)
    gain = claim(study, CONTRAST.component, quantity="ip")
    assert (gain["verdict"], gain["low"] > 0) == ("not shown", True)
    assert "2 of at least 3 training seeds" in claim_sentences(claims(study, CONFIG), CONFIG)[0]
    assert claim(one_attack({**MODELS, "resalign": 0.0}, seeds=3), "safety")["verdict"] == "holds"


@pytest.mark.parametrize(("kept", "verdict"), [(0.9, "holds"), (0.8, "fails"), (1.0, "holds")])
def test_retained_accuracy_may_be_lost_within_a_margin(kept: float, verdict: str) -> None:
    found = claim(one_attack(MODELS, {"resalign": kept}), "utility")
    assert found["estimate"] == pytest.approx(kept - 0.9)
    assert found["verdict"] == verdict
    assert claim(one_attack(MODELS, {"resalign": kept}), "utility", state="before")["verdict"] == verdict


def test_retained_accuracy_is_not_shown_where_the_interval_reaches_too_far() -> None:
    # One training seed lost .1, the others nothing: −.02 on average, but another draw of seeds may have lost more.
    study = one_attack(MODELS)
    own = (study.counts["model"] == "resalign") & (study.counts["measure"] == "retained_accuracy")
    study.counts.loc[own, "hits_seed_3"] -= 1
    found = claim(study, "utility")
    assert found["estimate"] == pytest.approx(-0.02)
    assert found["low"] < -CONFIG.utility_margin
    assert found["verdict"] == "not shown"


@pytest.mark.parametrize(
    ("after", "verdict"),
    [((0.21,) * 5, "holds"), ((0.26,) * 5, "fails"), ((0.2, 0.21, 0.22, 0.23, 0.25), "not shown")],
)
def test_learnability_against_the_base_models(after: tuple[float, ...], verdict: str) -> None:
    study = one_attack(MODELS)
    own = (study.losses["model"] == "resalign") & (study.losses["steps"] == 200)
    study.losses.loc[own, "heldout_loss"] = after
    found = claim(study, "learnability")
    assert found["estimate"] == pytest.approx(np.mean([(1 - loss / 0.5) / 0.6 for loss in after]))
    assert found["verdict"] == verdict


def test_a_component_that_helps_is_above_zero() -> None:
    study = one_attack(MODELS, {"resalign": 0.9, "first-order": 0.7})
    safety = claim(study, CONTRAST.component, quantity="ip")
    utility = claim(study, CONTRAST.component, quantity="retained_accuracy")
    assert safety["estimate"] == pytest.approx(0.3 - 0.05)
    assert utility["estimate"] == pytest.approx(0.9 - 0.7)
    assert safety["verdict"] == utility["verdict"] == "above 0"
    swapped = one_attack({**MODELS, "resalign": 0.3, "first-order": 0.05}, {"resalign": 0.7, "first-order": 0.9})
    assert claim(swapped, CONTRAST.component, quantity="ip")["verdict"] == "below 0"
    assert claim(swapped, CONTRAST.component, quantity="retained_accuracy")["verdict"] == "below 0"
    equal = one_attack({**MODELS, "resalign": 0.3, "first-order": 0.3})
    assert claim(equal, CONTRAST.component, quantity="ip")["verdict"] == "includes 0"


def test_differences_are_paired() -> None:
    # Prompts differ in the same way for both models: alone each rate is uncertain, their difference is not.
    study = one_attack(MODELS)
    hits = study_counts.hit_columns(study.counts)
    easy = np.repeat(np.arange(20)[:, None] // 2, 5, axis=1)
    for model, more in (("resalign", 0), ("first-order", 1)):
        own = (study.counts["model"] == model) & (study.counts["measure"] == "ip") & (study.counts["steps"] == 200)
        study.counts.loc[own, hits] = easy + more
    found = claim(study, CONTRAST.component, quantity="ip")
    assert (found["low"], found["estimate"], found["high"]) == pytest.approx((0.1, 0.1, 0.1))
    alone = study.rate("resalign", ("pages", 200), "ip")
    assert alone.high - alone.low > 0.2


def test_over_all_attacks_states_weigh_alike(folder: Path) -> None:
    study, config, _ = entry.read_study(folder)
    found = claims(study, config)
    rows = found[(found["claim"] == config.contrasts[0].component) & (found["quantity"] == "ip")]
    single, pooled = rows[rows["state"] != ALL], rows[rows["state"] == ALL]
    assert len(single) == 4
    assert float(pooled["estimate"].iloc[0]) == pytest.approx(single["estimate"].mean())
    assert float(pooled["value"].iloc[0]) == pytest.approx(single["value"].mean())
    ratio = found[found["claim"] == "learnability"]
    pooled_ratio = float(ratio.loc[ratio["state"] == ALL, "estimate"].iloc[0])
    assert pooled_ratio == pytest.approx(ratio.loc[ratio["state"] != ALL, "estimate"].mean())


@pytest.mark.slow
def test_claims_are_the_same_at_every_run(folder: Path) -> None:
    study, config, _ = entry.read_study(folder)
    pd.testing.assert_frame_equal(claims(study, config), claims(study, config))


def test_models_measured_on_different_images_are_no_pairs() -> None:
    study = one_attack(MODELS)
    study.counts.loc[study.counts["model"] == "resalign", "images"] = 20
    with pytest.raises(ValueError, match="no pairs"):
        claims(study, CONFIG)


# --- what is written -------------------------------------------------------------------------------------------------


def test_every_claim_is_said(folder: Path) -> None:
    study, config, manifest = entry.read_study(folder)
    text = (folder / "study.md").read_text(encoding="utf-8")
    for contrast in config.contrasts:
        assert f"Effect of {contrast.component}" in text
    assert f"`{manifest['command']}`" in text
    assert f"{manifest['hours']['total']:.1f} hours" in text
    assert all(f"| `{model}` |" in text for model in study.models)
    table = claims_table(study, claims(study, config), config).splitlines()
    assert len(table) == 2 + 3 + 2 * len(config.contrasts)
    assert len({line.count("|") for line in table}) == 1


def test_a_study_begins_with_a_title_and_what_its_models_are() -> None:
    study, config, manifest = entry.read_study(ROOT / "docs" / "studies" / "resilience")
    title, paragraph = opening(study, config)
    assert title.startswith("# ")
    assert [model for model in manifest["models"] if f"`{model}`" not in paragraph] == []
    assert "`hypergradient` has the hypergradient, which `none` lacks" in paragraph


def test_the_figure_is_written(folder: Path) -> None:
    from PIL import Image

    with Image.open(folder / "ip.png") as image:
        assert min(image.size) > 400
        assert np.asarray(image.convert("L")).std() > 5


def test_the_entry_point_needs_no_torch() -> None:
    code = "import resalign.study.build, resalign.study.selection, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_committed_study_is_what_its_counts_give() -> None:
    kept = ROOT / "docs" / "studies" / "resilience"
    study, config, manifest = entry.read_study(kept)
    text = study_markdown(study, study_table(study), claims(study, config), config, manifest, entry.FIGURE)
    assert text == (kept / "study.md").read_text(encoding="utf-8")
    for name, sha256 in manifest["files"].items():
        assert hashlib.sha256((kept / name).read_bytes()).hexdigest() == sha256, name
