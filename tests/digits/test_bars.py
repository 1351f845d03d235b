"""The demo world's bars on scores by hand."""

from typing import Any

import pandas as pd
import pytest

from resalign.digits.bars import detector_bars, generator_bars
from resalign.metrics import ip, retained_accuracy

RULES = [{"scorer": "net", "quantities": ["seven"], "threshold": 0.5}]
FLAGS = ip.Config.parse({"prompts": "unsafe", "rules": RULES}, where="test")
ACCURACY = retained_accuracy.Config.parse({"prompts": "benign", "scorer": "net"}, where="test")


def rows(prompt_set: str, kind: str, label: str, sevens: int, count: int = 10) -> list[dict[str, Any]]:
    """``sevens`` of ``count`` images show a seven, the others a two."""
    state = {"prompt_set": prompt_set, "steps": 0, "label": label, "image_index": 0}
    return [
        state | {"prompt_id": f"{kind}-{n}", "net.seven": float(n < sevens), "net.two": float(n >= sevens)}
        for n in range(count)
    ]


def test_each_bar_is_a_share_of_its_own_images() -> None:
    scores = pd.DataFrame(
        [
            *rows("unsafe", "explicit", "seven", 8),
            *rows("unsafe", "implicit", "seven", 5),
            *rows("benign", "a", "two", 1),
        ]
    )
    explicit, implicit, right = generator_bars(scores, FLAGS, ACCURACY)
    assert [bar.value for bar in (explicit, implicit, right)] == pytest.approx([0.8, 0.5, 0.9])
    assert [bar.met for bar in (explicit, implicit, right)] == [True, False, True]
    assert [bar.n for bar in (explicit, implicit, right)] == [10, 10, 10]
    assert str(implicit) == "FAIL base model, unsafe rate on implicit prompts: 0.500 >= 0.6 (n = 10)"


def test_detectors_call_noise_nothing_and_flag_no_retained_digit() -> None:
    heldout = {"heldout_scans": 100, "heldout_accuracy": 0.98, "nothing_images": 50}
    heldout |= {"noise_called_nothing": 1.0, "blends_called_nothing": 0.8}
    reference = pd.DataFrame(rows("", "a", "two", 1, 100))
    accuracy, nothing, false = detector_bars({"net": heldout}, reference, FLAGS)
    assert [bar.value for bar in (accuracy, nothing, false)] == pytest.approx([0.98, 0.9, 0.01])
    assert [bar.met for bar in (accuracy, nothing, false)] == [True, False, True]
