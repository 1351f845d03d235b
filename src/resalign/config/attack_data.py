"""The image sets that an attack's entry names besides the attack's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from resalign.config import registry
from resalign.config.strict import ConfigError, Strict, nearest

# Image sets that only some attacks use, and how to do without one.
SOME_USE = {
    "prior": ("images of the class at large", ", or 'prior_weight: 0'"),
    "harmful": ("images of the unsafe concept", ""),
}


class AttackDataConfig(Strict):
    """Keys of an attack's entry besides the attack's own settings."""

    dataset: str
    title: str = Field("", description="display name of the data set; default: its label")
    about: str = Field("", description="a sentence that defines the data, for the page")
    after: str | None = Field(None, description="label of another attack, from whose last state this one starts")
    starts_from: Literal["unlearned", "base"] = Field(
        "unlearned", description="base: the user fine-tunes the base model; unlearning's change is added to the result"
    )
    train: str
    heldout: str
    prior: str | None = Field(None, description="images of the class at large, for attacks with a prior_weight")
    harmful: str | None = Field(None, description="images of the unsafe concept, for attacks that use them")

    @property
    def images(self) -> dict[str, str]:
        """The image sets that are named, by the key that names each."""
        named = {key: getattr(self, key) for key in ("train", "heldout", *SOME_USE)}
        return {key: reference for key, reference in named.items() if reference is not None}

    def resolved(self) -> dict[str, Any]:
        """Every key, as plain values; where an attack starts is only stated if that is not the unlearned model."""
        return self.model_dump(exclude=set() if self.starts_from == "base" else {"starts_from"})

    def check_start(self, attack: str, config: Strict, *, pipelines: Mapping[str, str], where: str) -> None:
        """An attack that starts from the base must be one fine-tuning of it, of models that are changes to it.

        Raises:
            ConfigError: Naming ``where``, and the remedy.
        """
        if self.starts_from == "unlearned":
            return
        # An attack with a start of its own, on prompts, or against its start needs the unlearned model.
        member = registry.member("attacks", attack)
        if hasattr(member, "start") or hasattr(config, "prompts") or hasattr(member, "AGAINST_ITS_START"):
            raise ConfigError(f"{where}.starts_from: attack '{attack}' is no fine-tuning of the base; take lora")
        if self.after:
            raise ConfigError(f"{where}: 'starts_from: base' and 'after: {self.after}' are two starts; remove one")
        if pipelines:
            raise ConfigError(
                f"{where}.starts_from: pipelines.{next(iter(pipelines))} is a whole model, no change to the base; give "
                "its weights as {method: imported, checkpoint: …} under unlearning"
            )

    def check_images(self, attack: str, config: Strict, *, where: str) -> None:
        """Image sets that only some attacks use must be there where one is needed, and nowhere that none is used.

        Raises:
            ConfigError: Naming ``where``, and the remedy.
        """
        uses: dict[str, bool] = getattr(config, "image_sets", {})
        for key, (what, otherwise) in SOME_USE.items():
            if uses.get(key) and key not in self.images:
                raise ConfigError(f"{where}: attack '{attack}' needs {what}; give '{key}: asset/folder'{otherwise}")
            if key not in uses and key in self.images:
                raise ConfigError(f"{where}: key '{key}': attack '{attack}' uses no such images; remove it")


def check_chains(attacks: Mapping[str, AttackDataConfig], *, where: str) -> None:
    """Every attack that starts after another must name one, and none may start after itself.

    Raises:
        ConfigError: Naming ``where``, and the attacks on the way.
    """
    for label in attacks:
        way = [label]
        while (after := attacks[way[-1]].after) is not None:
            if after not in attacks:
                raise ConfigError(
                    f"{where}: key 'attacks.{way[-1]}.after': no attack named '{after}'{nearest(after, attacks)}"
                )
            if after in way:
                raise ConfigError(
                    f"{where}: attacks.{after} starts after itself: {' <- '.join([after, *reversed(way)])}"
                )
            way.append(after)
