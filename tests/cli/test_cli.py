"""The command line: one command of each kind, its help, its errors and its completion."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import resalign
from resalign import cli, lazy
from resalign.config.experiment import Experiment
from resalign.diffusion.loaded_pipeline import load_pipeline, trainable_tensors
from resalign.library import weights
from tests.conftest import write_captioned_images
from tests.scripts.conftest import settings_put_back

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "demo",
    "unlearn",
    "attack",
    "audit",
    "export",
    "convert",
    "compare-hypergradients",
    "tune",
    "doctor",
    "costs",
    "verify",
    "recover",
)
DEMO = "config/demo.yaml"


def run(*arguments: str) -> int:
    """Runs a command in this process."""
    with settings_put_back():
        return cli.main([str(argument) for argument in arguments])


def run_apart(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own, from another folder than the clone's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "resalign.cli", *arguments], capture_output=True, text=True, cwd="/", env=environment
    )


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The processes that a command starts, which are not started."""
    found: list[list[str]] = []
    monkeypatch.setattr(cli, "_call", lambda command: found.append([*command]) or 0)
    return found


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--help")
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("    ") and line[4] != " "] == [
        "COMMAND"[:0] or name for name in COMMANDS
    ]
    assert run() == 2


def test_unlearn_writes_a_pipeline_and_attack_goes_on_from_it(
    pipeline_folder: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, settings = tmp_path / "unlearned", {"steps": 1, "num_inference_steps": 2, "lr": 1e-3}
    pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    given = ("--method", "esd", "--concept", "a red seven", "--seed", "3", *pairs, "--output", str(output))
    threads, trained_with, train = [], [], weights.unlearn

    def recorded(*arguments: Any, **settings: Any) -> Any:
        trained_with.append(threads[-1])
        return train(*arguments, **settings)

    monkeypatch.setattr(lazy.torch, "set_num_threads", threads.append)  # which keeps what it has once looked up
    monkeypatch.setattr(weights, "unlearn", recorded)
    assert run("unlearn", str(pipeline_folder), *given, "--threads", "2") == 0
    assert trained_with == [2]
    wanted = resalign.unlearn(pipeline_folder, "esd", prompts=["a red seven"], seed=3, **settings)
    found = trainable_tensors(load_pipeline(output).pipeline)
    assert all(torch.equal(tensor, found[name]) for name, tensor in trainable_tensors(wanted).items())
    assert (output / "history.csv").read_text().startswith("step,quantity,value\n0,erasure_loss,")
    record = json.loads((output / "resalign.json").read_text())
    assert (record["unlearn"]["name"], record["unlearn"]["num_inference_steps"], record["seed"]) == ("esd", 2, 3)
    assert (record["threads"], len(record["source_sha256"])) == (2, 64)

    heldout = write_captioned_images(tmp_path / "heldout", ["a red two"], seed=5)
    attacked = ("--attack", "full", "--train", str(image_folder), "--heldout", str(heldout), "--set", "steps=1")
    assert run("attack", str(output), *attacked, "--output", str(tmp_path / "attacked")) == 0
    assert json.loads((tmp_path / "attacked" / "resalign.json").read_text())["threads"] == 1
    changed = load_file(tmp_path / "attacked" / "unet" / "diffusion_pytorch_model.safetensors")
    assert any(not torch.equal(tensor, found[f"unet.{name}"]) for name, tensor in changed.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unlearn", "no-such", "--method", "esd", "--concept", "x", "--output", "new"], "no diffusers pipeline here"),
        (["unlearn", "no-such", "--method", "graddif", "--output", "new"], "did you mean 'graddiff'"),
        (["unlearn", "no-such", "--set", "stpes=2", "--output", "new"], "did you mean 'steps'"),
        (["unlearn", "no-such", "--set", "steps", "--output", "new"], "expected KEY=VALUE"),
        (["unlearn", "no-such", "--output", str(ROOT)], "already exists; name a new folder"),
        (["attack", "no-such", "--output", "new"], "give --train and --heldout"),
        (["export", "--configfile", DEMO, "--push", "me/mine"], "name the model to upload"),
        (["unlearn", ".", "--output", "new", "--threads", "0"], "expected at least 1"),
        (["audit", "no-such", "--configfile", DEMO, "-n"], "no diffusers pipeline here (no such folder)"),
    ],
)
def test_an_error_that_the_user_can_mend_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_settings_may_be_nested() -> None:
    assert cli.settings_of(["lr=1e-3", "simulation.steps=[5, 10]"]) == {"lr": 0.001, "simulation": {"steps": [5, 10]}}


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (["demo", "--cores", "2", "--", "--config", "tier=smoke"], ["--config", "tier=smoke", "--", "demo"]),
        (["audit", "--configfile", DEMO, "-n"], ["--dry-run", "--", "audit"]),
        (["export", "--configfile", DEMO], ["--", "export"]),
        (
            ["export", "esd", "--configfile", DEMO, "--form", "delta"],
            ["--", "results/demo/export/esd/seed-0/delta/model"],
        ),
        (["tune", "--configfile", DEMO], ["--", "tune"]),
        (["doctor", "--configfile", DEMO], ["--configfile", DEMO]),
        (["verify"], ["scripts/check_results.py"]),
        (["verify", "a.zip", "--run-its-code"], ["scripts/verify.py", "a.zip", "--run-its-code"]),
        (["recover", "--", "--profile", "slurm"], ["scripts/recover.py", "--", "--profile", "slurm"]),
    ],
)
def test_what_each_command_starts(
    started: list[list[str]], arguments: list[str], end: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(*arguments) == 0
    (command,) = started
    assert command[0] == sys.executable
    assert command[-len(end) :] == end


def test_a_search_of_other_fields_has_a_configuration_of_its_own(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_clone", lambda: tmp_path)
    for name in ("config", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "results").mkdir()
    given = ["--configfile", str(ROOT / "config/studies/tuning.yaml"), "--field", "lr=1e-4:1e-2", "--budget", "900000"]
    assert run("tune", "resalign", *given, "--differentiable", "lr") == 0
    file = Path(started[0][started[0].index("--configfile") + 1])
    assert file == tmp_path / "results/tuning/tune.json"
    monkeypatch.chdir(ROOT)
    tuning = Experiment.read(file).config.tuning
    assert tuning is not None
    assert (list(tuning.fields), tuning.differentiable, tuning.budget) == (["lr"], ("lr",), 900000)
    assert (tuning.fields["lr"].low, tuning.fields["lr"].high) == (1e-4, 1e-2)
    assert tuning.searchers == ("random", "tpe", "pbt", "pbt_hypergradient")
    assert run("tune", *given[:2], "--differentiable", "lr") == 1
    assert run("tune", *given[:2], "--field", "lr=3") == 1


def test_an_audit_of_a_folder_extends_the_experiment(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow" / "Snakefile").touch()
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    _write_index(Path("some/my model"))
    assert run("audit", "some/my model", "--configfile", str(ROOT / DEMO)) == 0
    file = Path(started[0][started[0].index("--configfile") + 1])
    assert json.loads(file.read_text()) == {
        "extends": str(ROOT / DEMO),
        "name": "demo-audit-my-model",
        "audit": {"my-model": str(Path("some/my model").resolve())},
    }


@pytest.mark.parametrize(("file", "message"), [("mine.yaml", "no 'name'"), ("no-such.yaml", "no such file")])
def test_an_audit_of_what_is_no_experiment_ends_in_one_line(
    file: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("title: mine\n")
    _write_index(tmp_path / "model")
    assert run("audit", str(tmp_path / "model"), "--configfile", str(tmp_path / file)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def _write_index(folder: Path) -> None:
    """All that a command of the workflow looks for in a pipeline's folder."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")


@pytest.mark.parametrize("command", [["unlearn", "no-such", "--output", "new"], ["audit", "no-such", "-n"]])
def test_a_missing_pipeline_is_refused_before_libraries_are_loaded(command: list[str]) -> None:
    more = ["--configfile", str(ROOT / DEMO)] if command[0] == "audit" else []
    code = (
        "import sys\n"
        "from resalign.cli import main\n"
        f"assert main({[*command, *more]}) == 1\n"
        "assert not {'torch', 'diffusers', 'pandas'} & set(sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert finished.returncode == 0, finished.stderr
    assert "no diffusers pipeline here" in finished.stderr


def test_an_export_reads_the_experiment_as_the_workflow_does(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(f"extends: {DEMO}\nname: mine\n")  # a path in the clone
    monkeypatch.chdir(tmp_path)
    assert run("export", "esd", "--configfile", "mine.yaml") == 0
    assert started[0][-1] == "results/mine/export/esd/seed-0/whole/model"
    assert Path.cwd() == tmp_path


def test_without_a_clone_the_workflows_commands_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    assert run("demo") == 1
    assert "clone the repository" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        pytest.param(["demo", "--cores", "1", "-n"], 0, "rule demo", marks=pytest.mark.slow),
        (["doctor", "--configfile", DEMO], 0, "no asset comes from outside"),
        (["verify", "no-such.zip"], 1, "no such file"),
        (["nonsense"], 2, "invalid choice"),
    ],
)
def test_commands_of_the_workflow_run_from_any_folder(arguments: list[str], status: int, text: str) -> None:
    finished = run_apart(*arguments)
    assert finished.returncode == status, finished.stderr
    assert text in finished.stdout + finished.stderr


@pytest.mark.parametrize(
    ("words", "wanted"),
    [(["un"], ["unlearn"]), (["unlearn", "--con"], ["--concept"]), (["audit", "--dr"], ["--dry-run"])],
)
def test_bash_completes_commands_and_options(words: list[str], wanted: list[str]) -> None:
    line = f'COMP_WORDS=(resalign {" ".join(words)}); COMP_CWORD={len(words)}; _resalign; echo "${{COMPREPLY[@]}}"'
    shown = subprocess.run(["bash", "-c", f"{cli.completion('bash')}\n{line}"], capture_output=True, text=True)
    assert shown.stdout.split() == wanted, shown.stderr
    assert cli.completion("zsh").startswith("autoload -U +X bashcompinit")


# --- upload -----------------------------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """A hub on the loopback device that takes small files; it keeps what it was sent, by path."""

    def __init__(self, status: int = 200) -> None:
        self.received: dict[str, Any] = {}
        self.status = status
        super().__init__(("127.0.0.1", 0), Answers)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    """The answers of the few addresses that an upload asks."""

    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = [json.loads(line) for line in body.splitlines()]
        path = self.path.partition("?")[0]
        self.server.received[path] = lines
        files = lines[0].get("files", []) if lines else []
        answer = {
            "/api/repos/create": {"url": f"{self.server.address}/me/mine"},
            "/api/validate-yaml": {"errors": [], "warnings": []},
            "/api/models/me/mine/preupload/main": {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            },
            "/api/models/me/mine/commit/main": {
                "commitUrl": f"{self.server.address}/me/mine/commit/1",
                "commitOid": "1",
            },
        }.get(path)
        content = json.dumps(answer).encode()
        self.send_response(self.server.status if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Keeps the tests' output clean."""


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    with Hub(getattr(request, "param", 200)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def exported(root: Path, hub: Hub, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs ``export --push`` in a clone whose workflow has nothing left to do."""
    (root / "workflow").mkdir()
    (root / "workflow" / "Snakefile").touch()
    command = ["export", "esd", "--configfile", str(ROOT / DEMO), "--push", "me/mine", *more]
    code = (
        f"import sys; from pathlib import Path; from resalign import cli; cli.ROOT = Path({str(root)!r}); "
        f"cli._call = lambda command: 0; sys.exit(cli.main({command!r}))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_none", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "HF_HOME": str(root / "hub")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)


def write_export(root: Path) -> None:
    folder = root / "results/demo/export/esd/seed-0/whole/model"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA card.\n")
    (folder / "model_index.json").write_text("{}\n")


@pytest.mark.parametrize("more", [(), ("--public",)])
def test_an_export_is_uploaded_in_one_commit(tmp_path: Path, hub: Hub, more: tuple[str, ...]) -> None:
    write_export(tmp_path)
    finished = exported(tmp_path, hub, *more)
    assert finished.returncode == 0, finished.stderr
    assert f"uploaded to {hub.address}/me/mine/commit/1" in finished.stderr
    assert hub.received["/api/repos/create"][0]["visibility"] == ("public" if more else "private")
    commit = hub.received["/api/models/me/mine/commit/main"]
    assert {line["value"]["path"] for line in commit if line["key"] == "file"} == {"README.md", "model_index.json"}


def test_nothing_is_uploaded_of_an_export_that_is_not_complete(tmp_path: Path, hub: Hub) -> None:
    finished = exported(tmp_path, hub)
    assert finished.returncode == 1
    assert "no complete export" in finished.stderr
    assert not hub.received


@pytest.mark.parametrize("hub", [403], indirect=True)
def test_a_hub_that_refuses_ends_the_command_in_one_line(tmp_path: Path, hub: Hub) -> None:
    write_export(tmp_path)
    finished = exported(tmp_path, hub)
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: me/mine: the hub refused the upload (")
    assert finished.stderr.count("\n") == 1
