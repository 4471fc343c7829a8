"""A lecture row of games: solvers from many starts, several seeds, numbers beside claims. LECTURE rows G1 and G2.

`games.yaml` of a row is read by `danskin.recipes.game_plan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.files import slug
from danskin.games import AlmostBilinear, MatrixGame
from danskin.minmax import Outcome, Trajectory, duality_gap, outcomes, run_solver
from danskin.minmax.saddle import Saddle, flip
from danskin.recipes.cells import gathered, over_seeds, run_cells
from danskin.recipes.game_plan import Study
from danskin.report.drawing import Drawn
from danskin.run.play import Play, arrows

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
        ConfigError: `out` has content and `resume` is not set, or holds another plan.
    """
    configs = {case: dict(told) for case, told in study.cases.items()} | {"methods": study.methods}
    return run_cells(
        study,
        out,
        lambda case, method, seed: _cell(study, case, method, seed),
        lambda cells: gathered(study, cells, configs=configs, note=_note(study)),
        lambda told: _drawn(study, told),
        resume=resume,
        say=say,
    )


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
    cell: dict[str, Any] = {"shares": {}, "numbers": {}}
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


def _note(study: Study) -> str:
    n = " or ".join(str(k) for k in sorted({told.get("starts", study.starts) for told in study.cases.values()}))
    return (
        f"shares of {n} starts in percent, distances and gaps as numbers (the median of the starts); "
        f"{over_seeds(study)}"
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
            yield Drawn(slug(case), curves(lines, "duality gap of the average", log_steps=True), case, what, what)
            continue
        shown = told.get("figure", told["methods"])
        runs = {study.names[m]: _run(study, case, m, 0, 8) for m in shown}
        play = next(iter(runs.values()))[0]
        known = play.game.solutions
        if case in result["curves"]:
            ways = {study.names[m]: np.array(curve).T for m, curve in result["curves"][case].items()}
            drawn = shares({name: (way[0], way[1]) for name, way in ways.items()}, "evaluations of F")
            what = "Share of starts near the equilibrium against evaluations of F, mean of the seeds."
            yield Drawn(f"{slug(case)}-share", drawn, f"{case}: share", what, f"{case}. {what}")
        svg = phase_portrait(
            arrows(play.game), {name: run.points.numpy() for name, (_, _, run) in runs.items()},
            [] if known is None else known.tolist(),
            [{"radius": c.radius, "attracts": c.attracts} for c in play.game.cycles], play.game.view,
        )  # fmt: skip
        what = "Eight paths: pale at first, dark at the end; star: solution; dashed: cycle that attracts."
        yield Drawn(slug(case), svg, f"Phase portrait: {case}", what, f"{case}. {what}")
