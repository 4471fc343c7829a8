"""`danskin play GAME --solver particles`: measures in place of points, with the gap along the way. Lecture: row G2."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danskin.errors import ConfigError, suggest
from danskin.files import make_folder, write_atomically, write_json, write_text
from danskin.games import GAMES, MEASURE_SOLVERS, MIXED_GAMES, Measure, MixedGame, Played, mixed
from danskin.minmax import SOLVERS
from danskin.run.play import as_npz, check_empty, game_of, keys_of, solver_of, values_of
from danskin.run.record import environment

STEPS, LOOKS = 1500, 150  # by default; and how often the gap is looked at


@dataclass(frozen=True)
class MeasurePlay:
    """A game whose players mix, and the rule by which they do.

    Args:
        name: of the game.
        says: what it is, in a sentence.
        parameters: of the game.
        game: itself.
        rules: by the name of each.
        steps: of each.
        particles: of each player.
        seed: of their draw.
    """

    name: str
    says: str
    parameters: dict[str, Any]
    game: MixedGame
    rules: dict[str, Any]
    steps: int
    particles: int
    seed: int


def is_of_measures(name: str, solvers: Sequence[str]) -> bool:
    """Whether the words ask for measures: by a solver that moves them, or by a game that has nothing else.

    Raises:
        ConfigError: solvers of points and of measures at once, or those of points for a game of measures.
    """
    ours = [s for s in solvers if s in MEASURE_SOLVERS]
    points = [s for s in solvers if s in SOLVERS]
    if (ours and points) or (name in MIXED_GAMES and points):
        why = name if name in MIXED_GAMES else ours[0]
        raise ConfigError(
            f"play: expected solvers of measures only ({', '.join(MEASURE_SOLVERS)}) with {why}, got {points[0]}, "
            "which moves points; give one command for each"
        )
    return bool(ours) or name in MIXED_GAMES


def measure_play_of(
    name: str, solvers: Sequence[str], words: Sequence[str], steps: int | None, particles: int, seed: int
) -> MeasurePlay:
    """What the words of the command line ask for; see `danskin.run.play.play_of`.

    Raises:
        ConfigError: an unknown name or key, or a value that does not fit.
        InputError: a game without a payoff or a box.
    """
    for kind, given, table in (
        ("game", [name], GAMES | MIXED_GAMES),
        ("solver of measures", solvers, MEASURE_SOLVERS),
    ):
        for word in given:
            if word not in table:
                raise ConfigError(f"play: expected a known {kind}, got {word!r}; {suggest(word, table)}")
    if (steps is not None and steps < 1) or particles < 1:
        raise ConfigError(
            f"play: expected at least 1 step and 1 start (a particle of each player), got {steps} and {particles}"
        )
    values = values_of(words)
    game_keys = set() if name in MIXED_GAMES else keys_of(GAMES[name])
    rule_keys = {s: keys_of(MEASURE_SOLVERS[s]) for s in solvers}
    known = game_keys.union(*rule_keys.values())
    for key in values:
        if key not in known:
            raise ConfigError(f"{key}: expected a setting of {name} or of {', '.join(solvers)}; {suggest(key, known)}")
    if name in MIXED_GAMES:
        game, parameters, about = MIXED_GAMES[name](), {}, MIXED_GAMES[name].__doc__
    else:
        made = game_of(name, {k: v for k, v in values.items() if k in game_keys})
        parameters = {f.name: getattr(made, f.name) for f in fields(made) if f.init}
        game, about = mixed(made.saddle()), type(made).__doc__
    rules = {
        s: solver_of(MEASURE_SOLVERS[s], {k: v for k, v in values.items() if k in rule_keys[s]}, s) for s in solvers
    }
    says = (about or "").split("\n")[0]
    return MeasurePlay(name, says, parameters, game, rules, steps or STEPS, particles, seed)


def played_measures(
    play: MeasurePlay, out: Path, listen: Callable[[str, int], None] = lambda solver, t: None
) -> dict[str, Any]:
    """Run a play of measures and write its folder: result.json, particles.npz, command.txt, environment.json, figures/.

    Returns:
        What result.json holds.

    Raises:
        ConfigError: the folder has content.
        MissingError: it cannot be written.
    """
    check_empty(out)
    runs, seconds = {}, {}
    for name, rule in play.rules.items():
        began = time.perf_counter()
        runs[name] = rule.play(
            play.game, play.particles, play.steps, seed=play.seed, look=max(1, play.steps // LOOKS),
            listen=partial(listen, name),
        )  # fmt: skip
        seconds[name] = time.perf_counter() - began
    result = {
        "game": play.name,
        "parameters": play.parameters,
        "says": play.says,
        "value": play.game.value,
        "particles": play.particles,
        "steps": play.steps,
        "seed": play.seed,
        "solvers": {
            name: {"solver": repr(play.rules[name]), "seconds": seconds[name]} | _numbers_of(play.game, run)
            for name, run in runs.items()
        },
    }
    make_folder(out)
    write_text(out / "command.txt", " ".join(sys.argv) + "\n")
    write_json(out / "environment.json", environment())
    arrays = {f"{name}.{key}": value for name, run in runs.items() for key, value in _paths(run).items()}
    write_atomically(out / "particles.npz", lambda stream: stream.write(as_npz(arrays)))
    write_json(out / "result.json", result)
    for figure, text in figures(play, runs).items():
        write_text(out / "figures" / f"{figure}.svg", text)
    return result


def _numbers_of(game: MixedGame, run: Played) -> dict[str, Any]:
    with torch.no_grad():
        value = float(run.x.weights @ game.payoff(run.x.points, run.y.points) @ run.y.weights)
    return {
        "gap": {"found": run.gap.found, "bound": run.gap.bound},
        "largest_late_gap": max(gap for _, gap in run.path[len(run.path) * 3 // 4 :]),
        "payoff": value,
        "gaps": [list(pair) for pair in run.path],
        "x": _merged(run.x, game.x.high - game.x.low),
        "y": _merged(run.y, game.y.high - game.y.low),
    }


def _merged(measure: Measure, length: float) -> list[list[float]]:
    """[position, weight] of particles that are not told apart at 1 % of the domain, by position."""
    found = measure.merged(0.01 * length, 1e-3)
    return sorted([float(p), float(w)] for p, w in zip(found.points[:, 0], found.weights, strict=True))


def _paths(run: Played) -> dict[str, Any]:
    steps, x, y = zip(*run.seen, strict=True)
    out: dict[str, Tensor] = {"steps": torch.tensor(steps)}
    for player, measures in (("x", x), ("y", y)):
        out[f"{player}.points"] = torch.stack([m.points[:, 0] for m in measures])
        out[f"{player}.weights"] = torch.stack([m.weights for m in measures])
    return {key: value.numpy() for key, value in out.items()}


def figures(play: MeasurePlay, runs: dict[str, Played]) -> dict[str, str]:
    """Name -> SVG: the gap against steps, and where the particles of each player are and what they weigh."""
    from danskin.report.games import curves
    from danskin.report.measures import particles

    gaps = {
        name: (torch.tensor(run.path).numpy()[:, 0], torch.tensor(run.path).numpy()[:, 1]) for name, run in runs.items()
    }
    out = {"gap": curves(gaps, "duality gap found")}
    views = [(domain.low, domain.high) for domain in (play.game.x, play.game.y)]
    for name, run in runs.items():
        out[f"particles-{name}" if len(runs) > 1 else "particles"] = particles(_paths(run), views)
    return out
