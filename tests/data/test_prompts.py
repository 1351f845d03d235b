"""Prompt lists: a split that another one does not use."""

from pathlib import Path

import pytest

from resalign.config.prompts import PromptColumns
from resalign.data.images import DataError
from resalign.data.prompts import Prompt, read_prompts, write_prompts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_prompts(tmp_path / "prompts.csv", [Prompt(f"p{i}", f"prompt {i}") for i in range(5)])
    return tmp_path / "prompts.csv"


def test_a_split_and_what_skips_it_are_the_whole_list(path: Path) -> None:
    rest = read_prompts(path, columns=PromptColumns(skip=2))
    assert read_prompts(path, 2) + rest == read_prompts(path)
    assert [prompt.id for prompt in read_prompts(path, 2, PromptColumns(skip=2))] == ["p2", "p3"]


@pytest.mark.parametrize(("skip", "limit"), [(3, 3), (5, None), (5, 1)])
def test_what_is_skipped_does_not_count(path: Path, skip: int, limit: int | None) -> None:
    with pytest.raises(DataError, match=rf"the list has {5 - skip} beyond the {skip} that are skipped"):
        read_prompts(path, limit, PromptColumns(skip=skip))
