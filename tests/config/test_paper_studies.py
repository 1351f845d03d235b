"""The other papers' own tables: each study makes its paper's exhibit, with its paper's methods, from public assets."""

import re
from pathlib import Path

import pytest

from resalign.config.extension import extended
from resalign.config.plan import load_plan
from resalign.config.prompts import PromptColumns
from resalign.config.strict import read_yaml
from resalign.data.overlap import normalised
from resalign.data.prompts import read_prompts
from resalign.jobs import exhibit
from resalign.unlearning.rgd import SLOTS
from tests.workflow.conftest import Checkout, copy_repository

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "config" / "prompts"
# Exhibit and methods of each study.
STUDIES = {
    "rgd": ("rgd", {"esd", "salun", "graddiff", "rg", "rgd"}),
    "meta-unlearning": ("meta_unlearning", {"esd", "meta_unlearning"}),
    "resurgence": ("resurgence", {"esd", "mace", "sdd", "uce", "erasediff", "scissorhands", "salun"}),
}


def study(name: str) -> str:
    return f"config/studies/paper-{name}.yaml"


@pytest.mark.parametrize("name", STUDIES)
def test_a_paper_has_its_exhibit_and_its_methods_and_needs_nothing_by_hand(name: str) -> None:
    wanted, methods = STUDIES[name]
    plan = load_plan(ROOT / study(name))
    assert wanted in exhibit.planned(plan)
    assert {member.name for member in plan.experiment.unlearning.values()} == methods
    assert not [label for label, asset in plan.experiment.config.assets.items() if asset.manual]


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_papers_study_is_planned_offline(tmp_path: Path, name: str) -> None:
    plan = load_plan(ROOT / study(name))
    checkout = Checkout(copy_repository(tmp_path / "copy"), study(name), tier="paper")
    finished = checkout.snakemake("--profile", str(ROOT / "slurm"), "--dry-run", "--", "paper")
    assert finished.returncode == 0, finished.stderr[-2000:]
    planned = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", finished.stdout, flags=re.MULTILINE)}
    for kind in ("unlearn", "attack", "score"):
        jobs = sum(len(plan.seeds(stage)) for stage in getattr(plan, kind).values())
        assert planned.get(kind, 0) >= jobs, kind  # images to compare with are scored, too


def test_rgds_held_out_prompts_have_none_of_the_values_that_are_trained_on() -> None:
    prompts = [prompt.text for prompt in read_prompts(PROMPTS / "rgd-test.csv")]
    assert len(set(prompts)) == len(prompts) == 256
    for slot in SLOTS:
        assert all(sum(f" {value}" in text for value in slot.heldout) == 1 for text in prompts)
        assert not [text for text in prompts for value in slot.values if f" {value}" in text]


def test_the_objects_prompts_make_up_the_sets_that_are_split() -> None:
    experiment = load_plan(ROOT / study("resurgence")).experiment
    made = {label: member.resolved() for label, member in experiment.prepared.items()}
    found = {
        label: len(read_prompts(PROMPTS / "objects.csv", columns=experiment.prepared[label].config.columns))
        for label in made
    }
    assert found == {"erased-objects": 3, "other-objects": 7}
    assert sum(made["other-objects"]["splits"].values()) == 7 * made["other-objects"]["images"]
    named = {name for concept in experiment.config.concept.concepts for name in concept.prompts}
    columns = experiment.prepared["erased-objects"].config.columns
    assert {prompt.label for prompt in read_prompts(PROMPTS / "objects.csv", columns=columns)} == named


# Experiments, not lists of assets and ablations, nor recipes that are added to one.
EXPERIMENTS = [
    path
    for path in sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "config/studies").glob("*.yaml")])
    if "model" in extended(read_yaml(path), where=str(path))
]


@pytest.mark.parametrize("configfile", EXPERIMENTS, ids=lambda path: path.stem)
def test_no_image_is_generated_for_training_from_a_tested_prompt(configfile: Path) -> None:
    """Lists that are downloaded are held apart by the run itself."""
    experiment = load_plan(configfile).experiment
    ours = {label: ROOT / asset.path for label, asset in experiment.config.assets.items() if asset.path}

    def texts(source: str, columns: PromptColumns, first: int | None = None) -> set[str]:
        name, file = source.split("/", 1)
        return {normalised(p.text) for p in read_prompts(ours[name] / file, first, columns)} if name in ours else set()

    made = [member.config for member in experiment.prepared.values() if member.name == "generated"]
    trained = set().union(*(texts(of.prompts, of.columns, of.first) for of in made))
    for name, of in experiment.config.prompts.items():
        if isinstance(of.source, str):
            assert not trained & texts(of.source, of.columns), name


@pytest.mark.parametrize("configfile", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_sweep_shows_what_is_measured_after_its_attacks(configfile: Path) -> None:
    experiment = load_plan(configfile).experiment
    for label, sweep in experiment.config.sweeps.items():
        for metric in sweep.metrics:
            prompts = getattr(experiment.metrics[metric].config, "prompts", None)
            if prompts is not None:
                sampled = [
                    experiment.config.prompts[prompts].source_after(a) for a in experiment.sweeps[label].values()
                ]
                assert any(sampled), (label, metric)
