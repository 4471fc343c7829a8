"""Better lines below undecided ReLUs, by gradient ascent on the bound itself."""

from __future__ import annotations

import torch
from torch import Tensor

from danskin.evaluation.certificates.backward import Bounds
from danskin.evaluation.certificates.relaxations import Lines
from danskin.lipschitz.operations import Relu

STEPS = 20  # of the search for a row
_RATE = 0.2  # of Adam, falling to 0.02; slopes are in [0, 1]
_ROWS = {"cpu": 64, "cuda": 4096}


def improved(bounds: Bounds, start: int, a: Tensor, example: Tensor, first: Tensor, goal: Tensor) -> Tensor:
    """(rows,): the best lower bounds of <a, value of node `start`> over lines below, at least `first`.

    A line of any slope between the leak and 1 is below a ReLU, so every step gives a valid bound and the best is
    kept. Each row has slopes of its own, for the last pass only: the bounds of the neurons stay as they are.

    Args:
        bounds: with relaxations of both styles.
        start: a node.
        a: (rows, *shape of the node).
        example: (rows,) whose region.
        first: (rows,) bounds so far.
        goal: (rows,) the search for a row ends when its bound is above.

    Reference: Xu et al., ICLR 2021 (slopes of the last pass only).
    """
    rows = torch.arange(len(a), device=a.device).split(_ROWS.get(a.device.type, 64))
    parts = [_improved(bounds, start, a[some], example[some], first[some], goal[some]) for some in rows]
    return torch.cat(parts) if parts else first


def _improved(bounds: Bounds, start: int, a: Tensor, example: Tensor, best: Tensor, goal: Tensor) -> Tensor:
    own = bounds.rows(example)
    relus: dict[int, tuple[Lines, Tensor, Tensor]] = {}
    for at, made in own.relaxations["adaptive"].items():
        activation, node = bounds.network.nodes[at].operation, bounds.network.nodes[at].inputs[0]
        if isinstance(activation, Relu) and isinstance(made, Lines):
            low, high = own.intervals[node]
            undecided = (low < 0) & (high > 0)
            share = (made.upper - activation.leak) / (1 - activation.leak) if activation.leak < 1 else made.upper
            relus[at] = (made, undecided, share.clone().requires_grad_())
    if not relus:
        return best
    each = torch.arange(len(a), device=a.device)
    search = torch.optim.Adam([slope for _, _, slope in relus.values()], lr=_RATE)
    with torch.enable_grad():
        for step in range(STEPS):
            for group in search.param_groups:
                group["lr"] = _RATE * 0.1 ** (step / STEPS)
            for at, (made, undecided, share) in relus.items():
                leak = bounds.network.nodes[at].operation.leak  # type: ignore[union-attr]
                lower = torch.where(undecided, leak + (1 - leak) * share, made.lower)
                own.relaxations["adaptive"][at] = Lines(lower, made.upper, made.below, made.above)
            value = own.least(start, a, each, "adaptive")
            # a row above its goal stays as it is, so that it does not depend on how long others take
            best = torch.where(best > goal, best, torch.maximum(best, value.detach()))
            if bool((best > goal).all()):
                break
            search.zero_grad()
            (-value.sum()).backward()
            search.step()
            with torch.no_grad():
                for _, _, share in relus.values():
                    share.clamp_(0, 1)
    return best
