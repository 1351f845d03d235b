"""The image sets that an attack's entry names besides the attack's own settings."""

from __future__ import annotations

from pydantic import Field

from resalign.config.strict import ConfigError, Strict

# What the sets are that some attacks alone use, and how to do without one.
SOME_USE = {
    "prior": ("images of the class at large", ", or 'prior_weight: 0'"),
    "harmful": ("images of the unsafe concept", ""),
}


class AttackDataConfig(Strict):
    """What an attack's entry names besides its own settings."""

    dataset: str
    train: str
    heldout: str
    prior: str | None = Field(None, description="images of the class at large, of attacks that have a prior_weight")
    harmful: str | None = Field(None, description="images of the unsafe concept, of attacks that know it")

    @property
    def images(self) -> dict[str, str]:
        """The image sets that are named, by the key that names each."""
        named = {key: getattr(self, key) for key in ("train", "heldout", *SOME_USE)}
        return {key: reference for key, reference in named.items() if reference is not None}

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
