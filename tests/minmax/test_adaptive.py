"""Auto-PGD row by row against a plain loop, in l_inf and l2, on payoffs where a stale gradient shows."""

import math

import pytest
import torch

from danskin.minmax import L2, Box, Intersection, Linf
from danskin.minmax.adaptive import AdaptiveAscent, checkpoints

W = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y0 = 0.3 * torch.randn(40, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
LOW, HIGH = torch.full((6,), -0.4, dtype=torch.float64), torch.full((6,), 0.5, dtype=torch.float64)
PAYOFFS = {
    "waves": lambda y: (3 * y @ W.T).sin().sum(1),
    "waves on a bowl": lambda y: (5 * y @ W.T).sin().sum(1) + (y @ W[0]) ** 2,
    "kinks": lambda y: (4 * y @ W.T).cos().abs().sum(1),
}


def into_l2_and_box(y, radius):
    """Projection of one row on |y|_2 <= radius within the box, by bisection on the multiplier."""
    if float(torch.minimum(torch.maximum(y, LOW), HIGH).norm()) <= radius:
        return torch.minimum(torch.maximum(y, LOW), HIGH)
    low, high = 0.0, 1.0
    while math.fsum((torch.minimum(torch.maximum(y / (1 + high), LOW), HIGH) ** 2).tolist()) > radius**2:
        high *= 2
    for _ in range(200):
        mid = (low + high) / 2
        inside = float(torch.minimum(torch.maximum(y / (1 + mid), LOW), HIGH).norm()) <= radius
        low, high = (low, mid) if inside else (mid, high)
    return torch.minimum(torch.maximum(y / (1 + high), LOW), HIGH)


def slow_twin(f, y0, project, direction, steps, rho, step):
    """Algorithm 1 of Auto-PGD for one row: at a checkpoint that stalls, the best point *and its gradient* come back."""
    at, eta, y = checkpoints(steps), step, project(y0)
    before = y

    def look(y):
        leaf = y.clone().requires_grad_()
        value = f(leaf[None])[0]
        return float(value.detach()), torch.autograd.grad(value, leaf)[0]

    value, g = look(y)
    best, best_value, best_g, checked = y, value, g, value
    ups, last_check, halved = 0, 0, False
    for k in range(steps):
        a = 1.0 if k == 0 else 0.75
        z = project(y + eta * direction(g))
        y, before = project(y + a * (z - y) + (1 - a) * (y - before)), y
        previous, (value, g) = value, look(y)
        ups += value > previous
        if value > best_value:
            best, best_value, best_g = y, value, g
        if k + 1 in at:
            stall = ups < rho * (k + 1 - last_check) or (not halved and checked >= best_value)
            if stall:
                eta, y, g = eta / 2, best, best_g
            halved, checked, ups, last_check = stall, best_value, 0, k + 1
    return best, best_value


NORMS = {
    "linf": (Linf(0.6), lambda y: torch.minimum(torch.maximum(y.clamp(-0.6, 0.6), LOW), HIGH), torch.sign),
    "l2": (L2(0.6), lambda y: into_l2_and_box(y, 0.6), lambda g: g / g.norm()),
}


@pytest.mark.parametrize("payoff", PAYOFFS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("rho", "step"), [(0.75, 1.2), (1.0, 0.05)])
def test_fast_equals_slow(norm, payoff, rho, step):
    f, (ball, project, direction) = PAYOFFS[payoff], NORMS[norm]
    Y = Intersection(ball, Box(LOW.expand(40, 6), HIGH.expand(40, 6)))
    found = AdaptiveAscent(25, step, start="given", keep="value", rho=rho)(f, Y0, Y)
    for i in range(40):
        best, value = slow_twin(f, Y0[i], project, direction, 25, rho, step)
        assert abs(float(found.value[i]) - value) < 1e-9, i
        assert torch.allclose(found.y[i], best, atol=1e-6), i
