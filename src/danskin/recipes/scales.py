"""The part of a row's recipe that all kinds of rows share: its scales, and what each says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danskin.errors import ConfigError, suggest
from danskin.run.recipe import read_mapping

#: Of every row; a row may have more.
SCALES = ("smoke", "small", "full")


@dataclass(frozen=True)
class Scaled:
    """A recipe at a scale, whose own parts are not read yet.

    Args:
        node: all of the file.
        part: the section of the scale.
        scale: smoke, small or full.
        seeds: how many; they count from 0.
    """

    node: dict[str, Any]
    part: dict[str, Any]
    scale: str
    seeds: int

    @property
    def title(self) -> str:
        """What the row shows, in a few words."""
        return str(self.node["title"])

    @property
    def says(self) -> str:
        """What this scale can and cannot show."""
        return " ".join(self.part["says"].split())

    @property
    def status(self) -> str:
        """Nothing, or "not run" where nobody has run it."""
        return str(self.part.get("status", ""))

    def names(self, labels: Iterable[str]) -> dict[str, str]:
        """Of methods, for tables: the label itself where the recipe has no name for it."""
        return {label: self.node.get("names", {}).get(label, label) for label in labels}


def scaled(path: Path, scale: str = "smoke", seeds: int | None = None) -> Scaled:
    """A recipe at a scale.

    Args:
        path: its file.
        scale: smoke, small, full, or another that the file has.
        seeds: how many, in place of the recipe's own number.

    Raises:
        ConfigError: no such scale, no seeds, or a file that is no recipe.
    """
    node = read_mapping(path)
    known = list(node["scales"])
    if scale not in known:
        raise ConfigError(f"--scale: expected one of {', '.join(known)}, got {scale!r}; {suggest(scale, known)}")
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds: expected at least 1, got {seeds}; leave it out for the recipe's own number")
    part = node["scales"][scale]
    return Scaled(node, part, scale, seeds or int(part["seeds"]))
