"""What an experiment's archive is told to hold."""

import json
from pathlib import Path

import pytest
import yaml

from resalign.artifact import pack
from resalign.artifact.published import published
from resalign.config.ablations import Ablations
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan, load_plan
from resalign.config.strict import ConfigError, read_yaml
from resalign.disclosure import ALLOWED
from resalign.jobs import artifact

ROOT = Path(__file__).resolve().parents[2]


def test_data_of_a_variant_alone_are_described_too() -> None:
    plan = load_plan(str(ROOT / "config" / "demo.yaml"))
    ablations = Ablations(plan, plan.experiment.config.model_dump(mode="json", exclude_unset=True))
    assets = artifact.ArtifactJob.of(plan, ablations).assets
    contaminated = {name: asset for name, asset in assets.items() if name.startswith("contaminated")}
    assert list(contaminated) == [f"contaminated (contamination: {share})" for share in ("0", "20", "50")]
    assert len({asset["folder"] for asset in contaminated.values()}) == 3
    assert [asset["identity"]["ratio"] for asset in contaminated.values()] == [0.0, 0.2, 0.5]
    assert set(plan.assets) <= set(assets)


def test_what_the_user_wrote_is_packed_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"extends: {ROOT}/config/demo.yaml\nname: mine\n"
        f"assets: {{lists: {{path: {tmp_path}}}}}\n"
        "prompts: {unsafe: {source: lists/mine.csv}, own: {source: {bold: lists/mine.csv}}}\n"
        "tiers: {smoke: {prompts: {own: {}}}, small: {prompts: {own: {}}}, paper: {prompts: {own: {}}}}\n"
    )
    (tmp_path / "mine.csv").write_text("id,prompt\na,a seven\n")
    plan = load_plan(str(tmp_path / "mine.yaml"))
    job = artifact.ArtifactJob.of(plan, Ablations(plan, read_yaml(tmp_path / "mine.yaml")))
    assert job.own_inputs == {
        "inputs/configuration/1-mine.yaml": str(tmp_path / "mine.yaml"),
        "inputs/configuration/2-demo.yaml": str(ROOT / "config" / "demo.yaml"),
        "inputs/prompts/unsafe.csv": str(tmp_path / "mine.csv"),
        "inputs/prompts/own.bold.csv": str(tmp_path / "mine.csv"),
    }


def test_a_configuration_may_extend_one_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "below.yaml").write_text(f"extends: {ROOT}/config/demo.yaml\nname: below\n")
    (tmp_path / "mine.yaml").write_text("extends: ~/below.yaml\nname: mine\n")
    plan = load_plan(str(tmp_path / "mine.yaml"))
    found = artifact.ArtifactJob.of(plan, Ablations(plan, read_yaml(tmp_path / "mine.yaml"))).own_inputs
    assert found["inputs/configuration/2-below.yaml"] == str(tmp_path / "below.yaml")


TOKEN = "hf" + "_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "source/config/x.yaml",
            f"a: 1\ntoken: {TOKEN}\n",
            r"config/x\.yaml, line 2 \(a token of the Hugging Face hub\)",
        ),
        ("source/deploy/id_rsa", "anything", r"deploy/id_rsa \(its name\).*Commit the file without it"),
        ("local/untracked/config/x.yaml", TOKEN, r"config/x\.yaml, line 1 .* have git ignore the file"),
        ("local/changes.patch", f"+{TOKEN}\n", r"the uncommitted changes \(git diff HEAD\), line 1"),
        ("provenance/logs/fetch/x.log", f"got {TOKEN}", r"logs/fetch/x\.log, line 1"),
    ],
)
def test_a_secret_is_refused_by_its_place_and_not_repeated(name: str, content: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        published({name: content.encode(), "source/a.py": b"x = 1"})
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_of_this_machine_are_shortened_in_records_and_not_in_the_source() -> None:
    text = f'{{"path": "{Path.cwd()}/data"}}'.encode()
    found = published({"results/run.json": text, "source/a.py": text, "results/x.parquet": b"\0" + text})
    assert found["results/run.json"] == b'{"path": "./data"}'
    assert (found["source/a.py"], found["results/x.parquet"]) == (text, b"\0" + text)
    assert published({"results/a.csv": f"{TOKEN}  # {ALLOWED}".encode()})


def test_text_that_is_no_utf_8_keeps_its_bytes(tmp_path: Path) -> None:
    text, short = f"café: {Path.cwd()}/data ÿ".encode("latin-1"), "café: ./data ÿ".encode("latin-1")
    (tmp_path / "a.csv").write_bytes(text)
    found = published({"provenance/logs/x.log": text, "results/a.csv": tmp_path / "a.csv"})
    assert found == {"provenance/logs/x.log": short, "results/a.csv": short}


def test_a_secret_in_a_configuration_is_refused_before_any_work() -> None:
    values = read_yaml(ROOT / "config" / "demo.yaml")
    values["assets"] = {**values["assets"], "set": {"url": "https://alice:" + "hunter2@example.org/set.zip"}}
    with pytest.raises(
        ConfigError, match=r"mine\.yaml: key 'assets\.set\.url' holds .* a password in an address"
    ) as caught:
        Plan(Experiment(values, where="mine.yaml"))
    assert "hunter2" not in str(caught.value)


def test_the_configuration_is_as_its_published_record_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "jos\N{LATIN SMALL LETTER E WITH ACUTE}"
    monkeypatch.setenv("HOME", str(home))
    config = {"home": str(home), "data": f"{home}/data", "note": f"in\n{home}/data, {Path.cwd()}"}
    (tmp_path / "run.json").write_text(json.dumps({"job": {"config": config}}))
    packed = published({"config/x.yaml": pack._resolved(tmp_path), "results/x/run.json": tmp_path / "run.json"})
    texts = {name: content.decode() for name, content in packed.items() if isinstance(content, bytes)}
    found = yaml.safe_load(texts["config/x.yaml"])
    assert found == json.loads(texts["results/x/run.json"])["job"]["config"]
    assert found == {"home": "~", "data": "~/data", "note": "in\n~/data, ."}
