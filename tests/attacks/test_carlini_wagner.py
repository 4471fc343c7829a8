"""Carlini-Wagner row by row against plain loops over torch's own Adam."""

import math

import torch

from danskin.attacks.carlini_wagner import CarliniWagner
from danskin.minmax import L2
from danskin.testing.models import mlp


def slow_twin(model, x, y, steps, searches, step, first, ends):
    """For one example: every constant has an Adam of its own that begins anew; the least constant by bisection."""
    t = ((2 * x - 1) * ends).atanh()
    c, low, high, best = first, 0.0, math.inf, None
    for _ in range(searches):
        w = t.clone().requires_grad_()
        adam, found = torch.optim.Adam([w], lr=step), False
        for _ in range(steps):
            delta = ((w.tanh() - t.tanh()) / (1 + ends)).clamp(-x, 1 - x)
            z = model((x + delta)[None])[0]
            lead = torch.cat([z[:y], z[y + 1 :]]).max() - z[y]
            if float(lead.detach()) > 0:
                found = True
                if best is None or float(delta.detach().norm()) < best:
                    best = float(delta.detach().norm())
            loss = (delta**2).sum() + c * (-lead).clamp_min(0)
            adam.zero_grad()
            loss.backward()
            adam.step()
        low, high = (low, min(high, c)) if found else (max(low, c), high)
        c = (low + high) / 2 if high < math.inf else 10 * c
    return best


def test_fast_equals_slow():
    model = mlp(8, 3, seed=4).double()
    x = torch.rand(10, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = model(x).argmax(1)
    settings = {"steps": 25, "searches": 5, "step": 0.05, "first_constant": 0.1, "ends": 0.999}
    attack = CarliniWagner(L2(2.5), **settings, abort=False, refine=0)
    found = attack(model, x, y)
    for i in range(len(x)):
        wanted = slow_twin(model, x[i], int(y[i]), 25, 5, 0.05, 0.1, 0.999)
        model.zero_grad()
        assert bool(found.success[i]) == (wanted is not None), i
        if wanted is not None:
            assert abs(float(found.delta[i].norm()) - wanted) < 1e-6, i
    assert found.success.sum() >= 8
