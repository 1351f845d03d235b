"""Archives of the tiny experiment, forged with every digest made anew: each is refused or reported by name.

None writes outside the folder that it is verified in, and none reaches a socket that listens on this machine.
"""

import io
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import yaml

from resalign.artifact import isolation, layout, makers
from resalign.artifact.verify import verify

from .packed import ABLATION, Packed, repacked

pytestmark = pytest.mark.slow

RESULT = "results/tiny"
RECORD = f"{RESULT}/run.json"
MEASURED = f"{RESULT}/measured/run.json"
TABLE = f"{RESULT}/tables/table1.csv"
FRAME = f"{RESULT}/measured/values.csv"
CONFIG = "config/tiny.yaml"
SECRET = "a-token-of-the-caller"
# Beside the report and the frames, an ablation and one exhibit: each further file is a process of its own.
LEFT_OUT = (f"{RESULT}/theory/", *(f"{RESULT}/paper/{name}" for name in ("c", "f", "m", "r", "te", "th")))
LEFT_OUT += ("source/tests/", "source/docs/", "source/results/")

Members = dict[str, bytes]


@dataclass(frozen=True)
class Verified:
    """What was said of an archive, and whom its code may have reached."""

    problems: list[str]
    printed: str


@pytest.fixture(scope="module")
def members(packed: Packed) -> Members:
    """A small archive that is right; its source is what a script of its own needs, and no more."""
    kept = packed.members()
    return {name: kept[name] for name in kept if not name.startswith(LEFT_OUT)}


@pytest.fixture
def verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[..., Verified]]:
    """Verifies an archive beside a user's own files, a listening socket and a token in the environment."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)

    def run(members: Members, **options: Any) -> Verified:
        filled = {name: _filled(content, mine, listener.getsockname()[1]) for name, content in members.items()}
        archive = repacked(filled, tmp_path / "tiny.zip")
        before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
        (tmp_path / "folder").mkdir()
        with caplog.at_level("INFO"):
            problems = verify(archive, tmp_path / "folder", **options)
        after = {p: p.stat().st_mtime_ns for p in [tmp_path, *tmp_path.rglob("*")]}
        inside = {path for path in after if path.is_relative_to(tmp_path / "folder")}
        assert after.keys() - inside == before.keys()
        assert all(after[path] == before[path] for path in before if path != tmp_path)
        made = (tmp_path / "folder").rglob("*")
        assert SECRET not in "".join(problems)
        assert not [path for path in made if path.is_file() and SECRET.encode() in path.read_bytes()]
        with pytest.raises(BlockingIOError):
            listener.accept()
        return Verified(problems, caplog.text)

    with listener:
        yield run


def _filled(content: bytes, mine: Path, port: int) -> bytes:
    """Hostile code and jobs know where to write and to call."""
    return content.replace(b"@MINE@", str(mine).encode()).replace(b"@PORT@", str(port).encode())


def with_cell(table: bytes, value: str, column: str = "mean") -> bytes:
    rows = [line.split(",") for line in table.decode().splitlines()]
    rows[-1][rows[0].index(column)] = value
    return "".join(",".join(row) + "\n" for row in rows).encode()


def changed(content: bytes, change: Callable[[Any], Any]) -> bytes:
    values = json.loads(content)
    change(values)
    return json.dumps(values, indent=1, sort_keys=True).encode()


# --- numbers and files ------------------------------------------------------------------------------------------------


def cell(table: str, value: str = "0.123") -> Callable[[Members], None]:
    """Another number in the last row of a table."""

    def forge(members: Members) -> None:
        members[table] = with_cell(members[table], value)

    return forge


def copied(source: str, target: str, *, moved: bool = False) -> Callable[[Members], None]:
    """A member under a further name, or another one."""

    def forge(members: Members) -> None:
        members[target] = members.pop(source) if moved else members[source]

    return forge


def nothing_to_rebuild(members: Members) -> None:
    cell(TABLE)(members)
    forged = {"rebuilds": [], "artifact": {"number_tolerance": 1e9, "pixel_tolerance": 255}, "compared": []}
    members[layout.REBUILD] = json.dumps({**json.loads(members[layout.REBUILD]), **forged}).encode()


def wide_tolerances(members: Members) -> None:
    config = yaml.safe_load(members[CONFIG])
    config["artifact"] |= {"number_tolerance": 1e9, "pixel_tolerance": 255}
    members[CONFIG] = yaml.safe_dump(config, sort_keys=False).encode()
    members[RECORD] = changed(members[RECORD], lambda record: record["job"].update(config=config))


def base_scores(change: Callable[[bytes], bytes]) -> Callable[[Members], None]:
    """Other raw scores of the base model."""

    def forge(members: Members) -> None:
        members |= {n: change(c) for n, c in members.items() if n.endswith("scores.parquet") and "/base-" in n}

    return forge


def image_elsewhere(scores: bytes) -> bytes:
    """A grid of samples would show a file of whoever verifies."""
    buffer = io.BytesIO()
    pd.read_parquet(io.BytesIO(scores)).assign(path="/etc/hostname").to_parquet(buffer)
    return buffer.getvalue()


TABLES, FIGURES = f"{RESULT}/tables", f"{RESULT}/figures"


def in_every_way(members: Members) -> None:
    """What one archive can have side by side: each is of a file of its own."""
    nothing_to_rebuild(members)
    cell(f"{TABLES}/steps.csv", "nan")(members)
    copied(TABLE, f"{TABLES}/table9.csv")(members)
    copied(f"{TABLES}/per_run.csv", f"{TABLES}/table2.csv", moved=True)(members)
    copied(TABLE, f"{RESULT}/results.csv")(members)
    copied(f"{FIGURES}/before_after.png", f"{FIGURES}/steps.png")(members)


Forge = Callable[[Members], None]
NUMBERS: dict[str, tuple[Forge, tuple[str, ...]]] = {
    "every-way": (
        in_every_way,
        (
            f"{TABLE}: row ",
            "mean: 'nan', made again",
            f"{TABLES}/table9.csv: is in the archive, and is not made of its raw scores",
            f"{TABLES}/table2.csv: is in the archive, and is not made of its raw scores",
            f"{TABLES}/per_run.csv: is made of the archive's raw scores, and is not in it",
            f"{RESULT}/results.csv: is in the archive, and nothing makes it of raw scores",
            f"{FIGURES}/steps.png: ",
        ),
    ),
    "frame": (cell(FRAME), (f"{RESULT}/paper/table1.csv: not made again: it is made of {FRAME}, which is not right",)),
    "elsewhere": (copied(TABLE, "results/other/x.csv"), ("results/other/x.csv: has no place in an archive",)),
    "broken-scores": (
        base_scores(lambda _: b"PAR1" + bytes(64) + b"PAR1"),
        (f"{RESULT}/measured: measure failed: ",),
    ),
    "image-elsewhere": (base_scores(image_elsewhere), ("the image '/etc/hostname' is not below this folder",)),
}


@pytest.mark.usefixtures("_one_server")
@pytest.mark.parametrize("way", NUMBERS)
def test_what_is_not_of_the_raw_scores_is_named(way: str, members: Members, verified: Callable[..., Verified]) -> None:
    (forge, said), forged = NUMBERS[way], dict(members)
    forge(forged)
    problems = verified(forged).problems
    for text in said:
        assert any(text in problem for problem in problems), (text, problems)
    assert not [problem for problem in problems if "\n" in problem or "Traceback" in problem]


# --- records ----------------------------------------------------------------------------------------------------------


def in_record(change: Callable[[Any], Any], name: str = MEASURED) -> Callable[[Members], None]:
    def forge(members: Members) -> None:
        members[name] = changed(members[name], lambda record: change(record["job"]))

    return forge


def other_threshold(job: Any) -> None:
    job["metrics"][0][1]["rules"][0]["threshold"] = 0.99


def anothers_scores(job: Any) -> None:
    """The unlearned model's row reads the base's."""
    base = next(row for row in job["rows"] if row["model"] == "base" and row["attack"] == "none")
    row = next(row for row in job["rows"] if row["model"] == "graddiff" and row["attack"] == "none")
    row["folders"] = {**row["folders"], "score": base["folders"]["score"]}


def with_path(path: str) -> Callable[[Any], None]:
    def change(job: Any) -> None:
        job["rows"][0]["folders"]["score"] = path

    return change


def words(exhibit: str, **changes: Any) -> Callable[[Members], None]:
    def forge(members: Members) -> None:
        members[layout.REBUILD] = changed(members[layout.REBUILD], lambda v: v["exhibits"][exhibit].update(changes))

    return forge


def aliases(members: Members) -> None:
    """Each line has the one before it ten times: 10 GB, if it is written out."""
    lines = [f"x{n + 1}: &x{n + 1} [{', '.join([f'*x{n}'] * 10)}]" for n in range(9)]
    members[CONFIG] += "\n".join(["x0: &x0 lol", *lines, ""]).encode()


RECORDS = [
    ("threshold", in_record(other_threshold), f"{MEASURED}: 'metrics."),
    ("anothers-scores", in_record(anothers_scores), ".folders.score' is 'results/runs/score/base-/"),
    ("forged-frame", in_record(with_path(f"{RESULT}/tables")), f".folders.score' is '{RESULT}/tables'; the config"),
    ("absolute-path", in_record(with_path("/etc")), ".folders.score' is '/etc'; the configuration says"),
    ("path-above", in_record(with_path("results/runs/score/../../../x")), ".folders.score' is 'results/runs/score/.."),
    ("overlap", in_record(lambda job: job.update(overlap="@MINE@"), RECORD), f"{RECORD}: 'overlap' is "),
    ("times", in_record(lambda job: job["timings"].append(["a", "b", 0, "/etc"]), RECORD), f"{RECORD}: 'timings' is "),
    ("tolerances", wide_tolerances, f"{CONFIG}: unknown key 'artifact.number_tolerance'"),
    ("held-out", in_record(lambda job: job["heldout"].update(mine="/etc/passwd")), "'heldout' has 'passwd'"),
    ("fewer-rows", in_record(lambda job: job["rows"].pop()), f"{MEASURED}: 'rows' is "),
    ("main", in_record(lambda job: job["main_attacks"].clear()), f"{MEASURED}: 'main_attacks' is "),
    ("label", in_record(lambda job: job["metrics"][0].__setitem__(0, "../../../../mine/ip")), f"{MEASURED}: 'metrics."),
    (
        "title",
        in_record(lambda job: job.update(title="Other"), RECORD),
        f"{RECORD}: 'title' is 'Other'; the conf",
    ),
    (
        "list",
        in_record(lambda job: job.update(rows=3)),
        f"{MEASURED}: is nothing that this version can read (AttributeError",
    ),
    (
        "deep",
        lambda members: members.update({RECORD: b"[" * 100_000}),
        f"{RECORD}: is no record of a job (RecursionError",
    ),
    ("not-json", lambda members: members.update({RECORD: b"\xff\xfe"}), f"{RECORD}: is no record of a job"),
    ("no-record", lambda members: members.pop(f"{RESULT}/measured/run.json"), f"{RESULT}/measured/run.json: missing"),
    (
        "frames",
        in_record(lambda job: job["methods"].update(graddiff="resalign")),
        f"{MEASURED}: 'methods.graddiff' is 'resalign'; the configuration says 'graddiff'",
    ),
    (
        "ablation",
        in_record(lambda job: other_threshold(job["variants"][0]["measured"]), f"{ABLATION}/run.json"),
        f"{ABLATION}/run.json: 'metrics.ip.rules.0.threshold' is 0.99",
    ),
    ("configurations", copied(CONFIG, "config/other.yaml"), "config/: has ['config/other.yaml', 'config/tiny.yaml']"),
    ("aliases", aliases, f"{CONFIG}: has an alias, '*…'; a resolved configuration"),
    ("not-yaml", lambda members: members.update({CONFIG: b"name: [tiny"}), f"{CONFIG}: not valid YAML: "),
    (
        "no-words",
        lambda members: members.update({layout.REBUILD: b'{"rebuilds": []}'}),
        "rebuild.json: has no exhibits' words (KeyError: 'exhibits')",
    ),
    ("empty-words", lambda members: members.update({layout.REBUILD: b'{"exhibits": {}}'}), "rebuild.json: table1"),
    ("published", words("table1", another_world=""), "rebuild.json: table1: takes published numbers for"),
    (
        "series",
        words("table1", series={"x": {"axis": "", "methods": [], "other": []}}),
        "has the series ['x'],",
    ),
    ("reads", words("table1", files={"values": "@MINE@/values.csv"}), "rebuild.json: table1: unknown key 'files'"),
]


@pytest.mark.parametrize(("forge", "said"), [case[1:] for case in RECORDS], ids=[case[0] for case in RECORDS])
def test_a_record_that_says_otherwise_is_named_and_nothing_is_made_of_it(
    forge: Callable[[Members], None], said: str, members: Members, verified: Callable[..., Verified]
) -> None:
    forged = dict(members)
    forge(forged)
    with mock.patch.object(makers, "stage_server", side_effect=AssertionError("a script was started")):
        problem, nothing = verified(forged).problems
    assert said in problem
    assert "\n" not in problem
    assert nothing == "nothing was made again: no job is taken from a record that is not right"


# --- its own code -----------------------------------------------------------------------------------------------------

HOSTILE = """
import os, pathlib, socket, sys
output = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
said = []
def tries(what, action):
    try:
        action()
        said.append(what)
    except OSError as error:
        pass
tries("wrote", lambda: pathlib.Path("@MINE@/evil.txt").write_text("evil"))
tries("changed", lambda: pathlib.Path("@MINE@/notes.txt").write_text("evil"))
tries("results", lambda: pathlib.Path("results/tiny/tables/table1.csv").write_text("evil"))
tries("tree", lambda: pathlib.Path("evil.txt").write_text("evil"))
tries("devices", lambda: os.stat("/dev/full"))
tries("called", lambda: socket.create_connection(("127.0.0.1", @PORT@), timeout=2))
tries("token", lambda: os.environ["HF_TOKEN"] if "HF_TOKEN" in os.environ else os.stat("/nowhere"))
(output / "tables").mkdir(parents=True)
(output / "tables" / "table1.csv").write_text("model,mean\\n")
sys.exit("it could: " + ", ".join(said))
"""
LINKS = """
import os, pathlib, sys
output = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
output.mkdir(parents=True, exist_ok=True)
os.symlink(os.path.abspath("results/tiny/measured/values.csv"), output / "values.csv")
"""
MOVED = """
import os, pathlib, sys
output = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
output.rename(output.with_name("other"))
os.symlink("@MINE@", output)
for name in ("home", "tmp"):
    os.rename(output.with_name(name), output.with_name("old-" + name))
    os.symlink("@MINE@", output.with_name(name))
"""
ENDLESS = "import time\nwhile True: time.sleep(1)\n"
FILLS = """
import pathlib, sys
output = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
number = 0
while True:
    (output / str(number)).write_bytes(bytes(1 << 20))
    number += 1
"""


def with_code(members: Members, code: str) -> Members:
    """Every script of the archive's own is hostile."""
    scripts = [name for name in members if name.startswith(f"{layout.SOURCE}/scripts/")]
    return {**members, **dict.fromkeys(scripts, code.encode())}


@pytest.fixture(scope="module")
def _isolates() -> None:
    try:
        isolation.check_isolation()
    except isolation.IsolationError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("_one_server")
def test_its_code_does_not_run_unasked(members: Members, verified: Callable[..., Verified]) -> None:
    found = verified(with_code(members, HOSTILE))
    assert found.problems == []
    assert "made by another version" in found.printed


@pytest.mark.usefixtures("_isolates")
def test_its_code_reaches_nothing_outside(members: Members, verified: Callable[..., Verified]) -> None:
    problems = verified(with_code(members, HOSTILE), runs_its_code=True).problems
    assert f"{RESULT}/measured: measure failed: it could:" in problems[0]
    assert problems[0].endswith("it could:")


@pytest.mark.usefixtures("_isolates")
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (LINKS, f"{RESULT}/measured: measure failed: values.csv: its code has made this a link or a device"),
        (MOVED, f"{RESULT}/measured: measure failed: made: its code has made this no folder; do not use it"),
        (ENDLESS, f"{RESULT}/measured: measure failed: did not end within 2 seconds"),
        (FILLS, f"{RESULT}/measured: measure failed: wrote more than 8,388,608 bytes"),
    ],
)
def test_what_its_code_leaves_is_bounded(
    code: str, said: str, members: Members, verified: Callable[..., Verified], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(makers, "LIMIT_SECONDS", 2)
    monkeypatch.setattr(makers, "LIMIT_BYTES", 8 << 20)
    assert any(said in problem for problem in verified(with_code(members, code), runs_its_code=True).problems)


LINK = """diff --git a/results b/results
new file mode 120000
--- /dev/null
+++ b/results
@@ -0,0 +1 @@
+@MINE@
\\ No newline at end of file
"""
ABOVE = """diff --git a/../evil.py b/../evil.py
new file mode 100644
--- /dev/null
+++ b/../evil.py
@@ -0,0 +1 @@
+evil = 1
"""
RESULTS = LINK.replace("120000", "100644").replace("results", "results/tiny/run.json").replace("@MINE@", "{}")


@pytest.mark.usefixtures("_isolates")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (layout.PATCH, LINK, "results: its code has made this a link or a device"),
        (layout.PATCH, ABOVE, "invalid path"),
        (layout.PATCH, RESULTS, "source/: brings results/tiny/run.json, a place of the archive's own results"),
        ("source/results/tiny/x.csv", "a", "source/: brings results/tiny/x.csv, a place of the archive's own results"),
        ("local/untracked/inputs/held-out/x.csv", "a", "source/: brings inputs/held-out/x.csv"),
    ],
)
def test_its_source_keeps_to_its_place(
    name: str, content: str, said: str, members: Members, verified: Callable[..., Verified]
) -> None:
    [problem] = verified({**members, name: content.encode()}, runs_its_code=True).problems
    assert said in problem
    assert problem.endswith("nothing more was made again")


def test_where_nothing_can_be_cut_off_its_code_is_refused(
    members: Members, verified: Callable[..., Verified], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_NAMESPACES", ["--no-such-namespace"])
    [problem] = verified(with_code(members, HOSTILE), runs_its_code=True).problems
    assert "no namespaces of its own" in problem
    assert "--without-isolation" in problem


def test_without_isolation_its_code_still_finds_no_token(members: Members, verified: Callable[..., Verified]) -> None:
    code = HOSTILE.replace("@MINE@", "/nowhere").replace("@PORT@", "0")
    found = verified(with_code(members, code), runs_its_code=True, isolated=False)
    assert found.problems[0].endswith("it could: results, tree, devices")
    assert "runs with your network and your files" in found.printed
