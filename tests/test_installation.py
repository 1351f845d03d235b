"""An installation that is killed at any moment is whole after the next `make`: mostly with a tiny lock, offline."""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.prefix, ".uv")
PACKAGES = ("first", "second")

# Builds the project as editable, without setuptools, which is no part of the tiny lock.
BACKEND = """
import zipfile
from pathlib import Path

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder, name), "w") as wheel:
        wheel.writestr("tiny.pth", str(Path("src").resolve()))
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
"""
# Stands in for a program that is killed with everything that make has started: {after} says what it has done by then.
KILLED = """#!/bin/sh
case "$*" in
*"{arguments}"*)
    {after}
    kill -9 0 ;;
esac
exec {program} "$@"
"""


def write_wheel(folder: Path, name: str, version: str) -> str:
    """A wheel of many small modules; its line of a lock."""
    files = {f"{name}/module_{number}.py": f"VERSION = {version!r}\n" for number in range(20)} | {
        f"{name}/__init__.py": "",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in files)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{name}-{version}.dist-info/RECORD": record}.items():
            wheel.writestr(file, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def write_lock(project: Path, version: str) -> None:
    lines = [write_wheel(project / "wheels", name, version) for name in PACKAGES]
    (project / "envs" / "requirements.lock").write_text("".join(lines))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with this repository's Makefile, a tiny lock and the pinned uv."""
    if not (UV / "bin" / "uv").is_file() or not shutil.which("make"):
        pytest.skip("needs make, and the uv of an environment that make has made")
    for folder in ("envs", "wheels", "src", ".venv"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("uv.txt", "one_at_a_time.py"):
        shutil.copy(ROOT / "envs" / file, tmp_path / "envs")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1.0"\n'
    )
    (tmp_path / "backend.py").write_text(BACKEND)
    write_lock(tmp_path, "1.0")
    (tmp_path / ".venv" / ".uv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / ".uv" / "bin" / "uv").symlink_to(UV / "bin" / "uv")
    return tmp_path


def start(project: Path, log: Path) -> "subprocess.Popen[str]":
    """`make .venv/.installed`, in a process group of its own; nothing is looked up on the network."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_", "MAKE"))},
        "UV_OFFLINE": "1",
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": str(project / "wheels"),
        "UV_CACHE_DIR": str(project / "cache"),
        "UV_NO_CONFIG": "1",
    }
    command = ["make", f"PYTHON={sys.executable}", ".venv/.installed"]
    with log.open("w") as stream:
        return subprocess.Popen(
            command, cwd=project, env=environment, start_new_session=True, text=True, stdout=stream, stderr=stream
        )


def make(project: Path, status: int = 0) -> str:
    """Runs it to its end; what it has printed."""
    log = project / "make.log"
    assert start(project, log).wait(120) == status, log.read_text()
    return log.read_text()


def check_whole(project: Path, version: str) -> None:
    """Every package is there with every module, of this version alone, and so is the project."""
    [packages] = (project / ".venv" / "lib").glob("python3*/site-packages")
    for name in PACKAGES:
        modules = sorted(packages.glob(f"{name}/module_*.py"))
        assert len(modules) == 20
        assert {module.read_text() for module in modules} == {f"VERSION = {version!r}\n"}
        assert [path.name for path in packages.glob(f"{name}-*.dist-info")] == [f"{name}-{version}.dist-info"]
        assert len(list(packages.glob(f"{name}/__pycache__/*.pyc"))) == 21
    assert (packages / "tiny.pth").is_file()
    assert (project / ".venv" / ".installed").is_file()


def kill_at(project: Path, arguments: str, after: str) -> None:
    """Runs make and ends it, with all its processes, where uv is called with such arguments."""
    uv = project / ".venv" / ".uv" / "bin" / "uv"
    uv.unlink()
    uv.write_text(KILLED.format(arguments=arguments, after=after, program=UV / "bin" / "uv"))
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    os.utime(project / "envs" / "uv.txt", (0, 0))
    make(project, status=-signal.SIGKILL)
    assert not (project / ".venv" / ".installed").exists()
    uv.unlink()
    uv.symlink_to(UV / "bin" / "uv")


# What a kill leaves where uv copies files: metadata without some of the modules.
HALF = f'{UV}/bin/uv "$@"; rm -r .venv/lib/python3*/site-packages/second/module_1*.py'
COMPILING = f'{UV}/bin/uv "$@"; rm -r .venv/lib/python3*/site-packages/first/__pycache__'


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        ("pip sync", "rm -r .venv/lib .venv/pyvenv.cfg"),
        ("pip sync", HALF),
        ("pip sync", COMPILING),
        ("pip install", f'{UV}/bin/uv "$@"'),
    ],
    ids=["venv", "copying", "compiling", "at the end"],
)
def test_a_first_installation_that_was_killed(project: Path, arguments: str, after: str) -> None:
    kill_at(project, arguments, after)
    make(project)
    check_whole(project, "1.0")


def test_an_upgrade_that_was_killed(project: Path) -> None:
    make(project)
    write_lock(project, "2.0")
    kill_at(project, "pip sync", HALF)
    make(project)
    check_whole(project, "2.0")


def test_an_upgrade_changes_only_what_has_changed(project: Path) -> None:
    make(project)
    [packages] = (project / ".venv" / "lib").glob("python3*/site-packages")
    (packages / "first" / "untouched").touch()
    lock = project / "envs" / "requirements.lock"
    first = lock.read_text().splitlines(keepends=True)[0]
    lock.write_text(first + write_wheel(project / "wheels", "second", "2.0"))
    make(project)
    assert (packages / "first" / "untouched").is_file()
    assert (packages / "second-2.0.dist-info").is_dir()
    assert make(project) == "make: '.venv/.installed' is up to date.\n"


def test_two_at_once(project: Path) -> None:
    logs = [project / "one.log", project / "other.log"]
    running = [start(project, log) for log in logs]
    outputs = [log.read_text() for process, log in zip(running, logs, strict=True) if process.wait(120) == 0]
    assert len(outputs) == 2, [log.read_text() for log in logs]
    assert sum("Installing the locked packages" in output for output in outputs) == 1
    check_whole(project, "1.0")
