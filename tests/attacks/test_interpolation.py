"""Where an interpolation begins; through the rule's script in tests/scripts/test_attacks.py."""

import torch

from resalign.attacks import interpolation
from resalign.tensors.named import Named
from tests.nearness import assert_near


def begun(amount: float) -> tuple[Named, Named, Named]:
    stream = torch.Generator().manual_seed(0)
    original, unlearned = ({"unet.w": torch.randn(50, generator=stream)} for _ in range(2))
    return interpolation.start(interpolation.Config(amount=amount), unlearned, original), unlearned, original


def test_the_ends_are_the_two_models_to_the_bit() -> None:
    at_0, unlearned, _ = begun(0.0)
    at_1, _, original = begun(1.0)
    assert torch.equal(at_0["unet.w"], unlearned["unet.w"])
    assert torch.equal(at_1["unet.w"], original["unet.w"])


def test_a_quarter_of_the_way_is_nearer_to_the_unlearned_model() -> None:
    found, unlearned, original = begun(0.25)
    expected = 0.75 * unlearned["unet.w"] + 0.25 * original["unet.w"]
    assert_near(found["unet.w"], expected, 1e-6)
