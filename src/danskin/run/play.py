"""`danskin play`: solvers on a game, from words to a folder with numbers, paths and figures. Lecture: row G1."""

from __future__ import annotations

import io
import sys
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danskin.errors import ConfigError, MissingError, suggest
from danskin.files import make_folder, write_atomically, write_json, write_text
from danskin.games import GAMES, MEASURE_SOLVERS, MIXED_GAMES, AlmostBilinear, Game, weak_minty_on
from danskin.games.certificates import certificate
from danskin.minmax import SOLVERS, Outcome, Trajectory, duality_gap, outcomes, residual, run_solver
from danskin.minmax.dynamics import resolve_step
from danskin.minmax.number import number
from danskin.run.recipe import parse_yaml
from danskin.run.record import environment
from danskin.run.schema import build

SHOWN = 8  # paths in a picture


@dataclass(frozen=True)
class Play:
    """A game and who plays it.

    Args:
        name: of the game.
        game: itself.
        solvers: by the name of each.
        steps: of each.
        starts: how many, all in one batch.
        seed: of starts and noise.
    """

    name: str
    game: Game
    solvers: Mapping[str, Any]
    steps: int
    starts: int
    seed: int


def play_of(name: str, solvers: Sequence[str], words: Sequence[str], steps: int | None, starts: int, seed: int) -> Play:
    """What the words of the command line ask for.

    Args:
        name: of the game.
        solvers: names of the solvers.
        words: key=value, each for the game or for every solver that has such a setting.
        steps: None for the game's own number.
        starts: at least 1.
        seed: of starts and noise.

    Raises:
        ConfigError: an unknown name or key, or a value that does not fit.
        MissingError: a payoff file that is not there.
    """
    for kind, given, table, others in (
        ("game", [name], GAMES, MIXED_GAMES),
        ("solver", solvers, SOLVERS, MEASURE_SOLVERS),
    ):
        for word in given:
            if word not in table:
                raise ConfigError(f"play: expected a known {kind}, got {word!r}; {suggest(word, [*table, *others])}")
    if (steps is not None and steps < 1) or starts < 1:
        raise ConfigError(
            f"play: expected at least 1 step and 1 start, got {steps} and {starts}; 5000 and 16 are usual"
        )
    values = values_of(words)
    game_keys = keys_of(GAMES[name])
    solver_keys = {s: keys_of(SOLVERS[s]) for s in solvers}
    known = game_keys.union(*solver_keys.values())
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{key}: expected a setting of {name} or of {', '.join(solvers)}, got {key!r}; {suggest(key, known)}"
            )
    game = game_of(name, {k: v for k, v in values.items() if k in game_keys})
    made = {s: _solver(s, {k: v for k, v in values.items() if k in solver_keys[s]}, game) for s in solvers}
    return Play(name, game, made, steps or game.default_steps, starts, seed)


def keys_of(cls: Any) -> set[str]:
    """The settings of a game or a solver."""
    return {f.name for f in fields(cls) if f.init}


def values_of(words: Sequence[str]) -> dict[str, Any]:
    """key=value words as plain data.

    Raises:
        ConfigError: a word of another form.
    """
    out = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"play: expected key=value, got {word!r}; write eps=0.1")
        out[key.strip()] = parse_yaml(text, key)
    return out


def _numbers(cls: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Texts such as 1/3 as numbers, where a number is meant."""
    hints, out = typing.get_type_hints(cls), {}
    for key, value in values.items():
        kinds = typing.get_args(hints[key]) or (hints[key],)
        out[key] = number(value) if isinstance(value, str) and float in kinds and str not in kinds else value
    return out


def game_of(name: str, values: dict[str, Any]) -> Game:
    """A game with its settings.

    Raises:
        ConfigError: a value that does not fit.
        MissingError: a payoff file that is not there.
    """
    if isinstance(values.get("payoff"), str) and Path(values["payoff"]).suffix in _READERS:
        values["payoff"] = _read_matrix(Path(values["payoff"]))
    game: Game = build(GAMES[name], _numbers(GAMES[name], values), name)
    return game


def _solver(name: str, values: dict[str, Any], game: Game) -> Any:
    cls = SOLVERS[name]
    if "base" in values:
        base = values["base"]
        if base not in SOLVERS or base == name:
            raise ConfigError(f"{name}.base: expected another solver, got {base!r}; {suggest(str(base), SOLVERS)}")
        values = values | {"base": SOLVERS[base]()}
    own = "step_size" in keys_of(cls) and "step_size" not in values and game.step_size is not None
    entropic = name.startswith("mirror")
    if entropic and not hasattr(game.saddle().feasible, "mirror"):
        raise ConfigError(
            f"{name}: expected a game on simplices, where entropic steps are made, got {type(game).__name__}; play "
            "matrix, or take extragradient"
        )
    values = values | ({"step_size": game.step_size} if own and not entropic else {})
    if "base" in values:
        return cls(**_numbers(cls, values))
    return solver_of(cls, values, name)


def solver_of(cls: Any, values: dict[str, Any], name: str) -> Any:
    """A solver with its settings.

    Raises:
        ConfigError: a value that does not fit.
    """
    return build(cls, _numbers(cls, values), name)


def _read_csv(path: Path) -> Any:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def _read_npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


_READERS: dict[str, Callable[[Path], Any]] = {".csv": _read_csv, ".npy": _read_npy}


def _read_matrix(path: Path) -> list[list[float]]:
    try:
        found = _READERS[path.suffix](path)
    except OSError as error:
        raise MissingError(f"payoff: expected a file, got {error}", "check the path") from error
    except ValueError as error:
        raise ConfigError(
            f"{path}: expected a matrix of numbers, got {error}; write rows of numbers with commas"
        ) from error
    rows: list[list[float]] = np.asarray(found, dtype=float).tolist()
    return rows


def check_empty(out: Path) -> None:
    """Refuse a folder with content.

    Raises:
        ConfigError: it has some.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: expected a new or empty folder, got one with content; choose another --out")


def played(play: Play, out: Path, listen: Callable[[str, int], None] = lambda solver, t: None) -> dict[str, Any]:
    """Run a play and write its folder: result.json, points.npz, command.txt, environment.json, figures/.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: the folder has content.
        MissingError: it cannot be written.
    """
    check_empty(out)
    saddle, runs = play.game.saddle(), {}
    z = play.game.starts(play.starts, play.seed)
    known = play.game.solutions
    for name, solver in play.solvers.items():
        runs[name] = run_solver(
            saddle, solver, z, play.steps, keep=1000, center=None if known is None else known[0],
            seed=play.seed, listen=partial(listen, name),
        )  # fmt: skip
    result = {
        "game": play.name,
        "parameters": {f.name: _plain(getattr(play.game, f.name)) for f in fields(play.game) if f.init},
        "says": (type(play.game).__doc__ or "").split("\n")[0],
        "lipschitz": saddle.lipschitz,
        "weak_minty": play.game.weak_minty,
        "weak_minty_on_grid": _weak_minty_on_grid(play.game),
        "solutions": None if known is None else known.tolist(),
        "cycles": [{"radius": c.radius, "attracts": c.attracts} for c in play.game.cycles],
        "starts": play.starts,
        "steps": play.steps,
        "seed": play.seed,
        "solvers": {name: _numbers_of(play, name, run) for name, run in runs.items()},
    }
    make_folder(out)
    write_text(out / "command.txt", " ".join(sys.argv) + "\n")
    write_json(out / "environment.json", environment())
    arrays = {f"{name}.points": run.points[:, :SHOWN].float().numpy() for name, run in runs.items()}
    arrays |= {f"{name}.times": run.times.numpy() for name, run in runs.items()}
    write_atomically(out / "points.npz", lambda stream: stream.write(as_npz(arrays)))
    write_json(out / "result.json", result)
    for figure, text in figures(play, result, runs).items():
        write_text(out / "figures" / f"{figure}.svg", text)
    return result


def _numbers_of(play: Play, name: str, run: Trajectory) -> dict[str, Any]:
    """What a table says of a solver."""
    saddle, solver = play.game.saddle(), play.solvers[name]
    ended = outcomes(saddle, run)
    step = getattr(solver, "step_size", None)
    resolved = None if step is None else float(resolve_step(step, saddle, 0, run.last, name))
    found: dict[str, Any] = {
        "solver": repr(solver),
        "step_size": None if step is None else str(step),
        "step": resolved,
        "outcomes": {o.name.lower(): n for o, n in Counter(ended).items()},
        "spurious": sum(o.spurious for o in ended),
        "residual": _spread(residual(saddle, run.last)),
        "distance": None,
        "distance_of_average": None,
        "gap": None,
        "gap_of_average": None,
        "tail": _spread(run.tail.distance.mean(1)),
        "calls": run.cost.calls,
        "seconds": run.cost.seconds,
    }
    if play.game.solutions is not None:
        found["distance"] = _spread(_distance(run.last, play.game.solutions))
        found["distance_of_average"] = _spread(_distance(run.average, play.game.solutions))
    if saddle.feasible is not None and saddle.payoff is not None:
        found["gap"] = _spread(_gap(saddle, run.last))
        found["gap_of_average"] = _spread(_gap(saddle, run.average))
    proven = certificate(play.game, solver, play.game.starts(play.starts, play.seed))
    if proven is not None:
        found["certificate"] = asdict(proven) | {"holds": proven.holds}
    if isinstance(play.game, AlmostBilinear) and name in _TURNS and resolved is not None:
        found["predicted_radius"] = play.game.spurious_radius(resolved, _TURNS[name])
    return found


def _weak_minty_on_grid(game: Game, n: int = 401) -> float | None:
    """An upper bound of the weak Minty parameter in the game's view, where none is known in closed form."""
    known = game.solutions
    if game.weak_minty is not None or game.dimension != 2 or known is None:
        return None
    axis = torch.linspace(*game.view, n, dtype=torch.float64)
    return weak_minty_on(game.saddle(), known[0], torch.cartesian_prod(axis, axis))


#: Whether a step turns outwards on a rotation, for the law of the spurious cycle.
_TURNS = {"gda": True, "extragradient": False, "optimistic": False, "past_extragradient": False}


def _gap(saddle: Any, z: Tensor) -> Tensor:
    inside = saddle.project(z)  # averages leave a set by rounding
    return duality_gap(saddle, inside)


def _distance(z: Tensor, solutions: Tensor) -> Tensor:
    return torch.stack([(z - point).norm(dim=1) for point in solutions.to(z)]).amin(0)


def _spread(value: Tensor) -> dict[str, float]:
    return {"min": float(value.min()), "median": float(value.median()), "max": float(value.max())}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | list | None) else str(value)


def as_npz(arrays: dict[str, Any]) -> bytes:
    """Arrays as the bytes of an .npz file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def spurious(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each solver whose starts were attracted by what is no equilibrium."""
    out = []
    for name, found in result["solvers"].items():
        for kind in (Outcome.CYCLE, Outcome.STUCK, Outcome.NOT_NASH):
            n = found["outcomes"].get(kind.name.lower(), 0)
            if n:
                step = "" if found["step"] is None else f" with step {found['step']:.4g}"
                out.append(f"{result['game']}, {name}{step}: {n} of {result['starts']} starts: {kind}")
    return out


def figures(play: Play, result: Mapping[str, Any], runs: Mapping[str, Trajectory]) -> dict[str, str]:
    """Name -> SVG: the phase portrait of games in the plane, and the distance or gap against steps."""
    from danskin.report.games import curves, phase_portrait

    saddle, known = play.game.saddle(), play.game.solutions
    out = {}
    if play.game.dimension == 2:
        out["phase"] = phase_portrait(
            arrows(play.game), {name: run.points[:, :SHOWN].numpy() for name, run in runs.items()},
            [] if known is None else known.tolist(), result["cycles"], play.game.view,
        )  # fmt: skip
    lines = {}
    for name, run in runs.items():
        few = torch.linspace(0, len(run.times) - 1, 200).round().long().unique()
        z = run.points[few].flatten(0, 1)
        value = _gap(saddle, z) if known is None else _distance(z, known)
        lines[name] = (run.times[few].numpy(), value.view(len(few), -1).median(1).values.numpy())
    what = "duality gap" if known is None else "distance"
    out["distance"] = curves(lines, f"{what} (median)")
    proven = {name: found["certificate"] for name, found in result["solvers"].items() if "certificate" in found}
    if proven:
        steps = {name: np.arange(1, len(c["bounds"]) + 1) for name, c in proven.items()}
        out["certificate"] = curves(
            {name: (steps[name], np.array(c["measured"])) for name, c in proven.items()},
            "squared, over first distance squared",
            {name: (steps[name], np.array(c["bounds"])) for name, c in proven.items()},
        )
    return out


def arrows(game: Game, n: int = 13) -> tuple[Any, Any]:
    """(points (n*n, 2), -F there) on a grid over the game's view."""
    low, high = game.view
    axis = torch.linspace(low, high, n, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    return z.numpy(), -game.saddle()(z).numpy()
