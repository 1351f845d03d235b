"""The real CLIP tokenizer, from the vocabulary that open_clip ships."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

from resalign.lazy import transformers
from resalign.tensors.tokenizers import load_tokenizer

# CLIP's vocabulary: 256 bytes, the same ending a word, and as many merges as leave room for two special tokens.
VOCABULARY_SIZE = 49_408
MERGES = VOCABULARY_SIZE - 2 * 256 - 2


def clip_tokenizer(folder: Path, *, max_tokens: int) -> transformers.CLIPTokenizer:
    """Writes CLIP's ``vocab.json`` and ``merges.txt`` to a folder and loads the tokenizer from them.

    Args:
        folder: Where to write; created if missing.
        max_tokens: Length to which prompts are padded and truncated, start and end tokens included.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("open_clip is not installed; it carries CLIP's vocabulary")
    with gzip.open(Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz"), "rt", encoding="utf-8") as stream:
        merges = stream.read().split("\n")[1 : MERGES + 1]
    characters = list(bytes_to_unicode().values())
    tokens = characters + [character + "</w>" for character in characters] + [m.replace(" ", "") for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8"
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    found: transformers.CLIPTokenizer = load_tokenizer(
        transformers.CLIPTokenizer, folder, rows=VOCABULARY_SIZE, positions=max_tokens, model_max_length=max_tokens
    )
    return found
