"""The whole path on the tiny pipeline: what each script reads is what the one before it wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from resalign.config.plan import Plan
from resalign.data.images import DataError
from resalign.jobs.inputs import Input
from resalign.jobs.score import ScoreJob
from resalign.jobs.unlearn import UnlearnJob

from .conftest import THRESHOLD, Workshop

Workshops = Callable[[], Workshop]

OF_ITS_DAY = ("timing.json", "hashes.json", "report.html")


@pytest.fixture(scope="module")
def done(finished: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return finished.copy(tmp_path_factory.mktemp("done") / "workshop")


def pixels(path: Path) -> npt.NDArray[np.int64]:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


def test_the_table_has_every_state_and_metric(done: Workshop) -> None:
    table = pd.read_csv(done.folder / "results/tiny/tables/table1.csv", keep_default_na=False)
    assert {"model", "attack", "dataset", "steps", "metric", "mean", "std", "low", "high", "n", "seeds"} <= set(table)
    assert set(table["model"]) == {"base", "graddiff"}
    assert set(table["attack"]) == {"none", "mine"}
    assert set(table["metric"]) == {"ip", "retained_accuracy", "clip_score", "learnability"}
    assert set(table.loc[table["attack"] == "mine", "steps"]) == {2}
    # ip is measured along the way, the others at the end only.
    along = pd.read_csv(done.folder / "results/tiny/tables/steps.csv", keep_default_na=False)
    assert set(along.loc[(along["metric"] == "ip") & (along["attack"] == "mine"), "steps"]) == {1, 2}
    assert set(along.loc[(along["metric"] == "clip_score") & (along["attack"] == "mine"), "steps"]) == {2}
    assert (done.folder / "results/tiny/report.html").stat().st_size > 10_000


def test_every_number_of_the_table_is_its_scores(done: Workshop, whole_plan: Plan) -> None:
    table = pd.read_csv(done.folder / "results/tiny/tables/table1.csv", keep_default_na=False)
    for stage in whole_plan.score.values():
        scores = pd.read_parquet(done.folder / stage.folder(0) / "smoke" / "scores.parquet")
        unsafe, benign = (scores[scores["prompt_set"] == name] for name in ("unsafe", "benign"))
        classes = ["net.two", "net.three", "net.seven", "net.nothing"]
        last = scores["steps"].max()
        expected = {
            "ip": (unsafe.loc[unsafe["steps"] == last, "net.seven"] > THRESHOLD).mean(),
            "clip_score": benign["clip.similarity"].mean(),
            "retained_accuracy": (benign[classes].idxmax(axis=1).str[4:] == benign["label"]).mean(),
        }
        rows = table[(table["model"] == stage.model) & (table["steps"] == last)]
        found = dict(zip(rows["metric"], rows["mean"].astype(float), strict=True))
        assert expected["ip"] == (0.5 if stage.label == "base" else 0)
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)  # the table has six digits


def files(shop: Workshop) -> dict[str, bytes]:
    """Results, but for seconds and memory, and what shows them."""
    found = {path.relative_to(shop.folder): path for path in (shop.folder / "results").rglob("*") if path.is_file()}
    kept = [name for name in found if ".state" not in name.parts and name.name not in OF_ITS_DAY]
    return {str(name): found[name].read_bytes() for name in kept}


@pytest.mark.slow
def test_two_runs_are_the_same_to_the_byte(finished: Workshop, run_whole: Callable[[], Workshop]) -> None:
    first, second = files(finished), files(run_whole())
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] != second[name]]
    assert any(name.endswith("weights.safetensors") for name in first)
    assert any(name.endswith("table1.csv") for name in first)


def test_every_stage_records_job_seed_code_and_versions(done: Workshop) -> None:
    paths = [path for path in (done.folder / "results").rglob("run.json") if ".state" not in path.parts]
    records = [json.loads(path.read_text()) for path in paths]
    assert len(records) == 1 + 1 + 1 + 2 + 4 + 4 + 1 + 1
    for record in records:
        assert set(record) == {"job", "seed", "source_sha256", "versions"}
        assert {"torch", "diffusers", "python"} <= set(record["versions"])
    for path in (done.folder / "results").rglob("timing.json"):
        times = json.loads(path.read_text())
        assert times["seconds"] > 0


def test_a_larger_tier_extends_the_images_already_made(
    done: Workshop, workshop: Workshops, tiny_plan: Callable[..., Plan]
) -> None:
    larger = tiny_plan(tier="small")
    [stage] = [s for s in larger.sample.values() if s.label == "base"]
    store = done.folder / stage.folder(0) / "images" / "unsafe" / "step-0"
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.png")}
    manifest = pd.read_csv(done.sample(larger, stage, 0) / "images.csv")
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("*.png")}
    assert len(before) == 2
    assert before.items() < after.items()
    assert len(after) == (manifest["prompt_set"] == "unsafe").sum() == 4
    # The images of both tiers are those of a run of the larger tier alone.
    alone = workshop()
    alone.sample(larger, stage, 0)
    other = alone.folder / stage.folder(0) / "images" / "unsafe" / "step-0"
    # The smaller tier's images had other company in their batch, which may move a rounding.
    assert {path.name for path in other.glob("*.png")} == set(after)
    for path in other.glob("*.png"):
        assert np.abs(pixels(path) - pixels(store / path.name)).max() <= 1, path.name


def test_a_changed_prompt_is_painted_anew(done: Workshop, whole_plan: Plan) -> None:
    plan = whole_plan
    [stage] = [s for s in plan.sample.values() if s.label == "base"]
    path = Path(plan.folder("prompts/prompts.csv"))
    before = pd.read_csv(done.folder / stage.folder(0) / "smoke" / "images.csv")["path"]
    text = path.read_text()
    try:
        path.write_text(text.replace("a red seven", "a blue seven"))
        manifest = pd.read_csv(done.sample(plan, stage, 0) / "images.csv")
    finally:
        path.write_text(text)
    images = [(done.folder / image).read_bytes() for image in (before[0], manifest["path"][0])]
    assert manifest["prompt"][0] == "a blue seven"
    assert images[0] != images[1]


def test_images_of_other_code_are_painted_anew(
    done: Workshop, whole_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = whole_plan
    [stage] = [s for s in plan.sample.values() if s.label == "graddiff"]
    store = done.folder / stage.folder(0) / "images" / "unsafe" / "step-0"
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.png")}
    done.sample(plan, stage, 0)
    assert {path.name: path.stat().st_mtime_ns for path in store.glob("*.png")} == before
    monkeypatch.setattr(done.scripts["sample"], "source_hash", lambda files: "edited")
    done.sample(plan, stage, 0)
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("*.png")}
    assert before.keys() == after.keys()
    assert all(after[name] > before[name] for name in before)


def test_a_faulty_input_leaves_results_untouched(
    done: Workshop, tiny_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = tiny_plan()
    broken = tiny_plan(
        assets={**{n: a.resolved for n, a in plan.assets.items()}, "images": {"path": str(tmp_path / "nothing")}}
    )
    [stage], [faulty] = plan.unlearn.values(), broken.unlearn.values()
    before = {path: path.read_bytes() for path in (done.folder / stage.folder(0)).iterdir()}
    with pytest.raises(DataError, match="no such folder of images"):
        done.call("unlearn", UnlearnJob.of(broken, faulty), stage.folder(0), modules=stage.modules)
    assert {path: path.read_bytes() for path in (done.folder / stage.folder(0)).iterdir()} == before


def test_real_images_are_scored_upright_and_at_one_size(
    workshop: Workshops, tiny_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    """A reference folder holds photographs of any size, some turned by EXIF; see ScoreJob.of_reference."""
    plan, shop = tiny_plan(), workshop()
    draw = np.random.default_rng(0)
    upright = Image.fromarray(draw.integers(0, 256, (24, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    other = Image.fromarray(draw.integers(0, 256, (40, 60, 3), dtype=np.uint8))

    def scored(name: str) -> pd.DataFrame:
        names = ("upright.png", "turned.png", "other.png") if name == "both" else (f"{name}.png", "other.png")
        folder = tmp_path / name
        folder.mkdir()
        upright.save(folder / "upright.png")
        upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
        other.save(folder / "other.png")
        (folder / "metadata.csv").write_text("file_name,prompt\n" + "".join(f"{file},a\n" for file in names))
        images = {"images": Input(str(folder / "metadata.csv")), "pixels": plan.experiment.config.pixels}
        job = ScoreJob.of(plan, next(iter(plan.score.values())), "0", plan.tier).model_copy(update=images)
        return pd.read_parquet(shop.call("score", job, f"results/{name}") / "scores.parquet").set_index("prompt_id")

    one = scored("upright")
    numbers = [name for name in one if name.startswith(("net.", "clip."))]
    assert one[numbers].to_numpy().tolist() == scored("turned")[numbers].to_numpy().tolist()
    assert one.loc["upright.png", numbers].tolist() != one.loc["other.png", numbers].tolist()
    # What shows the same again, pixel by pixel, counts once: FID and KID take each image for a further draw.
    assert list(scored("both").index) == ["upright.png", "other.png"]


def test_the_page_says_what_attacks_share_with_unlearning_and_evaluation(done: Workshop) -> None:
    page = (done.folder / "results/tiny/report.html").read_text(encoding="utf-8")
    said = (
        "Attack mine trains on 8 images: 8 also in the forget set; 8 also in the pool; 8 also in the retain set; "
        "2 with a prompt of benign as caption; 2 with a prompt of unsafe as caption."
    )
    assert page.count(said) == 1
    assert page.index('id="results"') < page.index(said) < page.index('id="method"')


def test_a_list_may_be_sampled_before_fine_tuning_alone(
    workshop: Workshops, tiny_plan: Callable[..., Plan], tiny_values: dict[str, Any]
) -> None:
    benign = {**tiny_values["prompts"]["benign"], "source": {"none": "prompts/prompts.csv"}}
    plan, shop = tiny_plan(prompts={**tiny_values["prompts"], "benign": benign}), workshop()
    shop.run(plan)
    lists: dict[str, set[str]] = {}
    for stage in plan.score.values():
        (scores,) = (shop.folder / stage.folder("0")).rglob("scores.parquet")
        lists.setdefault("after" if stage.attack else "before", set()).update(pd.read_parquet(scores)["prompt_set"])
    assert lists == {"before": {"unsafe", "benign"}, "after": {"unsafe"}}
    table = pd.read_csv(shop.folder / "results/tiny/tables/table1.csv", keep_default_na=False)
    measured = {metric: set(rows["attack"]) for metric, rows in table.groupby("metric")}
    assert measured["ip"] == {"none", "mine"}
    assert measured["retained_accuracy"] == measured["clip_score"] == {"none"}
