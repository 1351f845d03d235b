"""What the ``Config`` of every member of every family must do; a new file is held to it unasked."""

import ast
import importlib
import json
from pathlib import Path

import pydantic
import pytest

from resalign.config import registry
from resalign.config.strict import ConfigError, Strict
from tests.example_config import smallest

MEMBERS = [(family, name) for family in registry.FAMILIES for name in registry.members(family)]


@pytest.fixture(params=MEMBERS, ids=lambda member: ".".join(member))
def config_class(request: pytest.FixtureRequest) -> type[Strict]:
    return registry.config_class(*request.param)


def test_there_are_members_of_every_family() -> None:
    assert {family for family, _ in MEMBERS} == set(registry.FAMILIES)


@pytest.mark.parametrize("member", MEMBERS, ids=".".join)
def test_the_file_says_what_the_member_is(member: tuple[str, str]) -> None:
    module = registry.member(*member)
    assert module.__doc__
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    wanted = {"unlearning": {"unlearn"}, "attacks": {"attack"}, "scorers": {"load"}, "metrics": set()}[member[0]]
    assert {"Config"} | wanted <= defined


def test_frozen_all_the_way_down(config_class: type[Strict]) -> None:
    config = smallest(config_class)
    hash(config)
    for name in config_class.model_fields:
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(config, name, getattr(config, name))
        if isinstance(value := getattr(config, name), pydantic.BaseModel):
            assert isinstance(value, Strict)


def test_has_defaults_or_says_what_is_required(config_class: type[Strict]) -> None:
    required = [name for name, field in config_class.model_fields.items() if field.is_required()]
    if not required:
        assert config_class.parse({}, where="file.yaml: entry") == config_class()
        return
    with pytest.raises(ConfigError) as caught:
        config_class.parse({}, where="file.yaml: entry")
    assert str(caught.value).startswith("file.yaml: entry: ")
    for name in required:
        assert f"key '{name}' is required" in str(caught.value)


def test_an_unknown_key_fails_with_the_nearest_known_one(config_class: type[Strict]) -> None:
    for name in config_class.model_fields or {"": None}:
        with pytest.raises(ConfigError) as caught:
            smallest(config_class, **{f"{name}x": 1})
        assert f"unknown key '{name}x'" in str(caught.value)
        assert f"did you mean '{name}'?" in str(caught.value) or not name
        assert f"allowed: {sorted(config_class.model_fields)}" in str(caught.value)


def test_a_value_of_another_type_fails_with_its_key(config_class: type[Strict]) -> None:
    for name in config_class.model_fields:
        with pytest.raises(ConfigError, match=rf"key '{name}.*got"):
            smallest(config_class, **{name: object()})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1"])
def test_numbers_are_finite_numbers(config_class: type[Strict], value: object) -> None:
    for name, field in config_class.model_fields.items():
        if field.annotation is float:
            with pytest.raises(ConfigError, match=f"key '{name}'"):
                smallest(config_class, **{name: value})


def test_a_negative_learning_rate_is_refused(config_class: type[Strict]) -> None:
    for name in config_class.model_fields:
        if name == "lr":
            for value in (-1e-4, 0.0):
                with pytest.raises(ConfigError, match="key 'lr': Input should be greater than 0"):
                    smallest(config_class, lr=value)


def test_resolved_settings_are_read_back_as_they_were(config_class: type[Strict]) -> None:
    # The workflow hands a stage its resolved settings as JSON.
    config = smallest(config_class)
    resolved = json.loads(json.dumps(config.model_dump(mode="json"), sort_keys=True))
    assert config_class.parse(resolved, where="job") == config


def test_every_field_of_a_default_passes_its_own_validation(config_class: type[Strict]) -> None:
    # Pydantic does not validate defaults; a default outside its own bounds would fail at the first resolved config.
    fields = {name: field for name, field in config_class.model_fields.items() if not field.is_required()}
    given = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    plain = json.loads(json.dumps(given, default=lambda value: value.model_dump(mode="json")))
    smallest(config_class, **plain)


def test_members_are_the_files_of_their_folder() -> None:
    for family in registry.FAMILIES:
        folder = Path(str(importlib.import_module(f"resalign.{family}").__file__)).parent
        files = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
        assert registry.members(family) == files


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_an_unknown_member_fails_with_the_nearest_and_all_others(family: str) -> None:
    known = registry.members(family)
    with pytest.raises(ConfigError) as caught:
        registry.member(family, f"{known[0]}x")
    assert str(caught.value) == f"no {family} named '{known[0]}x'; did you mean '{known[0]}'? allowed: {known}"


@pytest.mark.parametrize("name", ["__init__", "../unlearning/esd", "esd.Config", ""])
def test_a_members_name_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match="no unlearning named"):
        registry.member("unlearning", name)
