"""Majorisation-minimisation: the step is the maximiser of the bound, and the payoff never falls."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from danskin.minmax import L1, L2, Box, Intersection, Linf, MajorizeMinimize, Simplex, Streams
from danskin.minmax.majorize import _accept, _best_length, _majorizer_step
from danskin.testing import oracles

N, D = 6, 4
SETS = [Linf(0.8), L2(0.8), L1(0.8), Box(-0.5, 0.9), Simplex(), Intersection(Linf(0.8), Box(-0.5, 0.6)),
        Intersection(L2(0.8), Box(-0.5, 0.6)), Intersection(L1(0.8), Box(-0.5, 0.6))]  # fmt: skip
PAYOFFS = {
    "concave, smooth": lambda y: (y - (y - 0.3) ** 2 * torch.arange(1, 5)).sum(1),
    "not concave": lambda y: (7 * y).sin().sum(1) + (y**2).sum(1),
    "not smooth": lambda y: -(y - 0.2).abs().sum(1) * 3 + y[:, 0],
    "steep": lambda y: 1e4 * (y - 20 * y**2).sum(1),
    "tiny": lambda y: 1e-6 * (y - 20 * y**2).sum(1),
}


def accepted(f):
    """f, and the list of the values of each row that were not refused."""
    trace = []

    def recording(y):
        value = f(y)
        trace.append(value.detach())
        return value

    return recording, trace


@pytest.mark.parametrize("name", PAYOFFS)
@pytest.mark.parametrize("Y", SETS, ids=repr)
def test_payoff_never_falls_and_more_steps_never_hurt(name, Y):
    streams = Streams.of(0, torch.arange(N))
    start = Y.sample(torch.zeros(N, D, dtype=torch.float64), streams)
    f, trace = accepted(PAYOFFS[name])
    values = [MajorizeMinimize(k)(f, start, Y).value for k in (1, 2, 4, 8, 16, 32)]
    values.insert(0, PAYOFFS[name](Y.project(start)))
    assert bool((torch.stack(values).diff(dim=0) >= 0).all())
    best = torch.stack(trace[-33:]).amax(0)
    assert torch.equal(values[-1], best)  # what is reported is the best of all that was tried


def test_trials_are_accepted_where_value_and_bound_say_so():
    """From y = 0, value 0 and gradient 1 to y = 1: the bound there is 1 - smooth / 2, and 0 is no rise."""
    rows = torch.tensor(
        [
            # smooth, new value, accepted, smooth after
            [2.0, 0.5, 1, 1.0],  # bound 0
            [2.0, 0.0, 1, 1.0],  # on the bound
            [2.0, -0.1, 0, 4.0],  # below both
            [4.0, -0.1, 0, 8.0],  # above the bound -1, but a fall
            [1.0, 0.3, 0, 2.0],  # a rise, but below the bound 0.5
            [0.0, 0.9, 0, 0.2],  # the bound is 1: the constant that explains 0.9 is 0.2
            [0.0, 1.0, 1, 0.0],
        ],
        dtype=torch.float64,
    )
    smooth, new, accepted, after = rows.T
    one, zero = torch.ones(len(rows), 1, dtype=torch.float64), torch.zeros(len(rows), dtype=torch.float64)
    y, value, g, constant = _accept((0 * one, zero, one, smooth), (one, new, 3 * one), Linf(9.0))
    assert torch.equal(y.flatten(), accepted) and torch.equal(value, accepted * new)
    assert torch.equal(g.flatten(), 1 + 2 * accepted)
    assert torch.allclose(constant, after)


def random_rows(seed, d):
    random = torch.Generator().manual_seed(seed)
    g = torch.randn(1, d, generator=random, dtype=torch.float64)
    g[:, ::4] = 0
    room = torch.rand(1, d, generator=random, dtype=torch.float64)
    room[:, ::5] = 0
    return g, room


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 8), smooth=st.sampled_from([0.0, 0.01, 1.0, 5.0, 100.0]))
def test_length_of_the_step_equals_a_grid_and_a_search(seed, d, smooth):
    g, room = random_rows(seed, d)
    a = g.abs()

    def gain(t):
        return float((a * room.clamp_max(t)).sum()) - smooth * t**2 / 2

    t = float(_best_length(a, room, torch.tensor([smooth], dtype=torch.float64)))
    grid = oracles.best_length(a[0].tolist(), room[0].tolist(), smooth)
    search = minimize_scalar(lambda t: -gain(t), bounds=(0, 2), method="bounded", options={"xatol": 1e-10})
    assert gain(t) >= max(gain(grid), -search.fun) - 1e-12  # rounding of sums
    assert gain(t) <= -search.fun + 1e-6  # the search's own tolerance


@pytest.mark.parametrize("Y", SETS, ids=repr)
@pytest.mark.parametrize("smooth", [0.5, 3.0, 40.0])
def test_step_maximises_the_bound(Y, smooth):
    streams = Streams.of(0, torch.arange(N))
    like = torch.zeros(N, D, dtype=torch.float64)
    y, g = Y.sample(like, streams), torch.randn(N, D, dtype=torch.float64)
    cube = isinstance(getattr(Y, "ball", Y), Linf | Box)

    def bound(q):
        d = q - y
        norm = d.abs().amax(1) if cube else d.norm(dim=1)
        return (g * d).sum(1) - smooth * norm**2 / 2

    best = _majorizer_step(y, g, torch.full((N,), smooth, dtype=torch.float64), Y)
    assert bool((Y.violation(best) <= 1e-12).all())
    for k in range(200):
        other = Y.sample(like, streams.child(k + 1))
        for share in (1.0, 0.3, 0.05):
            assert bool((bound(best) >= bound(y + share * (other - y)) - 1e-12).all())


def test_first_trial_is_the_linear_maximiser():
    c = torch.randn(N, D, dtype=torch.float64)
    for Y in SETS:
        found = MajorizeMinimize(1)(lambda y: (c * y).sum(1), torch.zeros(N, D, dtype=torch.float64), Y)
        assert torch.allclose(found.value, (c * Y.lmo(c)).sum(1))
