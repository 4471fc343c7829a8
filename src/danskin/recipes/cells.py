"""A lecture row made of cells: one line of numbers for each case, method and seed.

A folder OUT holds plan.yaml, cells.jsonl (what is there is not run again), result.json, table.md, figures/ and
report.html.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from danskin.files import append_line, make_folder, open_to_append, read_lines
from danskin.metrics import wilson
from danskin.recipes.claims import Key
from danskin.recipes.folder import begun, command_of, write_result
from danskin.recipes.result import Row, result_of
from danskin.recipes.summary import summarize
from danskin.report.drawing import Drawn
from danskin.report.reproduction import write_reproduction

Task = tuple[str, str, int]
Cell = Mapping[str, Any]


class Plan(Row, Protocol):
    """A row whose work is a list of cells."""

    def to_plain(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""

    def tasks(self) -> Iterator[Task]:
        """(case, method, seed) of all cells."""


def run_cells(
    plan: Plan,
    out: Path,
    cell: Callable[[str, str, int], Cell],
    told: Callable[[list[Cell]], dict[str, Any]],
    draw: Callable[[dict[str, Any]], Iterable[Drawn]],
    *,
    resume: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the cells that are not there, and write what came of all.

    Args:
        plan: a row at a scale.
        out: its folder.
        cell: the numbers of a case, a method and a seed: "numbers" by column, "shares" by column (a share, or hits and
            how many it is of), and where there is one a "curve" of (x, y).
        told: what result.json holds.
        draw: the figures of a result.
        resume: go on with what is in `out`.
        say: is told what comes next.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: `out` has content and `resume` is not set, or holds another plan.
    """
    with begun(plan, out, resume):
        make_folder(out)
        path, wanted = out / "cells.jsonl", list(plan.tasks())
        cells: dict[Task, Cell] = {}
        if path.is_file():
            cells = {(c["case"], c["method"], c["seed"]): c for c in read_lines(path, ("case", "method", "seed"))}
        say(f"{plan.row} at scale {plan.scale}: {plan.says}")
        with open_to_append(path) as stream:
            for case, method, seed in wanted:
                if (case, method, seed) not in cells:
                    say(f"{case}: {plan.names[method]}, seed {seed}")
                    found = {"case": case, "method": method, "seed": seed} | dict(cell(case, method, seed))
                    append_line(stream, path, found)
                    cells[case, method, seed] = found
        result = told([cells[task] for task in wanted])
        return write_result(
            out, result, lambda found: write_reproduction(out, found, list(draw(found)), command_of(plan))
        )


def gathered(plan: Row, cells: Iterable[Cell], *, configs: Any, note: str, **own: Any) -> dict[str, Any]:
    """What result.json holds: numbers over seeds with intervals, mean curves.

    Starts are independent across seeds, so a share of starts has one (Wilson) interval for all of them.

    Args:
        plan: a row at a scale.
        cells: all of it.
        configs: everything that decides the numbers.
        note: how to read them.
        own: what only this kind of row has.
    """
    values: dict[Key, list[float]] = defaultdict(list)
    counts: dict[Key, list[tuple[int, int]]] = defaultdict(list)
    units: dict[Key, str] = {}
    columns: dict[str, dict[str, None]] = {}
    curves: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))

    def add(cell: Cell, column: str, unit: str, value: float) -> Key:
        key = cell["case"], cell["method"], column, "-"
        values[key].append(value)
        units[key] = unit
        columns[cell["case"]][column] = None
        return key

    for cell in cells:
        columns.setdefault(cell["case"], {})
        if "curve" in cell:
            curves[cell["case"]][cell["method"]].append(cell["curve"])
        for kind in [k for k in cell if k in ("numbers", "shares")]:  # columns in the order of the cell
            for column, value in cell[kind].items():
                if isinstance(value, Sequence):
                    hits, n = value
                    counts[add(cell, column, "share", hits / n)].append((hits, n))
                else:
                    add(cell, column, kind.removesuffix("s"), value)
    numbers = {}
    for key, found in values.items():
        numbers[key] = summarize(found, units[key])
        if key in counts:
            hits, n = (sum(each) for each in zip(*counts[key], strict=True))
            numbers[key] |= {"interval": list(wilson(hits, n)), "interval_kind": "Wilson over starts"}
    means = {case: {m: _mean(each) for m, each in found.items()} for case, found in curves.items()}
    shown = {case: list(found) for case, found in columns.items()}
    return result_of(plan, numbers, columns=shown, configs=configs, note=note, curves=means, **own)


def _mean(curves: list[list[list[float]]]) -> list[list[float]]:
    """The mean of curves over seeds, point by point."""
    mean: list[list[float]] = torch.tensor(curves, dtype=torch.float64).mean(0).tolist()
    return mean


def over_seeds(plan: Row) -> str:
    """What a number with ± is of, for notes."""
    return f"mean over {plan.seeds} seed{'' if plan.seeds == 1 else 's'} ± half of a 95 % interval"
