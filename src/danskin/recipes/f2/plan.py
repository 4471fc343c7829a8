"""Row F2 at a scale, resolved: a GAN run for each problem, method and seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from danskin.files import slug
from danskin.recipes.scales import scaled
from danskin.run.gan import GANConfig, gan_config_of
from danskin.run.recipe import merged
from danskin.run.schema import plain

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class GANPlan:
    """What is trained and compared.

    Args:
        row: its id.
        title: what it shows.
        scale: smoke, small or full.
        says: what this scale can and cannot show.
        status: "not run" where nobody has run it.
        seeds: how many; they count from 0.
        configs: by (problem, method), with seed 0.
        names: of the methods, for tables.
    """

    row: str
    title: str
    scale: str
    says: str
    status: str
    seeds: int
    configs: dict[tuple[str, str], GANConfig]
    names: dict[str, str]

    @property
    def cases(self) -> list[str]:
        """The problems."""
        return list(dict.fromkeys(case for case, _ in self.configs))

    def tasks(self) -> Iterator[tuple[str, str, int]]:
        """(problem, method, seed) of all runs."""
        for seed in range(self.seeds):
            for case, method in self.configs:
                yield case, method, seed

    def config(self, case: str, method: str, seed: int) -> GANConfig:
        """Of one run."""
        return replace(self.configs[case, method], seed=seed)

    def to_plain(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""
        runs: dict[str, dict[str, Any]] = {}
        for (case, method), config in self.configs.items():
            runs.setdefault(case, {})[method] = plain(config)
        return {"row": self.row, "scale": self.scale, "seeds": self.seeds, "runs": runs}


def place(case: str, method: str, seed: int) -> str:
    """The folder of a run within that of the row."""
    return f"{slug(case)}/{method}/seed-{seed}"


def plan_of(name: str, scale: str = "smoke", seeds: int | None = None) -> GANPlan:
    """The plan of the row at a scale.

    Args:
        name: F2.
        scale: smoke, small or full.
        seeds: how many, in place of the recipe's own number.

    Raises:
        ConfigError: no such scale, or a recipe that does not fit.
    """
    recipe = scaled(FOLDER / "row.yaml", scale, seeds)
    node, part = recipe.node, recipe.part
    configs = {}
    for case in part.get("cases", list(node["cases"])):
        told = node["cases"][case]
        for method in part.get("methods", told["methods"]):
            if method not in told["methods"]:
                continue
            base = merged(merged(node["base"], told.get("set", {})), node["methods"][method] or {})
            base = merged(base, (told.get("over") or {}).get(method, {}))
            base = merged(base, part.get("set", {}))
            configs[case, method] = gan_config_of({"name": method} | base)
    names = recipe.names(dict.fromkeys(method for _, method in configs))
    return GANPlan("F2", recipe.title, scale, recipe.says, recipe.status, recipe.seeds, configs, names)
