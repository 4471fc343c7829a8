"""W_q between samples: closed forms, scipy and POT, metric axioms, brackets, gradients, and input that is refused."""

import math
import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from danskin.errors import InputError, MissingError
from danskin.transport import Bracket, Empirical, sinkhorn_divergence, sliced, wasserstein, wasserstein_batch
from danskin.transport.bracket import bracket_of
from danskin.transport.costs import cost_matrix, quick_costs

ot = pytest.importorskip("ot")
stats = pytest.importorskip("scipy.stats")
ORDERS = [(1, 1), (1, 2), (1, "inf"), (1.5, 2), (2, 1), (2, 2), (3, "inf")]


def cloud(n, d, seed, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def masses(n, seed):
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05
    return w / w.sum()


samples = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 10**6))
quick = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize(("q", "p"), ORDERS)
@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_translation_costs_the_length_of_its_vector(q, p, d):
    x, shift = cloud(40, d, 0), cloud(1, d, 1)[0]
    found = wasserstein(x, x + shift, q, p=p)
    wanted = float(torch.linalg.vector_norm(shift, float(p)))
    assert found.bracket.value == pytest.approx(wanted, rel=1e-11)
    assert float(found.distance) == pytest.approx(wanted, rel=1e-11)
    assert float(found.cost) == pytest.approx(wanted**q, rel=1e-11)  # the root is 1/q of the cost


@quick
@given(samples, st.sampled_from(ORDERS))
def test_it_is_a_metric(sizes, order):
    n, m, d, seed = sizes
    q, p = order
    x, y, z = cloud(n, d, seed), cloud(m, d, seed + 1, 0.3), cloud(5, d, seed + 2)
    a, b = masses(n, seed), masses(m, seed + 3)
    there = wasserstein(x, y, q, p=p, a=a, b=b).bracket.value
    assert wasserstein(y, x, q, p=p, a=b, b=a).bracket.value == pytest.approx(there, rel=1e-10)
    detour = wasserstein(x, z, q, p=p, a=a).bracket.value + wasserstein(z, y, q, p=p, b=b).bracket.value
    assert 0 < there <= detour * (1 + 1e-10)
    order = torch.randperm(n)
    same = wasserstein(x, x[order], q, p=p, a=a, b=a[order]).bracket
    assert same.lower == 0 and same.upper**q < 1e-12  # sums of weights in another order differ by rounding


@quick
@given(samples)
def test_orders_and_norms_are_ordered(sizes):
    n, m, d, seed = sizes
    x, y = cloud(n, d, seed), cloud(m, d, seed + 1)
    by_order = [wasserstein(x, y, q).bracket.value for q in (1, 1.5, 2, 4)]
    by_norm = [wasserstein(x, y, 1, p=p).bracket.value for p in ("inf", 2, 1)]
    for found in (by_order, by_norm):
        assert all(one <= other * (1 + 1e-10) for one, other in pairwise(found))


@quick
@given(samples)
def test_on_the_line_it_is_what_scipy_says(sizes):
    n, m, _, seed = sizes
    x, y, a, b = cloud(n, 1, seed)[:, 0], cloud(m, 1, seed + 1)[:, 0], masses(n, seed), masses(m, seed + 1)
    for weights in ((None, None), (a, b), (a, None)):
        wanted = stats.wasserstein_distance(x, y, *weights)
        assert wasserstein(x, y, a=weights[0], b=weights[1]).bracket.value == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("q", [1, 1.3, 2, 3])
def test_the_closed_form_on_the_line_is_the_network_simplex_in_the_plane(q):
    x, y, a, b = cloud(30, 1, 0), cloud(45, 1, 1), masses(30, 2), masses(45, 3)
    flat = torch.zeros(1, 1, dtype=torch.float64)
    line = wasserstein(x, y, q, a=a, b=b)
    plane = wasserstein(torch.cat([x, flat.expand(30, 1)], 1), torch.cat([y, flat.expand(45, 1)], 1), q, a=a, b=b)
    assert line.bracket.method != plane.bracket.method
    assert line.bracket.value == pytest.approx(plane.bracket.value, rel=1e-11)


@pytest.mark.parametrize("q", [1, 1.7, 2, 4])
def test_potentials_on_the_line_are_feasible_and_prove_the_value(q):
    for n, m, seed in ((1, 1, 0), (7, 1, 1), (20, 33, 2), (64, 64, 3)):
        x, y = cloud(n, 1, seed), cloud(m, 1, seed + 1, 1.0)
        x, y = (x * 2).round() / 2, y  # ties
        for a, b in ((None, None), (masses(n, seed), masses(m, seed + 9))):
            found = wasserstein(x, y, q, a=a, b=b)
            check_proof(found, x, y, a, b, q, 2)


def check_proof(found, x, y, a, b, q, p, slack=1e-10):
    """The plan has the marginals, the potentials are feasible, and between them lies the bracket."""
    n, m = len(x), len(y)
    a, b = (torch.full((k,), 1 / k, dtype=torch.float64) if w is None else w for k, w in ((n, a), (m, b)))
    cost = cost_matrix(x, y, q, float(p))
    f, g = found.potentials
    assert float((f[:, None] + g - cost).max()) <= 1e-12 * (1 + float(cost.max()))
    torch.testing.assert_close(found.plan.sum(1), a, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.plan.sum(0), b, rtol=0, atol=1e-9)
    assert float(found.plan.min()) >= 0
    primal, dual = float((found.plan * cost).sum()), float(a @ f + b @ g)
    assert float(found.cost) == pytest.approx(primal, rel=1e-9)
    assert found.bracket.upper**q == pytest.approx(primal, rel=1e-9)
    assert found.bracket.lower**q == pytest.approx(max(dual, 0), rel=1e-9, abs=slack)
    assert found.bracket.lower <= found.bracket.upper


@pytest.mark.parametrize(("q", "p"), ORDERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_plan_and_potentials_prove_the_value(q, p, weighted):
    x, y = cloud(50, 3, 0), cloud(70, 3, 1, 0.5)
    a, b = (masses(50, 2), masses(70, 3)) if weighted else (None, None)
    found = wasserstein(x, y, q, p=p, a=a, b=b)
    assert found.bracket.closed
    check_proof(found, x, y, a, b, q, p)
    wanted = ot.emd2([] if a is None else a, [] if b is None else b, cost_matrix(x, y, q, float(p)))
    assert float(found.cost) == pytest.approx(float(wanted), rel=1e-10)


def test_points_without_mass_change_nothing_and_their_potentials_are_feasible():
    x, y, a = cloud(12, 2, 0), cloud(9, 2, 1), masses(12, 2)
    far = torch.cat([x, torch.full((3, 2), 50.0, dtype=torch.float64)])
    more = torch.cat([a, torch.zeros(3, dtype=torch.float64)])
    order = torch.randperm(15)
    found = wasserstein(far[order], y, 2, a=more[order])
    assert found.bracket.value == pytest.approx(wasserstein(x, y, 2, a=a).bracket.value, rel=1e-12)
    check_proof(found, far[order], y, more[order], None, 2, 2)


def test_it_is_what_scipy_says_in_the_plane():
    x, y, a = cloud(12, 2, 0), cloud(9, 2, 1), masses(12, 2)
    wanted = stats.wasserstein_distance_nd(x.numpy(), y.numpy(), a.numpy())
    assert wasserstein(x, y, a=a).bracket.value == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_the_assignment_problem_has_the_same_value_and_a_proof(n):
    x, y = cloud(n, 3, 0), cloud(n, 3, 1, 2.0)
    found = wasserstein(x, y, 2, method="assignment")
    assert found.bracket.closed
    assert found.bracket.value == pytest.approx(wasserstein(x, y, 2).bracket.value, rel=1e-12)
    check_proof(found, x, y, None, None, 2, 2)
    with pytest.raises(InputError, match="equal numbers of points, got 1 and 2"):
        wasserstein(cloud(1, 2, 0), cloud(2, 2, 0), method="assignment")
    with pytest.raises(InputError, match="expected no weights"):
        wasserstein(x, y, a=masses(n, 0), method="assignment")


def finite_difference(value, at, step=1e-6):
    slope = torch.zeros_like(at)
    for k in range(at.numel()):
        moved = torch.zeros_like(at).flatten()
        moved[k] = step
        moved = moved.view_as(at)
        slope.view(-1)[k] = (value(at + moved) - value(at - moved)) / (2 * step)
    return slope


@pytest.mark.parametrize(("q", "p"), [(1, 2), (2, 2), (2, 1), (3, "inf")])
@pytest.mark.parametrize("d", [1, 2])
def test_gradients_in_the_positions_are_those_of_finite_differences(q, p, d):
    x, y, a = cloud(5, d, 0), cloud(7, d, 1), masses(5, 2)
    x.requires_grad_()
    y.requires_grad_()
    wasserstein(x, y, q, p=p, a=a).distance.backward()
    wanted = finite_difference(lambda z: wasserstein(z, y.detach(), q, p=p, a=a).bracket.value, x.detach())
    torch.testing.assert_close(x.grad, wanted, rtol=1e-5, atol=1e-7)
    wanted = finite_difference(lambda z: wasserstein(x.detach(), z, q, p=p, a=a).bracket.value, y.detach())
    torch.testing.assert_close(y.grad, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["exact", "sinkhorn"])
@pytest.mark.parametrize("d", [1, 2])
def test_gradients_in_the_masses_are_those_of_finite_differences_and_centred(method, d):
    x, y, b = cloud(5, d, 0), cloud(7, d, 1), masses(7, 3)
    a = masses(5, 2).requires_grad_()
    options = {} if method == "exact" else {"method": "sinkhorn", "tolerance": 1e-7}
    cost = wasserstein(x, y, 2, a=a, b=b, **options).cost
    cost.backward()

    def value(w):  # a mass may leave the simplex: the function divides by the sum
        return float(wasserstein(x, y, 2, a=w / w.sum(), b=b).cost)

    wanted = finite_difference(value, a.detach())
    torch.testing.assert_close(a.grad, wanted, rtol=1e-3 if method == "sinkhorn" else 1e-6, atol=1e-6)
    assert abs(float(a.grad @ a.detach())) < 1e-10


@pytest.mark.parametrize("q", [1, 2])
def test_the_gradient_of_nothing_to_move_is_zero(q):
    x = cloud(6, 2, 0).requires_grad_()
    found = wasserstein(x, x.detach().clone(), q)
    found.distance.backward()
    assert float(found.distance.detach()) == 0 and bool((x.grad == 0).all())


def test_float32_stays_outside_and_float64_inside():
    x, y = cloud(30, 2, 0), cloud(30, 2, 1)
    w = torch.softmax(torch.randn(30), 0)  # sums to 1 in float32 only
    found = wasserstein(x.float(), y.float(), 2, a=w)
    assert found.distance.dtype == torch.float32 and found.plan.dtype == torch.float64
    torch.testing.assert_close(found.plan.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-12)
    exact = wasserstein(x.float().double(), y.float().double(), 2, a=w.double() / w.double().sum())
    assert found.bracket.value == pytest.approx(exact.bracket.value, rel=1e-12)


def test_arrays_of_numpy_and_single_points_are_taken():
    assert wasserstein(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])).bracket.value == pytest.approx(5, rel=1e-14)
    mu = Empirical(torch.tensor([0.0, 2.0]), torch.tensor([0.25, 0.75]))
    assert wasserstein(mu, torch.tensor([0.0])).bracket.value == pytest.approx(1.5, rel=1e-14)
    with pytest.raises(InputError, match="give them once"):
        wasserstein(mu, mu, a=mu.weights)


NAN = torch.tensor([[0.0, 1.0], [float("nan"), 0.0]])
PAIR = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
BIG = PAIR.double() * 1e200


@pytest.mark.parametrize(("call", "text"), [
    (lambda: wasserstein(NAN, PAIR), "x: expected finite numbers, got NaN in row 1"),
    (lambda: wasserstein(PAIR, PAIR * math.inf), "y: expected finite numbers, got"),
    (lambda: wasserstein(PAIR[:0], PAIR), "x: expected at least one point"),
    (lambda: wasserstein(PAIR, PAIR[:, :1]), "x and y: expected points of one space, got 2 and 1"),
    (lambda: wasserstein(PAIR, PAIR, a=torch.tensor([1.5, -0.5])), "weights of x: expected none below 0, got -0.5"),
    (lambda: wasserstein(PAIR, PAIR, b=torch.tensor([0.5, 0.6])), "weights of y: expected a sum of 1, got 1.1"),
    (lambda: wasserstein(PAIR, PAIR, b=torch.tensor([0.5, math.nan])), "weights of y: expected finite"),
    (lambda: wasserstein(PAIR, PAIR, b=torch.tensor([1.0])), r"one for each of 2 points, got shape \(1,\)"),
    (lambda: wasserstein(PAIR, PAIR, b=torch.tensor([1, 0])), "expected a floating-point tensor, got torch.int64"),
    (lambda: wasserstein(PAIR.long(), PAIR), r"x: expected floating-point numbers, got torch.int64; use .float\(\)"),
    (lambda: wasserstein([[0.0]], PAIR), "expected a tensor of points"),
    (lambda: wasserstein(PAIR[None], PAIR), r"use .flatten\(1\)"),
    (lambda: wasserstein(PAIR, PAIR, 0.5), "q: expected a number of at least 1, got 0.5"),
    (lambda: wasserstein(PAIR, PAIR, math.nan), "q: expected a number of at least 1, got nan"),
    (lambda: wasserstein(PAIR, PAIR, p=3), "p: expected the norm 1, 2 or inf, got 3"),
    (lambda: wasserstein(PAIR, PAIR, method="sinkorn"), "did you mean 'sinkhorn'"),
    (lambda: wasserstein(BIG, -BIG, 2), "cost: expected finite"),
    (lambda: wasserstein(BIG, -BIG, 2, method="sinkhorn"), "cost: expected finite"),
    (lambda: wasserstein(BIG[:, :1], -BIG[:, :1], 2), "cost: expected finite"),
    (lambda: wasserstein_batch(BIG[None], -BIG[None], 2, method="sinkhorn"), "cost: expected finite"),
    (lambda: sliced(BIG, -BIG, 2), "cost: expected finite"),
    (lambda: sinkhorn_divergence(BIG, -BIG, eps=1.0), "cost: expected finite"),
    (lambda: sinkhorn_divergence(PAIR, PAIR, eps=1.0, steps=0), "steps: expected at least 1, got 0"),
    (lambda: wasserstein(PAIR, PAIR, method="sinkhorn", tolerance=0), "tolerance: expected a number above 0"),
    (lambda: wasserstein(PAIR, PAIR, method="sinkhorn", tolerance=math.nan), "tolerance: expected a number above 0"),
    (lambda: wasserstein(PAIR, PAIR, method="sinkhorn", tolerance=1), "and below 1, got 1"),
    (lambda: bracket_of(math.nan, 1.0, 2, "x"), "expected 0 <= lower <= upper"),
])  # fmt: skip
def test_bad_input_is_refused_with_a_sentence(call, text):
    with pytest.raises(InputError, match=text):
        call()


def test_pot_answers_zero_where_we_refuse():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ot.emd2([], [], np.full((2, 2), np.nan)) == 0
        assert ot.emd2(np.array([1.5, -0.5]), np.array([0.5, 0.5]), np.ones((2, 2))) == 0


def test_the_proof_does_not_rest_on_the_potentials_that_pot_gives(monkeypatch):
    x, y, real = cloud(20, 2, 0), cloud(15, 2, 1), ot.emd

    def off(*words, **options):
        plan, told = real(*words, **options)
        return plan, told | {"u": told["u"] + 0.3, "v": told["v"] + 0.1 * cloud(15, 1, 2)[:, 0].numpy()}

    exact = wasserstein(x, y).bracket
    monkeypatch.setattr(ot, "emd", off)
    found = wasserstein(x, y)
    check_proof(found, x, y, None, None, 1, 2)
    assert found.bracket.lower < exact.lower and not found.bracket.closed


def test_large_numbers_are_no_infinite_sum():
    big = torch.full((2, 1), 3e38)
    assert wasserstein(big, big).bracket.value == 0


def test_without_pot_equal_numbers_of_points_are_assigned_and_others_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    x, y = cloud(8, 2, 0), cloud(8, 2, 1)
    assert wasserstein(x, y).bracket.method == "assignment"
    with pytest.raises(MissingError, match=r"pip install 'danskin\[ot\]'"):
        wasserstein(x, y[:5])


def test_a_bracket_gives_no_value_while_it_is_open():
    assert Bracket(2.0, 2.0 * (1 + 1e-10), "exact").value == 2.0 * (1 + 1e-10)
    open_ = Bracket(0.5, 1.0, "sinkhorn")
    assert not open_.closed and 0.7 in open_ and 1.2 not in open_ and open_.gap == 0.5
    with pytest.raises(InputError, match=r"expected a closed one, got \[0.5, 1\] by sinkhorn"):
        _ = open_.value
    with pytest.raises(InputError, match="expected 0 <= lower <= upper"):
        Bracket(1.0, 0.5, "exact")


CASES = {
    "gauss": lambda g: (torch.randn(96, 2, generator=g), torch.randn(80, 2, generator=g) + 1),
    "one law": lambda g: (torch.rand(96, 2, generator=g), torch.rand(80, 2, generator=g)),
    "far": lambda g: (torch.rand(60, 3, generator=g), torch.rand(60, 3, generator=g) + 40),
    "clusters": lambda g: (
        torch.randint(4, (90, 2), generator=g) + 1e-3 * torch.randn(90, 2, generator=g),
        torch.randint(4, (90, 2), generator=g) + 1e-3 * torch.randn(90, 2, generator=g),
    ),
    "outlier": lambda g: (
        torch.cat([torch.randn(50, 2, generator=g), torch.full((1, 2), 1e4)]),
        torch.randn(51, 2, generator=g),
    ),
    "one point": lambda g: (torch.randn(1, 2, generator=g), torch.randn(40, 2, generator=g)),
    "high": lambda g: (torch.randn(64, 100, generator=g), torch.randn(64, 100, generator=g)),
}


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_sinkhorn_brackets_the_exact_value(case, q):
    x, y = (part.double() for part in CASES[case](torch.Generator().manual_seed(5)))
    a = masses(len(x), 1)
    exact = wasserstein(x, y, q, a=a).bracket
    for tolerance in (0.1, 1e-6):
        found = wasserstein(x, y, q, a=a, method="sinkhorn", tolerance=tolerance)  # a warning fails the test
        assert found.bracket.lower <= exact.upper and exact.lower <= found.bracket.upper
        check_proof(found, x, y, a, None, q, 2, slack=1e-8 * exact.value)
    assert found.bracket.gap <= 1e-6 and float(found.distance) == pytest.approx(found.bracket.upper)


@pytest.mark.parametrize("q", [1, 2, 3])
def test_points_of_many_numbers_take_a_shorter_way_with_the_same_proof(q):
    x, y, a = cloud(60, 100, 0, 1e3), cloud(50, 100, 1, 1e3 + 0.1), masses(60, 2)
    quick, error = quick_costs(x, y, q, 2.0)
    exact = cost_matrix(x, y, q, 2.0)
    assert 0 < error < 1e-9 and float(((quick - exact) / exact).abs().max()) <= error
    found = wasserstein(x, y, q, a=a)
    assert found.bracket.closed
    check_proof(found, x, y, a, None, q, 2)
    wanted = ot.emd2(a, [], exact)
    assert found.bracket.lower**q <= float(wanted) * (1 + 1e-12)
    assert float(found.cost) == pytest.approx(float(wanted), rel=1e-9)


def test_points_of_many_numbers_that_coincide_are_no_distance_apart():
    x = cloud(60, 100, 0, 1e3)
    assert wasserstein(x, x[torch.randperm(60)], 2).bracket.upper == 0
    close = torch.cat([x[:30], x[:30] + 1e-9])  # too many near ones: all from their differences
    assert quick_costs(close, close, 1, 2.0)[0].diagonal().max() == 0


def test_every_pair_of_small_sizes_is_solved():
    for n in range(1, 7):
        for m in range(1, 7):
            x, y = cloud(n, 2, n), cloud(m, 2, 10 + m)
            for method in ("exact", "sinkhorn"):
                found = wasserstein(x, y, 2, method=method, tolerance=1e-2)
                assert found.plan.shape == (n, m) and float(found.plan.sum()) == pytest.approx(1, abs=1e-12)
                assert found.bracket.gap <= 1e-2


def test_plan_and_potentials_hold_no_graph_and_a_training_step_goes_through():
    x, y = cloud(6, 2, 0).requires_grad_(), cloud(7, 2, 1)
    for method in ("exact", "sinkhorn"):
        found = wasserstein(x, y, method=method)
        assert not any(part.requires_grad for part in (found.plan, *found.potentials))
        assert found.distance.requires_grad and not wasserstein(x.detach(), y, method=method).distance.requires_grad
        with torch.no_grad():
            assert not wasserstein(x, y, method=method).distance.requires_grad
    before = float(wasserstein(x.detach(), y).distance)
    torch.optim.SGD([x], 0.5).zero_grad()
    wasserstein(x, y).distance.backward()
    with torch.no_grad():
        assert float(wasserstein(x - 0.5 * x.grad, y).distance) < before


def test_sizes_of_units_do_not_matter():
    x, y = cloud(30, 2, 0), cloud(40, 2, 1)
    for method in ("exact", "sinkhorn"):
        one = wasserstein(x, y, 2, method=method).bracket
        for unit in (1e-8, 1e8):
            other = wasserstein(unit * x, unit * y, 2, method=method).bracket
            assert other.upper / unit == pytest.approx(one.upper, rel=1e-6)
            assert other.lower / unit == pytest.approx(one.lower, rel=1e-6)
