"""A lecture row of distributions, by cases, methods and seeds. LECTURE rows E1, E3, E4, E6, F6.

`row.yaml` of a row has cases with methods (a name and its settings) and scales; its cells.py has
`cell(settings, seed)`, `draw(result)` and, where a cell takes long, `estimate(study)`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danskin.recipes.cells import gathered, over_seeds, run_cells
from danskin.recipes.rows import CELLS
from danskin.recipes.scales import scaled
from danskin.run.recipe import merged


@dataclass(frozen=True)
class Sampling:
    """A row at a scale, resolved.

    Args:
        row: its id.
        title: what it shows, in a few words.
        scale: smoke, small or full.
        says: what this scale can and cannot show.
        status: "not run" where nobody has run it.
        seeds: how many; they count from 0.
        cases: label -> method -> settings.
        names: of the methods, for tables.
    """

    row: str
    title: str
    scale: str
    says: str
    status: str
    seeds: int
    cases: dict[str, dict[str, dict[str, Any]]]
    names: dict[str, str]

    def to_plain(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""
        return {"row": self.row, "scale": self.scale, "seeds": self.seeds, "cases": self.cases}

    def tasks(self) -> Iterator[tuple[str, str, int]]:
        """(case, method, seed) of all cells."""
        for case, methods in self.cases.items():
            for method in methods:
                for seed in range(self.seeds):
                    yield case, method, seed

    @property
    def code(self) -> Any:
        """The cells.py of the row."""
        return importlib.import_module(f"danskin.recipes.{self.row.lower()}.cells")


def plan_of(row: str, scale: str = "smoke", seeds: int | None = None) -> Sampling:
    """The study of a row at a scale.

    Args:
        row: its id.
        scale: smoke, small or full.
        seeds: how many, in place of the recipe's own number.

    Raises:
        ConfigError: no such scale, or no seeds.
    """
    read = scaled(CELLS[row] / "row.yaml", scale, seeds)
    cases = {
        str(case): {
            str(method): merged(told.get("settings", {}), settings or {}) | read.part.get("set", {})
            for method, settings in told["methods"].items()
        }
        for case, told in read.node["cases"].items()
        if str(case) in read.part.get("cases", [str(case)])
    }
    names = read.names(method for found in cases.values() for method in found)
    return Sampling(row, read.title, scale, read.says, read.status, read.seeds, cases, names)


def estimate(study: Sampling) -> str:
    """The work of a study in words: the row's own `estimate`, or one cell of each method is timed."""
    if hasattr(study.code, "estimate"):
        return str(study.code.estimate(study))
    seconds = 0.0
    for methods in study.cases.values():
        for settings in methods.values():
            started = time.perf_counter()
            study.code.cell(settings, 0)
            seconds += time.perf_counter() - started
    return f"{len(list(study.tasks()))} cells, about {seconds * study.seeds:.0f} s (one of each was timed)"


def run_study(
    study: Sampling, out: Path, *, resume: bool = False, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Run a study and write what came of it.

    Args:
        study: a row at a scale.
        out: its folder.
        resume: go on with what is in `out`.
        say: is told what comes next.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: `out` has content and `resume` is not set, or holds another plan.
        MissingError: POT is needed and not installed.
    """
    return run_cells(
        study,
        out,
        lambda case, method, seed: study.code.cell(study.cases[case][method], seed),
        lambda cells: gathered(study, cells, configs=study.cases, note=_note(study)),
        study.code.draw,
        resume=resume,
        say=say,
    )


def _note(study: Sampling) -> str:
    return f"{over_seeds(study)}; shares in percent"


def number_of(result: Mapping[str, Any], case: str, method: str, column: str) -> Mapping[str, Any] | None:
    """A measured number of a result, with its interval; None where it was not measured."""
    for found in result["measured"]:
        if (found["case"], found["method"], found["column"]) == (case, method, column):
            return dict(found)
    return None
