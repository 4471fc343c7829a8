"""`danskin list` and `danskin show`: what there is, from `catalog.json`; and one thing in full, from its class."""

from __future__ import annotations

import dataclasses
import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

Row = dict[str, str]


@cache
def _catalog() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("catalog.json").read_text(encoding="utf-8"))
    return found


def kinds() -> list[str]:
    """Kinds of things."""
    return list(_catalog()["kinds"])


def names(kind: str | None = None) -> list[str]:
    """Names of the things of a kind, or of all kinds."""
    return [row["name"] for row in listing(kind)]


def listing(kind: str | None) -> list[Row]:
    """One row for each thing of a kind, or of all kinds."""
    from danskin.errors import ConfigError, suggest

    held = _catalog()["kinds"]
    if kind is not None and kind not in held:
        raise ConfigError(f"list: expected a kind of thing, got {kind!r}; {suggest(kind, held)}")
    if kind is not None:
        return [{"kind": kind} | row for row in held[kind]]
    return [{"kind": k, "name": row["name"], "what": row["what"]} for k, rows in held.items() for row in rows]


def template() -> list[Row]:
    """Min over x, max over y in Y of Phi(x, y): who is who, for every class that says so."""
    found: list[Row] = _catalog()["template"]
    return found


def show_table(rows: list[Row]) -> None:
    """Rows as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(text.replace("[", r"\[") for text in row.values()))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def describe(name: str) -> str:
    """The documentation of one thing and its settings with defaults."""
    from danskin.errors import ConfigError, suggest

    row = next((row for row in _catalog()["kinds"]["rows"] if row["name"] == name.upper()), None)
    if row is not None:
        code = row["code"] or "-"
        return f"{row['name']} (rows)\n\n{row['what']}\n\ncommand: {row['command']}\nin the library: {code}"
    if name not in names() and name != "config":
        raise ConfigError(f"show: expected a known name, got {name!r}; {suggest(name, [*names(), 'config'])}")
    return _described(name)


def _described(name: str) -> str:
    from danskin.cli.collected import documentation, tables
    from danskin.run.config import TrainConfig
    from danskin.run.gan import GANConfig
    from danskin.run.recipe import to_yaml

    if name == "config":
        return "\n\n".join(
            f"danskin {command}\n\n{documentation(kind)}\n\nDefaults:\n\n{to_yaml(kind())}"
            for command, kind in (("train", TrainConfig), ("gan", GANConfig))
        )
    found = [_describe(kind, name, table[name]) for kind, table in tables().items() if name in table]
    return "\n\n".join(found)  # a data set and a recipe may share a name


def _describe(kind: str, name: str, thing: Any) -> str:
    from danskin.cli.collected import documentation

    head = f"{name} ({kind})\n\n"
    if kind in ("recipes", "gan_recipes"):
        return head + str(thing.read_text(encoding="utf-8"))
    if kind == "losses":
        return head + documentation(thing.function)
    if kind == "models":
        options = "\n".join(f"  {k}: {v!r}" for k, v in thing.options.items())
        return f"{head}{documentation(thing.factory)}\n\nOptions and defaults:\n{options}"
    if kind == "data":
        return head + "\n".join(
            f"{f.name}: {getattr(thing, f.name)}" for f in dataclasses.fields(thing) if f.name != "name"
        )
    return head + f"{documentation(thing)}\n\nSettings and defaults:\n{_settings(thing)}"


def _settings(cls: Any) -> str:
    if not dataclasses.is_dataclass(cls):
        return "\n".join(f"  {parameter}" for parameter in inspect.signature(cls).parameters.values()) or "  none"
    lines = []
    for f in dataclasses.fields(cls):
        made = f.default_factory() if f.default_factory is not dataclasses.MISSING else None
        default = f.default if f.default is not dataclasses.MISSING else made
        needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        lines.append(f"  {f.name}: " + ("(needed)" if needed else repr(default)))
    return "\n".join(lines) or "  none"
