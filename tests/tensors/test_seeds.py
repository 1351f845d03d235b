"""Random streams named by what they are for."""

import torch

from resalign.tensors.seeds import derive_seed, generator

PINNED = 7419631838572796931


def test_pinned_on_every_platform() -> None:
    assert derive_seed("attack", "full", 0) == PINNED


def test_parts_do_not_run_together_and_types_count() -> None:
    seeds = [derive_seed(*parts) for parts in (("a", 1), ("a1",), ("a", "1"), (1, "a"), ("a", 1, ""), ("", "a", 1))]
    assert len(set(seeds)) == len(seeds)


def test_seeds_fit_torch() -> None:
    assert all(0 <= derive_seed("x", index) < 2**63 for index in range(100))


def test_streams_are_their_own() -> None:
    first, again, other = (torch.rand(3, generator=generator("x", seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
