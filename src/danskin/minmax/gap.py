"""How far from an equilibrium: residual, linear gap, duality gap, what each player could gain.

Lecture: rows G1 and G2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from danskin.errors import InputError
from danskin.minmax.random import Streams
from danskin.minmax.saddle import Saddle
from danskin.minmax.sets import Set

_INSIDE = 1e-6  # a point that leaves Z by more is none of its points


def residual(saddle: Saddle, z: Tensor, step: float = 1.0) -> Tensor:
    r"""The natural residual \|z - P(z - s F(z))\|_2 / s: 0 exactly at the solutions; \|F(z)\|_2 in all of space.

    Args:
        saddle: the problem.
        z: (batch, d).
        step: s > 0.

    Returns:
        (batch,), at least 0.
    """
    return (z - saddle.project(z - step * saddle(z))).norm(dim=1) / step


def linear_gap(saddle: Saddle, z: Tensor) -> Tensor:
    """Max over q in Z of <F(z), z - q>, by one linear maximiser: at least 0 and 0 exactly at the solutions.

    The duality gap itself where Phi is bilinear, and an upper bound of it where Phi is convex-concave.

    Args:
        saddle: with a bounded Z.
        z: (batch, d) in Z.

    Returns:
        (batch,), at least 0.

    Raises:
        InputError: Z is all of space, or z is not in it.
    """
    Z = _bounded(saddle, z, "linear_gap")
    value = saddle(z)
    return ((z - Z.lmo(-value)) * value).sum(1).clamp_min(0)  # below 0 by rounding only, as z is in Z


def gains(saddle: Saddle, z: Tensor, *, tries: int = 64, steps: int = 40, seed: int = 0) -> Tensor:
    """What each player could gain by moving alone: (Phi(x, y) - min_x' Phi(x', y), max_y' Phi(x, y') - Phi(x, y)).

    Exact where Phi is bilinear (linear maximisers). Elsewhere found by search, from random points of Z and from z by
    projected gradient steps that halve: then each number is a lower bound, and still at least 0.

    Args:
        saddle: with a payoff and a bounded Z.
        z: (batch, d) in Z.
        tries: random points for each row.
        steps: of the search from the best of them.
        seed: of the random points.

    Returns:
        (batch, 2), at least 0.

    Raises:
        InputError: no payoff, Z is all of space, or z is not in it.
    """
    Z = _bounded(saddle, z, "gains")
    if saddle.payoff is None:
        raise InputError(
            "gains: expected a payoff, got an operator that is no gradient field; use residual, or linear_gap"
        )
    if saddle.bilinear:
        value, n = saddle(z), saddle.split
        moved = (z - Z.lmo(-value)) * value
        return torch.stack([moved[:, :n].sum(1), moved[:, n:].sum(1)], 1).clamp_min(0)
    found = [_best_response(saddle, Z, z, player, tries, steps, seed) for player in (0, 1)]
    return torch.stack(found, 1)


def duality_gap(saddle: Saddle, z: Tensor, **search: int) -> Tensor:
    """Max over y' of Phi(x, y') - min over x' of Phi(x', y): (batch,), at least 0, 0 exactly at the global equilibria.

    The sum of `gains`, to which `search` goes: exact where Phi is bilinear, a lower bound elsewhere. What the
    literature calls NashConv.
    """
    return gains(saddle, z, **search).sum(1)


def exploitability(saddle: Saddle, z: Tensor, **search: int) -> Tensor:
    """What a player could gain by moving alone, mean over the two: half of `duality_gap`."""
    return gains(saddle, z, **search).mean(1)


def _bounded(saddle: Saddle, z: Tensor, who: str) -> Set:
    if saddle.feasible is None:
        raise InputError(
            f"{who}: expected a bounded set of both players, got all of space, where the gap is infinite; give the "
            "saddle a set, or use residual"
        )
    outside = saddle.feasible.violation(z)
    if not bool((outside <= _INSIDE * (1 + z.abs().amax())).all()):
        raise InputError(
            f"{who}: expected points of the set, got one that leaves it by {float(outside.max()):.3g}; project first"
        )
    return saddle.feasible


def _best_response(saddle: Saddle, Z: Set, z: Tensor, player: int, tries: int, steps: int, seed: int) -> Tensor:
    """(batch,): the most that player 0 (x) or 1 (y) was found to gain."""
    payoff, sign = saddle.payoff, (-1.0, 1.0)[player]
    assert payoff is not None
    mine = torch.arange(z.shape[1], device=z.device) < saddle.split
    mine = mine if player == 0 else ~mine
    here = payoff(z)

    def gain(q: Tensor) -> Tensor:
        return sign * (payoff(q) - here)

    best, most = z, torch.zeros_like(here)
    streams = Streams.of(seed, torch.arange(len(z), device=z.device))
    for k in range(tries):
        q = torch.where(mine, Z.sample(z, streams.child(k)), z)
        better = gain(q) > most
        best, most = torch.where(better[:, None], q, best), torch.where(better, gain(q), most)
    size = (best - z).norm(dim=1, keepdim=True).clamp_min(0.1)
    for _ in range(steps):
        direction = torch.where(mine, -saddle(best), 0.0)  # -F: x goes down, y goes up
        length = direction.norm(dim=1, keepdim=True).clamp_min(1e-30)
        q = torch.where(mine, Z.project(best + size * direction / length), z)
        better = gain(q) > most
        best, most = torch.where(better[:, None], q, best), torch.where(better, gain(q), most)
        size = torch.where(better[:, None], size, size / 2)
    return most
