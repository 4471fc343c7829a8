"""Row E4: critics trained on three pairs of samples, certified, beside the exact distance. Lecture: row E4."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from danskin.critics import FittedDual, Potential, population_bound
from danskin.critics.dual import unit_critic
from danskin.recipes.critic_cells import dual, estimate, exact, fitted, pair, proved
from danskin.report.drawing import Drawn
from danskin.report.witness import witness_maps

__all__ = ["cell", "draw", "estimate"]

_SHOWN = 150  # points of each sample in the figure
_VIEW, _CELLS = 2.0, 41
_FITTED: dict[str, FittedDual] = {}  # those of seed 0 that the figure shows


def _kept(settings: Mapping[str, Any], seed: int) -> FittedDual:
    """The trained critic of a method; kept for the figure where it is in the plane."""
    key = repr((sorted(settings.items(), key=str), seed))
    found = _FITTED.get(key) or fitted(settings, seed)
    if settings["problem"] == "gaussians_8" and seed == 0:
        _FITTED[key] = found
    return found


def cell(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What a method says of a problem."""
    x, y = pair(settings["problem"], settings["n"], seed)
    start = time.process_time()
    truth = exact(settings["problem"], settings["n"], seed).bracket.value
    if "linear" not in settings:
        return {"numbers": {"exact W1": truth, "CPU s": time.process_time() - start}, "shares": {}}
    start = time.process_time()
    if settings.get("held_out"):
        numbers = _held_out(settings, x, y, seed)
        return {"numbers": numbers | {"CPU s": time.process_time() - start}, "shares": {}}
    found = proved(_kept(settings, seed), truth)
    found["numbers"]["CPU s"] = time.process_time() - start
    return found


def _held_out(settings: Mapping[str, Any], x: Tensor, y: Tensor, seed: int) -> dict[str, float]:
    """Bounds of the populations; the bootstrap judges the same critic, as training repeats to the bit."""
    way = dual(settings, x.shape[1], seed)
    hoeffding = population_bound(way, x, y, seed=seed)
    bootstrap = population_bound(way, x, y, seed=seed, method="bootstrap", fitted=hoeffding.fitted)
    return {
        "populations, estimate": hoeffding.estimate,
        "populations, 95 % bound": hoeffding.lower,
        "populations, 95 % bootstrap": bootstrap.lower,
    }


def draw(result: Mapping[str, Any]) -> list[Drawn]:
    """The witness functions on 8 Gaussians: of the optimal potentials, and of every critic that was trained on all."""
    case = next(iter(result["configs"]))
    methods: Mapping[str, Mapping[str, Any]] = result["configs"][case]
    first = methods["exact"]
    x, y = pair(first["problem"], first["n"], 0)
    solved = exact(first["problem"], first["n"], 0)
    line = torch.linspace(-_VIEW, _VIEW, _CELLS)
    grid = torch.cartesian_prod(line, line)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "exact": Potential(y.double(), -solved.potentials[1].double(), 1.0, math.inf, 2)
    }
    for method, settings in methods.items():
        if "linear" in settings and not settings.get("held_out"):
            functions[method] = unit_critic(_kept(settings, 0))
    fields = {result["methods"][m]: f(grid).view(_CELLS, _CELLS).T.numpy() for m, f in functions.items()}
    svg = witness_maps(fields, _VIEW, x[:_SHOWN].numpy(), y[:_SHOWN].numpy())
    words = (
        "Witness functions d / L on 8 Gaussians (dots) against N(0, I/4) (crosses); lines are 0.2 apart. An optimal "
        "one climbs at slope 1 along every transport; ReLU and the gradient penalty are flatter."
    )
    return [Drawn("witness", svg, "Witness functions", words, words)]
