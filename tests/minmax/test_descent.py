"""Danskin's theorem on problems with answers in closed form."""

import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from danskin.errors import InputError
from danskin.minmax import (
    L2,
    Ascent,
    Box,
    Linf,
    Problem,
    Subdifferential,
    danskin,
    directional_derivative,
    min_norm_weights,
    subdifferential,
)
from danskin.testing import oracles

CORNERS = torch.tensor([-1.0, 1.0], dtype=torch.float64)
ZERO = torch.zeros(1, dtype=torch.float64)


def product(x, y):
    """Phi = x y on [-1, 1]: the max is |x|."""
    return (x * y).sum()


def test_absolute_value_ascends_along_minus_every_gradient_at_its_kink():
    for maximiser in CORNERS:
        d = -maximiser.reshape(1)  # minus the gradient at this maximiser
        assert float(directional_derivative(product, ZERO, CORNERS, d)) == 1.0


def test_absolute_value_is_stationary_at_its_kink():
    hull = subdifferential(product, ZERO, CORNERS)
    assert (
        hull.contains(torch.zeros(1))
        and hull.contains(torch.tensor([0.99]))
        and not hull.contains(torch.tensor([1.01]))
    )
    assert torch.equal(hull.descent_direction(), ZERO)


def test_absolute_value_has_one_gradient_elsewhere():
    hull = subdifferential(product, ZERO - 0.3, CORNERS)
    assert torch.equal(hull.generators, torch.tensor([[-1.0]], dtype=torch.float64))
    assert torch.equal(hull.descent_direction(), ZERO + 1)


def test_two_planes_descend_only_along_the_shortest_vector():
    x, ys = torch.zeros(2, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    u, v = torch.tensor([1.0, 0.0]).double(), -torch.ones(2, dtype=torch.float64) / math.sqrt(2)
    for d, value in ((-u, math.sqrt(0.5)), (-v, math.sqrt(0.5)), (-(u + v) / (u + v).norm(), -0.38268343236508984)):
        assert float(directional_derivative(oracles.two_planes, x, ys, d)) == pytest.approx(value, abs=1e-15)
    best = subdifferential(oracles.two_planes, x, ys).descent_direction()
    assert torch.allclose(best, -(u + v) / (u + v).norm(), atol=1e-12)


def test_ddi_synthetic():
    x, ys = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    hull = subdifferential(oracles.ddi_synthetic, x, ys)
    assert hull.generators.tolist() == [[2.0, -2.0], [2.0, 2.0]]
    assert torch.allclose(hull.weights(), torch.tensor([0.5, 0.5]).double())
    assert torch.allclose(hull.shortest(), torch.tensor([2.0, 0.0]).double())
    assert float(hull.directional_derivative(hull.descent_direction())) == pytest.approx(-2.0)
    assert float(hull.directional_derivative(-hull.generators[0] / 8**0.5)) == pytest.approx(0.0)


def test_ddi_synthetic_descends_where_one_gradient_ascends():
    def f(x):
        return float(x[0] ** 2 + (abs(x[1]) + 1) ** 2)

    x = torch.tensor([1.0, 0.0]).double()
    assert f(x - 0.1 * torch.tensor([2.0, 2.0]).double() / 8**0.5) == pytest.approx(2.01)
    assert f(x - 0.1 * torch.tensor([1.0, 0.0]).double()) == pytest.approx(1.81)


def test_candidates_that_are_not_maximisers_do_not_count():
    hull = subdifferential(product, ZERO + 1, torch.tensor([-1.0, 0.5, 1.0 - 1e-9, 1.0]).double())
    assert len(hull.generators) == 2
    assert len(subdifferential(product, ZERO + 1, CORNERS, tolerance=2.0).generators) == 2
    with pytest.raises(InputError, match="expected at least one candidate"):
        subdifferential(product, ZERO, [])


def shortest_by_solver(generators):
    w = cp.Variable(len(generators))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(generators.numpy().T @ w)), [w >= 0, cp.sum(w) == 1])
    return problem.solve(solver="CLARABEL")


def optimal(generators, w, tolerance=1e-9):
    """w is in the simplex and no generator has a smaller product with the point than the point itself."""
    scale = float((generators**2).sum(1).max())
    products = generators @ (w @ generators)
    in_simplex = bool((w >= 0).all()) and abs(float(w.sum()) - 1) < 1e-9
    return in_simplex and float(w @ products - products.min()) <= tolerance * scale


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 9),
    n=st.integers(1, 12),
    copies=st.booleans(),
    shift=st.sampled_from([0, 2]),
)
def test_shortest_vector_is_optimal(seed, k, n, copies, shift):
    random = torch.Generator().manual_seed(seed)
    M = torch.randn(k, n, generator=random, dtype=torch.float64) + shift  # k > n + 1: rank deficient
    M = torch.cat([M, M[:2]]) if copies else M
    assert optimal(M, min_norm_weights(M @ M.T))


@pytest.mark.parametrize("seed", range(40))
def test_shortest_vector_of_vectors_of_very_different_lengths(seed):
    random = torch.Generator().manual_seed(seed)
    lengths = torch.logspace(-5, 0.18, 12, dtype=torch.float64)[torch.randperm(12, generator=random)]
    M = torch.randn(12, 6, generator=random, dtype=torch.float64)
    M = M / M.norm(dim=1, keepdim=True) * lengths[:, None]
    w = min_norm_weights(M @ M.T)
    assert optimal(M, w, 1e-11)
    assert float((w @ M).norm()) <= float(Subdifferential(M).generators.norm(dim=1).min()) + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_shortest_vector_equals_a_convex_solver(seed):
    M = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.5
    got = Subdifferential(M).shortest()
    assert float(got @ got) == pytest.approx(shortest_by_solver(M), abs=1e-7)


@pytest.mark.parametrize("scale", [1e-24, 1e-18, 1e-9, 1.0, 1e9, 1e18])
def test_weights_do_not_depend_on_the_scale(scale):
    G = torch.tensor([[1.0, 0.2], [0.2, 2.0]], dtype=torch.float64)
    assert torch.allclose(min_norm_weights(scale * G), torch.tensor([9.0, 4.0]).double() / 13)


def test_two_weights_in_closed_form():
    for g in torch.randn(20, 2, 3, dtype=torch.float64):
        first = (((g[1] - g[0]) @ g[1]) / (g[0] - g[1]).square().sum()).clamp(0, 1)
        assert torch.allclose(min_norm_weights(g @ g.T)[0], first, atol=1e-9)


@pytest.mark.parametrize("G", [torch.zeros(3, 3), torch.ones(4, 4), torch.ones(1, 1)], ids=["zero", "copies", "one"])
def test_degenerate_hulls(G):
    w = min_norm_weights(G)
    assert float(w.sum()) == pytest.approx(1) and bool((w >= 0).all()) and w.dtype == G.dtype


def inner(theta):
    """Phi_i(theta, y) = <A_i theta, y> - |y|^2, strictly concave; over |y| <= 0.05, which only the last row reaches."""
    A = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(3, 2, 2) / 6
    return Problem(
        payoff=lambda batch, y: ((A @ theta) * y).sum(1) - (y**2).sum(1) + theta.sum() ** 2,
        feasible=lambda batch: L2(0.05),
        start=lambda batch: torch.zeros(3, 2, dtype=torch.float64),
    )


def test_gradient_of_the_loss_is_that_of_the_max():
    theta = torch.tensor([0.4, -0.3], dtype=torch.float64, requires_grad=True)
    maximizer = Ascent(200, 0.3, "gradient")
    loss, maximum = danskin(inner(theta), None, maximizer)
    loss.backward()

    def f(t):
        return float(danskin(inner(t), None, maximizer)[1].value.mean())

    assert loss.item() == pytest.approx(f(theta.detach()))
    assert bool((maximum.y.norm(dim=1) > 0.0499).any()) and bool((maximum.y.norm(dim=1) < 0.0499).any())
    h = 1e-5  # central differences: error h^2, noise 1e-16 / h
    for e in torch.eye(2, dtype=torch.float64):
        numeric = (f(theta.detach() + h * e) - f(theta.detach() - h * e)) / (2 * h)
        assert float(theta.grad @ e) == pytest.approx(numeric, abs=1e-8)


def test_adversary_may_have_its_own_payoff_and_guard():
    entered = []

    class Guard:
        def __enter__(self):
            entered.append("in")

        def __exit__(self, *_):
            entered.append("out")

    problem = Problem(
        payoff=lambda batch, y: y.sum(1),
        feasible=lambda batch: Linf(1.0),
        start=lambda batch: torch.zeros(2, 3),
        adversary=lambda batch: lambda y: -y.sum(1),
        guard=Guard,
    )
    loss, maximum = danskin(problem, None, Ascent(1, 1.0))
    assert loss.item() == -3.0 and float(maximum.value[0]) == 3.0 and entered == ["in", "out"]


def test_box_with_two_maximisers_through_the_maximiser_itself():
    found = Ascent(3, 1.0)(lambda y: (y**2).sum(1), torch.tensor([[0.1], [-0.1]]), Box(-1.0, 1.0))
    assert found.y.flatten().tolist() == [1.0, -1.0]
    assert np.isclose(float(found.value[0]), 1.0)
