"""Recipes as text: YAML 1.2, the ones that danskin ships, and settings from the command line laid over them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from danskin.attacks import ATTACKS, Attack
from danskin.errors import ConfigError, MissingError, suggest
from danskin.run.schema import plain

_SHIPPED = Path(__file__).parent.parent / "recipes"
#: Recipes that danskin ships: name -> YAML file; those under `published` follow released code, quirks and all.
RECIPES = {path.stem: path for path in sorted([*_SHIPPED.glob("*.yaml"), *_SHIPPED.glob("published/*.yaml")])}
#: Recipes of `danskin gan`.
GAN_RECIPES = {path.stem: path for path in sorted(_SHIPPED.glob("gan/*.yaml"))}
#: Settings that all attacks have.
_COMMON = {f.name for f in dataclasses.fields(Attack)}


def _yaml() -> Any:
    try:
        from ruamel.yaml import YAML
    except ImportError as error:
        raise MissingError("config: ruamel.yaml is needed", "pip install 'danskin[run]'") from error
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.width = 100
    yaml.representer.sort_base_mapping_type_on_output = False
    return yaml


def to_yaml(config: Any) -> str:
    """The config as YAML text."""
    stream = StringIO()
    _yaml().dump(plain(config), stream)
    return stream.getvalue()


def parse_yaml(text: str, source: str) -> Any:
    """YAML 1.2 to plain data.

    Raises:
        ConfigError: not YAML.
    """
    from ruamel.yaml.error import YAMLError

    try:
        return _yaml().load(text)
    except YAMLError as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{source}: expected YAML, got a text that does not parse ({detail}); correct it") from error


def parse_mapping(text: str, source: str) -> dict[str, Any]:
    """YAML 1.2 to plain data, which must be a mapping.

    Raises:
        ConfigError: not YAML, or something else than a mapping.
    """
    node = parse_yaml(text, source)
    if not isinstance(node, dict):
        raise ConfigError(
            f"{source}: expected a mapping of keys and values, got {type(node).__name__}; write key: value"
        )
    return node


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        MissingError: there is none, or it may not be read.
        ConfigError: not YAML in UTF-8, or something else than a mapping.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise MissingError(f"{path}: expected a YAML file, got {error.strerror or error}", "check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected YAML in UTF-8, got other bytes ({error}); give a recipe") from error
    return parse_mapping(text, str(path))


def read_recipe(source: str | Path, shipped: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """A recipe as plain data: a path, or the name of one that danskin ships.

    Args:
        source: path or name.
        shipped: names to choose from; default: those of `danskin train`.

    Raises:
        MissingError: there is no such file or recipe.
        ConfigError: it is not a mapping.
    """
    path, shipped = Path(source), RECIPES if shipped is None else shipped
    if str(source) in shipped:
        path = shipped[str(source)]
    elif not path.is_file():
        raise MissingError(
            f"recipe: expected a file or one of {', '.join(sorted(shipped))}, got {str(source)!r}",
            suggest(str(source), shipped),
        )
    return {"name": path.stem} | read_mapping(path)


def override(node: dict[str, Any], assignments: typing.Iterable[str]) -> dict[str, Any]:
    """Apply `a.b.c=value` texts to plain data: outer keys before inner ones, a `name` before its options.

    A new `name` replaces its whole node: the old options belonged to the old choice. Only what all attacks
    have (ball, loss, box, ...) stays when one attack takes another's place. The same key twice: the last one holds.

    Raises:
        ConfigError: not of the form key=value.
    """
    asked = []
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override: expected key=value, got {text!r}; write for example trainer.epochs=5")
        asked.append((key, key.strip().split("."), value))
    for key, keys, value in sorted(asked, key=lambda a: (len(a[1]), a[1][-1] != "name")):
        at = node
        for k in keys[:-1]:
            inner = at.get(k)
            at[k] = dict(inner) if isinstance(inner, Mapping) else {"name": inner} if isinstance(inner, str) else {}
            at = at[k]
        new = parse_yaml(value, f"override {key}") if value.strip() else None
        if keys[-1] == "name" and len(keys) > 1 and at.get("name") != new:
            kept = _COMMON if at.get("name") in ATTACKS and new in ATTACKS else set()
            for old in at.keys() - kept:
                del at[old]
        at[keys[-1]] = new
    return node


def merged(base: Any, over: Any) -> Any:
    """`over` laid over `base`: mappings key by key, anything else replaced; so is a mapping that gets another name.

    >>> merged({"a": {"name": "x", "b": 1}, "c": [1]}, {"a": {"b": 2}, "c": [2]})
    {'a': {'name': 'x', 'b': 2}, 'c': [2]}
    >>> merged({"a": {"name": "x", "b": 1}}, {"a": {"name": "y"}})
    {'a': {'name': 'y'}}
    """
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    if "name" in over and over["name"] != base.get("name"):
        return dict(over)
    both = dict(base) | dict(over)
    return {k: merged(base[k], over[k]) if k in base and k in over else value for k, value in both.items()}
