"""Plain data (of YAML or the command line) to frozen dataclasses and back.

The classes are the library's own; there is no parallel tree. A mapping with a key ``name`` picks among the
choices for its place (an attack, a ball, an optimiser); leaf values are read by pydantic, so that
``step: "2/255"``, ``epochs: 10`` and ``milestones: [0.5, 0.75]`` become what the class declares. Unknown
keys are refused with the nearest known one.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from danskin.attacks import ATTACKS
from danskin.errors import ConfigError, DanskinError, suggest
from danskin.games.rl.movers import MOVERS
from danskin.games.rl.rules import RULES
from danskin.gan.constraints import CONSTRAINTS
from danskin.gan.objectives import GAN_OBJECTIVES
from danskin.gan.optimizers import PLAYER_OPTIMIZERS
from danskin.minmax import Set, balls
from danskin.regularizers import REGULARIZERS
from danskin.run.own_set import OwnSet, names_code
from danskin.training import OBJECTIVES, OPTIMIZERS, SCHEDULES

BALLS: dict[str, type] = dict(balls.BALLS)
#: What may stand at a place that takes one of several classes, by the name it goes by; a place is told by its type.
CHOICES: dict[str, dict[str, Any]] = {
    "attacks": ATTACKS,
    "balls": BALLS,
    "constraints": CONSTRAINTS,
    "movers": MOVERS,
    "objectives": OBJECTIVES | GAN_OBJECTIVES,
    "optimizers": OPTIMIZERS,
    "player_optimizers": PLAYER_OPTIMIZERS,
    "regularizers": REGULARIZERS,
    "rules": RULES,
    "schedules": SCHEDULES,
}


def name_of(value: Any) -> str | None:
    """The name a class goes by in recipes, or None."""
    kind = value if isinstance(value, type) else type(value)
    return next((name for table in CHOICES.values() for name, cls in table.items() if cls is kind), None)


def _members(kind: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [m for arg in typing.get_args(kind) for m in _members(arg)]
    return [kind]


def _choices(members: list[Any]) -> dict[str, type]:
    """Names that may stand at a place whose type has these members."""
    classes = tuple(m for m in members if isinstance(m, type))
    return {n: c for table in CHOICES.values() for n, c in table.items() if classes and issubclass(c, classes)}


def _is_built(kind: Any) -> bool:
    """Whether values of this type are made from mappings: a dataclass, or the common type of several named ones."""
    return dataclasses.is_dataclass(kind) or bool(_choices([kind]))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def build(kind: Any, node: Any, path: str = "") -> Any:
    """A value of type `kind` from plain YAML data.

    Raises:
        ConfigError: with the path of what is wrong, what was expected, and the nearest known name.
    """
    members = _members(kind)
    if node is None and type(None) in members:
        return None
    classes = [m for m in members if _is_built(m)]
    if classes:
        return _build_class(classes, node, path)
    mapping = next((m for m in members if typing.get_origin(m) is dict), None)
    inner = None if mapping is None else typing.get_args(mapping)[1]
    if _is_built(inner) and isinstance(node, Mapping):
        return {str(key): build(inner, value, f"{path}.{key}") for key, value in node.items()}
    if len(members) > 1 and mapping is not None:
        kind = next(m for m in members if m is not mapping)
    if typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] == (Ellipsis,):
        inner = typing.get_args(kind)[0]
        if any(_is_built(m) for m in _members(inner)):
            if not isinstance(node, list | tuple):
                raise ConfigError(f"{path}: expected a list, got {node!r}; write it as [ ... ]")
            return tuple(build(inner, item, f"{path}[{i}]") for i, item in enumerate(node))
    return _leaf(kind, node, path)


def _build_class(classes: list[Any], node: Any, path: str) -> Any:
    if isinstance(node, tuple(classes)):
        return node
    choices = _choices(classes)
    if choices and isinstance(node, str):
        node = {"make": node} if Set in classes and names_code(node) else {"name": node}
    if not isinstance(node, Mapping):
        raise ConfigError(f"{path or 'recipe'}: expected a mapping of keys and values, got {node!r}; write key: value")
    cls, values = classes[0], dict(node)
    if Set in classes and "make" in values and "name" not in values:
        cls = OwnSet
    elif choices:
        name = values.pop("name", None)
        if name not in choices:
            got = "nothing" if name is None else repr(name)
            raise ConfigError(f"{path}.name: expected a known name, got {got}; {suggest(str(name), choices)}")
        cls = choices[name]
    fields = {f.name for f in dataclasses.fields(cls)}
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in fields:
            raise ConfigError(f"{prefix}{key}: expected a known key, got {key!r}; {suggest(str(key), fields)}")
    made = {
        key: build(_hints(cls)[key], _with_default_name(cls, key, value), f"{prefix}{key}")
        for key, value in values.items()
    }
    try:
        return cls(**made)
    except TypeError as error:
        missing = str(error).split("argument")[-1].strip(" :s")
        raise ConfigError(f"{path}: expected a value for {missing}, got none; add it") from error
    except ConfigError:
        raise
    except DanskinError as error:
        raise ConfigError(f"{path}: {error}") from error


def _with_default_name(cls: Any, key: str, node: Any) -> Any:
    """A choice that is not named is the one this key has by default: `optimizer: {lr: 0.01}` is SGD."""
    if not isinstance(node, Mapping) or "name" in node:
        return node
    f = next(f for f in dataclasses.fields(cls) if f.name == key)
    default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
    name = name_of(default)
    return {"name": name, **node} if name else node


def _leaf(kind: Any, node: Any, path: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(node)
    except ValidationError as error:
        first = error.errors()[0]
        wanted = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        raise ConfigError(f"{path}: expected {wanted}, got {node!r}; see `danskin show config`") from error


def plain(value: Any) -> Any:
    """A config as YAML-ready data: what `build` reads back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = name_of(value)
        out = {"name": name} if name else {}
        return out | {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
