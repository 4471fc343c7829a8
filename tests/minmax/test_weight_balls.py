"""Balls of weight shifts: their linear maximisers against the batched sets, and against random members."""

import pytest
import torch

from danskin import L2, InputError
from danskin.minmax import lists
from danskin.minmax.weight_balls import AllWeights, EachLayer, ScaledWeights

SHAPES = [(3, 2), (4,), (1, 2, 2)]


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in SHAPES]


BALLS = [AllWeights(0.3), ScaledWeights(0.5), ScaledWeights(2.0, eta=0.0), EachLayer(0.1)]


@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_the_linear_maximiser_is_in_the_ball_and_no_member_does_better(ball):
    g, w = drawn(0), drawn(1)
    best = ball.lmo(g, w)
    radius = getattr(ball, "rho", getattr(ball, "gamma", None))
    assert ball.norm(best, w) == pytest.approx(radius, rel=1e-12)
    value = lists.dot(g, best)
    for seed in range(2, 40):
        v = drawn(seed)
        if isinstance(ball, EachLayer):
            v = [t * radius * lists.norm([u]) / lists.norm([t]) for t, u in zip(v, w, strict=True)]
        else:
            v = [t * radius / ball.norm(v, w) for t in v]
        assert lists.dot(g, v) <= value + 1e-12


def test_the_ball_of_all_weights_is_the_l2_ball_of_the_flat_vector():
    g, w = drawn(0), drawn(1)
    flat = torch.cat([t.flatten() for t in g])[None]
    mine = torch.cat([t.flatten() for t in AllWeights(0.3).lmo(g, w)])
    torch.testing.assert_close(mine, L2(0.3).lmo(flat)[0], rtol=1e-14, atol=0)


def test_asam_written_out():
    g, w = drawn(0), drawn(1)
    t = [u.abs() + 0.01 for u in w]
    length = sum(((s * a) ** 2).sum() for s, a in zip(g, t, strict=True)) ** 0.5
    for got, s, a in zip(ScaledWeights(0.7).lmo(g, w), g, t, strict=True):
        torch.testing.assert_close(got, 0.7 * a**2 * s / length, rtol=1e-13, atol=0)


@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_a_zero_gradient_moves_nothing(ball):
    zero = [torch.zeros_like(t) for t in drawn(0)]
    assert all((v == 0).all() for v in ball.lmo(zero, drawn(1)))


def test_a_weight_of_zero_does_not_move_under_eta_zero_and_is_outside_if_it_does():
    w = [torch.tensor([0.0, 1.0])]
    assert ScaledWeights(1.0, 0.0).lmo([torch.ones(2)], w)[0].tolist() == [0, 1]
    assert ScaledWeights(1.0, 0.0).norm([torch.tensor([0.1, 0.0])], w) == float("inf")


@pytest.mark.parametrize("make", [AllWeights, ScaledWeights])
@pytest.mark.parametrize("rho", [0, -1, float("inf"), float("nan"), True, "0.1"])
def test_radii_that_are_none(make, rho):
    with pytest.raises(InputError, match="rho: expected a radius above 0, got"):
        make(rho)


def test_norm_and_product_of_lists():
    a, b = drawn(0), drawn(1)
    flat = [torch.cat([t.flatten() for t in s]) for s in (a, b)]
    assert lists.norm(a) == pytest.approx(float(flat[0].norm())) and lists.norm([]) == 0 == lists.dot([], [])
    assert lists.dot(a, b) == pytest.approx(float(flat[0] @ flat[1]))


@pytest.mark.parametrize("scale", [1e-25, 1e20])
def test_gradients_whose_squares_leave_the_range_of_float32(scale):
    g = [t.float() for t in drawn(0)]
    for a, b in zip(AllWeights(0.3).lmo([scale * t for t in g], g), AllWeights(0.3).lmo(g, g), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    assert lists.norm([scale * t for t in g]) == pytest.approx(scale * lists.norm(g), rel=1e-6)


def test_a_gradient_too_small_for_a_direction_moves_nothing():
    tiny = [torch.full((3,), 1e-44)]
    assert all((v == 0).all() for ball in (AllWeights(0.3), EachLayer(0.1)) for v in ball.lmo(tiny, [torch.ones(3)]))
