"""Images that are not kept go once they are scored; whoever wants one is told how to have it again."""

import json
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from resalign import hashes
from resalign.artifact import pack
from resalign.config.plan import Plan, Stage
from resalign.data.image_files import open_image
from resalign.jobs import measure
from resalign.jobs.measure import MeasureJob
from resalign.jobs.prune import PruneJob
from resalign.jobs.report import ReportJob

from .conftest import Workshop, load_script

Plans = Callable[..., Plan]
RECORDS = ("images.csv", "run.json", "timing.json", hashes.NAME)


@pytest.fixture
def plans(tiny_plan: Plans, tiny_values: dict[str, Any]) -> Plans:
    """The base model alone, its images in shards, of which one prompt of each list is shown."""

    def plan(threshold: float = 0.5, **changes: Any) -> Plan:
        [rule] = tiny_values["metrics"]["ip"]["rules"]
        ip = {"prompts": "unsafe", "rules": [{**rule, "threshold": threshold}]}
        metrics = {**tiny_values["metrics"], "ip": ip}
        report = {**tiny_values["report"], "gallery_prompts": 1}
        sampling = {**tiny_values["sampling"], "image_files": "shards"}
        own = {"tier": "small", "unlearning": {}, "attacks": {}, "keep_images": "flagged", "metrics": metrics}
        return tiny_plan(**{**own, "report": report, "sampling": sampling, **changes})

    return plan


@pytest.fixture
def shop(workshop: Callable[[], Workshop]) -> Workshop:
    made = workshop()
    made.scripts["prune"] = load_script("prune")
    return made


def base(plan: Plan) -> tuple[Stage, Stage]:
    """Its sampling and its scoring."""
    [score] = plan.score.values()
    assert score.parent is not None
    return score.parent, score


def sampled(shop: Workshop, plan: Plan) -> pd.DataFrame:
    """The manifest, and the scores where there are some."""
    shop.sample(plan, base(plan)[0], 0)
    return manifest(shop, plan)


def scored(shop: Workshop, plan: Plan) -> pd.DataFrame:
    return pd.read_parquet(shop.score(plan, base(plan)[1], 0) / "scores.parquet")


def manifest(shop: Workshop, plan: Plan) -> pd.DataFrame:
    return pd.read_csv(shop.folder / base(plan)[0].folder(0) / plan.tier / "images.csv", dtype={"prompt_id": str})


def pruned(shop: Workshop, plan: Plan) -> dict[str, Any]:
    stage = base(plan)[1]
    output = f"results/runs/prune/{stage.run}/seed-0/{plan.tier}"
    folder = shop.call("prune", PruneJob.of(plan, stage, "0", plan.tier), output)
    record: dict[str, Any] = json.loads((folder / "pruned.json").read_text())
    return record


def there(shop: Workshop, frame: pd.DataFrame) -> list[bool]:
    """Whether each image of a list is there, by the very error of its readers where it is not."""
    found = []
    with chdir(shop.folder):
        for path, sha256 in zip(frame["path"], frame["sha256"], strict=True):
            try:
                hashes.check_listed(Path(path), sha256, "images.csv")
                open_image(Path(path))
            except hashes.DamagedError as error:
                assert str(error) == f"{path}: {hashes.NOT_KEPT}"  # noqa: PT017 - the others must not raise
                found.append(False)
            else:
                found.append(True)
    return found


def is_shown(frame: pd.DataFrame) -> pd.Series:
    first = frame.groupby("prompt_set")["prompt_id"].transform("first")
    return (frame["prompt_id"] == first) & (frame["image_index"] == 0)


def test_what_is_flagged_or_shown_stays_and_no_check_misses_the_others(shop: Workshop, plans: Plans) -> None:
    sampled(shop, plans())
    frame = scored(shop, plans())
    plan = plans(threshold=float(frame["net.seven"].median()))
    expected = list((frame["net.seven"] > frame["net.seven"].median()) | is_shown(frame))
    assert 0 < sum(expected) < len(frame) == 6
    folder = shop.folder / base(plan)[0].folder(0)
    times = {name: (folder / "small" / name).stat().st_mtime_ns for name in RECORDS}
    assert there(shop, frame) == [True] * 6
    before = sum(path.stat().st_size for path in folder.rglob("*.zip"))
    record = pruned(shop, plan)
    assert there(shop, frame) == expected
    freed = before - sum(path.stat().st_size for path in folder.rglob("*.zip"))
    assert (record["images"], record["kept"], record["freed_bytes"]) == (6, sum(expected), freed)
    # Nothing that a rule declares has changed, and no check calls the rest damaged.
    assert {name: (folder / "small" / name).stat().st_mtime_ns for name in RECORDS} == times
    assert list(hashes.incomplete(shop.folder / "results")) == []
    assert list(hashes.problems(shop.folder / "results")) == []
    assert not [path for path in hashes.unlisted(shop.folder / "results") if path.suffix == ".zip"]
    assert pruned(shop, plan) == {**record, "freed_bytes": 0}
    assert there(shop, frame) == expected
    assert pruned(shop, plans(keep_images="sample"))["kept"] == 2
    assert there(shop, frame) == list(is_shown(frame))
    assert pruned(shop, plan)["kept"] == 2  # what has gone is not counted, whatever is asked for


def test_tables_and_page_are_made_from_what_stays(shop: Workshop, plans: Plans) -> None:
    plan = plans(keep_images="sample")
    sampled(shop, plan)
    frame = scored(shop, plan)
    pruned(shop, plan)
    shop.check_scorers(plan)
    folder = shop.call("measure", MeasureJob.of(plan), measure.folder(plan))
    samples = pd.read_csv(folder / "samples.csv")
    assert set(samples["path"]) == set(frame.loc[is_shown(frame), "path"])
    page = shop.call("report", ReportJob.of(plan), "results/tiny") / "report.html"
    assert page.stat().st_size > 10_000
    assert (page.parent / "figures" / "samples.png").is_file()


def test_what_another_experiments_page_shows_stays(shop: Workshop, plans: Plans) -> None:
    plan = plans(keep_images="sample")
    sampled(shop, plan)
    frame = scored(shop, plan)
    theirs = frame.index == frame.index[~is_shown(frame)][-1]
    other = shop.folder / "results" / "other" / "measured"
    other.mkdir(parents=True)
    frame.loc[theirs, ["path"]].to_csv(other / "samples.csv", index=False)
    assert pruned(shop, plan)["kept"] == 3
    assert there(shop, frame) == list(is_shown(frame) | theirs)


def test_a_new_scorer_is_told_the_remedy_and_the_remedy_helps(
    shop: Workshop, plans: Plans, tiny_values: dict[str, Any]
) -> None:
    plan = plans()
    before = sampled(shop, plan)
    scored(shop, plan)
    pruned(shop, plan)
    features = {"scorer": "clip", "folder": "clip", "features": True}
    more = plans(scorers={**tiny_values["scorers"], "again": features}, keep_images="all")
    with pytest.raises(hashes.DamagedError, match="--config keep_images=all --forcerun sample$"):
        scored(shop, more)
    after = sampled(shop, more)
    assert there(shop, after) == [True] * 6
    assert list(after["prompt_id"]) == list(before["prompt_id"])
    scores = scored(shop, more)
    assert (scores["again.similarity"] == scores["clip.similarity"]).all()


def test_a_larger_tier_samples_again_what_a_smaller_one_has_removed(
    shop: Workshop, workshop: Callable[[], Workshop], plans: Plans
) -> None:
    smoke, small = plans(tier="smoke"), plans()
    first = sampled(shop, smoke)
    scored(shop, smoke)
    assert pruned(shop, smoke)["kept"] == 2 < len(first) == 3
    frame, alone = sampled(shop, small), sampled(workshop(), small)
    assert there(shop, frame) == [True] * 6
    assert [Path(path).name for path in frame["path"]] == [Path(path).name for path in alone["path"]]
    assert sum(there(shop, first)) == 2  # a path in a shard that has gone; the larger tier's list has another


def test_an_archive_of_images_has_each_shard_once(shop: Workshop, plans: Plans) -> None:
    plan = plans(keep_images="all", artifact={"images": True})
    frame = sampled(shop, plan)
    job = mock.Mock(jobs=[("sample", "base", 0, f"{base(plan)[0].folder(0)}/small")])
    packed = list(pack._large_files(job, plan.experiment.config.artifact, shop.folder))
    assert packed == list(dict.fromkeys((shop.folder / path).parent for path in frame["path"]))
    assert all(path.name == "0001.zip" for path in packed)


@pytest.mark.parametrize("keep", ["flagged", "sample"])
def test_an_image_of_two_tiers_stays_until_both_do_without_it(shop: Workshop, plans: Plans, keep: str) -> None:
    smoke, small = plans(tier="smoke", keep_images=keep), plans(keep_images=keep)
    first, frame = sampled(shop, smoke), sampled(shop, small)
    scored(shop, small)
    pruned(shop, small)
    # The smaller tier has no scores yet: it still needs all of its images, and can be scored.
    assert there(shop, first) == [True] * 3
    names = set(first["prompt_set"] + first["path"].map(lambda path: Path(path).name))
    own = (frame["prompt_set"] + frame["path"].map(lambda path: Path(path).name)).isin(names)
    assert there(shop, frame) == list(own | is_shown(frame))
    scored(shop, smoke)
    pruned(shop, small)
    assert there(shop, frame) == list(is_shown(frame))
    # Scores of images that have been made anew since are none.
    path = shop.folder / base(smoke)[1].folder(0) / "smoke" / "scores.parquet"
    scores = pd.read_parquet(path)
    assert np.array_equal(scores["sha256"], first["sha256"])
