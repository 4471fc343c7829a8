"""Row G3 at a scale, resolved: one run for each method, on a stack of seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danskin.errors import ConfigError, suggest
from danskin.recipes.rows import SCALES
from danskin.run.recipe import merged, read_mapping
from danskin.run.robust_rl import RobustRLConfig
from danskin.run.schema import build, plain

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class RLPlan:
    """What is trained and compared.

    Args:
        row: its id.
        title: what it shows.
        scale: smoke, small or full.
        says: what this scale can and cannot show.
        status: "not run" where nobody has run it.
        methods: config of each.
        names: of the methods, for tables.
        pairs: (method, method) whose differences are looked at seed by seed.
        tail: the share that CVaR looks at.
    """

    row: str
    title: str
    scale: str
    says: str
    status: str
    methods: dict[str, RobustRLConfig]
    names: dict[str, str]
    pairs: tuple[tuple[str, str], ...]
    tail: float

    @property
    def seeds(self) -> int:
        """Of every method."""
        return next(iter(self.methods.values())).seeds

    def to_plain(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""
        return {
            "row": self.row,
            "scale": self.scale,
            "methods": {name: plain(config) for name, config in self.methods.items()},
            "pairs": [list(pair) for pair in self.pairs],
            "tail": self.tail,
        }


def plan_of(name: str, scale: str = "smoke", seeds: int | None = None) -> RLPlan:
    """The plan of the row at a scale.

    Args:
        name: G3.
        scale: smoke, small or full.
        seeds: how many, in place of the recipe's own number.

    Raises:
        ConfigError: no such scale.
    """
    if scale not in SCALES:
        raise ConfigError(f"--scale: expected one of {', '.join(SCALES)}, got {scale!r}; {suggest(scale, SCALES)}")
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds: expected at least 1, got {seeds}; leave it out for the recipe's own number")
    node = read_mapping(FOLDER / "row.yaml")
    part = node["scales"][scale]
    base = merged(node["base"], part.get("set", {})) | {"seeds": seeds or part["seeds"]}
    labels = part.get("methods", list(node["methods"]))
    methods = {
        label: build(RobustRLConfig, merged(base, node["methods"][label]) | {"name": label}, label) for label in labels
    }
    pairs = tuple((a, b) for a, b in node["pairs"] if a in methods and b in methods)
    names = {label: node["names"][label] for label in methods}
    says = " ".join(part["says"].split())
    tail = float(node["tail"])
    return RLPlan("G3", node["title"], scale, says, part.get("status", ""), methods, names, pairs, tail)
