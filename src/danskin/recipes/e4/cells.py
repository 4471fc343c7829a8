"""Row E4: critics trained on three pairs of samples, certified, beside the exact distance. Lecture: row E4."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from danskin.critics import AdamAscent, FittedDual, NeuralDual, Potential, lipschitz_critic, population_bound
from danskin.critics.dual import unit_critic
from danskin.data import load
from danskin.data.toys import gaussians_8
from danskin.report.drawing import Drawn
from danskin.report.witness import witness_maps
from danskin.transport import wasserstein

_SHOWN = 150  # points of each sample in the figure
_VIEW, _CELLS = 2.0, 41


@cache
def pair(problem: str, n: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """The two samples of a problem, float32 (n, d); n None takes all digits, with pixels in [0, 1]."""
    g = torch.Generator().manual_seed(1000 + seed)
    if problem == "gaussians_8":
        return gaussians_8(n or 1024, seed=seed)[0], 0.5 * torch.randn(n or 1024, 2, generator=g)
    if problem == "shift_10":
        x, y = (torch.randn(n or 1024, 10, generator=g) for _ in range(2))
        y[:, 0] += 1
        return x, y
    data = load("digits")
    x, y = torch.cat([data.x_train, data.x_test]).flatten(1) / 255, torch.cat([data.y_train, data.y_test])
    return x[y < 5][:n], x[y >= 5][:n]


@cache
def exact(problem: str, n: int | None, seed: int) -> Any:
    """Optimal transport of the two samples."""
    return wasserstein(*pair(problem, n, seed))


def critic(settings: Mapping[str, Any], dims: int, seed: int) -> nn.Module:
    """The network of a method, untrained."""
    if settings["linear"] != "plain":
        kinds = {"activation": settings["activation"], "linear": settings["linear"]}
        return lipschitz_critic(dims, width=settings["width"], seed=seed, **kinds)
    sizes, layers = [dims, *[settings["width"]] * 3], list[nn.Module]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for n, m in pairwise(sizes):
            layers += [nn.Linear(n, m), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))


def dual(settings: Mapping[str, Any], dims: int, seed: int) -> NeuralDual:
    """A method."""
    ascent = AdamAscent(settings["steps"], settings.get("lr", 3e-3), penalty=settings.get("penalty", 0))
    return NeuralDual(critic(settings, dims, seed), ascent, seed=seed)


_FITTED: dict[str, FittedDual] = {}  # those of seed 0 that the figure shows


def fitted(settings: Mapping[str, Any], seed: int) -> FittedDual:
    """The trained critic of a method; kept for the figure where it is in the plane."""
    key = repr((sorted(settings.items(), key=str), seed))
    if key in _FITTED:
        return _FITTED[key]
    x, y = pair(settings["problem"], settings["n"], seed)
    found = dual(settings, x.shape[1], seed).fit(x, y)
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
    bound = fitted(settings, seed).bound
    numbers = {
        "certified bound": bound.lower,
        "raw critic gap": bound.gap,
        "Lipschitz constant": bound.lipschitz.value,
        "raw gap / exact": bound.gap / truth,
        "certified above exact": max(bound.lower - truth * (1 + 1e-9), 0.0),
        "CPU s": time.process_time() - start,
    }
    return {
        "numbers": numbers,
        "shares": {"certified of exact": bound.lower / truth},
    }


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
            functions[method] = unit_critic(fitted(settings, 0))
    fields = {result["methods"][m]: f(grid).view(_CELLS, _CELLS).T.numpy() for m, f in functions.items()}
    svg = witness_maps(fields, _VIEW, x[:_SHOWN].numpy(), y[:_SHOWN].numpy())
    words = (
        "Witness functions d / L on 8 Gaussians (dots) against N(0, I/4) (crosses); lines are 0.2 apart. An optimal "
        "one climbs at slope 1 along every transport; ReLU and the gradient penalty are flatter."
    )
    return [Drawn("witness", svg, "Witness functions", words, words)]
