"""Files that extend another one, and the models that an audit takes as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from resalign.config import own_inputs
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.jobs import cards
from resalign.jobs.attack import AttackJob
from resalign.jobs.sample import SampleJob
from resalign.jobs.unlearn import UnlearnJob

from .conftest import ROOT

DEMO = str(ROOT / "config" / "demo.yaml")
Read = Callable[..., Experiment]


def experiment(**values: Any) -> Experiment:
    return Experiment({"extends": DEMO, "name": "mine", **values}, where="mine.yaml")


def write(path: Path, **values: Any) -> str:
    path.write_text(yaml.safe_dump(values))
    return str(path)


# --- extends ----------------------------------------------------------------------------------------------------------


def test_a_name_alone_is_the_same_experiment(read: Read) -> None:
    assert experiment().resolved() == {**read().resolved(), "name": "mine", "extends": DEMO}


def test_single_settings_go_over_the_others_and_lists_replace() -> None:
    found = experiment(
        attacks={"pages": {"steps": 300, "checkpoints": [200]}}, tiers={"smoke": {"prompts": {"unsafe": {"images": 2}}}}
    )
    pages = found.attacks["pages"].config
    assert (pages.steps, pages.checkpoints, pages.batch_size) == (300, (200,), 8)
    assert list(found.attacks) == ["pages", "bold"]
    smoke = found.config.tiers["smoke"].prompts["unsafe"]
    assert (smoke.prompts, smoke.images) == (6, 2)


def test_an_asset_has_one_origin() -> None:
    asset = experiment(assets={"digits-data": {"path": "mine"}}).config.assets["digits-data"]
    assert (asset.origin, asset.path) == ("path", "mine")


def test_null_leaves_an_entry_out_and_is_a_value_elsewhere() -> None:
    found = experiment(attacks={"bold": None}, metrics={"fid": None, "kid": None}, reference=None)
    assert list(found.attacks) == ["pages"]
    assert found.config.reference is None
    several = {"two": {"prompts": ["a two"], "substitute": "a one"}}
    concept = experiment(concept={"prompts": None, "substitute": None, "several": several}).config.concept
    assert [words.prompts for words in concept.concepts] == [("a two",)]
    with pytest.raises(
        ConfigError, match=r"mine.yaml: key 'attacks.bald': null leaves out nothing; did you mean 'bold'"
    ):
        experiment(attacks={"bald": None})
    with pytest.raises(ConfigError, match="key 'sampling'"):
        experiment(sampling=None)


def test_a_chain_of_files(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", extends=DEMO, name="first", sampling={"seed": 1, "batch_size": 5})
    second = write(tmp_path / "second.yaml", extends=first, name="second", sampling={"seed": 2})
    sampling = Experiment.read(second).config.sampling
    assert (sampling.seed, sampling.batch_size, sampling.num_inference_steps) == (2, 5, 12)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"samplng": {}}, "mine.yaml: unknown key 'samplng'; did you mean 'sampling'?"),
        ({"extend": "x"}, "unknown key 'extend'; did you mean 'extends'?"),
        ({"attacks": {"pages": {"stps": 1}}}, "attacks.pages: unknown key 'stps'; did you mean 'steps'?"),
        ({"extends": "none.yaml"}, "mine.yaml: key 'extends': none.yaml: no such file"),
        ({"extends": "~no-such-user/x.yaml"}, "mine.yaml: key 'extends': ~no-such-user/x.yaml: no such file"),
        ({"extends": ["a.yaml"]}, "give the path of one configuration file (got ['a.yaml'])"),
    ],
)
def test_mistakes_are_told_as_elsewhere(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(**changes)
    assert expected in str(caught.value)


def test_a_file_without_a_name_would_overwrite_the_others_page() -> None:
    with pytest.raises(ConfigError, match="key 'name' is required beside 'extends'"):
        Experiment({"extends": DEMO}, where="mine.yaml")


def test_a_circle_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    mine = write(tmp_path / "mine.yaml", extends=str(other), name="mine")
    write(other, extends=mine, name="other")
    with pytest.raises(ConfigError, match="extends itself by way of this file"):
        Experiment.read(mine)


# --- audit ------------------------------------------------------------------------------------------------------------


def audit(**entries: Any) -> Plan:
    return Plan(experiment(audit=entries))


def states(plan: Plan) -> set[tuple[str, str | None]]:
    return {(stage.model, stage.attack) for stage in plan.score.values()}


def test_a_pipeline_is_planned_beside_the_base_and_nothing_is_unlearned(read: Read) -> None:
    plan, demo = audit(mine="models/mine"), Plan(read())
    assert not plan.unlearn
    assert states(plan) == {(model, attack) for model in ("base", "mine") for attack in (None, "pages", "bold")}
    # The base's runs are the extended experiment's own: they are not repeated.
    for stage in ("attack", "sample", "score"):
        ours, theirs = getattr(plan, stage), getattr(demo, stage)
        assert {run for run in ours if run.startswith("base")} == {run for run in theirs if run.startswith("base")}


def test_a_pipeline_is_attacked_and_sampled_as_it_is() -> None:
    plan = audit(mine="models/mine")
    for stage in plan.attack.values():
        job = AttackJob.of(plan, stage, "0")
        assert (job.model == "models/mine") == (stage.model == "mine")
        assert job.weights is None
    for stage in plan.sample.values():
        assert (SampleJob.of(plan, stage, "0", "small").model == "models/mine") == (stage.model == "mine")
    assert own_inputs.found(plan, "mine")["pipelines"] == ["models/mine"]
    assert own_inputs.found(plan)["pipelines"] == []
    assert len({stage.run.rpartition("-")[2] for stage in plan.attack.values()}) == 4


def test_a_checkpoint_is_imported_over_the_base() -> None:
    plan = audit(mine={"checkpoint": "weights/mine"})
    [stage] = plan.unlearn.values()
    assert plan.experiment.unlearning["mine"].name == "imported"
    assert UnlearnJob.of(plan, stage).checkpoint == "weights/mine"
    assert list(plan.experiment.unlearning) == ["mine"]


@pytest.mark.parametrize("entry", ["models/mine", {"checkpoint": "weights/mine"}])
def test_what_nothing_has_trained_is_one_state_before_fine_tuning(entry: Any) -> None:
    plan = audit(mine=entry)
    seeds = {(stage.model, stage.attack): plan.seeds(stage) for stage in plan.score.values()}
    assert seeds["mine", None] == seeds["base", None] == (0,)
    assert seeds["mine", "pages"] == (0, 1)
    # The weights that each attack starts from are planned.
    assert all(plan.seeds(stage) == (0, 1) for stage in plan.unlearn.values())


def test_a_source_may_be_an_asset() -> None:
    plan = audit(mine="digits-model")
    assert plan.folder(plan.pipeline("mine")) == plan.folder(plan.experiment.config.model)
    assert "audited-mine" not in plan.assets


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"base": "models/mine"}, "pipelines.base: this name is already used by the model before unlearning"),
        ({"my model": "models/mine"}, "my model: use letters, digits"),
        ({"mine": {"checkpint": "x"}}, "unknown key 'checkpint'; did you mean 'checkpoint'?"),
        (
            {"mine": "weights/mine.safetensors"},
            "audit.mine: 'weights/mine.safetensors' is a file of weights, not a pipeline",
        ),
        ({"mine": {}}, "unlearning.mine: key 'checkpoint' is required"),
    ],
)
def test_mistakes_of_an_audit(entries: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        audit(**entries)
    assert expected in str(caught.value)


def test_two_models_of_one_name(read: Read) -> None:
    with pytest.raises(ConfigError, match=r"unlearning.esd: this name is already used by pipelines.esd"):
        read({"pipelines": {"esd": "digits-model"}})


def test_cards_are_of_every_model_but_the_base(read: Read) -> None:
    assert cards.card_models(Plan(read())) == ["graddiff", "esd", "resalign"]
    assert cards.card_files(audit(mine="m")) == [f"results/mine/audit/card-mine.{suffix}" for suffix in ("md", "html")]
    with pytest.raises(ConfigError, match="nothing to audit"):
        cards.CardsJob.of(Plan(experiment(unlearning=dict.fromkeys(["graddiff", "esd", "resalign"]))))


def test_the_command_repeats_tier_and_file() -> None:
    assert (
        audit(mine="m").command("audit", tier="small").endswith("--configfile mine.yaml --config tier=small -- audit")
    )
