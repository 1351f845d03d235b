"""The catalogue, what an experiment takes from it, prepared sets in the plan, and the doctor's word on both."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resalign.assets.doctor import (
    fetched_names,
    machine_lines,
    missing_lines,
    needs_of,
    table_lines,
)
from resalign.config.assets import FETCHED, TERMS, CatalogueEntry, described, read_catalogue
from resalign.config.experiment import Experiment
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError, read_yaml
from resalign.jobs.prepare import PrepareJob

ROOT = Path(__file__).resolve().parents[2]
Change = Callable[[dict[str, Any]], Any]


def plan_of(*changes: Change, config: str = "config.yaml") -> Plan:
    values = read_yaml(ROOT / "config" / config)
    for change in changes:
        change(values)
    return Plan(Experiment(values, where="file.yaml"))


# --- the catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", read_catalogue())
def test_an_entry_is_pinned_and_says_what_it_is(name: str) -> None:
    entry = read_catalogue()[name]
    assert entry.licence, "which licence, or 'not stated'"
    if entry.hub:
        assert re.fullmatch("[0-9a-f]{40}", entry.revision or ""), "a commit, never a branch"
        assert entry.files, "which of its files are needed"
    if entry.url:
        assert entry.url.startswith(("https://", "http://images.cocodataset.org/"))
    if entry.manual:
        assert entry.files, "what a person should look for"
    if entry.sha256 or entry.hashes:
        assert entry.hash_from, "who says so"
    if entry.kind == "prompts" and entry.url:
        assert entry.contents or entry.url.endswith(".zip"), "columns and rows"


def test_a_word_about_an_asset_changes_no_path() -> None:
    entry = read_catalogue()["i2p"]
    told = entry.model_copy(update={"note": "x", "licence": "y", "tables": (), "contents": {}, "size_bytes": 1})
    assert told.identity == entry.identity
    assert entry.model_copy(update={"revision": "0" * 40}).identity != entry.identity
    assert described("i2p", told) is entry
    assert described("mine", told) is told


# --- what an experiment takes -----------------------------------------------------------------------------------------


def test_an_experiment_takes_assets_by_name() -> None:
    plan = plan_of()
    taken = plan.experiment.config.assets
    assert all(isinstance(asset, CatalogueEntry) for asset in taken.values())
    assert "sdxl-base" not in taken
    # An entry of its own stands for the catalogue's.
    own = plan_of(lambda values: values.update(assets={"clip-vit-b-32": {"path": "resources/clip"}}))
    assert own.folder("clip-vit-b-32") == "resources/clip"


def test_the_demo_takes_nothing_from_outside() -> None:
    plan = plan_of(config="demo.yaml")
    assert {asset.origin for asset in plan.assets.values()} == {"digits"}
    assert missing_lines(plan) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v.pop("consent"),
            r"asset '\S+' holds or makes sexual .*licence: .*\), write 'consent: \[sensitive\]'",
        ),
        (lambda v: v.update(consent=["sensitve"]), "key 'consent.0'"),
        (
            lambda v: v["concept"].update(pool="vggface2-hq"),
            r"'vggface2-hq' holds pictures of real people's faces and may not .*'consent: \[sensitive, faces, non-comm",
        ),
        (lambda v: v.update(model="sd-v14"), "key 'model': no asset named 'sd-v14'; did you mean 'sd-v1-4'"),
        (
            lambda v: v["prepared"].update(mine={"set": "dreambench", "source": "dreambnch"}),
            "key 'prepared.mine.source': no asset named 'dreambnch'; did you mean 'dreambench'",
        ),
        (
            lambda v: v["prepared"].update(mine={"set": "dreambnch", "source": "dreambench"}),
            "prepared.mine: no data.sets named 'dreambnch'; did you mean 'dreambench'",
        ),
        (
            lambda v: v["prepared"].update(mine={"set": "dreambench", "source": "dreambench", "sede": 1}),
            "prepared.mine: unknown key 'sede'; did you mean 'seed'",
        ),
        (
            lambda v: v["prepared"]["dreambench-images"].update(source="dreambench-images"),
            "prepared.dreambench-images is made from itself",
        ),
        (lambda v: v.update(assets={"dreambench-images": {"path": "x"}}), "both 'assets' and 'prepared'"),
        (lambda v: v.update(assets={"x": {"url": "https://a.example/b", "files": ["c"]}}), "it must end in '/'"),
    ],
)
def test_what_is_refused_before_anything_runs(change: Change, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        plan_of(change)
    assert "file.yaml" in str(caught.value)


# --- prepared sets in the plan ----------------------------------------------------------------------------------------


def contaminated(ratio: float) -> Change:
    mixed = {"set": "contaminated", "clean": "dreambench-images/train", "harmful": "forget-images/train"}

    def change(values: dict[str, Any]) -> None:
        values["prepared"]["mixed"] = {**mixed, "ratio": ratio}
        values["attacks"]["dreambench"]["train"] = "mixed/train"

    return change


def test_a_prepared_set_is_what_it_is_made_from() -> None:
    plan, mixed, other = plan_of(), plan_of(contaminated(0.2)), plan_of(contaminated(0.4))
    assert mixed.folder("mixed") != other.folder("mixed")
    assert mixed.folder("dreambench-images") == plan.folder("dreambench-images")
    # Another archive is another set, and so is what is made from that.
    repinned = read_catalogue()["dreambench"].model_copy(update={"revision": "0" * 40, "sha256": None})
    own = repinned.model_dump(include={"hub", "revision", "files", "repo_type"}, mode="json")
    moved = plan_of(contaminated(0.2), lambda values: values.update(assets={"dreambench": own}))
    for name in ("dreambench-images", "mixed"):
        assert moved.folder(name) != mixed.folder(name)
    assert moved.folder("diffusiondb-images") == mixed.folder("diffusiondb-images")
    assert set(mixed.unlearn) == set(plan.unlearn)
    assert not set(mixed.attack) >= set(plan.attack)


def test_a_prepared_sets_job_names_its_sources_folders_and_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(contaminated(0.2))
    job = PrepareJob.of(plan, "mixed")
    assert job.set["clean"] == plan.folder("dreambench-images/train")
    assert job.set["ratio"] == 0.2
    markers = {f"{plan.folder(name)}/run.json" for name in ("dreambench-images", "forget-images")}
    assert set(job.inputs()) == markers
    monkeypatch.chdir(tmp_path)
    code = Path(job.code()).read_text()
    assert "src/resalign/data/sets/contaminated.py" in code
    assert "src/resalign/data/sets/dreambench.py" not in code


# --- the doctor -------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESALIGN_ASSET_ROOT", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path


def test_every_missing_asset_is_named_with_its_remedy(empty: Path) -> None:
    plan = plan_of(
        lambda values: values.update(model="sd3-medium", assets={"mine": {"path": "nowhere", "note": "ask us"}}),
        lambda values: values["concept"].update(forget="resalign-train/train", retain="mine"),
    )
    needs = {need.name: need for need in needs_of(plan, {})}
    assert set(needs) == {name for name, asset in plan.experiment.config.assets.items() if asset.origin != "digits"}
    states = {name: need.state for name, need in needs.items()}
    assert states["dreambench"] == "to be fetched"
    assert states["resalign-train"] == "by hand"
    assert "$RESALIGN_ASSET_ROOT/resalign-train/unpinned/" in needs["resalign-train"].remedy
    assert (states["sd3-medium"], states["mine"]) == ("gated", "no 'nowhere'")
    assert "set HF_TOKEN, then" in needs["sd3-medium"].remedy
    assert needs["mine"].remedy == "put it there; ask us"
    assert "0.02 GB, licence: Apache-2.0" in needs["dreambench"].line
    (empty / "mirror" / "resalign-train" / "unpinned").mkdir(parents=True)
    (empty / plan.folder("dreambench")).mkdir(parents=True)
    (empty / plan.folder("dreambench") / "run.json").write_text("{}")
    needs = {
        need.name: need for need in needs_of(plan, {"RESALIGN_ASSET_ROOT": str(empty / "mirror"), "HF_TOKEN": "x"})
    }
    assert (needs["resalign-train"].state, needs["dreambench"].state) == ("in the mirror", "here")
    assert "set HF_TOKEN" not in needs["sd3-medium"].remedy
    assert fetched_names() == ["dreambench"]
    rows = {row[0]: row[1:] for row in table_lines(fetched_names(), {})}
    assert int(rows["resalign/tab1"][1]) == int(rows["resalign/tab1"][0]) - 1
    assert (rows["resalign/tab1"][-1], rows["resalign/tab2"][-1]) == ("", "vggface2-hq")


def test_the_machine_is_held_against_the_experiment(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(lambda values: values.update(model="sd3-medium"))
    monkeypatch.setenv("PATH", str(empty))  # no nvidia-smi
    lines = machine_lines(plan, needs_of(plan, {}), {"RESALIGN_ASSET_ROOT": "nowhere"})
    lacking = [line.removeprefix("LACKING ") for line in lines if line.startswith("LACKING")]
    unset = [line for line in machine_lines(plan, [], {}) if line.startswith("RESALIGN_ASSET_ROOT: not set; ")]
    assert len(unset) == 1
    assert "NAME/REVISION/" in unset[0]
    (disk,) = [line for line in lines if "GB free" in line]
    known, needed = (float(amount) for amount in re.findall(r"([\d.]+) GB (?:are missing|needed)", disk))
    assert needed == pytest.approx(2 * known, abs=0.11)
    assert [line.split(",")[0] for line in lacking] == [
        "a GPU",
        "HF_TOKEN",
        "the folder 'nowhere' that RESALIGN_ASSET_ROOT names",
    ]
    driver = empty / "nvidia-smi"
    for mebibytes, lacks in ((24576, True), (81559, False)):
        driver.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\necho 'NVIDIA A100, {mebibytes}'\n")
        driver.chmod(0o755)
        lines = machine_lines(plan, [], {"HF_TOKEN": "x"})
        assert any(line.startswith("LACKING GPU memory: NVIDIA A100 (26 GB)") for line in lines) == lacks
        assert any(line == "GPU: NVIDIA A100 (86 GB)" for line in lines) != lacks
    assert f"consent given: sensitive ({TERMS['sensitive']})" in lines


def test_the_doctors_command() -> None:
    command = [sys.executable, "scripts/doctor.py", "--configfile", "config/config.yaml"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    named = [asset for asset in plan_of().experiment.config.assets.values() if asset.origin in (*FETCHED, "path")]
    assert finished.stdout.startswith("main table of config/config.yaml: can run")
    assert f"of {len(named)} assets are here" in finished.stdout
    assert re.search(r"^  resalign/tab1 +\d+ +\d+ +[\d.]+ +sensitive$", finished.stdout, flags=re.MULTILINE)
    command[-1] = "config/nothing.yaml"
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stderr[:31]) == (1, "error: config/nothing.yaml: no ")
