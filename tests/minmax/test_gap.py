"""Gaps are at least 0, exact where they say so, and 0 at equilibria; what attracts is told."""

import dataclasses
import math

import pytest
import torch

from danskin.errors import InputError
from danskin.games import GAMES, AlmostBilinear, Bilinear, ConstrainedBilinear, Forsaken, MatrixGame, PolarGame, Quartic
from danskin.minmax import (
    GDA,
    L1,
    L2,
    Box,
    Extragradient,
    Linf,
    MirrorDescent,
    MirrorProx,
    OptimisticGDA,
    Outcome,
    Product,
    Saddle,
    Simplex,
    Streams,
    duality_gap,
    exploitability,
    gains,
    linear_gap,
    outcomes,
    residual,
    run_solver,
    second_order,
)
from danskin.testing import check_set


@pytest.mark.parametrize("X, Y", [(Linf(0.5), L1(2.0)), (Simplex(), L2(1.0)), (Box(-1.0, 2.0), Simplex(3.0))],
                         ids=["linf-l1", "simplex-l2", "box-simplex"])  # fmt: skip
def test_a_product_keeps_the_contract_of_sets(X, Y):
    check_set(lambda like: Product(X, Y, 3))


def test_the_parts_of_a_sample_are_independent():
    z = Product(Simplex(), Simplex(), 3).sample(torch.empty(200, 6), Streams.of(0, torch.arange(200)))
    assert not torch.equal(z[:, :3], z[:, 3:])
    assert abs(float(torch.corrcoef(torch.stack([z[:, 0], z[:, 3]]))[0, 1])) < 0.2


def test_a_product_refuses_rows_without_a_second_part():
    with pytest.raises(InputError, match="expected z of shape"):
        Product(Simplex(), Simplex(), 3).project(torch.ones(2, 3))


def test_the_gap_of_a_matrix_game_is_the_best_row_and_column_apart():
    game = MatrixGame("random", 5, 7, seed=2)
    A, z = game.matrix, game.starts(20)
    x, y = z[:, :5], z[:, 5:]
    wanted = (x @ A).amax(1) - (y @ A.T).amin(1)
    for gap in (duality_gap, linear_gap):
        torch.testing.assert_close(gap(game.saddle(), z), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(exploitability(game.saddle(), z), wanted / 2, rtol=0, atol=1e-12)


def test_the_gap_at_the_equilibrium_of_a_linear_program_is_zero():
    optimize = pytest.importorskip("scipy.optimize")
    game = MatrixGame("random", 6, 4, seed=1)
    A = game.matrix.numpy()

    def strategy(M):
        """min t over x in the simplex with M^T x <= t."""
        m, n = M.shape
        cost = [0.0] * m + [1.0]
        done = optimize.linprog(cost, A_ub=[[*M[:, j], -1] for j in range(n)], b_ub=[0] * n,
                                A_eq=[[1] * m + [0]], b_eq=[1], bounds=[(0, None)] * m + [(None, None)])  # fmt: skip
        return done.x[:m], done.fun

    (x, value), (y, other) = strategy(A), strategy(-A.T)
    assert value == pytest.approx(-other, abs=1e-9)
    z = torch.tensor([[*x, *y]], dtype=torch.float64)
    assert float(duality_gap(game.saddle(), z)) < 1e-9
    assert float(residual(game.saddle(), z)) < 1e-9


@pytest.mark.parametrize("ball, norm", [(Linf(2.0), 1), (L1(2.0), math.inf), (L2(2.0), 2)], ids=["linf", "l1", "l2"])
def test_the_gap_of_a_bilinear_game_on_balls_is_the_sum_of_dual_norms(ball, norm):
    n = 4
    saddle = Bilinear(n).saddle()
    saddle = Saddle(saddle.operator, n, Product(ball, ball, n), saddle.payoff, bilinear=True)
    z = saddle.project(torch.randn(30, 2 * n, dtype=torch.float64))
    wanted = 2 * sum(torch.linalg.vector_norm(part, norm, dim=1) for part in z.split(n, 1))
    torch.testing.assert_close(duality_gap(saddle, z), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", GAMES)
def test_gaps_are_never_below_zero(name):
    game = GAMES[name]()
    saddle = game.saddle()
    if saddle.feasible is None or saddle.payoff is None:
        return
    z = saddle.project(game.starts(50, seed=3) * 1.4)
    assert float(gains(saddle, z, tries=4, steps=4).min()) >= 0
    assert float(linear_gap(saddle, z).min()) >= 0


def test_search_finds_the_gains_of_a_game_that_is_not_convex():
    """Against a fine grid of answers."""
    saddle, n = Forsaken().saddle(), 2001
    z = Forsaken().starts(12)
    axis = torch.linspace(-1.5, 1.5, n, dtype=torch.float64)
    for row, found in zip(z, gains(saddle, z), strict=True):
        x, y = row.expand(n, 2).clone(), row.expand(n, 2).clone()
        x[:, 0], y[:, 1] = axis, axis
        here = saddle.payoff(row[None])
        wanted = torch.stack([here - saddle.payoff(x).min(), saddle.payoff(y).max() - here]).flatten()
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_linear_gap_bounds_the_duality_gap_of_a_convex_concave_game():
    def payoff(x, y):
        return (x**2).sum(1) + (x * y).sum(1) - (y**4).sum(1) / 4

    saddle = Saddle.of(payoff, 2, Linf(1.0))
    z = saddle.project(torch.randn(40, 4, dtype=torch.float64))
    assert bool((linear_gap(saddle, z) >= duality_gap(saddle, z) - 1e-12).all())


@pytest.mark.parametrize(("call", "text"), [
    (lambda: linear_gap(Bilinear().saddle(), torch.ones(1, 2)), "all of space, where the gap is infinite"),
    (lambda: gains(PolarGame().saddle(), torch.zeros(1, 2)), "no gradient field"),
    (lambda: duality_gap(Forsaken().saddle(), torch.full((1, 2), 3.0)), "one that leaves it by 1.5"),
    (lambda: duality_gap(MatrixGame().saddle(), torch.full((1, 6), math.nan)), "leaves it by inf"),
])  # fmt: skip
def test_gaps_refuse_what_has_none(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value)


def averages(solver, steps, seeds=5):
    out = []
    for seed in range(seeds):
        game = MatrixGame("random", 20, 30, seed=seed)
        found = run_solver(game.saddle(), solver, game.starts(1), steps, keep=2)
        out.append(float(duality_gap(game.saddle(), found.average)))
    return sorted(out)[seeds // 2]


def test_mirror_prox_has_the_rate_of_one_over_t_and_beats_mirror_descent():
    gap = {steps: averages(MirrorProx(), steps, 3) for steps in (100, 1000)}
    assert gap[1000] < 2e-2 and 6 < gap[100] / gap[1000] < 16
    assert averages(MirrorDescent(), 1000, 3) > 2 * gap[1000]


def test_mirror_prox_keeps_its_guarantee_on_every_game():
    """gap <= L1 (log m + log n) / (eta L1 T) with eta = 1 / (2 L1): Nemirovski's bound."""
    for seed in range(3):
        game, steps = MatrixGame("random", 4, 6, seed=seed), 50
        saddle = game.saddle()
        found = run_solver(saddle, MirrorProx(), game.starts(1), steps)
        most = 2 * saddle.lipschitz_l1 * (math.log(4) + math.log(6)) / steps
        assert float(duality_gap(saddle, found.average)) <= most


@pytest.mark.parametrize(("eps", "eta"), [(0.1, 0.01), (0.1, 0.05), (0.05, 0.02)])
@pytest.mark.parametrize("solver", [GDA, Extragradient, OptimisticGDA], ids=lambda s: s.__name__)
def test_the_spurious_cycle_obeys_the_step_size_law(eps, eta, solver):
    game = AlmostBilinear(eps)
    wanted = game.spurious_radius(eta, outward=solver is GDA)
    angle = torch.tensor([0.0, 2.0], dtype=torch.float64)
    z = torch.stack([angle.cos(), angle.sin()], 1) * torch.tensor([[0.9], [1.1]], dtype=torch.float64) * wanted
    found = run_solver(game.saddle(), solver(eta), z, int(24 / (eta * eps)))
    radius = found.tail.distance.mean(1)
    assert bool(((radius - wanted).abs() < 0.05 * wanted).all()), (radius, wanted)
    assert set(outcomes(game.saddle(), found)) == {Outcome.CYCLE}


def test_the_cycle_vanishes_for_steps_of_at_least_eps():
    game = AlmostBilinear(0.05)
    assert game.spurious_radius(0.05) == 0 and game.spurious_radius(0.1) == 0
    assert game.spurious_radius(0.1, outward=True) == pytest.approx(2)


def test_outcomes_are_told_apart():
    z = torch.tensor([[0.5, 0.2]], dtype=torch.float64)

    def ended(saddle, solver, steps=4000):
        return outcomes(saddle, run_solver(saddle, solver, z, steps))[0]

    assert ended(Bilinear().saddle(), GDA(0.5)) is Outcome.DIVERGED
    assert ended(Bilinear().saddle(), Extragradient(0.5)) is Outcome.EQUILIBRIUM
    assert ended(Bilinear().saddle(), Extragradient(0.01), 200) is Outcome.MOVING
    assert ended(AlmostBilinear(0.1).saddle(), Extragradient(0.3)) is Outcome.NOT_NASH
    assert ended(PolarGame(1.0).saddle(), Extragradient()) is Outcome.SOLUTION  # no payoff: not decided
    hill = Saddle.of(lambda x, y: (x - 2).square().sum(1) - (y + 2).square().sum(1), 1, Linf(1.0))
    assert ended(hill, GDA(0.1)) is Outcome.SOLUTION  # on the boundary, second order decides nothing
    circle = run_solver(PolarGame(1.0).saddle(), Extragradient(), z * 2, 2000)
    assert outcomes(PolarGame(1.0).saddle(), circle) == [Outcome.CYCLE]
    wanders = dataclasses.replace(circle, noisy=True)  # what is seen through noise may go round without a cycle of F
    assert outcomes(PolarGame(1.0).saddle(), wanders) == [Outcome.MOVING]
    game = MatrixGame("random", 5, 4)  # from the origin, all strategies look equally far: the fading residual tells
    slow = run_solver(game.saddle(), MirrorProx(), game.starts(16), 1000)
    assert Outcome.CYCLE not in outcomes(game.saddle(), slow)
    noisy = ConstrainedBilinear(0.3)
    assert run_solver(noisy.saddle(), Extragradient(0.5), noisy.starts(4), 40, seed=0).noisy
    assert Outcome.CYCLE.spurious and Outcome.NOT_NASH.spurious and not Outcome.EQUILIBRIUM.spurious


def test_second_order_is_the_least_own_curvature():
    saddle = Saddle.of(lambda x, y: (x**2 @ torch.tensor([1.0, 3.0]).double()) + (x * y).sum(1) - (y**2).sum(1), 2)
    z = torch.zeros(3, 4, dtype=torch.float64)
    torch.testing.assert_close(second_order(saddle, z), torch.full((3,), 2.0).double())
    inside, edge = torch.tensor([[0.0, 0.0]]).double(), torch.tensor([[2.0, 0.0]]).double()
    assert not second_order(Quartic().saddle(), inside).isnan().any()
    assert second_order(Quartic().saddle(), edge).isnan().all()


def test_the_residual_without_a_set_is_the_norm_of_f_for_every_step():
    saddle, z = AlmostBilinear().saddle(), AlmostBilinear().starts(7)
    for step in (0.1, 1.0, 3.0):
        torch.testing.assert_close(residual(saddle, z, step), saddle(z).norm(dim=1), rtol=1e-12, atol=0)
