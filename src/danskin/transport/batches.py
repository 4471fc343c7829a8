"""W_q of many pairs of samples at once: exact ones in threads, brackets by Sinkhorn in one batch. Lecture: row E2."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from danskin.errors import InputError, suggest
from danskin.transport.bracket import bracket_of, rounding
from danskin.transport.costs import check_reach, cost_matrix, root
from danskin.transport.measures import Empirical, check_order, pair_of
from danskin.transport.sinkhorn import bracketed
from danskin.transport.wasserstein import wasserstein

BATCHED = ("exact", "sinkhorn")


@dataclass(frozen=True, eq=False)
class Transports:
    """What is known of a batch of pairs.

    Args:
        distance: W_q (the upper end where the bracket is open), (B,), in the dtype of x; differentiable.
        lower: of each bracket, (B,), float64.
        upper: of each bracket, (B,), float64.
    """

    distance: Tensor
    lower: Tensor
    upper: Tensor


def wasserstein_batch(
    x: Tensor, y: Tensor, q: float = 1, *, p: float | str = 2, a: Tensor | None = None, b: Tensor | None = None,
    method: str = "exact", tolerance: float = 1e-3, threads: int | None = None,
) -> Transports:  # fmt: skip
    """W_q of each pair (x_k, y_k).

    Exact is a loop of linear programmes: POT's own batched solver without regularisation ends far from the optimum
    (by half of it on 16 problems of 32 points; a test shows it). What is found for a pair depends on no other pair.

    Args:
        x: points (B, n, d).
        y: points (B, m, d).
        q: order, at least 1.
        p: norm: 1, 2 or "inf".
        a: weights (B, n); None: 1/n each.
        b: weights (B, m); None: 1/m each.
        method: "exact", or "sinkhorn": brackets within `tolerance`, all in one batch, on the device of x.
        tolerance: of sinkhorn.
        threads: of exact; None: one for each core that this process may use.

    Raises:
        InputError: shapes that do not fit; bad points or weights, with the number of the pair.

    Lecture:
        E2
    """
    q, order = check_order(q, p)
    if any(getattr(z, "ndim", 0) != 3 for z in (x, y)) or len(x) != len(y) or not len(x):
        shapes = " and ".join(str(tuple(z.shape)) if isinstance(z, Tensor) else type(z).__name__ for z in (x, y))
        raise InputError(
            f"x and y: expected batches (B, n, d) and (B, m, d), got {shapes}; use wasserstein for a single pair"
        )
    if threads is not None and threads < 1:
        raise InputError(f"threads: expected at least 1, got {threads}; None takes one for each core")
    if method not in BATCHED:
        raise InputError(f"method: expected exact or sinkhorn, got {method!r}; {suggest(str(method), BATCHED)}")
    pairs = [(x[k], y[k], None if a is None else a[k], None if b is None else b[k]) for k in range(len(x))]
    if method == "exact":
        return _exact(pairs, q, p, threads)
    measures = [_named(k, *pair) for k, pair in enumerate(pairs)]
    home, outside = x.device, x.dtype
    device = torch.device("cpu") if home.type == "mps" else home
    u, v = x.to(device).double(), y.to(device).double()
    wu, wv = (torch.stack([pair[side].masses() for pair in measures]).to(device) for side in (0, 1))
    with torch.no_grad():
        matrix = cost_matrix(u, v, q, order)
        check_reach(float(matrix.max()))
        found = bracketed(matrix, wu, wv, q, tolerance)
        lower, upper = _bounds(found.lower, found.upper, found.f, found.g, wu, wv, q)
    cost = found.upper
    if u.requires_grad or v.requires_grad:
        cost = (found.plan * cost_matrix(u, v, q, order)).sum((1, 2))
    for weights, potential in ((wu, found.f), (wv, found.g)):
        if weights.requires_grad:
            cost = cost + (potential * (weights - weights.detach())).sum(1)
    return Transports(root(cost, q).to(outside).to(home), lower.to(home), upper.to(home))


def _named(k: int, *pair: Tensor | None) -> tuple[Empirical, Empirical]:
    try:
        return pair_of(*pair)
    except InputError as error:
        raise InputError(f"pair {k}: {error}") from None


def _exact(pairs: list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]], q: float, p: float | str,
           threads: int | None) -> Transports:  # fmt: skip
    def one(k: int) -> tuple[Tensor, float, float]:
        x, y, a, b = pairs[k]
        mu, nu = _named(k, x, y, a, b)
        found = wasserstein(mu, nu, q, p=p)
        return found.distance, found.bracket.lower, found.bracket.upper

    workers = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads or 1
    if workers == 1:
        found = [one(k) for k in range(len(pairs))]
    else:
        with ThreadPoolExecutor(min(workers, len(pairs))) as pool:
            found = list(pool.map(one, range(len(pairs))))
    lower, upper = (torch.tensor([f[i] for f in found], dtype=torch.float64) for i in (1, 2))
    return Transports(torch.stack([f[0] for f in found]), lower, upper)


def _bounds(
    lower: Tensor, upper: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor, q: float
) -> tuple[Tensor, Tensor]:
    brackets = []
    size = (a * f.abs()).sum(1) + (b * g.abs()).sum(1)
    for low, high, scale in zip(lower.tolist(), upper.tolist(), size.tolist(), strict=True):
        n, m = a.shape[1], b.shape[1]
        brackets.append(bracket_of(low, high, q, "sinkhorn", rounding(n * m, high) + rounding(n + m, scale)))
    ends = torch.tensor([[found.lower, found.upper] for found in brackets], dtype=torch.float64)
    return ends[:, 0], ends[:, 1]
