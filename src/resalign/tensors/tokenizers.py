"""Tokenizers from folders: one without its vocabulary, which gives every prompt the same tokens, is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resalign.lazy import open_clip, torch
from resalign.tensors.settings import check_open_clip, check_tokenizer, first_sentence
from resalign.tensors.weights import WeightsError

# Two texts that every vocabulary distinguishes.
PROBES = ("a cat", "a dog")
# Of CLIP's vocabulary, whose words stand there in the order of their merges: if the merges end too early, the last
# words fall into pieces. Some of a whole one's may do so as well.
LAST_WORDS = 20
END_OF_WORD = "</w>"
REMEDY = "fetch the whole folder again"


def load_tokenizer(tokenizer_class: Any, folder: Path, *, rows: int, positions: int | None, **settings: Any) -> Any:
    """A tokenizer of transformers, with the vocabulary of a text encoder.

    Args:
        tokenizer_class: Its class.
        folder: A folder as ``save_pretrained`` writes it, which asks no network: it is there.
        rows: How many tokens the text encoder embeds.
        positions: The longest text that it takes, in tokens; None if any.
        settings: Further arguments of ``from_pretrained``.

    Raises:
        WeightsError: If there is no vocabulary or another than the text encoder's, or no length of texts.
    """
    from transformers.tokenization_utils_base import LARGE_INTEGER

    names = list(tokenizer_class.vocab_files_names.values())
    if not any((folder / name).is_file() for name in names):
        raise WeightsError(f"{folder}: a tokenizer without a vocabulary (none of {names}); {REMEDY}")
    check_tokenizer(folder)
    try:
        tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **settings)
    except Exception as error:
        # The library tokenizers raises nothing more special at a vocabulary that does not fit.
        if type(error) is not Exception and not isinstance(error, (OSError, ValueError, KeyError, ImportError)):
            raise
        raise WeightsError(f"{folder}: no tokenizer ({first_sentence(error)}); {REMEDY}") from error
    if len(tokenizer) > rows:
        raise WeightsError(f"{folder}: has {len(tokenizer)} tokens, the text encoder embeds {rows}; {REMEDY}")
    check_tokens(folder, lambda text: tokenizer(text).input_ids, rows)
    _check_merges(folder, tokenizer)
    longest = tokenizer.model_max_length
    if positions is not None and not 0 < longest <= positions:
        found = "is missing" if longest > LARGE_INTEGER else f"is {longest}"
        raise WeightsError(
            f"{folder / 'tokenizer_config.json'}: model_max_length {found}, the text encoder takes {positions} tokens; "
            f'fetch the file again, or write "model_max_length": {positions} there'
        )
    return tokenizer


def load_open_clip_tokenizer(folder: Path, network: torch.nn.Module) -> Callable[[Sequence[str]], torch.Tensor]:
    """The tokenizer of a folder of open_clip's.

    Args:
        folder: The folder.
        network: The CLIP of it.

    Raises:
        WeightsError: If it is not in the folder, or has another vocabulary than the network.
    """
    text = check_open_clip(folder / "open_clip_config.json")["model_cfg"]["text_cfg"]
    settings = {}
    if text.get("hf_tokenizer_name"):  # transformers' tokenizer, which open_clip takes from this folder
        check_tokenizer(folder)
        settings = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenize: Callable[[Sequence[str]], torch.Tensor] = open_clip.get_tokenizer(f"local-dir:{folder}", **settings)
    except (OSError, ValueError, ImportError) as error:
        raise WeightsError(f"{folder}: no tokenizer ({first_sentence(error)}); {REMEDY}") from None
    encoder: Any = getattr(network, "text", network)
    rows = int(encoder.vocab_size)
    check_tokens(folder, lambda words: tokenize([words])[0].tolist(), rows)
    return tokenize


def check_tokens(where: Path, encode: Callable[[str], list[int]], rows: int) -> None:
    """Raises WeightsError if a tokenizer gives different texts the same tokens, or tokens that nothing embeds."""
    first, second = (encode(text) for text in PROBES)
    if first == second:
        raise WeightsError(
            f"{where}: its tokenizer gives {PROBES[0]!r} and {PROBES[1]!r} the same tokens; its vocabulary is missing: "
            f"{REMEDY}"
        )
    largest = max(*first, *second)
    if largest >= rows:
        raise WeightsError(f"{where}: its tokenizer gives token {largest}, the text encoder embeds {rows}; {REMEDY}")


def _check_merges(folder: Path, tokenizer: Any) -> None:
    """Raises WeightsError if CLIP's file of merges ends too early, so that words fall into pieces unknown together."""
    words = sorted((n, word) for word, n in tokenizer.get_vocab().items() if word.endswith(END_OF_WORD))
    last = [(n, word.removesuffix(END_OF_WORD)) for n, word in words if word.isascii()][-LAST_WORDS:]
    if last and not any(tokenizer(word, add_special_tokens=False).input_ids == [n] for n, word in last):
        raise WeightsError(f"{folder}: the last words of its vocabulary fall into pieces; merges are missing: {REMEDY}")
