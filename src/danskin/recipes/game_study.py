"""A lecture row of games: solvers from many starts, several seeds, numbers beside claims. LECTURE rows G1 and G2.

`games.yaml` of a row has cases (a game and its settings), methods (a solver and its settings) and scales. A folder OUT
holds plan.yaml, cells.jsonl (a line for each case, method and seed; what is there is not run again), result.json,
table.md, figures/ and report.html.
"""

from __future__ import annotations

import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import danskin
from danskin.errors import ConfigError, MissingError, suggest
from danskin.files import append_line, check_folder, make_folder, open_to_append, read_lines, write_json, write_text
from danskin.games import AlmostBilinear, MatrixGame
from danskin.minmax import Outcome, Trajectory, duality_gap, outcomes, run_solver
from danskin.minmax.saddle import Saddle, flip
from danskin.recipes.claims import Claims
from danskin.recipes.rows import SCALES, STUDIES, merged
from danskin.recipes.summary import summarize
from danskin.report.drawing import Drawn
from danskin.report.page import check_installed
from danskin.report.reproduction import write_reproduction
from danskin.report.tables import markdown
from danskin.run.lock import locked
from danskin.run.play import Play, arrows, play_of
from danskin.run.recipe import parse_yaml, read_mapping, to_yaml
from danskin.run.record import environment

_HIT = 1e-3  # a distance from the solution that counts as there


@dataclass(frozen=True)
class Study:
    """A row at a scale, resolved.

    Args:
        row: its id.
        title: what it shows, in a few words.
        scale: smoke, small or full.
        says: what this scale can and cannot show.
        status: "not run" where nobody has run it.
        seeds: how many; they count from 0.
        starts: of each run, in one batch.
        cases: label -> {game, settings, steps, marks, methods}.
        methods: label -> {solver, settings, minimise}.
        names: of the methods, for tables.
    """

    row: str
    title: str
    scale: str
    says: str
    status: str
    seeds: int
    starts: int
    cases: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, Any]]
    names: dict[str, str]

    def to_plain(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""
        keys = ("row", "scale", "seeds", "starts", "cases", "methods")
        return {key: getattr(self, key) for key in keys}

    def tasks(self) -> Iterator[tuple[str, str, int]]:
        """(case, method, seed) of all runs."""
        for case, told in self.cases.items():
            for method in told["methods"]:
                for seed in range(self.seeds):
                    yield case, method, seed

    def play(self, case: str, method: str, seed: int) -> Play:
        """The game and the solver of a run."""
        told, way = self.cases[case], self.methods[method]
        words = [f"{k}={_word(v)}" for k, v in {**told.get("settings", {}), **way.get("settings", {})}.items()]
        if told.get("matrix_per_seed"):
            words.append(f"seed={seed}")
        return play_of(told["game"], [way["solver"]], words, told["steps"], self.starts, seed)


def _word(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def study_of(row: str, scale: str = "smoke", seeds: int | None = None) -> Study:
    """The study of a row at a scale.

    Raises:
        ConfigError: no such scale, or a recipe that does not fit.
    """
    if scale not in SCALES:
        raise ConfigError(f"--scale: expected one of {', '.join(SCALES)}, got {scale!r}; {suggest(scale, SCALES)}")
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds: expected at least 1, got {seeds}; leave it out for the recipe's own number")
    node = read_mapping(STUDIES[row] / "games.yaml")
    part = node["scales"][scale]
    everything = list(node["methods"])
    cases = {
        str(label): {"methods": everything}
        | merged(case, part.get("set", {}))
        | (part.get("cases") or {}).get(label, {})
        for label, case in node["cases"].items()
    }
    return Study(
        row=row,
        title=node["title"],
        scale=scale,
        says=" ".join(part["says"].split()),
        status=part.get("status", ""),
        seeds=seeds or part["seeds"],
        starts=part["starts"],
        cases=cases,
        methods=node["methods"],
        names={label: node.get("names", {}).get(label, label) for label in everything},
    )


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
        write_json(out / "result.json", result)
        write_text(out / "table.md", markdown(result))
        try:
            check_installed()
            command = f"danskin reproduce {study.row} --scale {study.scale} --seeds {study.seeds}"
            write_reproduction(out, result, list(_drawn(study, result)), command)
        except MissingError as error:
            print(f"danskin: no report: {error}", file=sys.stderr)
    return result


def _check(study: Study, out: Path, resume: bool) -> None:
    check_folder(out)
    there = out / "plan.yaml"
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"{out}: expected a new or empty folder, got one with content; choose another --out, or go on with --resume"
        )
    if resume and there.is_file():
        asked, known = parse_yaml(to_yaml(study.to_plain()), "the study"), read_mapping(there)
        for key in asked:
            if key != "seeds" and asked[key] != known.get(key):
                raise ConfigError(
                    f"{out}: expected what was begun there, got another study ({key} differs); choose another --out"
                )


def _run(study: Study, case: str, method: str, seed: int, starts: int | None = None) -> tuple[Play, Saddle, Trajectory]:
    play = study.play(case, method, seed)
    saddle, solver = play.game.saddle(), next(iter(play.solvers.values()))
    if study.methods[method].get("minimise"):
        saddle = minimised(saddle)
    known = play.game.solutions
    run = run_solver(
        saddle, solver, play.game.starts(starts or play.starts, seed), play.steps, keep=1000,
        center=None if known is None else known[0], seed=seed if saddle.noisy is not None else None,
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
    wanted = set(study.tasks())
    for cell in cells:
        if (cell["case"], cell["method"], cell["seed"]) not in wanted:
            continue
        for column, (hits, n) in cell["shares"].items():
            key = cell["case"], cell["method"], column, "-"
            values[key].append(hits / n)
            counts.setdefault(key, (hits, n))
            columns[cell["case"]][column] = None
        for column, value in cell["numbers"].items():
            values[cell["case"], cell["method"], column, "-"].append(value)
            columns[cell["case"]][column] = None
    numbers = {
        key: summarize(found, "share" if key in counts else "number", counts.get(key)) for key, found in values.items()
    }
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
        "claims": [verdict.to_dict() for verdict in claims.judged(study.scale, numbers)],
        "published": claims.sources,
        "configs": {case: dict(told) for case, told in study.cases.items()} | {"methods": study.methods},
        "environment": environment(),
    }


def _note(study: Study) -> str:
    return (
        f"shares of {study.starts} starts in percent, distances and gaps as numbers (the median of the starts); mean "
        f"over {study.seeds} seed{'' if study.seeds == 1 else 's'} ± half of a 95 % interval; [published]"
    )


def _drawn(study: Study, result: Mapping[str, Any]) -> Iterator[Drawn]:
    """A phase portrait for each case in the plane, of its methods; and gaps against steps."""
    from danskin.report.games import curves, phase_portrait

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
        svg = phase_portrait(
            arrows(play.game), {name: run.points.numpy() for name, (_, _, run) in runs.items()},
            [] if known is None else known.tolist(),
            [{"radius": c.radius, "attracts": c.attracts} for c in play.game.cycles], play.game.view,
        )  # fmt: skip
        what = "Paths from eight starts: pale at first, dark at the end; star: solution; dashed: cycle that attracts."
        yield Drawn(_name(case), svg, f"Phase portrait: {case}", what, f"{case}. {what}")


def _name(case: str) -> str:
    return re.sub("[^a-z0-9]+", "-", case.lower()).strip("-")
