"""Sets of somebody else's, alone and cut with a box that knows nothing of them."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from danskin.errors import InputError
from danskin.minmax import L1, L2, Box, Intersection, Linf, Simplex, Streams
from danskin.minmax.intersection import order_of
from danskin.minmax.measured import Measured, Scaled, half_width, measured
from danskin.testing import check_set
from own_sets import Ellipsoid, GroupLasso, Masked, Polytope, centres, pattern

OWN = {
    "ellipsoid": lambda like: Ellipsoid(0.2, 0.6),
    "group lasso": lambda like: GroupLasso(0.8),
    "masked": lambda like: Masked(0.3, pattern(like)),
    "polytope": lambda like: Polytope(centres(like), 0.7),
    "simplex": lambda like: Simplex(0.5),
}
SHAPE = (4, 7)


def box(like, width=0.25):
    """A box that holds 0, uneven, with little room below."""
    random = torch.Generator().manual_seed(3)
    wide = torch.rand(2, *like.shape, generator=random, dtype=torch.float64).to(like)
    return Box(-0.05 * wide[0], 0.05 + width * wide[1])


@pytest.mark.parametrize("name", OWN)
def test_they_are_sets(name):
    check_set(OWN[name], SHAPE, trials=1)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "ellipsoid" else []) for name in OWN]
)
def test_cut_with_a_box(name):
    check_set(lambda like: Intersection(OWN[name](like), box(like)), (3, 2, 3, 1), trials=1)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_nearest_point_is_the_solvers(scale):
    """Ellipsoid and polytope cut with a box, against a convex solver."""
    like = torch.zeros(3, 5, dtype=torch.float64)
    y = scale * torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name in ("ellipsoid", "polytope"):
        ball, room = OWN[name](like), box(like)
        got = Intersection(ball, room).project(y)
        best = Intersection(ball, room).lmo(y)
        for i in range(len(y)):
            for value, goal in ((got, "near"), (best, "far")):
                q = cp.Variable(5)
                if name == "ellipsoid":
                    inside = cp.norm(cp.multiply(q, 1 / ball._axes(y).numpy())) <= 1
                else:
                    inside = cp.norm(q - ball.centre[i].numpy(), 1) <= ball.radius
                aim = cp.Minimize(cp.sum_squares(q - y[i].numpy())) if goal == "near" else cp.Maximize(y[i].numpy() @ q)
                cp.Problem(aim, [inside, q >= room.low[i].numpy(), q <= room.high[i].numpy()]).solve(cp.CLARABEL)
                if goal == "near":
                    assert np.abs(value[i].numpy() - q.value).max() < 2e-5, (name, i)
                else:
                    assert abs(y[i].numpy() @ (value[i].numpy() - q.value)) < 2e-5 * float(y[i].norm()), (name, i)


def test_rows_do_not_know_one_another():
    """A row that needs many rounds does not change one that needs few."""
    like = torch.zeros(6, 9)
    Y = Intersection(Polytope(centres(like), 0.5), box(like))
    y = (
        torch.randn(6, 9, generator=torch.Generator().manual_seed(2))
        * torch.tensor([0.01, 30, 0.1, 3, 0.3, 1])[:, None]
    )
    for make in (Y.project, Y.lmo):
        whole = make(y)
        for i in torch.arange(6).split(1):
            alone = getattr(Y.rows(i), make.__name__)(y[i])
            assert torch.equal(alone, whole[i])


def test_a_class_made_from_a_ball_is_a_set_of_its_own():
    like = torch.zeros(2, 6)
    masked = Masked(0.3, pattern(like))
    assert order_of(masked) is None
    assert not masked.cube
    Y = Intersection(masked, Box(-1.0, 0.1))
    assert torch.allclose(Y.project(torch.ones(2, 6)), 0.1 * pattern(like).expand(2, 6))
    assert order_of(Intersection(L2(1.0), Box(-1.0, 1.0))) == 2


@pytest.mark.parametrize(("ball", "radius"), [(Linf(0.3), 0.3), (L2(0.7), 0.7), (L1(2.0), 2.0), (Simplex(0.5), 0.5),
                                              (Box(-0.1, 0.3), 0.2), (GroupLasso(0.8), 0.8)])  # fmt: skip
def test_half_width_is_the_radius(ball, radius):
    like = torch.zeros(3, 8, dtype=torch.float64)
    assert torch.allclose(half_width(ball, like), torch.full((3,), radius, dtype=torch.float64), atol=1e-6)


def test_measured_is_the_set_itself_and_cut_along():
    like = torch.zeros(3, 8)
    ball = Polytope(centres(like), 0.5)
    found = measured(ball, like)
    assert isinstance(found, Measured)
    assert repr(found) == repr(ball)
    assert torch.equal(found.rows(torch.tensor([2])).value, found.value[2:])
    assert torch.equal(found.rows(torch.tensor([2])).project(like[2:] + 1), ball.project(like + 1)[2:])
    assert measured(Linf(0.1), like).value == 0.1


def test_scaled():
    check_set(lambda like: Scaled(Ellipsoid(0.2, 0.6), 1.5), SHAPE, trials=1)
    check_set(lambda like: Scaled(L2(0.5), torch.linspace(0.5, 2, len(like)).to(like)), SHAPE, trials=1)


def test_a_box_for_all_rows_is_not_cut():
    """One bound for each pixel, as many pixels as rows: only what has a batch dimension is cut."""
    bound = torch.tensor([0.1, 0.2, 0.3])
    Y, y = Box(-bound, bound).rows(torch.tensor([2, 0])), torch.ones(2, 3)
    assert torch.equal(Y.project(y), bound.expand(2, 3))
    each = Box(-1.0, torch.eye(3)).rows(torch.tensor([2, 0]))
    assert torch.equal(each.project(y), torch.eye(3)[[2, 0]])
    assert torch.equal(each.rows(torch.tensor([1])).project(y[:1]), torch.eye(3)[[0]])


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1), L1(0.1), Box(-1.0, 1.0), Simplex()], ids=repr)
def test_a_generator_of_torch_is_refused_by_name(ball):
    for Y in (ball, Intersection(Linf(0.1), Box(-1.0, 1.0))):
        with pytest.raises(InputError, match=r"expected Streams.*got Generator.*Streams\.of"):
            Y.sample(torch.zeros(2, 3), torch.Generator())
    Y.sample(torch.zeros(2, 3), Streams.of(0, torch.arange(2)))
