"""The way to a hyperplane within a box: against convex programs, its optimality conditions, and closed forms."""

import math

import cvxpy
import numpy as np
import pytest
import torch

from danskin.errors import InputError
from danskin.minmax.hyperplane import hyperplane_step, project_hyperplane

ORDERS = [math.inf, 2, 1]
DTYPES = [torch.float32, torch.float64]


def problem(n, d, seed=0, dtype=torch.float64, reach=0.9):
    """Points in a box of uneven sides, weights of mixed size with zeros among them, and levels that can be reached."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    low, high = -rand(n, d), rand(n, d) + 0.01
    t = low + (high - low) * (1.4 * rand(n, d) - 0.2).clamp(0, 1)  # some at the ends
    w = torch.randn(n, d, generator=g, dtype=torch.float64) * 10 ** (2 * rand(n, 1) - 1) * rand(n, d) ** 2
    w = torch.where(rand(n, d) < 0.2, 0.0, w)
    down = -(torch.where(w > 0, t - low, high - t) * w.abs()).sum(1)
    up = (torch.where(w > 0, high - t, t - low) * w.abs()).sum(1)
    b = (w * t).sum(1) + down + (up - down) * (0.5 + reach * (rand(n) - 0.5))
    return tuple(v.to(dtype) for v in (t, w, b, low, high))


def bisected(t, w, b, low, high, order):
    """The slow twin of the two norms with a multiplier: the multiplier by bisection, in float64."""
    t, w, b, low, high = (v.double() for v in (t, w, b, low, high))
    need = b - (w * t).sum(1)
    side = w.sign() * need.sign()[:, None]
    room = torch.where(side > 0, high - t, t - low)
    rate = w.abs() if order == 2 else (w != 0).double()
    small, large = torch.zeros(len(t), 1).double(), torch.full((len(t), 1), 1e12).double()
    for _ in range(200):
        m = (small + large) / 2
        short = (w.abs() * torch.minimum(rate * m, room)).sum(1, keepdim=True) < need.abs()[:, None]
        small, large = torch.where(short, m, small), torch.where(short, large, m)
    return t + side * torch.minimum(rate * large, room)


@pytest.mark.parametrize("order", ORDERS)
def test_against_a_convex_program(order):
    t, w, b, low, high = problem(12, 6, seed=1)
    q = project_hyperplane(t, w, b, low, high, order)
    for i in range(len(t)):
        z = cvxpy.Variable(6)
        norm = cvxpy.norm(z - t[i].numpy(), "inf" if order == math.inf else order)
        limits = [w[i].numpy() @ z == b[i].item(), z >= low[i].numpy(), z <= high[i].numpy()]
        least = cvxpy.Problem(cvxpy.Minimize(norm), limits).solve(solver="CLARABEL")
        assert torch.linalg.vector_norm(q[i] - t[i], order).item() == pytest.approx(least, abs=1e-6)
        if order == 2:  # there the point is unique
            assert np.allclose(q[i].numpy(), z.value, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_on_the_plane_in_the_box_and_optimal(order, dtype):
    t, w, b, low, high = problem(500, 40, seed=2, dtype=dtype, reach=1.0)
    d = hyperplane_step(b - (w * t).sum(1), w, t - low, high - t, order)
    close = 1e-4 if dtype == torch.float32 else 1e-11
    size = (w.abs() * (high - low)).sum(1)
    assert (((w * (t + d)).sum(1) - b).abs() <= close * size).all()
    assert ((t + d >= low - close) & (t + d <= high + close)).all()
    need = b - (w * t).sum(1)
    assert (d * w * need.sign()[:, None] >= 0).all() and (d[w == 0] == 0).all()
    v, a = d.abs(), w.abs()
    room = torch.where(w * need[:, None] > 0, high - t, t - low)
    free = (a > 0) & (v < room - close)
    if order == 1:  # whoever moves weighs at least as much as whoever could move further
        heaviest = torch.where(free, a, 0.0).amax(1)
        lightest = torch.where(v > 0, a, torch.inf).amin(1)
        assert (lightest >= heaviest * (1 - close)).all()
        assert (((v > 0) & free).sum(1) <= 1).all()
    else:  # v = min(m rate, room)
        rate = a if order == 2 else torch.ones_like(a)
        m = torch.where(a > 0, v / rate, 0.0).amax(1, keepdim=True)
        assert torch.where(free, (v - m * rate).abs(), 0.0).max() <= close * 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [math.inf, 2])
def test_fast_is_slow(order, dtype):
    t, w, b, low, high = problem(300, 200, seed=3, dtype=dtype)
    q = project_hyperplane(t, w, b, low, high, order)
    assert (q - bisected(t, w, b, low, high, order)).abs().max() <= (3e-5 if dtype == torch.float32 else 1e-11)


@pytest.mark.parametrize(("order", "dual"), [(math.inf, 1), (2, 2), (1, math.inf)])
def test_without_a_box_the_distance_is_the_gap_over_the_dual_norm(order, dual):
    g = torch.Generator().manual_seed(4)
    w, gap = torch.randn(30, 3, 5, generator=g), torch.randn(30, generator=g)
    room = torch.full_like(w, math.inf)
    d = hyperplane_step(gap, w, room, room, order)
    norm = torch.linalg.vector_norm(d.flatten(1), order, dim=1)
    assert torch.allclose(norm, gap.abs() / torch.linalg.vector_norm(w.flatten(1), dual, dim=1), rtol=1e-5)
    assert torch.allclose((w * d).flatten(1).sum(1), gap, rtol=1e-4, atol=1e-6)
    assert d.shape == w.shape


@pytest.mark.parametrize("order", ORDERS)
def test_some_sides_without_an_end(order):
    w = torch.tensor([[3.0, 2.0, 1.0]])
    up = torch.tensor([[0.1, math.inf, 0.2]])
    d = hyperplane_step(torch.tensor([5.0]), w, torch.zeros(1, 3), up, order)
    assert (w * d).sum().item() == pytest.approx(5.0, rel=1e-5)
    wanted = {math.inf: [0.1, 2.25, 0.2], 2: [0.1, 2.25, 0.2], 1: [0.1, 2.35, 0.0]}[order]
    assert torch.allclose(d, torch.tensor([wanted]), atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sign", [1, -1])
def test_out_of_reach_all_the_room_is_used(order, sign):
    t, w, _, low, high = problem(20, 10, seed=5)
    q = project_hyperplane(t, w, torch.full((20,), sign * 1e6).double(), low, high, order)
    end = torch.where(sign * w > 0, high, low)
    assert torch.allclose(q, torch.where(w == 0, t, end))


@pytest.mark.parametrize("order", ORDERS)
def test_only_the_hyperplane_matters_not_how_it_is_written(order):
    t, w, b, low, high = problem(50, 20, seed=6, dtype=torch.float32)
    rise = (b - (w * t).sum(1)).clamp(-30, 30)
    wanted = hyperplane_step(rise, w, t - low, high - t, order)
    for factor in (1e-30, -1.0, 1e25):
        got = hyperplane_step(factor * rise, factor * w, t - low, high - t, order)
        assert torch.allclose(got, wanted, atol=1e-5), factor


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_to_do(order):
    w, room = torch.ones(2, 3), torch.ones(2, 3)
    assert (hyperplane_step(torch.zeros(2), w, room, room, order) == 0).all()  # there already
    assert (hyperplane_step(torch.ones(2), 0 * w, room, room, order) == 0).all()  # no plane
    assert (hyperplane_step(torch.ones(2), w, 0 * room, 0 * room, order) == 0).all()  # no room
    assert hyperplane_step(torch.ones(0), w[:0], room[:0], room[:0], order).shape == (0, 3)


@pytest.mark.parametrize("order", ORDERS)
def test_rows_do_not_matter_to_one_another(order):
    t, w, b, low, high = problem(40, 30, seed=7)
    whole = project_hyperplane(t, w, b, low, high, order)
    for i in (0, 17, 39):
        one = slice(i, i + 1)
        assert torch.equal(project_hyperplane(t[one], w[one], b[one], low[one], high[one], order), whole[one])


def test_other_norms_are_refused():
    with pytest.raises(InputError, match="order: expected 1, 2 or inf"):
        hyperplane_step(torch.ones(1), torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2), 3)


@pytest.mark.parametrize("order", ORDERS)
def test_blocks_of_rows_may_share_their_weights(order):
    t, w, b, low, high = problem(20, 12, seed=8)
    rise = b - (w * t).sum(1)
    one = (rise, w, t - low, high - t)
    two = (-0.3 * rise, w, high - t, t - low)
    both = hyperplane_step(
        *(torch.cat([p, q]) if i != 1 else p for i, (p, q) in enumerate(zip(one, two, strict=True))), order
    )
    assert torch.equal(both, torch.cat([hyperplane_step(*one, order), hyperplane_step(*two, order)]))
