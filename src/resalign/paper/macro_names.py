r"""Macros of a text: their names, which stay the same as long as models, metrics and attacks are called the same.

``\<model><Metric>Before`` and ``\<model><Metric><Attack>After`` are the mean; with ``Std``, ``Low``, ``High``, ``N``
(images) or ``Seeds`` (training seeds) at the end, the rest of it. ``\<model><Metric>…Versus<Against>`` is a paired
difference, with ``Low``, ``High`` and ``P`` (Holm-corrected). A name's letters alone count, words begin with a capital,
and digits are spelt: ``dreambench++`` is ``Dreambench``, ``esd-2`` is ``EsdTwo``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from resalign.config.strict import ConfigError
from resalign.report.measurements import NOT_ATTACKED

_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
_SIGNIFICANT = 4  # digits of a number in a text


def words(name: str) -> str:
    """A name as LaTeX allows it in a macro.

    >>> words("clip_score"), words("esd-2")
    ('ClipScore', 'EsdTwo')
    """
    spelt = re.sub(r"\d", lambda digit: f" {_DIGITS[int(digit[0])]} ", name)
    return "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z]+", spelt))


def state_name(row: Mapping[Any, Any]) -> str:
    """Name of the mean of one model, metric and state."""
    attack = str(row["attack"])
    after = "Before" if attack == NOT_ATTACKED else f"{words(attack)}After"
    model = words(str(row["model"]))
    return f"{model[0].lower()}{model[1:]}{words(str(row['metric']))}{after}"


def macros(values: pd.DataFrame, tests: pd.DataFrame) -> str:
    """The definitions, one a line, in the tables' order; what is not there (one seed has no std) has no macro.

    Args:
        values: Final states.
        tests: From :func:`resalign.paper.paired.paired_tests`.

    Raises:
        ConfigError: If two names are one macro.
    """
    found: list[tuple[str, str]] = []
    for row in values.to_dict("records"):
        name = state_name(row)
        parts = {"": "mean", "Std": "std", "Low": "low", "High": "high", "N": "n", "Seeds": "seeds"}
        found += [(name + end, _number(row[column])) for end, column in parts.items()]
    for row in tests.to_dict("records"):
        name = f"{state_name(row)}Versus{words(str(row['against']))}"
        parts = {"": "difference", "Low": "low", "High": "high", "P": "p_corrected"}
        found += [(name + end, _number(row[column])) for end, column in parts.items()]
    found += [("testsTried", str(int(tests["p"].notna().sum())))]
    found += [("testsSignificant", str(int((tests["significant"] == "yes").sum())))]
    names = [name for name, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"several numbers would be the macro \\{twice[0]}; rename a model, metric or attack")
    return "".join(f"\\newcommand{{\\{name}}}{{{text}}}\n" for name, text in found if text)


def _number(value: float) -> str:
    """Four significant digits, without an exponent; '' for NaN."""
    if isinstance(value, float) and math.isnan(value):
        return ""
    if float(value).is_integer():
        return f"{int(value)}"
    digits = max(0, _SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
