"""A lecture row of games: solvers from many starts, several seeds, numbers beside claims. LECTURE rows G1 and G2.

`games.yaml` of a row is read by `danskin.recipes.game_plan`. A folder OUT holds plan.yaml, cells.jsonl (a line for each
case, method and seed; what is there is not run again), result.json, table.md, figures/ and report.html.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import danskin
from danskin.files import append_line, make_folder, open_to_append, read_lines, write_text
from danskin.games import AlmostBilinear, MatrixGame
from danskin.metrics import wilson
from danskin.minmax import Outcome, Trajectory, duality_gap, outcomes, run_solver
from danskin.minmax.saddle import Saddle, flip
from danskin.recipes.claims import Claims
from danskin.recipes.folder import check_new_or_resumed, check_same, command_of, write_result
from danskin.recipes.game_plan import Study
from danskin.recipes.rows import STUDIES
from danskin.recipes.summary import summarize
from danskin.report.drawing import Drawn
from danskin.report.reproduction import write_reproduction
from danskin.run.lock import locked
from danskin.run.play import Play, arrows
from danskin.run.recipe import parse_yaml, read_mapping, to_yaml
from danskin.run.record import environment

_HIT = 1e-3  # a distance from the solution that counts as there


def run_study(
    study: Study, out: Path, *, resume: bool = False, say: Callable[[str], None] = lambda text: None
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
    """
    _check(study, out, resume)
    make_folder(out)
    with locked(out):
        write_text(out / "plan.yaml", to_yaml(study.to_plain()))
        path = out / "cells.jsonl"
        known = read_lines(path, ("case", "method", "seed")) if path.is_file() else []
        done = {(c["case"], c["method"], c["seed"]) for c in known}
        say(f"{study.row} at scale {study.scale}: {study.says}")
        with open_to_append(path) as stream:
            for task in study.tasks():
                if task not in done:
                    say(f"{task[0]}: {study.names[task[1]]}, seed {task[2]}")
                    append_line(stream, path, _cell(study, *task))
        result = _gathered(study, read_lines(path))
        return write_result(
            out, result, lambda told: write_reproduction(out, told, list(_drawn(study, told)), command_of(study))
        )


def _check(study: Study, out: Path, resume: bool) -> None:
    check_new_or_resumed(out, resume)
    there = out / "plan.yaml"
    if there.is_file():
        check_same(parse_yaml(to_yaml(study.to_plain()), "the study"), read_mapping(there), out, "study")


def _run(study: Study, case: str, method: str, seed: int, starts: int | None = None) -> tuple[Play, Saddle, Trajectory]:
    play = study.play(case, method, seed)
    saddle, solver = play.game.saddle(), next(iter(play.solvers.values()))
    if study.methods[method].get("minimise"):
        saddle = minimised(saddle)
    known = play.game.solutions
    run = run_solver(
        saddle, solver, study.start(case, play, starts), play.steps, keep=1000,
        center=None if known is None else known[0], seed=seed,
    )  # fmt: skip
    return play, saddle, run


def minimised(saddle: Saddle) -> Saddle:
    """Both players minimise Phi together: the operator is its gradient, and descent-ascent is gradient descent."""
    return Saddle(
        lambda z: flip(saddle(z), saddle.split), saddle.split, saddle.feasible, saddle.payoff, saddle.lipschitz
    )


def _cell(study: Study, case: str, method: str, seed: int) -> dict[str, Any]:
    """One run, in numbers."""
    play, saddle, run = _run(study, case, method, seed)
    ended, told = outcomes(saddle, run), study.cases[case]
    cell: dict[str, Any] = {"case": case, "method": method, "seed": seed, "numbers": {}, "shares": {}}
    n = len(ended)
    if "marks" in told:
        cell["numbers"] = _gaps(study, case, method, seed, told["marks"])
    elif "near" in told:
        cell |= _nearness(play, saddle, run, told["near"])
    else:
        known = play.game.solutions
        if known is not None and not study.methods[method].get("minimise"):
            distance = (run.last - known[0]).norm(dim=1)
            cell["shares"]["at the solution"] = [int((distance < _HIT).sum()), n]
            cell["numbers"]["distance"] = float(distance.median())
        settled = sum(o in (Outcome.EQUILIBRIUM, Outcome.SOLUTION, Outcome.NOT_NASH) for o in ended)
        cell["shares"]["at a critical point"] = [settled, n]
        cell["shares"]["circling"] = [ended.count(Outcome.CYCLE), n]
    if isinstance(play.game, AlmostBilinear):
        cell["numbers"]["radius"] = float(run.tail.distance.mean(1).median())
    return cell | {"calls": run.cost.calls, "seconds": run.cost.seconds}


def _nearness(play: Play, saddle: Saddle, run: Trajectory, near: float) -> dict[str, Any]:
    """Who is near the solution in l_inf at the end, and the share of it against evaluations of F."""
    known, (solver,) = play.game.solutions, play.solvers.values()
    assert known is not None and saddle.payoff is not None
    inside = (run.points - known[0]).abs().amax(2) < near  # (kept, starts)
    few = torch.linspace(0, len(run.times) - 1, min(len(run.times), 101)).round().long()
    calls = (run.times[few] * solver.calls).tolist()
    return {
        "shares": {"near the equilibrium": [int(inside[-1].sum()), inside.shape[1]]},
        "numbers": {
            "distance": float((run.last - known[0]).norm(dim=1).median()),
            "payoff": float(saddle.payoff(run.last).median()),
        },
        "curve": [[round(t), float(share)] for t, share in zip(calls, inside[few].double().mean(1), strict=True)],
    }


def _gaps(study: Study, case: str, method: str, seed: int, marks: list[int]) -> dict[str, float]:
    """Duality gap of the average after some numbers of steps, from the uniform strategies; and of the last iterate.

    "exponent" is the p of a gap that falls like T^-p between the last two of them.
    """
    found = {}
    for steps in marks:
        play = study.play(case, method, seed)
        assert isinstance(play.game, MatrixGame)
        saddle, solver = play.game.saddle(), next(iter(play.solvers.values()))
        run = run_solver(saddle, solver, play.game.starts(1, seed), steps, keep=2)
        found[f"gap, T={steps}"] = _gap(saddle, run.average)
        if steps == marks[-1]:
            found[f"last iterate, T={steps}"] = _gap(saddle, run.last)
    first, second = marks[-2:]
    found["exponent"] = math.log(found[f"gap, T={first}"] / found[f"gap, T={second}"]) / math.log(second / first)
    return found


def _gap(saddle: Saddle, z: Tensor) -> float:
    return float(duality_gap(saddle, saddle.project(z)))


def _gathered(study: Study, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What result.json holds."""
    node = read_mapping(STUDIES[study.row] / "claims.yaml")
    claims = Claims.read(node)
    values: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    counts: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    columns: dict[str, dict[str, None]] = {case: {} for case in study.cases}
    curves: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    wanted = set(study.tasks())
    for cell in cells:
        if (cell["case"], cell["method"], cell["seed"]) not in wanted:
            continue
        if "curve" in cell:
            curves[cell["case"]][cell["method"]].append(cell["curve"])
        for column, (hits, n) in cell["shares"].items():
            key = cell["case"], cell["method"], column, "-"
            values[key].append(hits / n)
            before = counts.get(key, (0, 0))
            counts[key] = before[0] + hits, before[1] + n
            columns[cell["case"]][column] = None
        for column, value in cell["numbers"].items():
            values[cell["case"], cell["method"], column, "-"].append(value)
            columns[cell["case"]][column] = None
    numbers = {key: _summary(found, counts.get(key)) for key, found in values.items()}
    rows = []
    for key, found in numbers.items():
        where = dict(zip(("case", "method", "column", "weights"), key, strict=True))
        rows.append(where | found | {"published": claims.published_of(key)})
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
        "note": _note(study),
        "measured": rows,
        "forward_equivalents": {},
        "curves": {case: {m: _mean(each) for m, each in found.items()} for case, found in curves.items()},
        "claims": [verdict.to_dict() for verdict in claims.judged(study.scale, numbers)],
        "published": claims.sources,
        "configs": {case: dict(told) for case, told in study.cases.items()} | {"methods": study.methods},
        "environment": environment(),
    }


def _summary(values: list[float], counts: tuple[int, int] | None) -> dict[str, Any]:
    """A number over seeds. Starts are independent across seeds, so a share has one interval for all of them."""
    out = summarize(values, "number" if counts is None else "share")
    if counts is not None:
        out |= {"interval": list(wilson(*counts)), "interval_kind": "Wilson over starts"}
    return out


def _mean(curves: list[list[list[float]]]) -> list[list[float]]:
    """The mean of curves over seeds, point by point."""
    mean: list[list[float]] = torch.tensor(curves, dtype=torch.float64).mean(0).tolist()
    return mean


def _note(study: Study) -> str:
    n = " or ".join(str(k) for k in sorted({told.get("starts", study.starts) for told in study.cases.values()}))
    return (
        f"shares of {n} starts in percent, distances and gaps as numbers (the median of the starts); mean "
        f"over {study.seeds} seed{'' if study.seeds == 1 else 's'} ± half of a 95 % interval; [published]"
    )


def _drawn(study: Study, result: Mapping[str, Any]) -> Iterator[Drawn]:
    """A phase portrait for each case in the plane, of its methods; and gaps against steps."""
    from danskin.report.games import curves, phase_portrait, shares

    for case, told in study.cases.items():
        if "marks" in told:
            found = {(m["method"], m["column"]): m["mean"] for m in result["measured"] if m["case"] == case}
            marks = told["marks"]
            lines = {
                study.names[m]: (
                    torch.tensor(marks).numpy(),
                    torch.tensor([found[m, f"gap, T={t}"] for t in marks]).numpy(),
                )
                for m in told["methods"]
            }
            what = "Duality gap of the average against steps, mean of the games."
            yield Drawn(_name(case), curves(lines, "duality gap of the average", log_steps=True), case, what, what)
            continue
        shown = told.get("figure", told["methods"])
        runs = {study.names[m]: _run(study, case, m, 0, 8) for m in shown}
        play = next(iter(runs.values()))[0]
        known = play.game.solutions
        if case in result["curves"]:
            ways = {study.names[m]: np.array(curve).T for m, curve in result["curves"][case].items()}
            drawn = shares({name: (way[0], way[1]) for name, way in ways.items()}, "evaluations of F")
            what = "Share of starts near the equilibrium against evaluations of F, mean of the seeds."
            yield Drawn(f"{_name(case)}-share", drawn, f"{case}: share", what, f"{case}. {what}")
        svg = phase_portrait(
            arrows(play.game), {name: run.points.numpy() for name, (_, _, run) in runs.items()},
            [] if known is None else known.tolist(),
            [{"radius": c.radius, "attracts": c.attracts} for c in play.game.cycles], play.game.view,
        )  # fmt: skip
        what = "Eight paths: pale at first, dark at the end; star: solution; dashed: cycle that attracts."
        yield Drawn(_name(case), svg, f"Phase portrait: {case}", what, f"{case}. {what}")


def _name(case: str) -> str:
    return re.sub("[^a-z0-9]+", "-", case.lower()).strip("-")
