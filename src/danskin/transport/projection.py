"""The W-projection: the member of a family of laws that is nearest to a sample. Lecture: row E7."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from danskin.errors import DivergenceError, InputError
from danskin.transport.bracket import Bracket
from danskin.transport.measures import Empirical, check_order
from danskin.transport.wasserstein import wasserstein

Noise = Tensor | Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Projection:
    """What came of it.

    Args:
        bracket: of W_q between the target and the law that was found, by the noise it ended with.
        trace: W_q (of the batch) before each step.
    """

    bracket: Bracket
    trace: list[float]


def wasserstein_projection(
    target: Any, family: nn.Module, noise: Noise, *, q: float = 2, p: float | str = 2, steps: int = 300,
    learning_rate: float = 0.05, batch: int | None = None, points: int = 512, seed: int = 0,
) -> Projection:  # fmt: skip
    """Min over theta of W_q(mu, nu_theta), nu_theta the law of family(noise), by Adam on exact transport plans.

    The gradient is that of the plan held fixed (envelope theorem). The parameters of `family` are changed in place. For
    one problem from first to last, take the whole target and fixed noise; with batches of either, what is minimised is
    larger than the distance (by the sampling floor), which moves the minimiser, too.

    Args:
        target: points (n, d), or an `Empirical`.
        family: from noise (k, l) to points (k, d), differentiable in its parameters.
        noise: a fixed (k, l), or a function of (k, generator) that draws it anew in each step.
        q: order, at least 1.
        p: norm: 1, 2 or "inf".
        steps: of Adam.
        learning_rate: in the first step; it goes to 0 along half of a cosine.
        batch: points of the target in a step, drawn without replacement; None: all.
        points: noise in a step, where it is drawn.
        seed: of the draws.

    Raises:
        InputError: bad points, nothing to learn, or images of another dimension.
        DivergenceError: parameters left the finite numbers.

    Reference:
        Bassetti, Bodini and Regazzini 2006 (minimum Kantorovich estimators); Bernton et al. 2019.

    Lecture:
        E7
    """
    q, _ = check_order(q, p)
    mu = target if isinstance(target, Empirical) else Empirical(target, name="target")
    parameters = [w for w in family.parameters() if w.requires_grad]
    if not parameters:
        raise InputError("family: expected parameters that require gradients, got none; there is nothing to learn")
    if steps < 1 or not 0 < learning_rate < math.inf:
        raise InputError(f"steps and learning_rate: expected at least 1 and above 0, got {steps} and {learning_rate}")
    if batch is not None and mu.weights is not None:
        raise InputError("batch: expected none with a weighted target, got one; leave it out")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (1 + math.cos(math.pi * t / steps)) / 2)
    trace = []
    for _ in range(steps):
        part = mu
        if batch is not None and batch < len(mu):
            part = Empirical(mu.points[torch.randperm(len(mu), generator=generator)[:batch]])
        images = family(_draw(noise, points, generator))
        found = wasserstein(part, Empirical(images, name="images of the family"), q, p=p)
        optimizer.zero_grad()
        found.cost.backward()
        optimizer.step()
        schedule.step()
        trace.append(found.bracket.upper)
        if not all(bool(w.isfinite().all()) for w in parameters):
            raise DivergenceError(f"projection: expected finite parameters, got NaN or infinity in step {len(trace)}")
    with torch.no_grad():
        last = wasserstein(mu, family(_draw(noise, points, generator)), q, p=p)
    return Projection(last.bracket, trace)


def _draw(noise: Noise, points: int, generator: torch.Generator) -> Tensor:
    return noise if isinstance(noise, Tensor) else noise(points, generator)
