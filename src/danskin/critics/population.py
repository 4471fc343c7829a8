"""What a critic says of populations: trained on one half of the samples, judged on the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from danskin.critics.certified import frozen, values
from danskin.critics.dual import FittedDual, NeuralDual
from danskin.critics.samples import as_points
from danskin.errors import InputError
from danskin.inputs import whole_number


@dataclass(frozen=True, eq=False)
class PopulationBound:
    """W1 of the two populations is at least `lower`, with probability `confidence` over the judging half.

    Args:
        lower: >= 0, in the units of the points.
        estimate: gap / L on the judging half: unbiased for what this critic earns on the populations.
        confidence: one-sided.
        method: "hoeffding" (holds for any n) or "bootstrap" (as n grows).
        n: points of x that judged.
        m: points of y that judged.
        fitted: the critic of the other half; its own bound is of the samples it was trained on.
    """

    lower: float
    estimate: float
    confidence: float
    method: str
    n: int
    m: int
    fitted: FittedDual

    def __str__(self) -> str:
        how = f"{self.method}, n={self.n}, m={self.m}"
        return f"W1 of the populations >= {self.lower:.6g} at {self.confidence:.0%} ({how})"


def population_bound(
    dual: NeuralDual,
    x: Tensor,
    y: Tensor,
    *,
    confidence: float = 0.95,
    method: Literal["hoeffding", "bootstrap"] = "hoeffding",
    draws: int = 2000,
    seed: int = 0,
    fitted: FittedDual | None = None,
) -> PopulationBound:
    r"""An honest lower bound of W1 between the distributions that x and y were drawn from, independently.

    A critic that is judged on what it was trained on has learned the samples, whose W1 may be far above that of the
    populations (2.2 times, for 1,000 points in 10 dimensions). So it is trained on half of them, clipped to the
    range it has there (which keeps its Lipschitz constant and bounds it everywhere), and judged on the rest:

    - hoeffding: lower = (gap - R sqrt(log(1 / alpha) (1/n + 1/m) / 2)) / L, R the range. No assumption but
      independent draws.
    - bootstrap: the alpha-quantile of gaps of resampled halves, divided by L. Narrower, and right as n grows only.

    Args:
        dual: the critic and how it is trained.
        x: (n, ...) at least 4 points, independent draws of mu.
        y: (m, ...) of nu.
        confidence: 1 - alpha, in (0, 1).
        method: see above.
        draws: of the bootstrap.
        seed: of the split and of the bootstrap.
        fitted: of an earlier call with the same samples and seed, which is not trained again then.

    Raises:
        InputError: too few points, or a setting out of range.

    Reference: Hoeffding, JASA 1963, theorem 2; Efron and Tibshirani 1993, section 13.3. Lecture: E4.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number in (0, 1), got {confidence!r}; 0.95 is usual")
    if method not in ("hoeffding", "bootstrap"):
        raise InputError(f"method: expected 'hoeffding' or 'bootstrap', got {method!r}; choose one")
    whole_number(draws, "draws", 1)
    x, y = as_points(x), as_points(y)
    if min(len(x), len(y)) < 4:
        raise InputError(f"population_bound: expected at least 4 points of each, got {len(x)} and {len(y)}; draw more")
    g = torch.Generator().manual_seed(seed)
    (x_fit, x_judge), (y_fit, y_judge) = _halves(x, g), _halves(y, g)
    fitted = dual.fit(x_fit, y_fit) if fitted is None else fitted
    wide, constant = frozen(fitted.critic), fitted.bound.lipschitz.value
    if dual.p == math.inf:
        constant *= math.sqrt(x[0].numel())
    sign = 1.0 if fitted.bound.gap >= 0 else -1.0
    seen = torch.cat([values(wide, x_fit), values(wide, y_fit)])
    low, high = float(seen.min()), float(seen.max())
    u, v = (sign * values(wide, t).clamp(low, high) for t in (x_judge, y_judge))
    gap, alpha = float(u.mean() - v.mean()), 1 - confidence
    if method == "hoeffding":
        least = gap - (high - low) * math.sqrt(math.log(1 / alpha) * (1 / len(u) + 1 / len(v)) / 2)
    else:
        least = float((_resampled(u, draws, g) - _resampled(v, draws, g)).quantile(alpha))
    scale = constant if constant > 0 else math.inf
    return PopulationBound(max(least / scale, 0.0), gap / scale, confidence, method, len(u), len(v), fitted)


def _halves(t: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(t), generator=g).to(t.device)
    return t[order[: len(t) // 2]], t[order[len(t) // 2 :]]


def _resampled(u: Tensor, draws: int, g: torch.Generator) -> Tensor:
    """(draws,): means of u drawn with replacement, 64 at a time."""
    means = []
    for k in range(0, draws, 64):
        at = torch.randint(len(u), (min(64, draws - k), len(u)), generator=g).to(u.device)
        means.append(u[at].mean(1))
    return torch.cat(means)
