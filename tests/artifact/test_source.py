import os
import subprocess
from pathlib import Path

import pytest

from resalign.artifact import source
from resalign.config.strict import ConfigError


def git(folder: Path, *arguments: str) -> None:
    identity = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, env={**os.environ, **identity})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "a.py").write_text("one\ntwo\n")
    (folder / "image.bin").write_bytes(bytes(range(256)))
    (folder / "old").write_text("goes\n")
    (folder / ".gitignore").write_text("ignored\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def change(folder: Path) -> None:
    (folder / "a.py").write_text("one\nthree\n")
    (folder / "image.bin").write_bytes(bytes(range(255, -1, -1)))
    (folder / "old").unlink()
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "new name.py").write_text("new\n")
    (folder / "ignored").write_text("never packed\n")


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "ignored"]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in found if ".git" not in map(str, path.parts)
    }


def test_an_unchanged_checkout_is_its_revision(checkout: Path) -> None:
    found = source.read_source(checkout)
    assert found.revision is not None
    assert len(found.revision) == 40
    assert found.files == files(checkout)
    assert not found.is_changed


def test_revision_patch_and_untracked_files_give_what_ran(checkout: Path, tmp_path: Path) -> None:
    before = files(checkout)
    change(checkout)
    found = source.read_source(checkout)
    assert found.files == before
    assert found.untracked == {"src/new name.py": b"new\n"}
    built = tmp_path / "built"
    (built / "src").mkdir(parents=True)
    for name, content in {**found.files, **found.untracked}.items():
        (built / name).write_bytes(content)
    (tmp_path / "patch").write_bytes(found.patch)
    source.apply_patch(tmp_path / "patch", built)
    assert files(built) == files(checkout)


def test_a_patch_is_applied_below_another_checkout_too(checkout: Path) -> None:
    change(checkout)
    found = source.read_source(checkout)
    built = checkout / "ignored-by-nobody"
    built.mkdir()
    for name, content in found.files.items():
        (built / name).write_bytes(content)
    (checkout / "patch").write_bytes(found.patch)
    source.apply_patch(checkout / "patch", built)
    assert (built / "a.py").read_text() == "one\nthree\n"


def test_a_patch_that_does_not_fit_is_refused(checkout: Path, tmp_path: Path) -> None:
    change(checkout)
    (tmp_path / "patch").write_bytes(source.read_source(checkout).patch)
    built = tmp_path / "built"
    built.mkdir()
    with pytest.raises(ConfigError, match="a.py"):
        source.apply_patch(tmp_path / "patch", built)


def test_the_patch_does_not_depend_on_whose_git_makes_it(checkout: Path) -> None:
    change(checkout)
    before = source.read_source(checkout).patch
    for key, value in (
        ("diff.noprefix", "true"),
        ("diff.context", "9"),
        ("diff.renames", "copies"),
        ("color.ui", "always"),
    ):
        git(checkout, "config", key, value)
    assert source.read_source(checkout).patch == before


def test_the_fingerprint_follows_every_change(checkout: Path) -> None:
    seen = {source.fingerprint(checkout)}
    assert source.fingerprint(checkout) in seen
    (checkout / "src").mkdir()
    for name in ("ignored", "growing.log", ".env", "src/notes.docx"):
        (checkout / name).write_text("no source")
        assert source.fingerprint(checkout) in seen
    for name in ("a.py", "src/untracked.py"):
        (checkout / name).write_text("other")
        found = source.fingerprint(checkout)
        assert found not in seen
        seen.add(found)


def test_of_untracked_files_those_of_a_run_alone_are_source(checkout: Path) -> None:
    mine = ("config/my-experiment.yaml", "config/prompts/mine.csv", "src/resalign/unlearning/mine.py")
    others = (".env", "config/.env", "notes.md", "nohup.out", "data/table.csv", "src/__pycache__/mine.py", "src/x.png")
    for name in (*mine, *others):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(name)
    found = source.read_source(checkout)
    assert found.untracked == {name: name.encode() for name in mine}
    assert found.left_out == tuple(sorted(others))


def test_a_folder_that_is_no_checkout_says_so(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x").write_text("no source")
    (tmp_path / ".env").write_text("no source")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / ".env").write_text("no source")
    (tmp_path / "src" / "a.py").write_text("one")
    found = source.read_source(tmp_path)
    assert found.revision is None
    assert found.files == {"src/a.py": b"one"}
    before = source.fingerprint(tmp_path)
    (tmp_path / "src" / "a.py").write_text("two")
    assert source.fingerprint(tmp_path) != before


def test_what_is_too_large_to_be_source_is_named(checkout: Path) -> None:
    (checkout / "config").mkdir()
    with (checkout / "config" / "large.csv").open("wb") as stream:
        stream.truncate(source.MAX_UNTRACKED_BYTES + 1)
    with pytest.raises(ConfigError, match="large.csv"):
        source.read_source(checkout)
