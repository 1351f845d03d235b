"""The image sets that an attack's entry names besides the attack's own settings."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from resalign.config.strict import ConfigError, Strict, nearest


class AttackDataConfig(Strict):
    """What an attack's entry names besides its own settings."""

    dataset: str
    after: str | None = Field(None, description="label of the attack whose last state this one starts from")
    train: str
    heldout: str
    prior: str | None = Field(None, description="images of the class at large, of attacks that have a prior_weight")

    @property
    def images(self) -> dict[str, str]:
        """The image sets that are named, by the key that names each."""
        named = {"train": self.train, "heldout": self.heldout, "prior": self.prior}
        return {key: reference for key, reference in named.items() if reference is not None}

    def check_prior(self, attack: str, config: Strict, *, where: str) -> None:
        """Prior images must be there where the attack uses them, and nowhere else.

        Raises:
            ConfigError: Naming ``where``, and the remedy.
        """
        weight = getattr(config, "prior_weight", None)
        if weight and self.prior is None:
            raise ConfigError(
                f"{where}: attack '{attack}' with prior_weight {weight} needs images of the class at large; "
                "give 'prior: asset/folder', or 'prior_weight: 0'"
            )
        if weight is None and self.prior is not None:
            raise ConfigError(f"{where}: key 'prior': attack '{attack}' uses no such images; remove it")


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
