"""Row G3 at a scale, resolved: one run for each method, on a stack of seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danskin.recipes.scales import scaled
from danskin.run.recipe import merged
from danskin.run.robust_rl import RobustRLConfig
from danskin.run.schema import build, plain

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class RLPlan:
    """What is trained and compared.

    Args:
        row: its id.
        title: what it shows.
        scale: smoke, small, mujoco or full.
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
        scale: smoke, small, full; or mujoco, a small one in MuJoCo's InvertedPendulum.
        seeds: how many, in place of the recipe's own number.

    Raises:
        ConfigError: no such scale.
    """
    read = scaled(FOLDER / "row.yaml", scale, seeds)
    node, part = read.node, read.part
    base = merged(node["base"], part.get("set", {})) | {"seeds": read.seeds}
    labels = part.get("methods", list(node["methods"]))
    methods = {
        label: build(RobustRLConfig, merged(base, node["methods"][label]) | {"name": label}, label) for label in labels
    }
    pairs = tuple((a, b) for a, b in node["pairs"] if a in methods and b in methods)
    tail = float(node["tail"])
    return RLPlan("G3", read.title, scale, read.says, read.status, methods, read.names(methods), pairs, tail)
