"""Critics of three problems, certified, beside the exact distance: what rows E4 and F6 are made of."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from danskin.critics import AdamAscent, FittedDual, NeuralDual, lipschitz_critic, samples
from danskin.data import load
from danskin.data.toys import gaussians_8
from danskin.recipes.sampling_study import Sampling
from danskin.transport import Transport, wasserstein

_TIMED = 5  # steps


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
def exact(problem: str, n: int | None, seed: int) -> Transport:
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
    """A method: all points at every step, a step that falls to 0."""
    ascent = AdamAscent(settings["steps"], settings.get("lr", 3e-3), penalty=settings.get("penalty", 0))
    return NeuralDual(critic(settings, dims, seed), ascent, seed=seed)


def fitted(settings: Mapping[str, Any], seed: int) -> FittedDual:
    """The trained critic of a method; training repeats to the bit."""
    x, y = pair(settings["problem"], settings["n"], seed)
    return dual(settings, x.shape[1], seed).fit(x, y)


def proved(found: FittedDual, truth: float) -> dict[str, Any]:
    """A critic in numbers, beside the exact distance; its curve is the raw gap over it, by step."""
    bound = found.bound
    return {
        "numbers": {
            "certified bound": bound.lower,
            "raw critic gap": bound.gap,
            "Lipschitz constant": bound.lipschitz.value,
            "raw gap / exact": bound.gap / truth,
            "certified above exact": max(bound.lower - truth * (1 + 1e-9), 0.0),
        },
        "shares": {"certified of exact": bound.lower / truth},
        "curve": [[step, gap / truth] for step, gap in found.history],
    }


def estimate(study: Sampling) -> str:
    """The work in words: a few steps of each critic are timed; distances and certificates come on top."""
    seconds = 0.0
    for methods in study.cases.values():
        for settings in methods.values():
            if "linear" in settings:
                x, y = pair(settings["problem"], settings["n"], 0)
                way = dual({**settings, "steps": _TIMED}, x.shape[1], 0)
                started = time.perf_counter()
                way.ascent(way.critic, x, y, samples(x, y))
                seconds += settings["steps"] / _TIMED * (time.perf_counter() - started)
    return f"{len(list(study.tasks()))} cells, about {seconds * study.seeds / 60:.1f} min of training"
