"""Every set against its contract, against slow twins and against a convex solver."""

import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from danskin.errors import InputError
from danskin.minmax import L1, L2, Box, Cube, Intersection, Linf, Set, Simplex
from danskin.testing import check_set, oracles

BALLS = {"linf": Linf, "l2": L2, "l1": L1}


def box(like, width=0.5):
    """A box around 0 of uneven sides; the first row has no room on one side."""
    random = torch.Generator().manual_seed(3)
    low = -width * torch.rand(like.shape, generator=random).to(like)
    high = width * torch.rand(like.shape, generator=random).to(like)
    low[0] = 0
    return Box(low, high)


def radii(like, most):
    """One radius per row, the first 0."""
    return torch.linspace(0, most, len(like)).to(like)


def cube(like, radius):
    """Around 0, where `check_set` looks for sets, cut on one side."""
    return Cube(torch.zeros_like(like), Linf(radius), (-0.1, 1.0))


SETS = {
    "linf": lambda like: Linf("8/255"),
    "l2": lambda like: L2(0.5),
    "l1": lambda like: L1(2.0),
    "linf per row": lambda like: Linf(radii(like, 1.0)),
    "l2 per row": lambda like: L2(radii(like, 1.0)),
    "l1 per row": lambda like: L1(radii(like, 3.0)),
    "box": box,
    "box away from 0": lambda like: Box(0.25, 1.0),
    "cube": lambda like: cube(like, 0.3),
    "cube per row": lambda like: cube(like, radii(like, 0.4)),
    "simplex": lambda like: Simplex(),
    "simplex per row": lambda like: Simplex(1 + radii(like, 2.0)),
    "linf and box": lambda like: Intersection(Linf(0.3), box(like)),
    "l2 and box": lambda like: Intersection(L2(0.5), box(like)),
    "l1 and box": lambda like: Intersection(L1(0.7), box(like)),
    "linf and box per row": lambda like: Intersection(Linf(radii(like, 0.4)), box(like)),
    "l2 and box per row": lambda like: Intersection(L2(radii(like, 3.0)), box(like)),
    "l1 and box per row": lambda like: Intersection(L1(radii(like, 3.0)), box(like)),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("shape", [(5, 8), (3, 2, 4, 3)], ids=str)
def test_conformance(name, shape):
    check_set(SETS[name], shape, trials=1)


@pytest.mark.parametrize("name", SETS)
def test_conformance_in_many_dimensions(name):
    check_set(SETS[name], (3, 500), trials=1, dtypes=(torch.float32,))


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 4), d=st.integers(1, 9), name=st.sampled_from(sorted(SETS)))
def test_conformance_of_random_shapes(seed, n, d, name):
    check_set(SETS[name], (n, d), trials=1, seed=seed, dtypes=(torch.float64,))


def rows_of(seed, n, d):
    """y, low, high in float64: coordinates in and out of their room, ties, zeros."""
    random = torch.Generator().manual_seed(seed)
    y = torch.randn(n, d, generator=random, dtype=torch.float64)
    y[:, ::3] = y[:, ::3].round()
    low = -torch.rand(n, d, generator=random, dtype=torch.float64)
    high = torch.rand(n, d, generator=random, dtype=torch.float64)
    low[:, ::4] = 0
    return y, low, high


CASES = settings(deadline=None, derandomize=True, max_examples=20)
SEEDS = {"seed": st.integers(0, 10**6), "d": st.integers(1, 30), "radius": st.sampled_from([0.0, 0.01, 0.5, 2.0, 50.0])}


@CASES
@given(order=st.sampled_from(sorted(BALLS)), **SEEDS)
def test_projection_on_ball_and_box_equals_bisection(order, seed, d, radius):
    y, low, high = rows_of(seed, 2, d)
    fast = Intersection(BALLS[order](radius), Box(low, high)).project(y)
    slow = [
        oracles.project(*row, order) for row in zip(y.tolist(), [radius] * 2, low.tolist(), high.tolist(), strict=True)
    ]
    assert torch.allclose(fast, torch.tensor(slow, dtype=y.dtype), rtol=0, atol=1e-12)  # bisection is exact to rounding


@CASES
@given(order=st.sampled_from(sorted(BALLS)), **SEEDS)
def test_projection_on_ball_equals_bisection(order, seed, d, radius):
    y = rows_of(seed, 1, d)[0]
    endless = [math.inf] * d
    slow = oracles.project(y[0].tolist(), radius, [-v for v in endless], endless, order)
    assert torch.allclose(BALLS[order](radius).project(y)[0], torch.tensor(slow, dtype=y.dtype), rtol=0, atol=1e-12)


@CASES
@given(order=st.sampled_from(sorted(BALLS)), **SEEDS)
def test_linear_maximiser_equals_sorting(order, seed, d, radius):
    g, low, high = rows_of(seed, 1, d)
    most, _ = oracles.linear_worst_case(g[0].tolist(), radius, low[0].tolist(), high[0].tolist(), order)
    best = Intersection(BALLS[order](radius), Box(low, high)).lmo(g)
    assert float((g * best).sum()) == pytest.approx(most, rel=1e-12, abs=1e-12)  # sums of at most 30 terms


@CASES
@given(seed=st.integers(0, 10**6), d=st.integers(1, 30), total=st.sampled_from([0.5, 1.0, 7.0]))
def test_simplex_projection_equals_bisection(seed, d, total):
    y = rows_of(seed, 1, d)[0] * 3
    slow = torch.tensor(oracles.project_simplex(y[0].tolist(), total), dtype=y.dtype)
    assert torch.allclose(Simplex(total).project(y)[0], slow, rtol=0, atol=1e-12)


def solve(objective, constraints):
    cp.Problem(objective, constraints).solve(solver="CLARABEL")


def constraints_of(name, q, low, high):
    return {
        "linf": [cp.norm(q, "inf") <= 0.4],
        "l2": [cp.norm(q, 2) <= 0.8],
        "l1": [cp.norm(q, 1) <= 1.2],
        "box": [q >= low, q <= high],
        "simplex": [q >= 0, cp.sum(q) == 1],
    }[name]


@pytest.mark.parametrize("names", [("linf",), ("l2",), ("l1",), ("box",), ("simplex",), ("linf", "box"), ("l2", "box"),
                                   ("l1", "box")], ids=" and ".join)  # fmt: skip
def test_projection_and_linear_maximiser_equal_a_convex_solver(names):
    y, low, high = rows_of(5, 2, 6)
    bounds = Box(low, high)
    one = {"linf": Linf(0.4), "l2": L2(0.8), "l1": L1(1.2), "box": bounds, "simplex": Simplex()}[names[0]]
    Y = Intersection(one, bounds) if len(names) == 2 else one
    for i in range(len(y)):
        q = cp.Variable(6)
        inside = [c for name in names for c in constraints_of(name, q, low[i].numpy(), high[i].numpy())]
        solve(cp.Minimize(cp.sum_squares(q - y[i].numpy())), inside)
        np.testing.assert_allclose(Y.project(y)[i].numpy(), q.value, atol=3e-4)  # root of the solver's 1e-8
        solve(cp.Maximize(y[i].numpy() @ q), inside)
        assert float((Y.lmo(y)[i] * y[i]).sum()) == pytest.approx(float(y[i].numpy() @ q.value), abs=1e-6)


def test_l1_projection_does_not_rescale():
    y = torch.tensor([[3.0, 1.0]])
    assert torch.equal(L1(2.0).project(y), torch.tensor([[2.0, 0.0]]))  # rescaling would give (1.5, 0.5)


def test_l2_projection_keeps_inner_points():
    y = torch.tensor([[0.3, 0.4]])
    assert torch.equal(L2(1.0).project(y), y)  # a projection on the sphere would move it


def test_intersection_is_not_one_projection_after_the_other():
    y = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    ball, bounds = L2(1.0), Box(-0.5, 0.5)
    exact = Intersection(ball, bounds).project(y)
    assert torch.equal(exact, torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    assert not torch.allclose(exact, bounds.project(ball.project(y)))


def test_radius_prints_as_written():
    assert repr(Linf("8/255")) == "Linf(radius='8/255')" and Linf("8/255").value == 8 / 255


@pytest.mark.parametrize("Y", [Linf(0.1), L2(0.1), L1(0.1), Box(-1.0, 1.0), Simplex(), *(
    Intersection(ball(0.1), Box(-1.0, 1.0)) for ball in BALLS.values())], ids=repr)  # fmt: skip
def test_empty_batch(Y):
    empty = torch.zeros(0, 2, 3)
    assert Y.project(empty).shape == Y.lmo(empty).shape == Y.steepest(empty).shape == empty.shape
    assert Y.violation(empty).shape == (0,)
    assert isinstance(Y, Set)


@pytest.mark.parametrize("make", [
    lambda: Linf(-0.1), lambda: L2(math.nan), lambda: L1(math.inf), lambda: Linf("eight"), lambda: L2(torch.ones(2, 2)),
    lambda: Box(1.0, 0.0), lambda: Simplex(-1.0), lambda: Linf(torch.ones(3)).project(torch.zeros(2, 4)),
    lambda: Intersection(L2(1.0), Box(0.5, 1.0)).project(torch.zeros(1, 2)),
    lambda: Box(-math.inf, 1.0).lmo(-torch.ones(1, 2)),
])  # fmt: skip
def test_refuses(make):
    with pytest.raises(InputError, match=r"(?s)expected .*got .*; "):
        make()
