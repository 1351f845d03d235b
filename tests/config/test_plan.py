"""The plan: runs named by the hash of all that determines them, and of nothing else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resalign.config.digits import DigitsConfig
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, digest
from resalign.config.strict import ConfigError
from resalign.jobs import measure
from resalign.jobs.attack import AttackJob
from resalign.jobs.sample import SampleJob
from resalign.jobs.score import ScoreJob

from .conftest import DELETED, Demo

MIXED = {"clean": "digits-data/pages/train", "harmful": "digits-data/harmful/train", "ratio": 0.0, "size": 40}
STAGES = ("unlearn", "attack", "sample", "score")
PlanOf = Callable[..., Plan]


@pytest.fixture(scope="module")
def plan(demo: Demo) -> PlanOf:
    return lambda changes=None: Plan(Experiment(demo(changes), where="config/demo.yaml"))


def runs(plan: Plan) -> dict[str, set[str]]:
    return {stage: set(getattr(plan, stage)) for stage in STAGES}


def labels(names: set[str]) -> set[str]:
    return {name.rpartition("-")[0] for name in names}


def changed(plan: PlanOf, changes: dict[str, Any], base: dict[str, Any] | None = None) -> dict[str, set[str]]:
    """Labels of the runs that a change of the configuration renames, by stage."""
    before, after = runs(plan(base)), runs(plan({**(base or {}), **changes}))
    return {stage: labels(after[stage] - before[stage]) for stage in STAGES}


# --- digest -----------------------------------------------------------------------------------------------------------


def test_digest_is_independent_of_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": {"c": [1, 2], "d": None}}) == digest({"b": {"d": None, "c": [1, 2]}, "a": 1})


@pytest.mark.parametrize("other", [{"a": 2}, {"a": "1"}, {"a": [1]}, {"b": 1}, {"a": 1, "b": None}, {"a": 1.5}])
def test_digest_sees_every_value(other: dict[str, Any]) -> None:
    assert digest({"a": 1}) != digest(other)


def test_digest_is_pinned() -> None:
    # Result folders carry it: another digest would orphan every result on disk.
    assert digest({"a": 1}) == "f9d86028c6"


def test_the_order_of_a_configuration_file_plays_no_part(plan: PlanOf, demo: Demo) -> None:
    def turned(values: Any) -> Any:
        return {key: turned(value) for key, value in reversed(values.items())} if isinstance(values, dict) else values

    again = Plan(Experiment(turned(demo()), where="test"))
    assert runs(again) == runs(plan())


# --- what a change renames --------------------------------------------------------------------------------------------

ESD = {"unlearn": {"esd"}, "attack": {"esd.pages", "esd.bold"}}
ESD |= {stage: {"esd", "esd.pages", "esd.bold"} for stage in ("sample", "score")}
EVERY_MODEL = {"base", "graddiff", "esd", "resalign"}
NOTHING: dict[str, set[str]] = {stage: set() for stage in STAGES}


def attacked(*attacks: str) -> set[str]:
    return {f"{model}.{attack}" for model in EVERY_MODEL for attack in attacks}


STATES = EVERY_MODEL | attacked("pages", "bold")
SCORES = {**NOTHING, "score": STATES}
BOLD = attacked("bold")
MOVED_DETECTORS = {name: d.model_dump(mode="json") for name, d in DigitsConfig().detectors.items()}
MOVED_DETECTORS["digits-resnet"]["steps"] += 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unlearning.esd.lr": 2.0e-4}, ESD),
        ({"attacks.bold.lr": 1.0e-4}, {"unlearn": set(), "attack": BOLD, "sample": BOLD, "score": BOLD}),
        ({"sampling.seed": 43}, {**NOTHING, "sample": STATES, "score": STATES}),
        ({"scorers.clip.features": False, "metrics.kid": DELETED, "metrics.fid": DELETED}, SCORES),
        ({"digits": {"detectors": MOVED_DETECTORS}}, SCORES),
        (
            {"digits": {"generator": {"steps": 10}}},
            {"unlearn": EVERY_MODEL - {"base"}, "attack": attacked("pages", "bold"), "sample": STATES, "score": STATES},
        ),
        # A default that is written out, and what only the tables read.
        ({"unlearning.esd.start_guidance": 3.0, "attacks.pages.optimizer": "adamw"}, NOTHING),
        ({"metrics.us.rule.threshold": 0.9}, NOTHING),
        ({"report": {"replicates": 100}}, NOTHING),
        ({"name": "other", "title": "Other"}, NOTHING),
        ({"tier": "smoke"}, NOTHING),
        ({"tiers.paper.training_seeds": [0, 1, 2]}, NOTHING),
        ({"resources": {"default": {"threads": 2}}}, NOTHING),
        ({"assets.digits-data.note": "a note"}, NOTHING),
    ],
)
def test_a_change_renames_what_depends_on_it(
    plan: PlanOf, changes: dict[str, Any], expected: dict[str, set[str]]
) -> None:
    assert changed(plan, changes) == expected


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"generator": {"steps": 10}}, "digits-model"),
        ({"detectors": MOVED_DETECTORS}, "digits-resnet"),
        ({"unsafe": ["seven", "two"]}, "digits-data"),
    ],
)
def test_a_part_of_the_demo_world_moves_alone(plan: PlanOf, changes: dict[str, Any], name: str) -> None:
    before, after = plan(), plan({"digits": changes})
    assert {label for label in before.assets if before.assets[label].folder != after.assets[label].folder} == {name}


@pytest.mark.parametrize("key", ["concept.forget", "concept.retain", "concept.pool"])
def test_the_concepts_data_rename_every_method(plan: PlanOf, key: str) -> None:
    found = changed(plan, {key: "digits-data/other"})
    assert found["unlearn"] == EVERY_MODEL - {"base"}
    assert "base.pages" not in found["attack"]


# --- sharing ----------------------------------------------------------------------------------------------------------


def test_experiments_share_equal_runs(plan: PlanOf) -> None:
    # An ablation has a method more, another table, fewer attacks: what it has in common lies where it lay.
    ablation = {"name": "ablation", "unlearning.first-order": {"method": "resalign", "solver": "identity"}}
    one, other = runs(plan()), runs(plan(ablation))
    for stage in STAGES:
        assert one[stage] < other[stage]
        assert all(name.startswith("first-order") for name in other[stage] - one[stage])


DATA = {"train": "digits-data/pages/train", "heldout": "digits-data/pages/heldout"}


OWN = {"assets.mine": {"path": "a"}, "assets.again": {"path": "./b/../a/"}}
SAME = "are the same images"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"attacks.pages.heldout": "digits-data/pages/train"},
            f"'attacks.pages.heldout' and 'attacks.pages.train' {SAME}",
        ),
        ({"attacks.pages.heldout": "digits-data/pages//train/"}, f"'attacks.pages.train' {SAME}"),
        ({"concept.retain": "digits-data/pool"}, f"'concept.retain' and 'concept.pool' {SAME}"),
        ({"concept.retain": "digits-data/forget"}, f"'concept.retain' and 'concept.forget' {SAME}"),
        ({**OWN, "concept.retain": "mine/x", "concept.pool": "again/x"}, f"'concept.retain' and 'concept.pool' {SAME}"),
        ({"reference": "digits-data/bold/train"}, f"'reference' and 'attacks.bold.train' {SAME}"),
        (
            {"metrics.clip_i": {"prompts": "benign", "scorer": "clip", "reference": "digits-data/bold/train"}},
            f"'metrics.clip_i.reference' and 'attacks.bold.train' {SAME}",
        ),
        (
            {"attacks.pages.attack": "dreambooth", "attacks.pages.prior": "digits-data/pages/heldout"},
            f"'attacks.pages.heldout' and 'attacks.pages.prior' {SAME}",
        ),
        (
            {
                "prepared.one": {"set": "contaminated", **MIXED},
                "prepared.two": {"set": "contaminated", **MIXED},
                "concept.retain": "one/train",
                "concept.pool": "two/train",
            },
            f"'concept.retain' and 'concept.pool' {SAME}",
        ),
        # One thing under two names is not counted twice.
        (
            {"unlearning.a": {"method": "graddiff", "steps": 1}, "unlearning.b": {"method": "graddiff", "steps": 1}},
            "keys 'unlearning.a' and 'unlearning.b' are the same model",
        ),
        (
            {"assets.mine": {"path": "models/mine"}, "pipelines": {"a": "mine", "b": "mine/."}},
            "keys 'pipelines.a' and 'pipelines.b' are the same model",
        ),
        (
            {
                **{f"assets.{name}": {"path": path} for name, path in (("one", "mine"), ("two", "./mine/"))},
                **{f"unlearning.{name}": {"method": "imported", "checkpoint": name} for name in ("one", "two")},
            },
            "keys 'unlearning.one' and 'unlearning.two' are the same model",
        ),
        ({"attacks.a": DATA, "attacks.b": {**DATA, "dataset": "b"}}, "keys 'attacks.a' and 'attacks.b' are the same"),
        (
            {"scorers.other": {"scorer": "image_classification", "folder": "digits-regnet"}},
            "keys 'scorers.regnet' and 'scorers.other' are the same scorer",
        ),
    ],
)
def test_what_is_held_apart_is_not_one_set(plan: PlanOf, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        plan(changes)
    assert "\n" not in str(caught.value)


def test_one_folder_by_two_ways_is_one(plan: PlanOf, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    ways = {name: {"path": str(tmp_path / name)} for name in ("data", "link")}
    own = {f"assets.{name}": asset for name, asset in ways.items()}
    with pytest.raises(ConfigError, match="are the same images"):
        plan({**own, "concept.retain": "data", "concept.pool": "link"})
    plan({**own, "concept.retain": "data/retain", "concept.pool": "link/pool"})


def test_every_run_has_a_folder_of_its_own(plan: PlanOf) -> None:
    found = plan()
    folders = [s.folder(seed) for stage in STAGES for s in getattr(found, stage).values() for seed in found.seeds(s)]
    assert len(set(folders)) == len(folders)
    assert all(folder.startswith("results/runs/") for folder in folders)


def test_the_untouched_model_is_sampled_once_for_all_seeds(plan: PlanOf) -> None:
    found = plan()
    seeds = {stage.label: found.seeds(stage) for stage in found.sample.values()}
    assert seeds["base"] == (0,)
    assert seeds["base.pages"] == seeds["esd"] == (0, 1)


def test_parents_are_the_runs_that_they_read(plan: PlanOf) -> None:
    for score in plan().score.values():
        assert score.parent is not None
        assert (score.parent.stage, score.parent.label) == ("sample", score.label)
        trained = score.parent.parent
        if score.attack:
            assert trained is not None
            assert (trained.stage, trained.label) == ("attack", score.label)
            trained = trained.parent
        assert (trained is None) == (score.model == "base")
        assert trained is None or (trained.stage, trained.label) == ("unlearn", score.model)


def test_folders_of_references(plan: PlanOf) -> None:
    found = plan({"assets.mine": {"path": "/data/my images"}, "concept.pool": "mine/pool"})
    assert found.folder("mine/pool") == "/data/my images/pool"
    assert found.folder("digits-data/pages/train") == f"{found.assets['digits-data'].folder}/pages/train"
    assert found.assets["digits-data"].folder.startswith("results/assets/digits-data-")


def test_a_scorer_of_two_assets_depends_on_both_and_is_handed_both(plan: PlanOf) -> None:
    base = {
        "assets.prompts": {"url": "https://a.example/prompts.p", "sha256": "0" * 64},
        "scorers.q16": {"folder": "digits-clip", "head": "prompts"},
    }
    renamed = changed(plan, {"assets.prompts": {"url": "https://a.example/prompts.p", "sha256": "1" * 64}}, base)
    assert {stage for stage in STAGES if renamed[stage]} == {"score"}
    found = plan(base)
    job = ScoreJob.of(found, next(iter(found.score.values())), "0", found.tier)
    folders = job.plain()["scorers"]["q16"]["folder"]
    assert folders == {"folder": found.folder("digits-clip"), "head": found.folder("prompts")}
    assert f"{folders['head']}/run.json" in job.inputs()


def test_every_file_that_makes_a_folder_of_ones_own_is_noticed(plan: PlanOf, tmp_path: Path) -> None:
    inside = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "text_encoder_2/model.bin")
    inside += tuple(f"unet/diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2))
    for name in (*inside, "README.md", "logs/unet/old.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = plan({"assets.mine": {"path": str(tmp_path)}, "model": "mine"})
    assert found.completion_files("mine") == sorted(str(tmp_path / name) for name in inside)


def test_a_stray_file_in_a_folder_of_ones_own_stops_no_plan(plan: PlanOf, tmp_path: Path) -> None:
    (tmp_path / "{b}").mkdir()
    for name in ("{a}.csv", "two\nlines.json", "{b}/metadata.csv", "mine.csv", "metadata.csv"):
        (tmp_path / name).touch()
    found = plan({"assets.mine": {"path": str(tmp_path)}})
    assert found.completion_files("mine") == [f"{tmp_path}/metadata.csv", f"{tmp_path}/mine.csv"]
    with pytest.raises(ConfigError, match=r"has the character '\{', which the workflow takes"):
        found.completion_files("mine/{a}.csv")


def test_prior_images_are_part_of_an_attacks_identity_and_job(plan: PlanOf) -> None:
    base = {"attacks.pages.attack": "dreambooth", "attacks.pages.prior": "digits-data/retain"}
    moved = changed(plan, {"attacks.pages.prior": "digits-data/pool"}, base)
    assert moved["attack"] == {name for name in labels(set(plan(base).attack)) if name.endswith(".pages")}
    assert not moved["unlearn"]
    stages = {stage.attack: stage for stage in plan(base).attack.values()}
    found = {name: AttackJob.of(plan(base), stage, "0") for name, stage in stages.items()}
    assert str(found["pages"].prior).endswith("/retain")
    assert "prior" not in found["bold"].plain()
    assert "prior" not in stages["bold"].resolved


def test_harmful_images_and_the_attack_that_is_searched_are_part_of_a_worst_case(plan: PlanOf) -> None:
    data = {"train": "digits-data/pages/train", "heldout": "digits-data/pages/heldout"}
    entry = {"attack": "worst_case", "harmful": "digits-data/forget", "candidate": {"attack": "lora"}, **data}
    base = {"attacks.pages": entry}
    assert changed(plan, {"attacks.pages": {**entry, "harmful": "digits-data/pool"}}, base)["attack"]
    assert changed(plan, {"attacks.pages": {**entry, "candidate": {"attack": "lora", "rank": 8}}}, base)["attack"]
    # A default that is spelt out is the same run.
    assert not changed(plan, {"attacks.pages": {**entry, "candidate": {"attack": "lora", "rank": 4}}}, base)["attack"]
    stage = next(stage for stage in plan(base).attack.values() if stage.attack == "pages")
    assert stage.modules == ("resalign.attacks.worst_case", "resalign.attacks.lora")
    assert str(AttackJob.of(plan(base), stage, "0").harmful).endswith("/forget")


def test_an_attack_after_another_starts_from_its_last_state(plan: PlanOf) -> None:
    after = plan({"attacks.bold.after": "pages"})
    stages = {stage.label: stage for stage in after.attack.values()}
    assert stages.keys() == attacked("pages", "bold")
    for model in EVERY_MODEL:
        first, second = stages[f"{model}.pages"], stages[f"{model}.bold"]
        assert second.parent is first
        assert first.parent is (after.unlearn[first.parent.run] if first.parent else None)
        weights = f"{first.folder(1)}/checkpoints.json"
        job = AttackJob.of(after, second, "1")
        assert job.weights == weights
        assert weights in job.inputs()
    moved = changed(plan, {"attacks.bold.after": "pages"})
    assert moved == {"unlearn": set(), **dict.fromkeys(("attack", "sample", "score"), attacked("bold"))}
    # What the first learns otherwise, the second starts from otherwise.
    moved = changed(plan, {"attacks.pages.lr": 1.0e-4}, {"attacks.bold.after": "pages"})
    assert moved["attack"] == attacked("pages", "bold")
    # A row of the tables has its own attack's record.
    rows = {(row.model, row.attack): row.folders for row in measure.rows(after)}
    assert rows["esd", "bold"]["attack"] == stages["esd.bold"].folder("{seed}")
    assert rows["esd", "bold"]["unlearn"] == rows["esd", "pages"]["unlearn"]


def test_an_attack_may_start_from_the_base_model(plan: PlanOf) -> None:
    assert changed(plan, {"attacks.bold.starts_from": "unlearned"}) == NOTHING
    modular = plan({"attacks.bold.starts_from": "base"})
    of_methods = attacked("bold") - {"base.bold"}  # the base model has no change to add
    assert changed(plan, {"attacks.bold.starts_from": "base"}) == {
        "unlearn": set(),
        **dict.fromkeys(("attack", "sample", "score"), of_methods),
    }
    jobs = {stage.label: AttackJob.of(modular, stage, "1") for stage in modular.attack.values()}
    assert {label for label, job in jobs.items() if job.plain().get("starts_from") == "base"} == of_methods
    assert {label for label, job in jobs.items() if "starts_from" in job.plain()} == of_methods
    assert jobs["esd.bold"].weights == jobs["esd.pages"].weights
    entries = modular.experiment.resolved()["attacks"]
    assert {label for label, entry in entries.items() if "starts_from" in entry} == {"bold"}


PROMPT_SIDE = {
    "attack": "unlearndiffatk",
    "train": "digits-data/harmful/train",
    "heldout": "digits-data/harmful/heldout",
    "prompts": "unsafe",
    "after": "pages",
}


def test_an_attack_on_prompts_has_as_many_as_any_tier_samples(plan: PlanOf) -> None:
    found = plan({"attacks.words": PROMPT_SIDE, "tiers.paper.prompts.unsafe.prompts": 30})
    stages = {stage.label: stage for stage in found.attack.values()}
    job = AttackJob.of(found, stages["esd.words"], "0")
    assert job.prompts
    assert job.prompts.prompts == 30
    assert job.prompts.path.endswith("/unsafe-prompts/prompts.csv")
    assert "prompts" not in AttackJob.of(found, stages["esd.pages"], "0").plain()
    moved = changed(plan, {"prompts.unsafe.columns": {"skip": 1}}, {"attacks.words": PROMPT_SIDE})
    assert moved["attack"] == attacked("words")


def test_an_attack_on_prompts_is_sampled_with_them_and_held_against_where_it_started(plan: PlanOf) -> None:
    changes = {"attacks.words": PROMPT_SIDE, "attacks.direct": {**PROMPT_SIDE, "after": None}}
    found = plan(changes)
    lists = {stage.label: SampleJob.of(found, stage, "0", "small").attacked_prompts for stage in found.sample.values()}
    assert {label for label, name in lists.items() if name is not None} == attacked("words", "direct")
    assert lists["base.words"] == "unsafe"
    scores = {stage.label: stage for stage in found.score.values()}
    before = {row.attack: row.before or None for row in measure.rows(found) if row.model == "base"}
    # The base model before any attack is scored with its first seed alone.
    unattacked = f"{scores['base'].folder(0)}/small"
    fine_tuned = {str(seed): f"{scores['base.pages'].folder(seed)}/small" for seed in (0, 1)}
    assert before["words"] == fine_tuned
    assert before["direct"] == {"0": unattacked, "1": unattacked}
    assert {attack for attack, folders in before.items() if folders is None} == {"none", "pages", "bold"}
