"""What Snakemake would run for an ablation of a finished experiment: what its values add, and no shared run."""

import json
import re
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from .conftest import Checkout

GAMMA = "results/ablations/gamma"
# Of every value but the experiment's own: before and after the one attack that is shown.
ADDED = {
    "ablated_unlearn": {"resalign"},
    "ablated_attack": {"resalign.pages"},
    "ablated_sample": {"resalign", "resalign.pages"},
    "ablated_score": {"resalign", "resalign.pages"},
}
TABLES = {"ablation_measured": {""}, "ablation_file": {""}, "ablation_shown": {""}}
# The documented command that makes an ablation afresh forces these.
FORCED = ("ablated_unlearn", "ablated_attack", "ablated_sample", "ablated_score")

SAID = "config/ablations.yaml: demo.gamma: variant '0.005': unlearning.resalign: unknown key 'gama'"


# A stage in a moment: it writes all that its rule declares.
STAGE = """\
import json, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
for name in json.loads(pathlib.Path("outputs.json").read_text())[str(folder)]:
    (folder / name).write_text("afresh")
"""


def misspelt(text: str) -> str:
    return text.replace("unlearning.resalign.gamma", "unlearning.resalign.gama", 1)


@pytest.fixture(scope="module")
def ablated(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A finished demo with its ablation of γ, apart from the one that other tests share."""
    folder = tmp_path_factory.mktemp("ablated") / "repository"
    checkout = Checkout(Path(shutil.copytree(finished.folder, folder)))
    checkout.make_everything(GAMMA)
    return checkout


@pytest.mark.slow
def test_an_ablation_of_a_finished_demo_runs_only_what_its_values_add(finished: Checkout) -> None:
    assert finished.planned(target=f"{GAMMA}/") == {**ADDED, **TABLES}  # with or without a slash


@pytest.mark.slow
def test_checkpoints_of_a_run_that_is_there_need_no_other(finished: Checkout) -> None:
    assert finished.planned(target="results/ablations/steps") == TABLES


@pytest.mark.slow
def test_all_of_them_share_their_runs_and_add_no_second_baseline(finished: Checkout) -> None:
    planned = finished.planned(target="ablations")
    own = {"unlearn", "attack", "sample", "score", "prepare", "score_reference"}
    assert not own & set(planned)
    assert {"ablated_unlearn", "ablated_prepare", "ablation_measured"} <= set(planned)
    assert planned["ablated_attack"] == {"resalign.pages", "base.pages", "resalign.personal", "base.personal"}


@pytest.mark.slow
def test_made_twice_it_runs_once(ablated: Checkout) -> None:
    assert ablated.planned(target=GAMMA) == {}


@pytest.mark.slow
def test_made_afresh_it_leaves_the_experiments_runs_alone(ablated: Checkout) -> None:
    assert ablated.planned(target=GAMMA, forced=FORCED) == {**ADDED, **TABLES}


@pytest.mark.slow
def test_a_forced_run_changes_no_file_of_the_experiments(ablated: Checkout, tmp_path: Path) -> None:
    checkout = Checkout(Path(shutil.copytree(ablated.folder, tmp_path / "repository")))
    for script in ("unlearn", "attack", "sample", "score"):
        (checkout.folder / "scripts" / f"{script}.py").write_text(STAGE)
    checkout.make_everything(GAMMA)
    results = {
        path: path.relative_to(checkout.folder) for path in checkout.folder.glob("results/**/*") if path.is_file()
    }
    declared: dict[str, list[str]] = {}
    for path in results.values():
        declared.setdefault(str(path.parent), []).append(path.name)
    (checkout.folder / "outputs.json").write_text(json.dumps(declared))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in results}
    forced = checkout.snakemake("-R", *FORCED, "--until", "ablated_score", "--", GAMMA)
    assert forced.returncode == 0, forced.stderr
    changed = {results[path] for path in results if (path.stat().st_mtime_ns, path.read_bytes()) != before[path]}
    runs = {path.parts[:4] for path in changed}
    labels = {rule.removeprefix("ablated_"): labels for rule, labels in ADDED.items()}
    # Of each label there are two values of γ besides the experiment's own.
    assert Counter((stage, run.rpartition("-")[0]) for _, _, stage, run in runs) == {
        (stage, label): 2 for stage in labels for label in labels[stage]
    }
    assert all(path.read_text() == "afresh" for path, name in results.items() if name in changed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rule"),
    [("table.tex", "ablation_shown"), ("values.csv", "ablation_file")],
)
def test_a_deleted_file_is_made_again_alone(ablated: Checkout, name: str, rule: str) -> None:
    path = ablated.folder / GAMMA / name
    path.rename(path.with_suffix(".kept"))
    dry = ablated.snakemake("--dry-run", "--", GAMMA).stdout
    path.with_suffix(".kept").rename(path)
    outputs = re.findall(r"^    output: (.*)$", dry, flags=re.MULTILINE)
    assert f"{GAMMA}/{name}" in [path for line in outputs for path in line.split(", ")]
    assert re.findall(r"^(?:local)?rule (\S+):", dry, flags=re.MULTILINE) == [rule, GAMMA]


@pytest.mark.slow
def test_a_value_that_becomes_the_experiments_own_is_not_run_again(ablated: Checkout) -> None:
    # Rules of variants and of the experiment differ in name alone: what the one has made the other takes.
    def adopted(text: str) -> str:
        config = yaml.safe_load(text)
        config["unlearning"]["resalign"]["gamma"] = 0.02
        return yaml.safe_dump(config)

    with ablated.edited("config/demo.yaml", adopted):
        planned = ablated.planned()
    bold = {"resalign.bold"}
    assert planned == {"attack": bold, "sample": bold, "score": bold, "measure": {""}, "report": {""}}


@pytest.mark.slow
def test_another_experiment_measures_beside_this_one_and_shows_its_own(ablated: Checkout) -> None:
    # Its runs are the demo's, and so is every value but one: nothing of them is measured in its place.
    other = "extends: config/demo.yaml\nname: other\n"
    with ExitStack() as edits:
        edits.enter_context(ablated.edited("config/other.yaml", lambda _: other))
        edits.enter_context(
            ablated.edited("config/ablations.yaml", lambda text: text.replace("demo:\n", "other:\n", 1))
        )
        dry = Checkout(ablated.folder, "config/other.yaml").snakemake("--dry-run", "--", GAMMA).stdout
    found = re.findall(r"^(?:local)?rule (\S+):", dry, flags=re.MULTILINE)
    # The variants' runs are there already; values are measured of its own, and every file of the target is made anew.
    assert sorted(set(found)) == ["ablation_file", "ablation_measured", "ablation_shown", GAMMA]
    assert "output: results/other/ablations/gamma/values.csv" in dry
    assert "results/demo/ablations" not in dry.partition("ablation_measured")[2].partition("Job stats")[0]


@pytest.mark.slow
def test_a_mistake_in_an_ablation_is_told_when_it_is_asked_for(ablated: Checkout) -> None:
    with ablated.edited("config/ablations.yaml", misspelt):
        asked = ablated.snakemake("--dry-run", "--", GAMMA)
        assert ablated.planned() == {}
    assert asked.returncode != 0
    assert SAID in asked.stdout + asked.stderr


def test_the_documented_commands_are_these() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert f"-R {' '.join(FORCED)}" in " ".join(text.split())
    assert f"-- {GAMMA}" in text
