"""Ablations: every variant is validated whole, and is planned beside the experiment's runs without repeating one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from resalign.config.ablations import DECLARED, Ablations, planned
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError, read_yaml
from resalign.jobs import ablation

from .conftest import ROOT, Demo

Declare = Callable[..., Ablations]
GAMMA = {"title": "Damping", "models": ["resalign"], "attacks": ["pages"], "metrics": ["ip"]}
GRID = {**GAMMA, "grid": {"unlearning.resalign.gamma": [0.005, 0.01]}}
SHIPPED = [(file, name) for file in ("demo", "config") for name in read_yaml(ROOT / DECLARED)["demo"]]


@pytest.fixture
def declare(demo: Demo, tmp_path: Path) -> Declare:
    """The demo, some of its values changed, with ablations of one's own."""

    def declared(entries: dict[str, Any], changes: dict[str, Any] | None = None) -> Ablations:
        values, path = demo(changes), tmp_path / "ablations.yaml"
        path.write_text(yaml.safe_dump({"demo": entries}, sort_keys=False))
        return Ablations(Plan(Experiment(values, where="config/demo.yaml")), values, path)

    return declared


def shown(ablations: Ablations, name: str) -> dict[str, set[str]]:
    """Folders that an ablation is measured from, by stage."""
    found: dict[str, set[str]] = {}
    for file in ablation.AblationJob.of(ablations, name).inputs():
        if "/runs/" not in file:
            continue
        _, _, stage, run, *_ = file.split("/")
        found.setdefault(stage, set()).add(run)
    return found


# --- what is shipped --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> dict[str, Ablations]:
    found = {}
    for file in ("demo", "config"):
        values = read_yaml(ROOT / "config" / f"{file}.yaml")
        found[file] = Ablations(Plan(Experiment(values, where=file)), values, ROOT / DECLARED)
    return found


@pytest.mark.parametrize(("file", "name"), SHIPPED)
def test_every_declared_ablation_is_valid(shipped: dict[str, Ablations], file: str, name: str) -> None:
    ablations = shipped[file]
    assert list(ablations.variants(name))
    # An argument of a command is at most 128 KiB long on Linux.
    assert len(ablation.AblationJob.of(ablations, name).text()) < 100_000
    assert ablation.AblationShownJob.of(ablations, name, "values.csv").title
    assert ablation.AblationJob.of(ablations, name).inputs()


def test_the_papers_exhibits_have_their_ablations(shipped: dict[str, Ablations]) -> None:
    assert list(shipped["demo"].entries) == list(shipped["config"].entries)
    rates = [
        plan.plan.experiment.attacks["dreambench"] for plan in shipped["config"].variants("learning_rates").values()
    ]
    assert [attack.resolved()["lr"] for attack in rates] == [1e-3, 5e-4, 1e-4, 5e-5, 1e-5, 5e-6, 5e-3]
    assert {attack.name for attack in rates} == {"lora"}
    for file in ("demo", "config"):
        mixed = shipped[file].variants("contamination")
        ratios = [variant.plan.experiment.prepared["contaminated"].resolved()["ratio"] for variant in mixed.values()]
        assert ratios == [float(name) / 100 for name in mixed]
        components = [
            v.plan.experiment.unlearning["resalign"].resolved() for v in shipped[file].variants("components").values()
        ]
        assert [settings["beta"] for settings in components] == [0.0, 0.8, 0.8, 0.8]
        assert [settings["simulation"]["data"] for settings in components[1:]] == ["fixed", "redrawn", "redrawn"]
        assert [len(settings["simulation"]["steps"]) == 1 for settings in components[1:]] == [True, True, False]


def test_the_demos_ablations_start_from_its_own_runs(shipped: dict[str, Ablations]) -> None:
    ablations = shipped["demo"]
    without = {"contamination", "fine_tuning_methods"}  # on other data
    for name in ablations.entries:
        own = [variant.is_own for variant in ablations.variants(name).values()]
        assert own.count(True) == (0 if name in without else 1), name
    # All steps are of one run, the experiment's.
    for stage, runs in shown(ablations, "steps").items():
        assert runs <= set(planned(ablations.plan, stage))


# --- equal runs -------------------------------------------------------------------------------------------------------


def test_an_ablation_adds_what_its_values_change_and_nothing_else(declare: Declare) -> None:
    ablations = declare({"gamma": GRID})
    own, other = ablations.variants("gamma").values()
    assert (own.is_own, other.is_own) == (False, True)
    found = shown(ablations, "gamma")
    new = {
        stage: {run.rpartition("-")[0] for run in runs - set(planned(ablations.plan, stage))}
        for stage, runs in found.items()
    }
    assert new == {"score": {"resalign", "resalign.pages"}, "attack": {"resalign.pages"}, "unlearn": {"resalign"}}
    # Before and after the attack, of two values.
    assert {stage: len(runs) for stage, runs in found.items()} == {"score": 4, "attack": 2, "unlearn": 2}


def test_equal_settings_are_one_run_however_they_are_said(declare: Declare) -> None:
    entries = {
        "none": {**GAMMA, "variants": {"no hypergradient": {"unlearning.resalign.beta": 0.0}}},
        "beta": {
            **GAMMA,
            "grid": {"unlearning.resalign": [{"steps": 80, "beta": 0}], "unlearning.resalign.beta": [0.0, 0.8]},
        },
        "spelt": {**GAMMA, "grid": {"unlearning.resalign.beta": [0, 0.8]}},
    }
    ablations = declare(entries)
    none, spelt = shown(ablations, "none"), shown(ablations, "spelt")
    assert all(none[stage] < spelt[stage] for stage in none)
    assert all(spelt[stage] - none[stage] <= set(planned(ablations.plan, stage)) for stage in none)
    assert list(ablations.variants("beta")) == [
        "resalign steps 80, beta 0, beta 0",
        "resalign steps 80, beta 0, beta 0.8",
    ]


def test_an_attacks_setting_leaves_the_unlearning_to_the_experiment(declare: Declare) -> None:
    ablations = declare({"rates": {**GAMMA, "grid": {"attacks.pages.lr": [1e-4]}}})
    (variant,) = ablations.variants("rates").values()
    assert set(variant.plan.unlearn) == set(ablations.plan.unlearn)
    before = {run for run in shown(ablations, "rates")["score"] if run.startswith("resalign-")}
    assert before <= set(ablations.plan.score)


def test_what_lies_in_a_folder_is_the_experiments_where_it_can_be(declare: Declare) -> None:
    broken = {**GAMMA, "grid": {"unlearning.resalign.gama": [1.0]}}
    ablations = declare({"broken": broken, "gamma": GRID})
    (own,) = (run for run, stage in ablations.plan.unlearn.items() if stage.model == "resalign")
    assert ablations.made("unlearn", own)[0] is ablations.plan
    value = next(iter(declare({"gamma": GRID}).variants("gamma").values()))
    (run,) = set(value.plan.unlearn) - set(ablations.plan.unlearn)
    # Another ablation that cannot be planned is in nobody's way, and is told where nothing is found.
    plan, stage = ablations.made("unlearn", run)
    assert plan is not ablations.plan
    assert (stage.model, plan.experiment.unlearning["resalign"].resolved()["gamma"]) == ("resalign", 0.005)
    with pytest.raises(ConfigError, match=r"no unlearn 'resalign-0' in the experiment or an ablation\n.*gama"):
        ablations.made("unlearn", "resalign-0")


def test_nothing_is_planned_before_it_is_asked_for(declare: Declare, monkeypatch: pytest.MonkeyPatch) -> None:
    ablations = declare({"gamma": GRID, "sets": {**GAMMA, "grid": {"prepared.more": [{"set": "contaminated"}]}}})
    monkeypatch.setattr("resalign.config.ablations.Experiment", None)
    assert ablations.prepared_sets() == {"more": "contaminated"}
    (run,) = (run for run, stage in ablations.plan.unlearn.items() if stage.model == "resalign")
    assert ablations.made("unlearn", run)[0] is ablations.plan


# --- forms ------------------------------------------------------------------------------------------------------------


def test_a_grid_of_several_keys_is_every_combination_in_order(declare: Declare) -> None:
    grid = {"unlearning.resalign.gamma": [1.0, 1e-5], "unlearning.resalign.solver.steps": [3, 5]}
    ablations = declare({"both": {**GAMMA, "settings": {"unlearning.resalign.draws": 2}, "grid": grid}})
    found = ablations.variants("both")
    assert list(found) == ["gamma 1, steps 3", "gamma 1, steps 5", "gamma 1e-05, steps 3", "gamma 1e-05, steps 5"]
    settings = [variant.plan.experiment.unlearning["resalign"].resolved() for variant in found.values()]
    assert [(s["gamma"], s["solver"]["steps"], s["draws"]) for s in settings] == [
        *((1.0, 3, 2), (1.0, 5, 2), (1e-5, 3, 2), (1e-5, 5, 2))
    ]


def test_seeds_and_tier_are_the_ablations_own(declare: Declare) -> None:
    ablations = declare({"gamma": {**GRID, "seeds": [7], "tier": "smoke"}})
    files = ablation.AblationJob.of(ablations, "gamma").inputs()
    assert {tuple(file.split("/")[4:]) for file in files if "/score/" in file} == {
        ("seed-7", "smoke", "scores.parquet")
    }
    # How many seeds there are is in no run's name: with the experiment's own value it is the experiment's own run.
    assert [variant.is_own for variant in ablations.variants("gamma").values()] == [False, True]


def test_one_variants_changes_are_not_the_nexts(declare: Declare) -> None:
    mixed = {
        "set": "contaminated",
        "clean": "digits-data/pages/train",
        "harmful": "digits-data/harmful/train",
        "ratio": 0.0,
    }
    entry = {**GAMMA, "settings": {"prepared.mixed": mixed, "attacks.pages.train": "mixed/train"}}
    ablations = declare({"mixed": {**entry, "variants": {"20": {"prepared.mixed.ratio": 0.2}, "0": {}}}})
    ratios = [v.plan.experiment.prepared["mixed"].resolved()["ratio"] for v in ablations.variants("mixed").values()]
    assert ratios == [0.2, 0.0]
    assert ablations.prepared_sets() == {"mixed": "contaminated"}


def test_the_base_is_measured_where_a_metric_compares_with_it(declare: Declare) -> None:
    alone = {**GAMMA, "grid": {"attacks.pages.lr": [1e-4]}}
    ablations = declare({"ip": alone, "learnt": {**alone, "metrics": ["ip", "learnability"]}})
    assert {run.partition("-")[0] for run in shown(ablations, "ip")["attack"]} == {"resalign.pages"}
    assert {run.partition("-")[0] for run in shown(ablations, "learnt")["attack"]} == {"base.pages", "resalign.pages"}
    job = ablation.AblationJob.of(ablations, "learnt").plain()
    assert job["models"] == ["resalign"]


def test_references_are_those_of_the_measured_metrics(declare: Declare) -> None:
    ablations = declare({"ip": GRID, "fid": {**GRID, "metrics": ["ip", "fid"]}})
    assert not [run for run in shown(ablations, "ip")["score"] if run.startswith("reference")]
    assert len([run for run in shown(ablations, "fid")["score"] if run.startswith("reference")]) == 1


# --- mistakes ---------------------------------------------------------------------------------------------------------


def grid(key: str, value: Any) -> dict[str, Any]:
    return {**GAMMA, "grid": {key: [value]}}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            grid("unlearning.resalign.gama", 0.1),
            "demo.it: variant '0.1': unlearning.resalign: unknown key 'gama'; did you mean 'gamma'?",
        ),
        (grid("unlearning.resaling.gamma", 0.1), "unlearning has no 'resaling'; did you mean 'resalign'?"),
        (grid("unlearnin.resalign.gamma", 0.1), "unknown key 'unlearnin'; did you mean 'unlearning'?"),
        (grid("attacks.page.lr", 0.1), "attacks has no 'page'; did you mean 'pages'?"),
        (grid("unlearning.resalign.gamma", -1.0), "key 'gamma"),
        (grid("unlearning.resalign.steps.more", 1), "unlearning.resalign.steps is 80, no mapping; give it whole"),
        (grid("tiers.small.training_seeds", [0]), "give 'seeds' or 'tier' beside the variants instead"),
        # The list is the experiment's: its images lie where the experiment's lie.
        (grid("tiers.small.prompts.unsafe", {"prompts": 2}), "give 'seeds' or 'tier' beside the variants instead"),
        (grid("scoring_batch_size", 3), "'scoring_batch_size' is the experiment's; change it there"),
        (grid("resources.attack", {"threads": 2}), "'resources' is the experiment's; change it there"),
        (grid("digits.clip.steps", 3), "'digits' is the experiment's; change it there"),
        (
            grid("assets.more", {"digits": "digits-resnet"}) | {"models": ["resalin"]},
            "none named 'resalin'; did you mean",
        ),
        ({**GRID, "attacks": ["page"]}, "key 'attacks': none named 'page'; did you mean 'pages'?"),
        ({**GRID, "metrics": ["ipp"]}, "key 'metrics': none named 'ipp'; did you mean 'ip'?"),
        ({**GRID, "checkpoints": True}, "give one of 'variants', 'grid' and 'checkpoints'"),
        (GAMMA, "give one of 'variants', 'grid' and 'checkpoints'"),
        ({**GAMMA, "grid": {"unlearning.resalign.gamma": [1, 1.0]}}, "values must differ as text, got ['1', '1']"),
        ({**GAMMA, "grid": {"unlearning.resalign.gamma": []}}, "have no values"),
        ({**GRID, "titel": "x"}, "demo.it: unknown key 'titel'; did you mean 'title'?"),
    ],
)
def test_a_mistake_names_ablation_and_key(declare: Declare, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declare({"it": entry}).variants("it")
    assert "ablations.yaml: demo.it" in str(caught.value)
    assert said in str(caught.value)


def test_another_ablation_is_named_by_the_nearest(declare: Declare) -> None:
    with pytest.raises(ConfigError, match="no ablation named 'gama'; did you mean 'gamma'?"):
        declare({"gamma": GRID}).variants("gama")
    with pytest.raises(ConfigError, match="because the name becomes a folder"):
        declare({"a/b": GRID})


def test_an_experiment_without_a_part_of_the_file_has_no_ablations(demo: Demo, tmp_path: Path) -> None:
    values = demo({"name": "mine"})
    plan = Plan(Experiment(values, where="mine.yaml"))
    assert Ablations(plan, values, ROOT / DECLARED).entries == {}
    assert Ablations(plan, values, tmp_path / "none.yaml").entries == {}


def test_held_out_images_are_among_what_is_read(shipped: dict[str, Ablations]) -> None:
    ablations = shipped["demo"]
    asset = ablations.plan.assets["digits-data"]
    assert f"{asset.folder}/run.json" in ablation.AblationJob.of(ablations, "gamma").inputs()
    (variant, *_) = ablation.AblationJob.of(ablations, "gamma").plain()["variants"]
    assert set(variant["measured"]["heldout"]) == {"pages"}, "of an attack that is not shown nothing need be there"
