"""From finished seeds to result.json: every number with its spread, and the published one beside it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from danskin.files import read_json
from danskin.recipes.claims import Key
from danskin.recipes.judge import read_cells
from danskin.recipes.result import result_of
from danskin.recipes.rows import Plan
from danskin.recipes.summary import summarize
from danskin.recipes.work import run_folder
from danskin.run.schema import plain


def measured(plan: Plan, out: Path) -> dict[Key, dict[str, Any]]:
    """Every number of every seed, summarised: cells, the worst class, seconds per epoch, early accuracies."""
    values: dict[Key, list[float]] = defaultdict(list)
    units: dict[Key, str] = {}
    counts: dict[Key, tuple[int, int]] = {}

    def add(key: Key, unit: str, value: float, count: tuple[int, int] | None = None) -> None:
        values[key].append(value)
        units[key] = unit
        if count is not None:
            counts.setdefault(key, count)

    for case, seed in plan.tasks():
        folder = run_folder(out, case, seed)
        for cell in read_cells(folder):
            key = case, cell["method"], cell["column"], cell["weights"]
            if "hits" not in cell:
                if cell["value"] is not None:  # of gradients that are all 0
                    add(key, "number", cell["value"])
                continue
            add(key, "share", cell["hits"] / cell["n"], (cell["hits"], cell["n"]))
            if plan.per_class:
                worst = min((h / n, h, n) for h, n in cell["per_class"] if n)
                add((case, cell["method"], f"{cell['column']}, worst class", cell["weights"]), "share", worst[0])
        models = read_json(folder / "result.json", ("models",))["models"]
        for method, row in models.items():
            seconds = statistics.median(epoch["seconds"] for epoch in row["history"])
            add((case, method, "seconds per epoch", "-"), "seconds", seconds)
            if any("gradients" in other["history"][-1] for other in models.values()):
                busy = statistics.median(epoch["cpu_seconds"] for epoch in row["history"])
                add((case, method, "CPU seconds per epoch", "-"), "seconds", busy)
                steps = row["history"][-1]["step"]
                for name, column in (("gradients", "gradients per step"), ("depth", "serial depth")):
                    total = sum(epoch.get(name, 0) for epoch in row["history"])  # not counted for plain optimisers
                    add((case, method, column, "-"), "number", total / steps if total else 1)
            for epoch in plan.early:
                if epoch <= len(row["history"]) and (robust := row["history"][epoch - 1]["robust"]) is not None:
                    add((case, method, f"robust validation, epoch {epoch}", "-"), "share", robust)
    return {key: summarize(found, units[key], counts.get(key)) for key, found in values.items()}


def gathered(plan: Plan, out: Path, cost: dict[str, Any]) -> dict[str, Any]:
    """What result.json holds.

    Args:
        plan: all of whose seeds are finished.
        out: their folder.
        cost: forward-equivalents of a step, by case and method.
    """
    first = run_folder(out, *plan.tasks()[0])
    return result_of(
        plan,
        measured(plan, out),
        columns={case: [c.name for c in columns] for case, columns in plan.columns.items()},
        configs={case: plain(config) for case, config in plan.cases.items()},
        attacks={
            case: {c.name: c.suite or c.measure or repr(c.attack) for c in columns}
            for case, columns in plan.columns.items()
        },
        weights=list(plan.weights),
        data=read_json(first / "result.json", ("data",))["data"],
        forward_equivalents=cost,
    )
