"""One token's row in the embedding tables of a pipeline's CLIP text encoders: the variable of textual inversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from resalign.config.strict import ConfigError
from resalign.diffusion.loaded_pipeline import LoadedPipeline
from resalign.lazy import torch, transformers
from resalign.tensors.params import Params


@dataclass(frozen=True)
class TokenEmbedding:
    """A token's embedding, one row of a table for each CLIP text encoder; T5's is not included.

    Attributes:
        tables: Token embeddings (vocabulary, width), named ``component.parameter``.
        ids: The token's number in the vocabulary, its row of each table.
        tokenizers: Of each table's text encoder.
    """

    tables: Params
    ids: Mapping[str, int]
    tokenizers: Mapping[str, transformers.CLIPTokenizer]

    @property
    def row(self) -> dict[str, torch.Tensor]:
        """The token's own embedding in each table, (width,)."""
        return {name: table[self.ids[name]] for name, table in self.tables.items()}

    def weights(self, variables: Params) -> dict[str, torch.Tensor]:
        """The tables with other embeddings (width,) of the token; every other row is the table's own.

        Differentiable in ``variables``, which may hold more than the tables' names.
        """
        return {
            name: table.index_copy(0, torch.tensor([self.ids[name]], device=table.device), variables[name][None])
            for name, table in self.tables.items()
        }

    def is_in(self, prompts: Iterable[str]) -> bool:
        """Whether any of the prompts has the token, before the length at which a text encoder cuts it off."""
        texts = list(prompts)
        return any(
            self.ids[name] in found
            for name, tokenizer in self.tokenizers.items()
            for found in tokenizer(texts, truncation=True, max_length=tokenizer.model_max_length).input_ids
        )


def token_embedding(loaded: LoadedPipeline, token: str) -> TokenEmbedding:
    """Finds a token's embedding in the text encoders.

    Raises:
        ConfigError: If the token is not one entry of a tokenizer's vocabulary, or is a special token.
    """
    tables, ids, tokenizers = {}, {}, {}
    for component, class_name in loaded.architecture.text_encoders.items():
        if not class_name.startswith("CLIP"):
            continue
        encoder = getattr(loaded.pipeline, component)
        tokenizer = getattr(loaded.pipeline, component.replace("text_encoder", "tokenizer"))
        found = tokenizer(token, add_special_tokens=False).input_ids
        if len(found) != 1 or found[0] in tokenizer.all_special_ids:
            raise ConfigError(
                f"token '{token}' must be one word of the vocabulary of {component}, which reads it as "
                f"{tokenizer.convert_ids_to_tokens(found)}; take a rare word that is, such as 'sks'"
            )
        table = encoder.get_input_embeddings().weight
        parameter = next(name for name, tensor in encoder.named_parameters() if tensor is table)
        name = f"{component}.{parameter}"
        tables[name], ids[name], tokenizers[name] = table.detach(), found[0], tokenizer
    return TokenEmbedding(tables, ids, tokenizers)
