"""References to assets, and paths of the user's own: what is taken, and what is said of anything else."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from resalign.config.detector_audit import DetectorAuditConfig
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.references import fault_of, split_reference
from resalign.config.strict import ConfigError

from .conftest import Demo

Read = Callable[..., Experiment]


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user works in: images, and a list."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my images").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "mine.csv").write_text("id,prompt\n0,a red two\n")
    (tmp_path / "plain").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("prompts.unsafe.source", "lists/mine.csv"),
        ("prompts.unsafe.source", "./lists/mine.csv"),
        ("prompts.unsafe.source", "my.csv"),
        ("prompts.unsafe.source", "/data/some lists/it's.jsonl"),
        ("prompts.unsafe.source", "~/prompts.txt"),
        ("concept.forget", "./my images"),
        ("concept.forget", "my images"),
        ("concept.forget", "../images/"),
        ("concept.forget", "/data/2024"),
        ("attacks.pages.train", "plain"),
        ("attacks.pages.train", "./train"),
        ("reference", "/"),
        ("model", "./digits-model"),
    ],
)
def test_a_path_is_told_the_two_lines_that_make_it_an_asset(
    at: Path, read: Read, demo: Demo, key: str, path: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read({key: path})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"config/demo.yaml: key '{key}': {path!r} is a path, and here stands an asset")
    asset, reference = re.findall("`(.*?)`", message)
    ((label, described),) = yaml.safe_load(asset).items()
    ((last, named),) = yaml.safe_load(reference).items()
    assert last == key.rpartition(".")[2]
    pasted = read({f"assets.{label}": described, key: named})
    assert os.path.realpath(Plan(pasted).folder(named)) == os.path.realpath(Path(path).expanduser())


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("", "is empty; give the name of an asset"),
        (" ", "is empty; give the name of an asset"),
        ("digts/x", "no asset named 'digts'; did you mean 'digits'?"),
        ("digits/../other", "leads out of asset 'digits'; take '..' out of it"),
        ("~no-such-user/x.csv", "is a path, and here stands an asset"),
        ("digits/..", "leads out of asset 'digits'"),
        ("digits/{x}/imgs", "has the character '{'"),
        ("digits/a\nb", r"has the character '\\n'"),
    ],
)
def test_faulty_references(reference: str, expected: str) -> None:
    assert re.search(
        re.escape(expected) if "\\" not in expected else expected, str(fault_of("k", reference, ("digits",)))
    )


def test_a_reference_is_the_same_however_it_is_written(read: Read) -> None:
    for written in ("digits-data/forget", "digits-data//forget/", "digits-data/./forget"):
        assert split_reference(written) == ("digits-data", "forget")
        assert set(Plan(read({"concept.forget": written})).unlearn) == set(Plan(read()).unlearn)


def test_home_is_expanded(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    plan = Plan(read({"assets.mine": {"path": "~/data"}, "concept.pool": "mine/pool"}))
    assert plan.folder("mine/pool") == "/home/somebody/data/pool"
    audited = read({"audit": {"mine": "~/model"}})
    assert Plan(audited).folder("audited-mine") == "/home/somebody/model"
    labels = DetectorAuditConfig.parse({"labels": ["~/ann.csv", "bo.csv"]}, where="test").labels
    assert labels == ("/home/somebody/ann.csv", "bo.csv")


@pytest.mark.parametrize(
    "path", ["/data/a b", 'it\'s "q"', "50%", "$HOME", "a;b&c", "co,mma", "star*[1]", "ünïcode", "#a=b"]
)
def test_odd_names_are_taken_as_they_are(read: Read, path: str) -> None:
    assert Plan(read({"assets.mine": {"path": path}, "concept.pool": "mine"})).folder("mine") == path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/{x}/imgs", "has the character '{'"),
        ("x}", "has the character '}'"),
        ("two\nlines", r"has the character '\n'"),
        ("", "the path is empty"),
        ("~no-such-user/data", "there is no such home folder"),
    ],
)
@pytest.mark.parametrize("entry", ["assets.mine.path", "audit.mine"])
def test_paths_that_cannot_be(read: Read, entry: str, path: str, expected: str) -> None:
    changes: dict[str, Any] = {"audit": {"mine": path}} if entry == "audit.mine" else {"assets.mine": {"path": path}}
    with pytest.raises(ConfigError) as caught:
        read(changes)
    assert "config/demo.yaml" in str(caught.value)
    assert "mine" in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


UP = "../up"
HUB = {"hub": "a/b", "revision": "0" * 40}
URL = {"url": "https://a.example/files/"}
SET = {"source": "digits-data"}
DETECTOR = {"scorer": "onnx_classifier", "folder": "digits-resnet", "classes": ["a"]}
# Every text of a configuration that becomes part of a path below something, or of an address.
LEADING_OUT: dict[str, tuple[str, Any]] = {
    **{
        key: (key, f"digits-data/{UP}")
        for key in ("model", "concept.forget", "concept.retain", "concept.pool", "reference", "attacks.pages.train")
    },
    "prompts.unsafe.source": ("prompts.unsafe.source", f"digits-data/{UP}"),
    "a pipeline": ("pipelines.mine", f"digits-model/{UP}"),
    "an audited model": ("audit.mine", f"digits-model/{UP}"),
    "an audited checkpoint": ("audit.mine", {"checkpoint": f"digits-model/{UP}"}),
    "a checkpoint": ("unlearning.mine", {"method": "imported", "checkpoint": f"digits-model/{UP}"}),
    "a scorer": ("scorers.mine", {"scorer": "clip", "folder": f"digits-clip/{UP}"}),
    "a head": ("scorers.mine", {"scorer": "mhsc", "folder": "digits-clip", "head": f"digits-clip/{UP}"}),
    "a metric's reference": (
        "metrics.mine",
        {"metric": "dino", "prompts": "benign", "scorer": "clip", "reference": f"digits-data/{UP}"},
    ),
    "an ONNX file": ("scorers.mine", {**DETECTOR, "file": f"{UP}.onnx"}),
    "an ONNX file at the root": ("scorers.mine", {**DETECTOR, "file": "/model.onnx"}),
    "an asset's name": ("assets.up/x", {"path": "x"}),
    "a sweep's name": ("sweeps", {UP: {"title": "t", "attacks": {"a": "pages"}}}),
    "a hub id": ("assets.mine", {**HUB, "hub": UP}),
    "a revision": ("assets.mine", {**HUB, "revision": f"{UP}/main"}),
    "a hub's file": ("assets.mine", {**HUB, "files": ["../*.bin"]}),
    "a hub's hash": ("assets.mine", {**HUB, "hashes": {UP: "0" * 64}}),
    "a downloaded file": ("assets.mine", {**URL, "files": [UP]}),
    "a downloaded file at the root": ("assets.mine", {**URL, "files": ["/etc/passwd"]}),
    "a file on another drive": ("assets.mine", {**URL, "files": ["C:x"]}),
    "a file with another system's separators": ("assets.mine", {**URL, "files": ["..\\x"]}),
    "an address": ("assets.mine", {"url": "https://a.example/files/../x.zip"}),
    "an address that ends so": ("assets.mine", {"url": "https://a.example/.."}),
    "a quoted address": ("assets.mine", {"url": "https://a.example/%2e%2e/x.zip"}),
    "a file by hand": ("assets.mine", {"manual": "https://a.example", "files": [UP]}),
    "a set's source": ("prepared.mine", {"set": "image_folder", "source": f"digits-data/{UP}"}),
    "a set's folder": ("prepared.mine", {"set": "image_folder", **SET, "below": UP}),
    "a set's splits": ("prepared.mine", {"set": "image_folder", **SET, "splits": {UP: 3}}),
    "a set's table": ("prepared.mine", {"set": "diffusiondb", **SET, "table": f"{UP}.parquet"}),
    "a set's prompts": ("prepared.mine", {"set": "generated", "model": "digits-model", "prompts": f"digits-data/{UP}"}),
    "a mixed set": ("prepared.mine", {"set": "contaminated", "clean": "digits-data", "harmful": UP, "ratio": 0.1}),
}


@pytest.mark.parametrize("name", LEADING_OUT)
def test_nothing_leads_out_of_its_folder(read: Read, name: str) -> None:
    """The plan says so, in one line, before anything is fetched or loaded."""
    key, value = LEADING_OUT[name]
    with pytest.raises(ConfigError) as caught:
        Plan(read({key: value}))
    message = str(caught.value)
    assert "\n" not in message
    assert key.partition(".")[2] in message
    assert re.search(r"leads out of|is a path|use letters", message), message
