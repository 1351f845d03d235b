"""A tiny experiment, run by its real stages, packed, handed on and verified."""

import csv
import json
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from resalign.artifact import layout
from resalign.artifact.layout import PROVENANCE
from resalign.artifact.verify import verify
from resalign.config.plan import Plan
from resalign.config.strict import ConfigError
from resalign.hashes import Entry
from resalign.jobs import ablation as ablation_jobs

from .packed import ABLATION, CHANGES, PAPER, Packed, declared, repacked

pytestmark = pytest.mark.slow  # the experiment that is packed takes a minute, once for all of them

TERMS = Path(__file__).parents[1] / "artifact" / "ro-crate-1.1-terms.json"
RO_CRATE = "https://w3id.org/ro/crate/1.1/context"


def without_exhibits(members: dict[str, bytes], *but: str) -> dict[str, bytes]:
    """The archive without all but some exhibits: each file is a process of its own."""
    return {name: c for name, c in members.items() if not name.startswith(PAPER) or Path(name).stem in but}


def test_two_packings_of_one_tree_are_equal_to_the_byte(packed: Packed) -> None:
    other = packed.again("results/tiny/artifact/again")
    assert other.archive.read_bytes() == packed.archive.read_bytes()


def test_a_growing_untracked_file_changes_nothing_and_is_named(
    packed: Packed, clone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("growing.log", ".env"):
        (clone / name).write_text("API_" + "KEY=0123456789abcdef")
    try:
        with caplog.at_level("INFO"):
            other = packed.again("results/tiny/artifact/beside")
    finally:
        for name in ("growing.log", ".env"):
            (clone / name).unlink()
    assert other.archive.read_bytes() == packed.archive.read_bytes()
    assert "left out, as git does not track it and no run reads it: .env, growing.log" in caplog.messages
    [scores] = [line for line in caplog.messages if line.startswith("packed: results/tiny/")]
    assert scores.endswith(" bytes")


def test_a_secret_in_a_run_s_own_folders_stops_it(packed: Packed, clone: Path) -> None:
    mine = clone / "config" / "mine.yaml"
    mine.write_text("title: mine\nnote: gh" + "p_abcdefghijklmnopqrstuvwxyz0123456789\n")
    try:
        with pytest.raises(ConfigError, match=r"config/mine\.yaml, line 2 \(a GitHub token\)\. Remove it, or have git"):
            packed.again("results/tiny/artifact/secret")
    finally:
        mine.unlink()
    assert not (packed.workshop.folder / "results/tiny/artifact/secret/tiny.zip").exists()


def test_it_is_verified_elsewhere(packed: Packed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert verify(packed.archive, tmp_path) == []
    assert "GB unpacked" in caplog.text
    assert "made by another version" not in caplog.text
    made = [line for line in caplog.messages if "equal to the byte" in line]
    count = len([name for name in packed.members() if name.startswith(("results/tiny/tables", "results/tiny/figures"))])
    assert f"results/tiny: {count} of {count} files are equal to the byte" in made
    assert f"{ABLATION}: 3 of 3 files are equal to the byte" in made
    of_exhibits = [line.partition(": ")[2].split()[0] for line in made if line.startswith("results/tiny/paper: ")]
    assert sum(map(int, of_exhibits)) == len([name for name in packed.members() if name.startswith(PAPER)])


@pytest.mark.usefixtures("_one_server")
def test_a_forged_number_is_named_by_its_row(packed: Packed, tmp_path: Path) -> None:
    members = packed.members()
    table = members["results/tiny/tables/table1.csv"]
    assert isinstance(table, bytes)
    header, first, *rest = table.decode().splitlines()
    value = header.split(",").index("mean")
    cells = first.split(",")
    cells[value] = "0.123"
    members["results/tiny/tables/table1.csv"] = "\n".join([header, ",".join(cells), *rest, ""]).encode()
    ablation, theory = f"{ABLATION}/values.csv", "results/tiny/theory/slices.csv"
    for name in (ablation, theory):
        members[name] = with_last_mean(bytes(members[name]).decode(), "0.123").encode()  # type: ignore[arg-type]
    problems = verify(repacked(without_exhibits(members), tmp_path / "tiny.zip"), tmp_path / "folder")
    assert [problem.partition(":")[0] for problem in problems] == ["results/tiny/tables/table1.csv", ablation, theory]
    assert problems[0].startswith("results/tiny/tables/table1.csv: row 1 (")
    assert all("mean: '0.123', made again" in problem for problem in problems)


def with_last_mean(table: str, value: str) -> str:
    rows = [line.split(",") for line in table.splitlines()]
    rows[-1][rows[0].index("mean")] = value
    return "".join(",".join(row) + "\n" for row in rows)


def test_times_are_of_the_job_that_made_a_file_and_of_every_run_once(packed: Packed) -> None:
    members = packed.members()
    rows = list(csv.DictReader(bytes(members[layout.TIMES]).decode().splitlines()))  # type: ignore[arg-type]
    times = {row["file"].removeprefix(PROVENANCE): row for row in rows}
    seconds = {Path(name).parent: seconds_of(members[name]) for name in members if name.endswith(layout.TIMING)}
    report, ablation = (seconds[Path(PROVENANCE, folder)] for folder in ("results/tiny", ABLATION))
    assert float(times["results/tiny/tables/table1.csv"]["seconds"]) == pytest.approx(report, abs=0.06)
    assert float(times[f"{ABLATION}/values.csv"]["seconds"]) == pytest.approx(ablation, abs=0.06)
    runs = [value for folder, value in seconds.items() if not folder.is_relative_to(f"{PROVENANCE}results/tiny")]
    behind = {float(row["seconds_of_all_runs_behind_the_results"]) for row in rows}
    assert list(behind) == [pytest.approx(sum(runs), abs=0.06)]


def seconds_of(content: bytes | Path) -> float:
    found = json.loads(bytes(content))  # type: ignore[arg-type]
    return float(found["seconds"] + found["start_seconds"])


def test_what_is_in_it(packed: Packed) -> None:
    members = packed.members()
    score = next(iter(packed.plan.score.values()))
    assert f"{score.folder(0)}/{packed.plan.tier}/scores.parquet" in members
    assert f"{PROVENANCE}{score.folder(0)}/{packed.plan.tier}/timing.json" in members
    assert f"{layout.SOURCE}/scripts/report.py" in members
    assert f"{layout.SOURCE}/envs/requirements.lock" in members
    assert not [name for name in members if name.endswith(".safetensors")]
    assert not [name for name in members if "/images/" in name]
    page = members[layout.PAGE]
    assert isinstance(page, bytes)
    assert b"data:image/" not in page
    assets = json.loads(bytes(members[layout.ASSETS]))  # type: ignore[arg-type]
    assert {"model", "images", "net"} <= set(assets)
    assert all("licence" in asset and asset["sha256_of_sha256sums"] for asset in assets.values())
    readme = bytes(members[layout.README]).decode()  # type: ignore[arg-type]
    for name in members:
        if name.startswith(("results/tiny/tables/", "results/tiny/figures/")):
            assert f"[{name}]({name})" in readme


@pytest.mark.usefixtures("_one_server")
def test_weights_and_images_are_packed_when_asked_for(
    packed: Packed, tiny_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = tiny_plan(**CHANGES, artifact={"weights": True, "images": True})
    full = packed.again("results/tiny/artifact/full", plan)
    members = full.members()
    assert len([name for name in members if name.endswith("weights.safetensors")]) == len(plan.unlearn)
    assert [name for name in members if name.endswith(".png") and "/images/" in name]
    pictures = {"results/tiny/figures/samples.png", "results/tiny/paper/figure3.png"}
    assert pictures <= set(members)
    assert not pictures & set(packed.members())
    short = without_exhibits(members, "figure3")
    assert verify(repacked(short, tmp_path / "tiny.zip"), tmp_path / "folder") == []


def test_only_declared_files_are_packed(packed: Packed) -> None:
    place, members = packed.workshop, packed.members()
    undeclared = ("results/tiny/tables/old.csv", "results/tiny/audit/audit.csv", "results/tiny/paper/old.csv")
    undeclared += ("results/tiny/figures/.snakemake_timestamp",)
    undeclared += ("results/tiny/ablations/other/values.csv", "logs/study/tiny.log", "logs/ablations/tiny.other.log")
    for name in undeclared:
        (place.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (place.folder / name).write_text("stale")
    (place.folder / "logs/ablations/tiny.gamma.log").write_text("a log of its own")
    found = packed.again("results/tiny/artifact/declared").members()
    assert set(found) - set(members) == {f"{PROVENANCE}logs/ablations/tiny.gamma.log"}
    assert set(members) <= set(found)
    for name in (*undeclared, "logs/ablations/tiny.gamma.log"):
        (place.folder / name).unlink()


def test_raw_scores_of_an_ablations_own_runs_are_packed(packed: Packed) -> None:
    own = {stage.run for stage in packed.plan.score.values()}
    with chdir(packed.workshop.folder):
        files = ablation_jobs.AblationJob.of(declared(packed.plan), "gamma").inputs()
    added = [name for name in files if "/score/" in name and name.split("/")[3] not in own]
    assert len(added) == 1
    assert {file for file in files if file.startswith("results/runs/")} <= set(packed.members())


def test_every_reference_of_the_crate_leads_somewhere(packed: Packed) -> None:
    members = packed.members()
    crate = json.loads(bytes(members[layout.CRATE]))  # type: ignore[arg-type]
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    terms = {*json.loads(TERMS.read_text())["@context"], "sha256", "@id", "@type"}

    def references(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(references, value))
        return {value["@id"]} if isinstance(value, dict) else set()

    for entity in entities.values():
        types = entity["@type"] if isinstance(entity["@type"], list) else [entity["@type"]]
        assert {*entity, *types} <= terms
        for key, value in entity.items():
            assert all(found in entities for found in references(value) if not found.startswith("http")), (entity, key)
        if "File" in types:
            content = members[entity["@id"]]
            assert entity["sha256"] == Entry.of(content).sha256
            assert entity["contentSize"] == str(Entry.of(content).size_bytes)


def keep_context(cache: Path) -> None:
    """Puts the context, as far as the crate uses it, where the validator keeps what it has fetched: no network here."""
    import io

    import requests
    import urllib3
    from requests_cache import CachedSession

    class Local(requests.adapters.HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
            body, headers = io.BytesIO(TERMS.read_bytes()), {"Content-Type": "application/ld+json"}
            raw = urllib3.HTTPResponse(body, headers, 200, preload_content=False, request_url=request.url)
            return self.build_response(request, raw)

    with CachedSession(str(cache), backend="sqlite", expire_after=-1) as session:
        session.mount("https://", Local())
        assert session.get(RO_CRATE).json()["@context"]


@pytest.mark.filterwarnings("ignore")
def test_an_independent_validator_finds_nothing(packed: Packed, tmp_path: Path) -> None:
    services = pytest.importorskip("rocrate_validator.services", reason="pip install roc-validator")
    from rocrate_validator.models import Severity, ValidationSettings

    keep_context(tmp_path / "cache")
    crate = tmp_path / "crate"
    for name, content in packed.members().items():
        (crate / name).parent.mkdir(parents=True, exist_ok=True)
        (crate / name).write_bytes(bytes(content))  # type: ignore[arg-type]

    def issues() -> list[str]:
        settings = ValidationSettings(
            rocrate_uri=str(crate),
            profile_identifier="workflow-run-crate-0.5",
            requirement_severity=Severity.REQUIRED,
            offline=True,
            cache_path=tmp_path / "cache",
            abort_on_first=False,
        )
        return [f"{issue.check.identifier}: {issue.message}" for issue in services.validate(settings).get_issues()]

    assert issues() == []
    # And it would find something.
    values = json.loads((crate / layout.CRATE).read_text())
    next(entity for entity in values["@graph"] if entity["@id"] == "#run").pop("instrument")
    (crate / layout.CRATE).write_text(json.dumps(values))
    assert any("instrument" in issue for issue in issues())
