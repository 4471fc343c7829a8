"""A lecture row of distributions: seeds as cells, numbers beside claims. LECTURE rows E1 and E3.

`row.yaml` of a row has cases with methods (a name and its settings) and scales. A folder OUT holds plan.yaml,
cells.jsonl (a line for each case, method and seed; what is there is not run again), result.json, table.md, figures/ and
report.html.
"""

from __future__ import annotations

import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import danskin
from danskin.files import append_line, make_folder, open_to_append, read_lines, write_text
from danskin.recipes.claims import Claims
from danskin.recipes.folder import check_new_or_resumed, check_same, command_of, write_result
from danskin.recipes.rows import OWN
from danskin.recipes.scales import scaled
from danskin.recipes.summary import summarize
from danskin.report.reproduction import write_reproduction
from danskin.run.lock import locked
from danskin.run.recipe import merged, parse_yaml, read_mapping, to_yaml
from danskin.run.record import environment


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
        """The module of the row: `cell(settings, seed)` and `draw(result)`."""
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
    read = scaled(OWN[row] / "row.yaml", scale, seeds)
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
    """The work of a study in words: one cell of each method is timed."""
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
        ConfigError: `out` has content and `resume` is not set, or holds another study.
        MissingError: POT is needed and not installed.
    """
    check_new_or_resumed(out, resume)
    there = out / "plan.yaml"
    if there.is_file():
        check_same(parse_yaml(to_yaml(study.to_plain()), "the study"), read_mapping(there), out, "study")
    make_folder(out)
    with locked(out):
        write_text(there, to_yaml(study.to_plain()))
        path = out / "cells.jsonl"
        known_cells = read_lines(path, ("case", "method", "seed")) if path.is_file() else []
        done = {(c["case"], c["method"], c["seed"]) for c in known_cells}
        say(f"{study.row} at scale {study.scale}: {study.says}")
        with open_to_append(path) as stream:
            for case, method, seed in study.tasks():
                if (case, method, seed) not in done:
                    say(f"{case}: {study.names[method]}, seed {seed}")
                    cell = study.code.cell(study.cases[case][method], seed)
                    append_line(stream, path, {"case": case, "method": method, "seed": seed} | cell)
        result = _gathered(study, read_lines(path))
        return write_result(
            out, result, lambda told: write_reproduction(out, told, study.code.draw(told), command_of(study))
        )


def _gathered(study: Sampling, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What result.json holds."""
    claims = Claims.read(read_mapping(OWN[study.row] / "claims.yaml"))
    values: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    shares: set[tuple[str, str, str, str]] = set()
    columns: dict[str, dict[str, None]] = {case: {} for case in study.cases}
    wanted = set(study.tasks())
    for cell in cells:
        if (cell["case"], cell["method"], cell["seed"]) not in wanted:
            continue
        for kind in ("numbers", "shares"):
            for column, value in cell.get(kind, {}).items():
                key = cell["case"], cell["method"], column, "-"
                values[key].append(value)
                columns[cell["case"]][column] = None
                if kind == "shares":
                    shares.add(key)
    numbers = {key: summarize(found, "share" if key in shares else "number") for key, found in values.items()}
    rows = []
    for key, found in numbers.items():
        where = dict(zip(("case", "method", "column", "weights"), key, strict=True))
        rows.append(where | found | {"published": claims.published_of(key)})
    note = (
        f"mean over {study.seeds} seed{'' if study.seeds == 1 else 's'} ± half of a 95 % interval; shares in percent; "
        "[published]"
    )
    return {
        "danskin": danskin.__version__,
        "row": study.row,
        "title": study.title,
        "scale": study.scale,
        "says": study.says,
        "seeds": list(range(study.seeds)),
        "cases": list(study.cases),
        "methods": study.names,
        "columns": {case: list(found) for case, found in columns.items()},
        "attacks": {},
        "weights": ["-"],
        "data": {},
        "note": note,
        "measured": rows,
        "forward_equivalents": {},
        "claims": [verdict.to_dict() for verdict in claims.judged(study.scale, numbers)],
        "published": claims.sources,
        "configs": study.cases,
        "environment": environment(),
    }


def number_of(result: Mapping[str, Any], case: str, method: str, column: str) -> Mapping[str, Any] | None:
    """A measured number of a result, with its interval; None where it was not measured."""
    for found in result["measured"]:
        if (found["case"], found["method"], found["column"]) == (case, method, column):
            return dict(found)
    return None
