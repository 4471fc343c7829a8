"""Proven worst cases of solvers, kept beside the games: what a run is held against without PEPit.

`certificates.json` is written by bench/game_certificates.py, which lets PEPit run the solvers themselves
(`danskin.testing.certificates.worst_case`). Lecture: row G1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danskin.errors import DanskinError
from danskin.games.game import Game
from danskin.minmax import SOLVERS, Saddle, residual
from danskin.minmax.dynamics import Solver, resolve_step

FILE = Path(__file__).with_name("certificates.json")


@dataclass(frozen=True)
class Certificate:
    """What is proven of a solver over a class of problems, and what a run did.

    Args:
        kind: "bilinear", "monotone", "constrained" or "weak_minty".
        measure: "residual" or "distance".
        bounds: (n,) after 1, ..., n steps: the measure, squared, is at most this times the squared first distance.
        measured: (n,) the largest of the starts.
    """

    kind: str
    measure: str
    bounds: tuple[float, ...]
    measured: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether the run stayed below the bound at every step, up to rounding."""
        return all(m <= b * (1 + 1e-9) for m, b in zip(self.measured, self.bounds, strict=True))


@cache
def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["entries"]
    return entries


def settings_of(solver: Solver, saddle: Saddle) -> dict[str, Any]:
    """A solver as plain data, with its step size as a multiple of 1 / L; nested where it is around another."""
    name = next(name for name, cls in SOLVERS.items() if cls is type(solver))
    out: dict[str, Any] = {"name": name}
    for f in fields(solver):  # type: ignore[arg-type]
        value = getattr(solver, f.name)
        if f.name == "step_size":
            like = torch.zeros(1, 2, dtype=torch.float64)
            steps = [resolve_step(value, saddle, t, like, name) for t in (0, 1000)]
            if isinstance(steps[0], Tensor) or steps[0] != steps[1]:
                raise LookupError("a step that changes")
            value = round(float(steps[0]) * (saddle.lipschitz or 1.0), 9)
        elif type(value) in SOLVERS.values():
            value = settings_of(value, saddle)
        out[f.name] = value
    return out


def certificate(game: Game, solver: Solver, starts: Tensor) -> Certificate | None:
    """Hold the first steps of a solver against what is proven of it; None where nothing is in the file.

    Args:
        game: of a class with certificates (`Game.certified`), without noise.
        solver: with a fixed step size.
        starts: (batch, d).
    """
    saddle, kind = game.saddle(), game.certified
    if kind is None or saddle.noisy is not None or saddle.lipschitz is None or game.solutions is None:
        return None
    try:
        settings = settings_of(solver, saddle)
    except (LookupError, StopIteration, DanskinError):
        return None
    entry = next((e for e in _entries() if _fits(e, kind, settings, game.weak_minty)), None)
    if entry is None:
        return None
    measured = _measured(saddle, solver, starts, game.solutions, entry["measure"], len(entry["bounds"]))
    return Certificate(kind, entry["measure"], tuple(entry["bounds"]), measured)


def _fits(entry: Mapping[str, Any], kind: str, settings: dict[str, Any], rho: float | None) -> bool:
    if entry["class"] != kind or entry["solver"] != settings:
        return False
    return kind != "weak_minty" or (rho is not None and abs(entry["rho"] - rho) < 1e-12)


def _measured(
    saddle: Saddle, solver: Solver, starts: Tensor, solutions: Tensor, measure: str, steps: int
) -> tuple[float, ...]:
    with torch.no_grad():
        state = solver.begin(saddle, starts)
        gaps = torch.stack([(state.z - point).norm(dim=1) for point in solutions.to(starts)])
        first, nearest = gaps.min(0)
        out = []
        for _ in range(steps):
            state = solver.step(saddle, state)
            if measure == "residual":
                value = residual(saddle, state.z, 1 / (saddle.lipschitz or 1.0)) / (saddle.lipschitz or 1.0)
            else:
                value = (state.z - solutions.to(starts)[nearest]).norm(dim=1)
            out.append(float((value / first.clamp_min(1e-300)).square()[first > 1e-12].amax()) if len(first) else 0.0)
    return tuple(out)
