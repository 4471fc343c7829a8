"""`danskin list` and `danskin show`: what the registries hold, told from the classes themselves."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

Row = dict[str, str]


def _first_line(thing: Any) -> str:
    text = inspect.getdoc(thing) or ""
    return text.split("\n\n", 1)[0].replace("\n", " ")


def _tables() -> dict[str, dict[str, Any]]:
    """Kind -> name -> the thing itself."""
    from danskin.attacks import ATTACKS
    from danskin.data import DATASETS
    from danskin.losses import LOSSES
    from danskin.models import MODELS
    from danskin.recipes import RECIPES
    from danskin.regularizers import REGULARIZERS
    from danskin.run.schema import BALLS
    from danskin.training import OBJECTIVES, OPTIMIZERS, SCHEDULES

    return {
        "attacks": dict(ATTACKS),
        "balls": dict(BALLS),
        "data": dict(DATASETS),
        "losses": dict(LOSSES),
        "models": dict(MODELS),
        "objectives": dict(OBJECTIVES),
        "optimizers": dict(OPTIMIZERS),
        "recipes": dict(RECIPES),
        "regularizers": dict(REGULARIZERS),
        "schedules": dict(SCHEDULES),
    }


def _summary(kind: str, thing: Any) -> str:
    if kind in ("data", "models"):
        return str(thing.description)
    if kind == "losses":
        return str(thing.summary)
    if kind == "recipes":
        lines = thing.read_text(encoding="utf-8").splitlines()
        return lines[0].removeprefix("# ") if lines else ""
    return _first_line(thing)


def listing(kind: str | None) -> list[Row]:
    """One row for each thing of a kind, or of all kinds."""
    from danskin.errors import ConfigError, suggest

    tables = _tables()
    if kind is not None and kind not in tables:
        raise ConfigError(f"list: expected a kind of thing, got {kind!r}; {suggest(kind, tables)}")
    kinds = tables if kind is None else {kind: tables[kind]}
    return [
        {"kind": k, "name": n, "what": _summary(k, thing)} for k, table in kinds.items() for n, thing in table.items()
    ]


def template() -> list[Row]:
    """Min over x, max over y in Y of Phi(x, y): who is who, for every class that says so."""
    rows = []
    for kind, table in _tables().items():
        for name, thing in table.items():
            who = getattr(thing, "template", None)
            if who is not None and hasattr(thing, "moves"):
                row = {"package": kind, "name": name, "x": who.x, "y": who.y, "Y": who.Y, "Phi": who.Phi}
                rows.append(row | {"how they move": thing.moves})
    return rows


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
    from danskin.run.config import TrainConfig
    from danskin.run.recipe import to_yaml

    if name == "config":
        return f"{inspect.getdoc(TrainConfig)}\n\nDefaults:\n\n{to_yaml(TrainConfig())}"
    tables = _tables()
    found = [_describe(kind, name, table[name]) for kind, table in tables.items() if name in table]
    if found:  # a data set and a recipe may share a name
        return "\n\n".join(found)
    known = [n for table in tables.values() for n in table] + ["config"]
    raise ConfigError(f"show: expected a known name, got {name!r}; {suggest(name, known)}")


def _describe(kind: str, name: str, thing: Any) -> str:
    head = f"{name} ({kind})\n\n"
    if kind == "recipes":
        return head + str(thing.read_text(encoding="utf-8"))
    if kind == "losses":
        return head + (inspect.getdoc(thing.function) or "")
    if kind == "models":
        options = "\n".join(f"  {k}: {v!r}" for k, v in thing.options.items())
        return f"{head}{inspect.getdoc(thing.factory)}\n\nOptions and defaults:\n{options}"
    if kind == "data":
        return head + "\n".join(
            f"{f.name}: {getattr(thing, f.name)}" for f in dataclasses.fields(thing) if f.name != "name"
        )
    return head + f"{inspect.getdoc(thing)}\n\nSettings and defaults:\n{_settings(thing)}"


def _settings(cls: Any) -> str:
    lines = []
    for f in dataclasses.fields(cls):
        made = f.default_factory() if f.default_factory is not dataclasses.MISSING else None
        default = f.default if f.default is not dataclasses.MISSING else made
        needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        lines.append(f"  {f.name}: " + ("(needed)" if needed else repr(default)))
    return "\n".join(lines) or "  none"
