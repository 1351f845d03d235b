"""A tokenizer that does not tell words apart, or whose words its text encoder does not know, is refused."""

import json
import shutil
from pathlib import Path

import pytest

from resalign.diffusion.models import check_pipeline_folder, load_models
from resalign.lazy import open_clip, transformers
from resalign.scorers._clip_model import ClipModel
from resalign.tensors.tokenizers import load_tokenizer
from tests.json_files import edit_json
from tests.pipelines import MAX_TOKENS, WITH_T5, write_pipeline
from tests.refusals import told
from tests.scorers.conftest import write_clip


@pytest.fixture
def pipeline(pipeline_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline_folder, tmp_path / "pipeline"))


def keep(folder: Path, *names: str) -> None:
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()


def both_ways(folder: Path, *expected: str) -> None:
    """The check before long work says it, and so does loading."""
    told(lambda: check_pipeline_folder(folder), str(folder / "tokenizer"), *expected)
    told(lambda: load_models(folder), str(folder / "tokenizer"), *expected)


def test_without_its_vocabulary(pipeline: Path) -> None:
    keep(pipeline / "tokenizer", "tokenizer_config.json")
    both_ways(pipeline, "without a vocabulary", "vocab.json", "fetch the whole folder again")
    shutil.rmtree(pipeline / "tokenizer")
    both_ways(pipeline, "without a vocabulary")


def test_without_the_length_of_its_texts(pipeline: Path) -> None:
    keep(pipeline / "tokenizer", "tokenizer.json")
    both_ways(pipeline, "model_max_length is missing", f"the text encoder takes {MAX_TOKENS} tokens")


def test_texts_longer_than_the_encoder_takes(pipeline: Path) -> None:
    edit_json(pipeline / "tokenizer" / "tokenizer_config.json", model_max_length=77)
    both_ways(pipeline, "model_max_length is 77", f"the text encoder takes {MAX_TOKENS} tokens")


@pytest.mark.parametrize("names", [("vocab.json",), ("merges.txt",)])
def test_half_of_a_vocabulary(pipeline: Path, names: tuple[str, ...]) -> None:
    keep(pipeline / "tokenizer", "tokenizer_config.json", *names)
    both_ways(pipeline, "fetch the whole folder again")


def test_a_vocabulary_cut_off(pipeline: Path) -> None:
    folder = pipeline / "tokenizer"
    keep(folder, "tokenizer_config.json", "vocab.json", "merges.txt")
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    (folder / "merges.txt").write_text("\n".join(merges[:40_000]) + "\n", encoding="utf-8")
    both_ways(pipeline, "fall into pieces", "merges are missing")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    (folder / "vocab.json").write_text(json.dumps(dict(list(vocabulary.items())[:30_000])), encoding="utf-8")
    both_ways(pipeline, "no tokenizer", "out of vocabulary")


def test_a_whole_one_from_its_oldest_form(pipeline: Path) -> None:
    """Stable Diffusion 1.4 has no tokenizer.json."""
    keep(pipeline / "tokenizer", "tokenizer_config.json", "vocab.json", "merges.txt")
    check_pipeline_folder(pipeline)
    expected = [49406, 320, 736, 1929, 49407]
    assert load_models(pipeline).pipeline.tokenizer("a red dog").input_ids == expected


def test_more_tokens_than_the_encoder_embeds(pipeline_folder: Path) -> None:
    told(
        lambda: load_tokenizer(transformers.CLIPTokenizer, pipeline_folder / "tokenizer", rows=1000, positions=12),
        "has 49408 tokens, the text encoder embeds 1000",
    )


def test_t5s_too(tmp_path: Path) -> None:
    pipeline = write_pipeline(WITH_T5, tmp_path)
    check_pipeline_folder(pipeline)
    keep(pipeline / "tokenizer_3", "tokenizer_config.json")
    told(lambda: check_pipeline_folder(pipeline), str(pipeline / "tokenizer_3"), "without a vocabulary")
    (pipeline / "tokenizer_3" / "tokenizer.json").write_text("{}")
    told(lambda: check_pipeline_folder(pipeline), str(pipeline / "tokenizer_3"), "no tokenizer")


def test_open_clips_own_from_a_folder(tmp_path: Path, pipeline_folder: Path) -> None:
    folder = write_clip(tmp_path)
    edit_json(folder / "open_clip_config.json", model_cfg__text_cfg__hf_tokenizer_name="a/name")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(pipeline_folder / "tokenizer" / name, folder / name)
    found = ClipModel(folder, "cpu").texts(["a cat", "a dog"])
    assert not found[0].equal(found[1])
    assert isinstance(open_clip.get_tokenizer(f"local-dir:{folder}"), open_clip.tokenizer.HFTokenizer)
    (folder / "tokenizer.json").unlink()
    told(lambda: ClipModel(folder, "cpu"), str(folder), "fetch the whole folder again")


def test_a_clip_that_embeds_fewer_words(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_clip(tmp_path)
    edit_json(folder / "open_clip_config.json", model_cfg__text_cfg__vocab_size=49_000)
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "token_embedding.weight": tensors["token_embedding.weight"][:49_000].clone()}, weights)
    told(lambda: ClipModel(folder, "cpu"), "gives token 49407, the text encoder embeds 49000")
