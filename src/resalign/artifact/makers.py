"""Runs the scripts that make an archive's files again: this checkout's, or the archive's own if that is requested."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from resalign import hashes
from resalign.artifact import isolation, layout, records
from resalign.artifact.layout import PROVENANCE
from resalign.artifact.rebuild import Rebuild
from resalign.artifact.source import apply_patch
from resalign.config.closure import ROOT
from resalign.config.plan import RESULTS
from resalign.config.strict import ConfigError
from resalign.running.stage_server import stage_server
from resalign.tracking import log

# Makes files again below a folder; returns None if it ended well, else why not, in a line.
Maker = Callable[[Rebuild, Path], str | None]

LIMIT_SECONDS = 3600  # of one script
LIMIT_BYTES = 1 << 30  # of all that the archive's code writes
MAX_SAID_CHARACTERS = 500  # of what a failed script said last
_OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@contextlib.contextmanager
def own_code(unpacked: Path, folder: Path) -> Iterator[Maker]:
    """A maker that runs this checkout's scripts; of the archive they see only the results.

    Args:
        unpacked: The archive.
        folder: An empty folder of its own.
    """
    tree = folder / "tree"
    lay_out(unpacked, tree, os.link)
    # Each stage is a second of work behind seconds of imports.
    with stage_server() as environment:
        yield lambda rebuild, output: _run_own(rebuild, tree, output, {**environment, **_OFFLINE})


def _run_own(rebuild: Rebuild, tree: Path, output: Path, environment: dict[str, str]) -> str | None:
    output.mkdir(parents=True, exist_ok=True)
    script = ROOT / "scripts" / f"{rebuild.script}.py"
    try:
        finished = subprocess.run(
            [sys.executable, str(script), "--job", "-", "--output", str(output)],
            cwd=tree,
            env={**environment, "PYTHONPATH": str(ROOT / "src")},
            input=json.dumps(rebuild.job, sort_keys=True).encode(),
            capture_output=True,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {LIMIT_SECONDS} seconds"
    if finished.returncode == 0:
        return None
    errors = finished.stderr.decode(errors="replace").strip().splitlines()
    return errors[-1][:MAX_SAID_CHARACTERS] if errors else f"exit status {finished.returncode}"


@contextlib.contextmanager
def its_code(unpacked: Path, folder: Path, *, isolated: bool) -> Iterator[Maker]:
    """A maker that runs the archive's own scripts, isolated from the network, the environment and other folders.

    Args:
        unpacked: The archive.
        folder: An empty folder of its own.
        isolated: False for code that may do whatever the user may.

    Raises:
        ConfigError: If the source cannot be laid out as plain files.
        IsolationError: If this system cannot cut it off.
    """
    if isolated:
        isolation.check_isolation()
    else:
        log.warning("the archive's code runs with your network and your files: nothing is cut off but the environment")
    tree, numbers = folder / "tree", itertools.count()
    lay_out_source(unpacked, tree)
    lay_out(unpacked, tree, shutil.copyfile)
    environment = {**_OFFLINE, **_ONE_THREAD, "PYTHONPATH": str(tree / "src")}

    def make(rebuild: Rebuild, output: Path) -> str | None:
        scratch = folder / f"scratch-{next(numbers)}"
        made = scratch / "made"
        made.mkdir(parents=True)
        error = isolation.run(
            [sys.executable, f"scripts/{rebuild.script}.py", "--job", "-", "--output", str(made)],
            folder=scratch,
            cwd=tree,
            limit_seconds=LIMIT_SECONDS,
            limit_bytes=LIMIT_BYTES,
            text=json.dumps(rebuild.job, sort_keys=True),
            environment=environment,
            isolated=isolated,
        )
        try:
            check_plain(made)
            output.parent.mkdir(parents=True, exist_ok=True)
            made.rename(output)
        except ConfigError as fault:
            error = error or str(fault)
        finally:
            shutil.rmtree(scratch)
        return error[:MAX_SAID_CHARACTERS] if error else None

    yield make


def lay_out(unpacked: Path, tree: Path, copy: Callable[[Path, Path], object]) -> None:
    """Lays out the archive's results and held-out tables, with the times of jobs, where jobs look for them.

    Raises:
        ConfigError: If two members would lie in one place.
    """
    tree.mkdir(parents=True, exist_ok=True)
    for part, place in ((RESULTS, RESULTS), (records.HELD_OUT, records.HELD_OUT), (f"{PROVENANCE}{RESULTS}", RESULTS)):
        for source in sorted((unpacked / part).rglob("*")):
            target = tree / place / source.relative_to(unpacked / part)
            if source.is_dir() or (part.startswith(PROVENANCE) and source.name != layout.TIMING):
                continue
            if target.exists():
                raise ConfigError(f"{source.relative_to(unpacked)}: is in the archive twice, here and below {place}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            copy(source, target)
    for record in (tree / RESULTS).rglob(hashes.RECORD):  # an archive has hashes of its own, which were checked
        hashes.seal(record.parent)


def lay_out_source(unpacked: Path, tree: Path) -> None:
    """Lays out the archive's source with its local changes applied, as plain files.

    Raises:
        ConfigError: If the difference does not fit, or brings a link, or something in the place of results and inputs.
    """
    if not (unpacked / layout.SOURCE).is_dir():
        raise ConfigError("source/: missing; the archive has no code of its own")
    shutil.copytree(unpacked / layout.SOURCE, tree)
    if (unpacked / layout.PATCH).is_file():
        apply_patch(unpacked / layout.PATCH, tree)
        check_plain(tree)
    if (unpacked / layout.UNTRACKED).is_dir():
        shutil.copytree(unpacked / layout.UNTRACKED, tree, dirs_exist_ok=True)
    check_plain(tree)
    for name in (RESULTS, records.HELD_OUT):
        # A patch may add such files; an empty .gitkeep is of every checkout.
        brought = sorted(path for path in (tree / name).rglob("*") if path.is_file() and path.name != ".gitkeep")
        if brought:
            raise ConfigError(f"source/: brings {brought[0].relative_to(tree)}, a place of the archive's own results")


def check_plain(folder: Path) -> None:
    """Refuses links, devices and everything else that is not a plain file.

    Raises:
        ConfigError: Naming the first.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError(f"{folder.name}: its code has made this no folder; do not use it")
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ConfigError(f"{path.relative_to(folder)}: its code has made this a link or a device; do not use it")
