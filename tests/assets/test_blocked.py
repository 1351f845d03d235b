"""Assets that cannot be had: what depends on them, the lines that leave them out, and the refusal of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from resalign.assets.blocked import refusal, verdicts
from resalign.assets.doctor import needs_of
from resalign.config.dependents import dependents
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, load_plan
from resalign.config.strict import read_yaml
from resalign.jobs.fetch import FetchJob

CONFIG = "config/config.yaml"
BY_HAND = {"manual": "https://a.example", "files": ["x.zip"]}
PAPER = load_plan(CONFIG)
TRAINED = set(PAPER.experiment.unlearning)
# What no line leaves out, and what then has to be named in its place.
ESSENTIAL = {
    "sd-v1-4": "key 'model'",
    "harmful-imgs": "key 'concept.forget' is required",
    "diffusiondb": "key 'concept.pool' is required",
    "clip-vit-l-14": "key 'flagging_metric'",
}
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(autouse=True)
def _nothing_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No asset of another experiment counts, and no token of whoever runs the tests."""
    monkeypatch.setattr("resalign.config.plan.RESULTS", str(tmp_path))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))


def planned(*changes: Change, config: str = CONFIG) -> Plan:
    values = read_yaml(config)
    for change in changes:
        change(values)
    return Plan(Experiment(values, where=config))


def refused(plan: Plan, *jobs: str, environment: dict[str, str] | None = None) -> str:
    """Of a run that makes everything anew."""
    assets = plan.experiment.config.assets
    fetched = [FetchJob.of(plan, name).plain() for name, asset in assets.items() if asset.path is None]
    return refusal(plan, fetched, jobs, environment or {})


def test_what_can_be_fetched_is_not_refused() -> None:
    assert refused(PAPER) == ""
    assert verdicts(PAPER, needs_of(PAPER, {})) == [f"main table of {CONFIG}: can run: what is missing is fetched"]
    demo = load_plan("config/demo.yaml")
    assert verdicts(demo, needs_of(demo, {})) == ["main table of config/demo.yaml: can run"]


@pytest.mark.parametrize("name", PAPER.experiment.config.assets)
def test_each_asset_that_is_missing_ends_the_run_with_its_remedy_and_what_depends_on_it(name: str) -> None:
    plan = planned(lambda values: values.update(assets={name: BY_HAND}))
    of = dependents(plan.experiment, [name])
    first, asset, on_it, what, *lines = refused(plan).splitlines()
    assert first == "1 of this run's assets cannot be had:"
    assert asset.startswith(f"  {name}: by hand ")
    assert f"put x.zip into $RESALIGN_ASSET_ROOT/{name}/unpinned/" in asset
    assert on_it == f"    on it depend: {of}"
    assert {*of.rows, *of.attacks, *of.metrics}
    if name in ESSENTIAL:
        assert ESSENTIAL[name] in what
        assert "name others in their place" in what
        return
    # The lines are a configuration, and nothing of it depends on the asset.
    extending = yaml.safe_load("\n".join(lines))
    assert extending.pop("extends") == CONFIG
    reduced = Plan(Experiment({**extending, "extends": CONFIG}, where="reduced.yaml"))
    assert name not in reduced.experiment.config.assets
    left = reduced.experiment
    assert set(left.models) == set(PAPER.experiment.models) - set(of.rows)
    assert set(left.attacks) == set(PAPER.experiment.attacks) - set(of.attacks)
    assert set(left.metrics) == set(PAPER.experiment.metrics) - set(of.metrics)


@pytest.mark.parametrize(
    ("names", "rows", "attacks", "metrics"),
    [
        (["sd-v1-4"], {"base", *TRAINED}, set(), set()),
        (["harmful-imgs"], TRAINED, set(), set()),
        (["diffusiondb"], TRAINED, {"diffusiondb"}, set()),
        (["dreambench", "coco-val2014"], set(), {"dreambench"}, {"fid", "kid"}),
        (["coco-10k"], set(), set(), {"fid", "kid", "clip_score", "aesthetic"}),
        (["personal-prompts"], {"resalign", "resalign-full"}, set(), set()),
        (["q16-prompts"], set(), set(), {"ip"}),
        (["clip-vit-l-14"], set(), set(), {"ip", "us", "aesthetic"}),
    ],
)
def test_what_depends_on_assets(names: list[str], rows: set[str], attacks: set[str], metrics: set[str]) -> None:
    of = dependents(PAPER.experiment, names)
    assert (set(of.rows), set(of.attacks), set(of.metrics)) == (rows, attacks, metrics)


def test_an_attack_goes_with_the_one_that_it_starts_from() -> None:
    after = {"after": "dreambench", "train": "diffusiondb-images/train", "heldout": "diffusiondb-images/heldout"}
    plan = planned(lambda values: values["attacks"].update(second={**values["attacks"]["diffusiondb"], **after}))
    assert dependents(plan.experiment, ["dreambench"]).attacks == ("dreambench", "second")


def test_released_checkpoints_are_rows_that_lines_leave_out() -> None:
    plan = load_plan("config/studies/released.yaml")
    text = refused(plan)
    assert text.startswith("2 of this run's assets cannot be had:")
    assert "    on it depend: rows resalign-released-safety, resalign-released-utility\n" in text
    extending = yaml.safe_load(text[text.index("extends:") :])
    reduced = Plan(Experiment(extending, where="reduced.yaml"))
    assert set(reduced.unlearn) == {run for run in plan.unlearn if not run.startswith(("resalign-rel", "safegen-rel"))}
    assert refused(reduced) == ""
    [verdict] = verdicts(plan, needs_of(plan, {}))
    assert verdict.startswith(
        "main table of config/studies/released.yaml: cannot run without resalign-checkpoints (by "
    )


def test_a_sweep_has_a_verdict_of_its_own() -> None:
    plan = load_plan("config/studies/paper-attacks.yaml")
    lines = dict(line.split(": ", 1) for line in verdicts(plan, needs_of(plan, {})))
    assert lines.pop("sweep table2").startswith("cannot run without vggface2-hq (by hand; open that page and put ")
    assert set(lines.values()) == {"can run: what is missing is fetched"}
    text = refused(plan)
    assert "    on it depend: attacks svdiff-faces\n" in text
    assert "name others in their place: without them, " in text
    assert "key 'prompts.personal.source': no attack named 'svdiff-faces'" in text


def test_gated_removed_and_unpublished_assets(tmp_path: Path) -> None:
    plan = planned(lambda values: values.update(model="sd3-medium"))
    assert "sd3-medium: gated " in refused(plan)
    assert "set HF_TOKEN, then it is fetched" in refused(plan)
    assert refused(plan, environment={"HF_TOKEN": "x"}) == ""
    (tmp_path / "token").write_text("x")  # of `hf auth login`
    assert refused(plan) == ""


def test_what_is_in_the_mirror_is_there(tmp_path: Path) -> None:
    plan = load_plan("config/studies/released-data.yaml")
    assert "resalign-train: by hand" in refused(plan)
    (tmp_path / "resalign-train" / "unpinned").mkdir(parents=True)
    assert refused(plan, environment={"RESALIGN_ASSET_ROOT": str(tmp_path)}) == ""


def test_a_path_that_is_missing_ends_the_runs_that_read_it(tmp_path: Path) -> None:
    own = tmp_path / "mine “é”"
    plan = planned(
        lambda values: values.update(assets={"mine": {"path": str(own)}}),
        lambda values: values["attacks"]["dreambench"].update(train="mine/train"),
    )
    reads = json.dumps({"train": f"{own}/train"})
    assert refused(plan) == ""
    assert refused(plan, json.dumps({"train": f"{own}2/train"})) == ""
    text = refused(plan, reads)
    assert f"mine: no '{own}'; put it there" in text
    assert "on it depend: attacks dreambench" in text
    assert "attacks: {dreambench: null}" in text
    own.mkdir()
    assert refused(plan, reads) == ""


def test_an_asset_of_ablations_alone() -> None:
    text = refusal(PAPER, [{"asset": "vggface2-hq", "origin": {**BY_HAND}}], [], {})
    assert "on it depend: ablations" in text
    assert text.endswith("Get them, or leave out the ablations.")
