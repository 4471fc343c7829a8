"""How two players move: extragradient with Adam on a stack of seeds."""

import math

import pytest
import torch

from danskin.errors import DivergenceError
from danskin.games.rl.movers import ExtraAdam


def adam(w, g, m, v, t, lr):
    """Adam on numbers: the new weight and moments."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return w - lr * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def test_extra_adam_looks_ahead_and_steps_from_where_it_was_for_every_seed_by_itself():
    """Phi = a x y + x^2 / 2 of three seeds with an a each; beside it, one seed after the other on Python's numbers."""
    scale = torch.tensor([[1.0], [2.0], [-0.5]], dtype=torch.float64)
    x = torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0], [0.3], [-0.7]], dtype=torch.float64, requires_grad=True)
    start = torch.cat([x, y], 1).tolist()
    moving, calls = ExtraAdam(0.05).start([x], [y], [0, 1, 2]), []

    def payoff():
        calls.append(0)
        return (scale * x * y + x.square() / 2).sum()

    for _ in range(7):
        moving.step(payoff)
    assert len(calls) == 14
    for row, (u, w) in enumerate(start):
        a, moments = float(scale[row]), [0.0] * 4
        for t in range(7):
            here = (u, w)
            for half in (1, 2):  # the moments of the look ahead stay
                gu, gw = a * w + u, -a * u
                u, moments[0], moments[1] = adam(here[0], gu, moments[0], moments[1], 2 * t + half, 0.05)
                w, moments[2], moments[3] = adam(here[1], gw, moments[2], moments[3], 2 * t + half, 0.05)
        assert x[row].item() == pytest.approx(u, abs=1e-12) and y[row].item() == pytest.approx(w, abs=1e-12)


def test_extra_adam_leaves_gradients_of_others_alone_and_says_when_its_own_are_nan():
    x, other = torch.ones(2, 1, requires_grad=True), torch.ones(2, 1, requires_grad=True)
    moving = ExtraAdam().start([x], [], [0, 1])
    moving.step(lambda: (x * other).sum())
    assert other.grad is None and x.grad is None
    with pytest.raises(DivergenceError, match="lower lr"):
        moving.step(lambda: (x * math.nan).sum())
