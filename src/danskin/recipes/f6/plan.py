"""Row F6 at a scale, resolved: a critic for each problem, activation and seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danskin.errors import ConfigError, suggest
from danskin.recipes.scales import scaled
from danskin.run.recipe import merged

FOLDER = Path(__file__).parent
DATA = ("gaussians_8", "shift", "digits")
LAYERS = ("plain", "spectral", "orthogonal")
ACTIVATIONS = ("relu", "abs", "group_sort", "spline")


@dataclass(frozen=True)
class CriticPlan:
    """What is trained and compared.

    Args:
        row: its id.
        title: what it shows.
        scale: smoke, small or full.
        says: what this scale can and cannot show.
        status: "not run" where nobody has run it.
        seeds: how many; they count from 0.
        cases: label -> data, points, hidden, steps, lr.
        methods: label -> layer, activation, penalty.
        names: of the methods, for tables.
    """

    row: str
    title: str
    scale: str
    says: str
    status: str
    seeds: int
    cases: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, Any]]
    names: dict[str, str]

    def tasks(self) -> Iterator[tuple[str, str, int]]:
        """(problem, method, seed) of all runs."""
        for seed in range(self.seeds):
            for case in self.cases:
                for method in self.methods:
                    yield case, method, seed

    def to_plain(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""
        keys = ("row", "scale", "seeds", "cases", "methods")
        return {key: getattr(self, key) for key in keys}


def plan_of(name: str, scale: str = "smoke", seeds: int | None = None) -> CriticPlan:
    """The plan of the row at a scale.

    Args:
        name: F6.
        scale: smoke, small or full.
        seeds: how many, in place of the recipe's own number.

    Raises:
        ConfigError: no such scale, or a recipe that does not fit.
    """
    recipe = scaled(FOLDER / "row.yaml", scale, seeds)
    node, part = recipe.node, recipe.part
    base = merged(node["base"], part.get("set", {}))
    cases = {label: merged(base, told) for label, told in node["cases"].items()}
    for told in cases.values():
        _known("data", told["data"], DATA)
    for told in node["methods"].values():
        _known("layer", told["layer"], LAYERS)
        _known("activation", told["activation"], ACTIVATIONS)
    methods: Mapping[str, dict[str, Any]] = node["methods"]
    return CriticPlan(
        "F6", recipe.title, scale, recipe.says, recipe.status, recipe.seeds, cases, dict(methods), recipe.names(methods)
    )


def _known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"F6: {what}: expected a known name, got {value!r}; {suggest(str(value), known)}")
