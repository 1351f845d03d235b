"""What the study's rules are told, of the configurations in the repository."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, load_plan
from resalign.config.strict import ConfigError, read_yaml
from resalign.config.study import StudyConfig, family
from resalign.jobs import measure, study

ROOT = Path(__file__).resolve().parents[2]
STUDY, SEARCH, ANCHORING, ESTIMATORS = (
    f"config/studies/{name}.yaml" for name in ("resilience", "resilience-search", "resilience-anchoring", "estimators")
)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)  # a configuration names the one that it extends from there
    monkeypatch.setattr(study, "REGISTERED", tmp_path)  # what was registered is not held to the code of today


@pytest.fixture(params=[STUDY, ANCHORING, ESTIMATORS])
def plan(request: pytest.FixtureRequest) -> Plan:
    return load_plan(request.param)


def claimed(plan: Plan) -> StudyConfig:
    config = plan.experiment.config.study
    assert config is not None
    return config


@pytest.mark.parametrize("path", [STUDY, ANCHORING])
def test_a_contrast_differs_in_one_component_only(path: str) -> None:
    plan = load_plan(path)
    members = plan.experiment.unlearning
    for contrast in claimed(plan).contrasts:
        treated, control = (flat(members[name].resolved()) for name in (contrast.treated, contrast.control))
        differing = {key for key in treated | control if treated.get(key) != control.get(key)}
        if control.get("solver.name") == "identity":  # by which γ does nothing
            differing = {key.partition(".")[0] for key in differing} - {"gamma", "gamma_unmatched"}
        assert len(differing) == 1, (contrast.component, differing)
        assert treated["name"] == control["name"]


def test_estimators_differ_in_nothing_else_and_take_as_many_network_evaluations() -> None:
    plan = load_plan(ESTIMATORS)
    members, evaluations = plan.experiment.unlearning, {}
    chosen = load_plan(ANCHORING).experiment.unlearning["resalign-relabelling"].resolved()
    assert members["minres"].resolved() == chosen
    own = {"through", "on_divergence", "max_residual", "steps"}
    for label, member in members.items():
        found, expected = (flat(values) for values in (member.resolved(), chosen))
        differing = {key for key in found | expected if found.get(key) != expected.get(key)}
        assert {key for key in differing if not key.startswith("solver.")} <= own, label
        config: Any = member.config
        evaluations[label] = (config.denoiser_passes * config.steps).evaluations
        assert config.steps == 80 or not label.endswith("-80")
    equal = [evaluations[label] for label in {*claimed(plan).baselines, claimed(plan).method}]
    assert max(equal) < 1.02 * min(equal)  # in whole steps


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found


def test_rows_are_named_by_the_attacks_labels(plan: Plan) -> None:
    job, listed = study.StudyJob.of(plan), measure.rows(plan)
    rows = {(row.model, row.attack): row for row in listed}
    assert len(rows) == len(listed) == len(job.models) * (1 + len(job.attacks))
    assert {attack for _, attack in rows} == {"none", *plan.experiment.attacks}
    for (model, attack), row in rows.items():
        assert f"/{model}.{attack}-" in row.folders["score"] or attack == "none"
    assert len(rows["base", "none"].seeds) == 1
    assert job.command.endswith("-- study")
    assert job.compared.measures == ("ip", "accuracy_near", "accuracy_far")


def test_files_are_those_that_are_read(plan: Plan) -> None:
    job = study.StudyJob.of(plan)
    assert set(job.inputs()) > {f"{folder}/timing.json" for *_, folder in job.timings}
    assert set(job.inputs()) > set(measure.files(plan))


def test_the_search_has_settings_of_every_method(plan: Plan) -> None:
    search = load_plan(SEARCH)
    settings: dict[str, set[str]] = {}
    for label, member in search.experiment.unlearning.items():
        settings.setdefault(family(label), set()).add(member.name)
    assert all(len(names) == 1 for names in settings.values())
    methods = {path.stem for path in (ROOT / "src" / "resalign" / "unlearning").glob("[a-z]*.py")} - {"imported"}
    assert {name for names in settings.values() for name in names} >= methods & _tracked()
    compared = {plan.experiment.unlearning[name].name for name in (claimed(plan).method, *claimed(plan).baselines)}
    assert compared <= {name for names in settings.values() for name in names}
    assert study.StudyJob.of(search).command.endswith("-- selection")


def _tracked() -> set[str]:
    """The methods of the table of methods: one of a reader's own, in the folder too, needs no setting."""
    values = read_yaml("config/studies/methods.yaml")["unlearning"]
    return {entry.get("method", label) for label, entry in values.items()} | {"graddiff", "esd", "resalign"}


def test_one_training_setting_is_for_all() -> None:
    for label, member in load_plan(SEARCH).experiment.unlearning.items():
        sizes = [getattr(member.config, name, None) for name in ("batch_size", "retain_batch_size")]
        assert sizes[0] in (8, None), label
        assert sizes[1] in (16, None), label


def test_search_and_study_share_no_seed_no_noise_and_no_prompt(plan: Plan) -> None:
    search = load_plan(SEARCH)
    seeds = [set(other.experiment.tier.training_seeds) for other in (search, plan)]
    assert not seeds[0] & seeds[1]
    assert search.experiment.config.sampling.seed != plan.experiment.config.sampling.seed
    for name, entry in plan.experiment.config.prompts.items():
        count = plan.experiment.tier.prompts[name].prompts
        skipped = search.experiment.config.prompts[name].columns.skip
        assert (entry.choice, entry.columns.skip) == ("first", 0)
        assert count is not None
        assert count <= skipped


def test_the_search_sees_no_attack_of_the_study(plan: Plan) -> None:
    seen = load_plan(SEARCH).experiment.attack_data
    assert len(seen) == 1
    assert not {data.train for data in seen.values()} & {data.train for data in plan.experiment.attack_data.values()}


def test_what_is_inside_the_simulated_range_is_no_longer_path_than_the_longest_simulation(plan: Plan) -> None:
    members = plan.experiment.unlearning
    simulation: Any = members["resalign" if "resalign" in members else claimed(plan).method].config
    simulated = max(simulation.simulation.lr) * max(simulation.simulation.steps)
    for label, steps in claimed(plan).inside.items():
        attack: Any = plan.experiment.attacks[label].config
        assert attack.lr * steps <= simulated
        assert steps in (*attack.checkpoints, attack.steps)


def test_every_model_of_the_study_is_named_and_every_setting_of_the_search_has_a_family(plan: Plan) -> None:
    config = claimed(plan)
    named = {config.method, *config.baselines, *(label for _, label in config.named)}
    assert set(plan.experiment.unlearning) == named
    assert all("_" in label for label in load_plan(SEARCH).experiment.unlearning)


def test_the_studies_share_runs_and_the_choice_is_the_searchs() -> None:
    plans = [load_plan(path) for path in (STUDY, ANCHORING)]
    one, two = ({row.model: row.folders for row in measure.rows(plan) if row.attack == "pages"} for plan in plans)
    assert {name for name in one if name in two} >= {"base", "resalign", "graddiff-capped"}
    assert all(one[name] == two[name] for name in one if name in two)
    chosen = pd.read_csv(ROOT / "docs" / "studies" / "resilience-search" / "selection.csv").query("chosen")
    settings = load_plan(SEARCH).experiment.unlearning
    names = {"relabelling-pool": "resalign-relabelling-pool"}  # at anchoring's weight and rate, too
    for plan in plans:
        config = claimed(plan)
        members = plan.experiment.unlearning
        for label in {config.method, *config.baselines}:
            (setting,) = chosen.loc[chosen["family"] == names.get(label, label), "setting"]
            assert members[label].resolved() == settings[setting].resolved(), label
        (first,) = chosen.loc[chosen["first_baseline"], "family"]
        assert config.baseline == first


def test_the_grids_of_graddiff_and_resalign_are_one_and_labels_are_true() -> None:
    grids: dict[str, set[str]] = {}
    config: Any
    for label, member in load_plan(SEARCH).experiment.unlearning.items():
        config, own = member.config, family(label)
        if not own.startswith(("graddiff", "resalign", "anchoring")):
            continue
        assert label.endswith(f"_a{config.alpha:g}-lr{config.lr:.0e}".replace("e-0", "e-"))
        assert config.steps == 80
        assert (getattr(config, "retain_images", None) == "retain_and_pool") == (
            own.endswith("pool") or own == "anchoring"
        )
        if "relabelling" in own:
            assert config.harmful.name == "relabelling"
        elif own.startswith(("graddiff", "resalign")):
            assert config.truncation == (0.8 if "capped" in own else None)
            grids.setdefault(own, set()).add(label.rpartition("_")[2])
    assert len(grids) == 5
    assert len({frozenset(settings) for settings in grids.values()}) == 1


@pytest.mark.parametrize(("path", "key"), [(SEARCH, "study"), (STUDY, "selection")])
def test_an_experiment_without_the_key_is_refused(path: str, key: study.Key) -> None:
    with pytest.raises(ConfigError, match=f"the key '{key}' is required"):
        study.folder(load_plan(path), key)
    other: study.Key = "selection" if key == "study" else "study"
    assert study.folder(load_plan(path), other) == f"results/{Path(path).stem}/study"


def test_an_experiment_with_neither_has_no_job() -> None:
    with pytest.raises(ConfigError, match="give the key 'study', or 'selection'"):
        study.StudyJob.of(load_plan("config/demo.yaml"))


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        (
            "study",
            {"method": "resaling", "fronts": {}},
            r"study\.method: no .* did you mean 'resalign'\?",
        ),
        (
            "study",
            {"baselines": ["graddif", "esd"], "baseline": "esd"},
            r"study\.baselines: .* did you mean 'graddiff'",
        ),
        ("study", {"fronts": {"a": ["resalign", "base"]}}, r"study\.fronts\.a: no model named 'base'"),
        ("study", {"safety": "ipp"}, r"study\.safety: no metric named 'ipp'; did you mean 'ip'\?"),
        ("study", {"utilities": ["accuracy_nere"]}, r"study\.utilities: .* did you mean 'accuracy_near'"),
        ("study", {"safety": "accuracy_far"}, r"study\.safety: 'accuracy_far' is no rate of which lower is better"),
        ("study", {"utilities": ["ip", "accuracy_far"]}, r"study\.utilities: 'ip' is no rate of which higher"),
        (
            "study",
            {"baselines": ["graddiff", "esd", "esd"], "baseline": "esd"},
            r"baselines \['graddiff', 'esd', 'esd'\] must differ",
        ),
        ("study", {"baseline": "uce"}, r"no baseline named 'uce'"),
        ("study", {"method": "esd", "fronts": {}}, r"method 'esd' is one of the baselines"),
        ("study", {"fronts": {"graddiff": ["graddiff"]}}, r"method 'resalign' is in none of \['graddiff'\]"),
        ("study", {"fronts": {"graddiff": ["graddiff"], "a": ["resalign", "esd"]}}, r"fronts .*give each as many"),
        (
            "study",
            {"contrasts": [{"component": "x", "treated": "no-simulation", "control": "no-simulation"}]},
            r"contrasts \['x'\] compare a model with itself",
        ),
        (
            "study",
            {"contrasts": [{"component": "x", "treated": "resalign", "control": "no-simulatio"}]},
            r"study\.contrasts\.x: no model named 'no-simulatio'; did you mean 'no-simulation'",
        ),
        ("study", {"inside": {"pages": 10}}, r"study\.inside: attack 'pages' has no state up to 10 steps"),
        ("selection", {"variants": ["resalign-caped"]}, r"selection\.variants: .* did you mean 'resalign-capped'"),
        ("study", {"inside": {"page": 50}}, r"study\.inside: no attack named 'page'; did you mean 'pages'"),
        ("selection", {"method": "resaling"}, r"selection\.method: no model named 'resaling'"),
    ],
)
def test_a_label_that_is_none_is_refused(key: str, change: dict[str, Any], said: str) -> None:
    values = read_yaml(STUDY if key == "study" else SEARCH)
    with pytest.raises(ConfigError, match=said):
        Experiment({**values, key: {**values[key], **change}}, where="study.yaml")
