"""Real images count as the scores count them: those that repeat another once."""

import functools
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from resalign.config.prompts import PromptColumns
from resalign.config.strict import ConfigError
from resalign.data import image_files, images
from resalign.jobs.check_scorers import CountedPrompts
from resalign.jobs.inputs import Input
from resalign.metrics._flags import Need
from tests.conftest import write_captioned_images

from .conftest import load_script


def test_real_images_that_repeat_count_once_and_each_is_decoded_once(tmp_path: Path) -> None:
    folder, prompts = write_captioned_images(tmp_path / "real", ["a dog"] * 4), tmp_path / "dog.csv"
    for name in ("2.png", "3.png"):
        shutil.copy(folder / "0.png", folder / name)
    prompts.write_text("id,prompt\none,a dog\ntwo,a cat\nthree,a cow\n")
    listed = CountedPrompts(columns=PromptColumns(), prompts=None, paths=(Input.file(str(prompts)),), images=1)
    job = SimpleNamespace(tier="paper", prompts={"dog": listed}, compared={"metrics.fid": [str(folder)]})
    script = load_script("check_scorers")
    read = functools.cache(lambda name: script.listed_images(Path(name), pixels=8))

    def check(least: int) -> None:
        need, given = Need("net", images_per_dimension=0, least_images=least), ["f000"]
        script.check_lists(need, given, job, read, where="metrics.fid", prompts="dog")

    with mock.patch.object(images, "open_image", wraps=image_files.open_image) as opened:
        check(0)
        assert opened.call_count == 0
        with pytest.raises(ConfigError, match=rf"metrics.fid: 2 images of {folder} are too few, a subset has 3"):
            check(3)
        check(2)
        assert opened.call_count == 4
