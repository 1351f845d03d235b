r"""Macros of a text: their names, which stay the same as long as models, metrics and attacks are called the same.

``\<model><Metric>Before`` and ``\<model><Metric><Attack>After`` are the mean; with ``Std``, ``Low``, ``High``, ``N``
(images) or ``Seeds`` (training seeds) at the end, the rest of it; ``Published`` is the paper's number, ``Difference``
ours minus it. ``\<model><Metric>…Versus<Against>`` is a paired difference, with ``Low``, ``High`` and ``P``
(Holm-corrected). Series begin with their exhibit, ``\tableTwo…`` to ``\tableFive…``, ``\figureFour…``,
``\figureFive…``: ``\<exhibit><Series><Variant><Model><Metric>``, then the state, of a sweep ``After`` alone. A sweep's
series is its label without the exhibit's name: ``table4-dreambench`` is ``Dreambench``. Only a name's letters count,
words begin with a capital, and digits are spelt: ``dreambench++`` is ``Dreambench``, ``esd-2`` is ``EsdTwo``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from resalign.analysis.measurements import NOT_ATTACKED
from resalign.config.strict import ConfigError

_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
ENDS = {
    **{"": "mean", "Std": "std", "Low": "low", "High": "high", "N": "n", "Seeds": "seeds"},
    **{"Published": "published", "Difference": "difference"},
}
_SIGNIFICANT = 4  # digits of a number in a text


def words(name: str) -> str:
    """A name as LaTeX allows it in a macro.

    >>> words("clip_score"), words("esd-2")
    ('ClipScore', 'EsdTwo')
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    spelt = re.sub(r"[0-9]", lambda digit: f" {_DIGITS[int(digit[0])]} ", plain)
    return "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z]+", spelt))


def state_name(row: Mapping[Any, Any]) -> str:
    """Name of the mean of one model, metric and state."""
    attack = str(row["attack"])
    after = "Before" if attack == NOT_ATTACKED else f"{words(attack)}After"
    return _small(words(str(row["model"])) + words(str(row["metric"])) + after)


def variant_name(exhibit: str, row: Mapping[Any, Any], *, is_swept: bool) -> str:
    """Name of the mean of one variant's model, metric and state."""
    series = str(row["series"]).removeprefix(exhibit) if is_swept else str(row["series"])
    name = "".join(map(words, (exhibit, series, str(row["variant"]), str(row["model"]), str(row["metric"]))))
    attack = str(row["attack"])
    after = "Before" if attack == NOT_ATTACKED else "After" if is_swept else f"{words(attack)}After"
    return _small(name + after)


def macros(
    values: pd.DataFrame, tests: pd.DataFrame, series: Mapping[str, pd.DataFrame], *, swept: Collection[str]
) -> str:
    """The definitions, one a line, in the tables' order; what is not there (one seed has no std) has no macro.

    Args:
        values: Final states, with the published numbers beside them.
        tests: From :func:`resalign.exhibits._paired.paired_tests`.
        series: Rows of the exhibits of series, by exhibit.
        swept: Which series are sweeps: one attack a variant.

    Raises:
        ConfigError: If two names are one macro.
    """
    found: list[tuple[str, str]] = []
    for row in values.to_dict("records"):
        found += _estimate(state_name(row), row)
    for exhibit, frame in series.items():
        for row in frame.to_dict("records"):
            found += _estimate(variant_name(exhibit, row, is_swept=row["series"] in swept), row)
    for row in tests.to_dict("records"):
        name = f"{state_name(row)}Versus{words(str(row['against']))}"
        parts = {"": "difference", "Low": "low", "High": "high", "P": "p_corrected"}
        found += [(name + end, _number(row[column])) for end, column in parts.items()]
    found += [("testsTried", str(int(tests["p"].notna().sum())))]
    found += [("testsSignificant", str(int((tests["significant"] == "yes").sum())))]
    names = [name for name, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"several numbers would be the macro \\{twice[0]}; rename a model, metric, attack or variant")
    return "".join(f"\\newcommand{{\\{name}}}{{{text}}}\n" for name, text in found if text)


def _estimate(name: str, row: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """A mean and what belongs to it."""
    return [(name + end, _number(row[column])) for end, column in ENDS.items() if column in row]


def _small(name: str) -> str:
    return name[0].lower() + name[1:]


def _number(value: float) -> str:
    """Four significant digits, without an exponent; '' for NaN."""
    if isinstance(value, float) and math.isnan(value):
        return ""
    if float(value).is_integer():
        return f"{int(value)}"
    digits = max(0, _SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
