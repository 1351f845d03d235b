"""README and docs/: links lead somewhere, paths exist, numbers are the studies', examples are what is run."""

import functools
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

import resalign
from resalign.accounting.costs import Scaling, describe
from resalign.accounting.rates import RATES, read_rates
from resalign.config import registry
from resalign.config.experiment import SETS, Experiment
from resalign.config.plan import load_plan
from resalign.config.shape import ExperimentConfig
from resalign.diffusion import architectures
from resalign.study.build import read_study
from resalign.study.claims import claims
from resalign.study.text import summary
from tests.conftest import write_captioned_images

from .blocks import ROOT, blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "config" / "README.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]  # it names what was removed
GENERATED = ("configuration-reference.md",)  # by docs/hooks.py
LINK = re.compile(r"\]\(([^)\s]+)\)")
FOLDERS = ("src", "scripts", "config", "docs", "tests", "workflow", "envs", "bench", "slurm")
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)(?::(\w+))?`")  # perhaps with a symbol
MADE = ("workflow/schemas",)  # by a command, and not in git
SHAPES = ROOT / "docs" / "examples" / "shapes"


def identity(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@functools.cache
def anchors(page: Path) -> set[str]:
    """Fragments of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    faults = []
    for target in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if "://" not in target and path not in GENERATED and not found.exists():
            faults.append(f"link {target}: no such file")
        elif fragment and found.suffix == ".md" and fragment not in anchors(found):
            faults.append(f"link {target}: no such heading")
    for path, symbol in PATH.findall(text):
        if not (ROOT / path).exists() and not path.startswith(MADE) and not _of_the_example(path):
            faults.append(f"{path}: no such file")
        elif symbol and not re.search(rf"\b{symbol}\b", (ROOT / path).read_text(encoding="utf-8")):
            faults.append(f"{path}: no {symbol} in it")
    for module in re.findall(r"python -m (resalign[\w.]*)", text):
        if not list((ROOT / "src").glob(module.replace(".", "/") + "*")):
            faults.append(f"{module}: no such module")
    assert faults == []


def _of_the_example(path: str) -> bool:
    """Whether docs/extending.md shows a file, which exists only while its tests run."""
    return path in dict(blocks("docs/extending.md", "python"))


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 6500
    assert [line for line in README.splitlines() if len(line) > 120] == []
    assert re.findall("<!--.*?-->", README) == ["<!-- study -->", "<!-- /study -->"]


@pytest.mark.parametrize("page", ["README.md", "docs/faq.md"])
def test_the_demos_time_is_what_its_costs_say(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    said = describe(load_plan("config/demo.yaml"), read_rates(RATES, "digits-model"), Scaling({}, None))
    hours = re.search(r": about (\d\.\d) h of one \S+ core", said)
    assert hours is not None
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert re.findall(r"(\d\.\d) (?:core hours|hours of one core)", text) == [hours[1]]


def test_the_readmes_table_is_that_of_the_conjunction() -> None:
    page = (ROOT / "docs" / "studies" / "conjunction.md").read_text(encoding="utf-8")

    def rows(text: str) -> dict[str, list[str]]:
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
        return {row[0]: [cell.split(" [")[0] for cell in row[1:]] for row in cells[2:]}

    of = {title: rows(text) for title, text in re.findall(r"^## (.+)\n\n((?:\|.*\n)+)", page, flags=re.MULTILINE)}
    shown = rows(README.partition("## What it found")[2].partition("As in the paper")[0])
    assert len(shown) == len(of["IP"])
    for name, (before, after, accuracy) in shown.items():
        model = name.replace("base", "Base model")
        assert [before, *after.split(" / ")] == of["IP"][model], name
        assert accuracy.split(" / ") == [of[title][model][0] for title in ("retained accuracy", "accuracy near")], name


def test_the_readmes_words_on_the_study_are_its_verdicts() -> None:
    said = README.partition("<!-- study -->")[2].partition("<!-- /study -->")[0]
    folder = ROOT / "docs" / "studies" / "resilience"
    study, _ = read_study(folder)
    assert " ".join(said.split()) == summary(claims(study), study.config), "put this between the markers"


def test_the_readmes_numbers_of_anchoring_are_its_studys() -> None:
    pattern = r"has an IP of (\S+) over all attacks at an accuracy of (\S+) on pairs not retained \(base: (\S+)\)"
    (found,) = re.findall(pattern, " ".join(README.split()))
    folder = ROOT / "docs" / "studies" / "resilience-anchoring"
    primary = pd.read_csv(folder / "claims.csv").query("claim == 'primary'").set_index(["quantity", "state"])["value"]
    near = pd.read_csv(folder / "table.csv").query("measure == 'accuracy_near'").set_index("model")["rate"]
    expected = primary["ip", "all attacks"], primary["accuracy_near", "before"], near["base"]
    assert found == tuple(f"{value:.2f}" for value in expected)


def test_the_readmes_numbers_of_estimators_are_its_studys() -> None:
    pattern = r"with first order its IP is (\S+), with MINRES (\S+), through every step (\S+)\."
    (found,) = re.findall(pattern, " ".join(README.split()))
    folder = ROOT / "docs" / "studies" / "estimators"
    table = pd.read_csv(folder / "table.csv").query("measure == 'ip' and attack != 'none'")
    rates = table.groupby("model")["rate"].mean()
    assert found == tuple(f"{rates[name]:.2f}" for name in ("first-order", "minres", "unrolled"))
    study, _ = read_study(folder)
    said = summary(claims(study), study.config)
    assert "**is not testable**" in said
    assert "IP is higher with" in said
    assert "IP is lower with" not in said  # no estimator is shown to make it more resilient


def test_the_tables_of_the_studies_are_theirs() -> None:
    page = (ROOT / "docs" / "studies" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| (0.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    found = {name: tuple(values) for name, *values in rows}
    expected = {}
    for name in ("resilience", "resilience-anchoring", "estimators"):
        folder = ROOT / "docs" / "studies" / name
        titles = {
            label: entry.get("title", label) for label, entry in read_study(folder)[1]["config"]["unlearning"].items()
        }
        table = pd.read_csv(folder / "table.csv")
        after = table[(table["measure"] == "ip") & (table["attack"] != "none")].groupby("model")["rate"].mean()
        before = table[table["attack"] == "none"].pivot(index="model", columns="measure", values="rate")
        for model, rate in after.items():
            values = rate, before.loc[model, "accuracy_near"], before.loc[model, "accuracy_far"]
            expected[titles.get(model, model)] = tuple(f"{value:.2f}" for value in values)
    assert len(found) > 10
    names = {"ESD": "esd", "ResAlign": "resalign"}
    assert found == {name: expected[names.get(name, name)] for name in found}


@pytest.mark.parametrize(
    ("family", "kind"),
    [("unlearning", "methods"), ("attacks", "attacks"), ("metrics", "metrics"), ("scorers", "scorers")],
)
def test_the_readme_lists_the_members(family: str, kind: str) -> None:
    """Of files in git: a member of one's own, still untracked, is not to be listed."""
    rows = [line for line in README.splitlines() if line.startswith(f"| {kind}")]
    listed = re.findall("`(.+?)`", "".join(rows))
    command = ["git", "ls-files", f"src/resalign/{family}/*.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    tracked = {Path(name).stem for name in done.stdout.split()}  # none outside of a clone
    expected = tracked & set(registry.members(family)) if tracked else set(registry.members(family))
    assert set(listed) == expected, f"correct the row '{kind}' of README.md, Components"
    assert len(listed) == len(set(listed))


def test_the_readme_names_the_base_models() -> None:
    titles = {"stable_diffusion": "1.x, 2.x", "stable_diffusion_xl": "XL", "stable_diffusion_3": "3"}
    (row,) = [line for line in README.splitlines() if line.startswith("| base models")]
    assert titles.keys() == set(architectures.NAMES)
    assert all(title in row for title in titles.values())


def test_every_room_is_described() -> None:
    rooms = {path.parent.name for path in (ROOT / "src" / "resalign").glob("*/__init__.py")}
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = README.partition("## Map")[2].partition("```\n")[2].partition("```")[0]
    assert [room for room in sorted(rooms) if f"| `{room}/` |" not in architecture] == []
    assert [room for room in sorted(rooms) if room not in re.findall(r"\w+", tree)] == []


def test_every_key_and_image_set_is_explained() -> None:
    text = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    names = [*ExperimentConfig.model_fields, *registry.members(SETS)]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_configuration_guides_examples_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    examples = [yaml.safe_load(text) for _, text in blocks("config/README.md", "yaml")]
    assert len(examples) == 6
    for values in examples:
        Experiment({"extends": "config/demo.yaml", "name": "example", **values}, where="config/README.md")


def test_the_readmes_snippet_runs(pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resalign.library")
    for seed, name in enumerate(("forget", "retain", "pool", "train", "heldout")):
        write_captioned_images(tmp_path / name, ["a red seven", "a blue two"] * 2, seed=seed)
    (tmp_path / "pipeline").symlink_to(pipeline_folder)
    monkeypatch.chdir(tmp_path)
    ((_, text),) = blocks("README.md", "python")
    few = {"steps": 1, "draws": 1, "gamma": 0.01, "simulation": {"steps": [1], "images": 2}}
    for name, settings in {"unlearn": few, "attack": {"steps": 1}}.items():
        monkeypatch.setattr(resalign, name, functools.partial(getattr(resalign, name), **settings), raising=False)
    exec(compile(text, "README.md", "exec"), {})
    assert (tmp_path / "fine-tuned" / "model_index.json").is_file()


@pytest.mark.parametrize("name", ["shapes.yaml", "audit.yaml"])
def test_the_configurations_that_are_shown_are_those_that_are_run(name: str) -> None:
    walk = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
    assert f"```yaml\n{(SHAPES / name).read_text(encoding='utf-8')}```\n" in walk
    assert f"--configfile docs/examples/shapes/{name}" in walk


def test_the_example_is_valid_and_so_is_its_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shapes = load_plan("docs/examples/shapes/shapes.yaml")
    audit = load_plan("docs/examples/shapes/audit.yaml")
    assert shapes.experiment.models == ("base", "gentle", "resalign")
    assert audit.experiment.models == ("base", "claimed")
    base = {run for run in shapes.score if run.startswith("base")}
    assert base == {run for run in audit.score if run.startswith("base")}
