"""The base class of configurations: nothing unknown, nothing converted, and errors that can be acted on."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, model_validator

from resalign.config.strict import ConfigError, Strict, check_publishable, read_yaml, typed
from resalign.unlearning.resalign import Config as ResAlign


class Inner(Strict):
    threshold: float = 0.5
    names: tuple[str, ...] = ()


class Outer(Strict):
    steps: int = Field(5, gt=0)
    lr: float = 1e-4
    mode: Literal["exact", "printed"] = "exact"
    flag: bool = False
    inner: Inner = Inner()
    several: dict[str, Inner] = {}
    listed: tuple[Inner, ...] = ()
    either: Inner | None = None

    @model_validator(mode="after")
    def _together(self) -> "Outer":
        if self.flag and self.steps == 1:
            raise ValueError("flag needs more than one of steps")
        return self


def message(values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Outer.parse(values, where="file.yaml: entry")
    text = str(caught.value)
    assert text.startswith("file.yaml: entry: ")
    return text


def test_values_as_yaml_gives_them() -> None:
    values = {
        "steps": 3,
        "lr": 1,
        "mode": "printed",
        "inner": {"names": ["a", "b"]},
        "several": {"x": {"threshold": 0}},
    }
    config = Outer.parse(values, where="test")
    assert config.inner.names == ("a", "b")
    assert config.lr == 1.0
    assert config.several["x"].threshold == 0.0


@pytest.mark.parametrize(
    ("values", "key", "suggestion"),
    [
        ({"stesp": 5}, "stesp", "steps"),
        ({"inner": {"treshold": 0.1}}, "inner.treshold", "threshold"),
        ({"several": {"x": {"treshold": 0.1}}}, "several.x.treshold", "threshold"),
        ({"listed": [{}, {"treshold": 0.1}]}, "listed.1.treshold", "threshold"),
        ({"either": {"treshold": 0.1}}, "either.treshold", "threshold"),
    ],
)
def test_unknown_keys_name_the_nearest(values: object, key: str, suggestion: str) -> None:
    text = message(values)
    assert f"unknown key '{key}'" in text
    assert f"did you mean '{suggestion}'?" in text
    assert f"'{suggestion}'" in text.split("allowed: ")[1]


@pytest.mark.parametrize(
    ("values", "key", "got"),
    [
        ({"steps": "5"}, "steps", "'5'"),
        ({"steps": 5.0}, "steps", "5.0"),
        ({"steps": True}, "steps", "True"),
        ({"steps": -1}, "steps", "-1"),
        ({"lr": "1e-4"}, "lr", "'1e-4'"),  # YAML 1.1 reads 1e-4 as a string: it wants 1.0e-4
        ({"lr": float("nan")}, "lr", "nan"),
        ({"flag": "yes"}, "flag", "'yes'"),
        ({"flag": 1}, "flag", "1"),
        ({"mode": "exct"}, "mode", "'exct'"),
        ({"inner": {"names": "a"}}, "inner.names", "'a'"),
        ({"inner": None}, "inner", "None"),
    ],
)
def test_values_of_another_type_name_key_and_value(values: object, key: str, got: str) -> None:
    text = message(values)
    assert f"key '{key}'" in text
    assert f"(got {got})" in text


def test_every_error_is_told_at_once() -> None:
    text = message({"stesp": 5, "lr": "fast", "inner": {"names": [1]}})
    assert all(part in text for part in ("stesp", "key 'lr'", "key 'inner.names.0'"))


def test_a_rule_over_several_keys_is_told_in_its_own_words() -> None:
    assert message({"flag": True, "steps": 1}) == "file.yaml: entry: flag needs more than one of steps"


@pytest.mark.parametrize("values", [None, [], "text", 3])
def test_no_mapping_at_all(values: object) -> None:
    assert "dictionary" in message(values) or "mapping" in message(values)


def test_a_key_that_is_there_twice_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    with pytest.raises(ConfigError, match="line 5, column 3: the key 'c' is there twice, first in line 3; keep one"):
        read_yaml(path)
    path.write_text("\ufeffa: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {d: {<<: *b, x: 4, y: 5}}\n")
    assert read_yaml(path) == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"d": {"x": 4, "y": 5}}}


def laughs(merged: bool) -> str:
    """Twelve lines that stand for nine to the power of eleven values."""
    lines = ["a0: &a0 {k: 1}" if merged else "a0: &a0 [x]"]
    for number in range(1, 12):
        nine = f"[{', '.join([f'*a{number - 1}'] * 9)}]"
        lines.append(f"a{number}: &a{number} {{<<: {nine}}}" if merged else f"a{number}: &a{number} {nine}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: " + "[" * 2000 + "]" * 2000, "nested too deeply"),
        (laughs(merged=False), "more than 200000 values, with its aliases written out"),
        (laughs(merged=True), "more than 200000 values, with its aliases written out"),
        ("a: &a [*a]", "line 1, column 4: an alias stands within what it stands for"),
        ("a: !!python/object/apply:os.system ['touch executed']", "write plain values, without tags"),
        ("a:\n\tb: 1\n", "line 2, column 1: found character '\\t' that cannot start any token; indent by spaces"),
        ("a: \0", "unacceptable character #x0000"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: 2026-02-30", "day is out of range for month"),
        ("a: " + "x" * (5 << 20), "has 5242883 bytes, at most 4194304 are read"),
        ("a: 1\n---\nb: 1\n", "found another document"),
        ("? [a]\n: 1\n", "found unhashable key"),
        ("a: ü".encode("latin-1"), "not in UTF-8 "),
        ("a: [1, 2", "not valid YAML"),
        ("- a\n- b\n", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: 1".encode("utf-16"), "not in UTF-8"),
    ],
)
def test_a_file_that_would_never_end_or_is_no_yaml_is_one_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match=r"mine\.yaml: no such file; give the path"):
        read_yaml(path)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- secrets ----------------------------------------------------------------------------------------------------------

SENTENCE = "a pass" + "word: correcthorse123 on a note"
TOKEN = "hf" + "_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH"


def test_a_sentence_may_speak_of_a_password() -> None:
    prose = {"title": SENTENCE, "subtitle": SENTENCE, "concept": {"prompts": ["a note", SENTENCE]}}
    check_publishable(prose, where="file.yaml")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"assets": {"mine": {"url": SENTENCE}}}, "assets.mine.url"),
        ({"concept": {"name": SENTENCE}}, "concept.name"),
        ({"concept": {"prompts": [f"{SENTENCE}: {TOKEN}"]}}, "concept.prompts"),
    ],
)
def test_a_secret_is_refused(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"file.yaml: key '{key}' holds what looks like"):
        check_publishable(values, where="file.yaml")


# --- typed values -----------------------------------------------------------------------------------------------------


def test_nested_text_becomes_what_a_file_would_have() -> None:
    given = {"a": "0.1", "b": "1e-3", "c": "null", "d": ["3", "true"], "e": {"f": "minres"}, "g": 2, "h": "This: that."}
    expected = {"a": 0.1, "b": 1e-3, "c": None, "d": [3, True], "e": {"f": "minres"}, "g": 2, "h": "This: that."}
    assert typed(given) == expected


def test_a_number_with_an_exponent_needs_no_point(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('lr: 1e-3\nlrs: [2E+4, 1.5e2]\nname: "1e-3"\nhash: 12e\n')
    assert read_yaml(path) == {"lr": 1e-3, "lrs": [2e4, 150.0], "name": "1e-3", "hash": "12e"}


# --- unions of classes ------------------------------------------------------------------------------------------------


def test_the_class_that_a_name_chooses_is_validated() -> None:
    parse = ResAlign.parse
    assert (
        parse({"solver": "minres"}, where="file").solver == parse({"solver": {"name": "minres"}}, where="file").solver
    )
    with pytest.raises(ConfigError, match=r"no solver named 'minre'; did you mean 'minres'\? allowed: \['conj"):
        parse({"solver": "minre"}, where="file")
    with pytest.raises(ConfigError, match=r"'solver.richardson.relaxatio'; did you mean 'relaxation'\?"):
        parse({"solver": {"relaxatio": 0.5}}, where="file")
