"""Row F6: what every critic proves, beside exact W1. Lecture: row F6."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import danskin
from danskin.files import append_line, make_folder, open_to_append, read_lines, write_text
from danskin.recipes.claims import Claims
from danskin.recipes.f6.critics import dual_of, points_of
from danskin.recipes.f6.figures import draw
from danskin.recipes.f6.plan import FOLDER, CriticPlan
from danskin.recipes.folder import check_new_or_resumed, check_same, command_of, write_result
from danskin.recipes.summary import summarize
from danskin.report.reproduction import write_reproduction
from danskin.run.lock import locked
from danskin.run.recipe import parse_yaml, read_mapping, to_yaml
from danskin.run.record import environment
from danskin.transport import wasserstein

Cell = Mapping[str, Any]
_NOTE = (
    "proved: the critic's gap divided by its certified constant (float64), as a share of exact W1 of the same points"
)
UNITS = {"proved": "share", "gap / W1": "number", "constant": "number", "W1": "number", "seconds": "number"}


def run_study(plan: CriticPlan, out: Path, *, resume: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Train what is not trained, and write result.json, table.md, figures/ and report.html.

    Raises:
        ConfigError: the folder has content and `resume` is not set, or holds another plan.
        MissingError: POT is needed for exact distances and not installed.
    """
    check_new_or_resumed(out, resume)
    path = out / "plan.yaml"
    if path.is_file():
        check_same(parse_yaml(to_yaml(plan.to_plain()), "the plan"), read_mapping(path), out, "plan")
    say(f"F6 at scale {plan.scale}: {plan.says}")
    make_folder(out)
    with locked(out):
        write_text(path, to_yaml(plan.to_plain()))
        cells = _cells(plan, out / "cells.jsonl", say)
        result = gathered(plan, cells)
        return write_result(
            out, result, lambda told: write_reproduction(out, told, draw(plan, cells), command_of(plan))
        )


def _cells(plan: CriticPlan, path: Path, say: Callable[[str], None]) -> list[Cell]:
    """A line for each critic; those that are there are not trained again."""
    cells = list(read_lines(path, ("case", "method", "seed"))) if path.is_file() else []
    done = {(c["case"], c["method"], c["seed"]) for c in cells}
    exact = {(c["case"], c["seed"]): c["W1"] for c in cells}
    with open_to_append(path) as stream:
        for case, method, seed in plan.tasks():
            if (case, method, seed) in done:
                continue
            say(f"{case}: {plan.names[method]}, seed {seed}")
            x, y = points_of(plan.cases[case], seed)
            if (case, seed) not in exact:
                exact[case, seed] = wasserstein(x, y).bracket.lower
            cell = cell_of(plan, case, method, seed, exact[case, seed])
            append_line(stream, path, cell)
            cells.append(cell)
    wanted = set(plan.tasks())
    return [c for c in cells if (c["case"], c["method"], c["seed"]) in wanted]


def cell_of(plan: CriticPlan, case: str, method: str, seed: int, exact: float) -> dict[str, Any]:
    """One critic, in numbers."""
    x, y = points_of(plan.cases[case], seed)
    fitted = dual_of(plan.methods[method], plan.cases[case], x.shape[1], seed).fit(x, y)
    return {
        "case": case,
        "method": method,
        "seed": seed,
        "proved": fitted.bound.lower / exact,
        "gap / W1": abs(fitted.bound.gap) / exact,
        "constant": fitted.bound.lipschitz.value,
        "W1": exact,
        "seconds": fitted.seconds,
        "history": [[step, gap / exact] for step, gap in fitted.history],
    }


def gathered(plan: CriticPlan, cells: Sequence[Cell]) -> dict[str, Any]:
    """What result.json holds."""
    values: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for cell in sorted(cells, key=lambda c: c["seed"]):
        for column in UNITS:
            values[cell["case"], cell["method"], column, "-"].append(cell[column])
    measured = {key: summarize(v, UNITS[key[2]]) for key, v in values.items()}
    keys = ("case", "method", "column", "weights")
    claims = Claims.read(read_mapping(FOLDER / "claims.yaml"))
    return {
        "danskin": danskin.__version__,
        "row": plan.row,
        "title": plan.title,
        "scale": plan.scale,
        "says": plan.says,
        "seeds": list(range(plan.seeds)),
        "cases": list(plan.cases),
        "methods": plan.names,
        "columns": {case: list(UNITS) for case in plan.cases},
        "attacks": {},
        "weights": ["-"],
        "data": {},
        "note": f"{_NOTE}; mean over seeds ({plan.seeds}) ± half of a 95 % interval (t over seeds)",
        "measured": [dict(zip(keys, key, strict=True)) | m | {"published": None} for key, m in measured.items()],
        "forward_equivalents": {},
        "claims": [verdict.to_dict() for verdict in claims.judged(plan.scale, measured)],
        "published": claims.sources,
        "configs": plan.to_plain(),
        "environment": environment(),
    }
