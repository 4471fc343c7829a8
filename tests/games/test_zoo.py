"""The zoo: constants and solutions are what they are said to be, and who gets where."""

import re

import pytest
import torch

from danskin.errors import InputError
from danskin.games import (
    GAMES,
    AlmostBilinear,
    Forsaken,
    GlobalForsaken,
    MatrixGame,
    PolarGame,
    Quartic,
    WeakMinty,
    weak_minty_on,
)
from danskin.minmax import SOLVERS, Consensus, Outcome, outcomes, residual, run_solver
from danskin.minmax.saddle import Saddle, jacobian


def grid(game, n=301, scale=1.0):
    low, high = game.view
    axis = torch.linspace(low * scale, high * scale, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


@pytest.mark.parametrize("name", GAMES)
def test_known_solutions_solve(name):
    game = GAMES[name]()
    assert game.__doc__ and re.search(r"Lecture: rows? G\d", game.__doc__)
    assert game.solutions.shape[1] == game.dimension
    assert float(residual(game.saddle(), game.solutions).max()) < 1e-14


@pytest.mark.parametrize("name", GAMES)
def test_the_payoff_is_that_of_the_operator(name):
    game = GAMES[name]()
    saddle = game.saddle()
    if saddle.payoff is None:
        assert name == "polar_game"
        return
    z = game.starts(9)
    auto = Saddle.of(lambda x, y: saddle.payoff(torch.cat([x, y], 1)), saddle.split)
    torch.testing.assert_close(auto(z), saddle(z), rtol=0, atol=1e-12)


@pytest.mark.parametrize("game", [Forsaken(), GlobalForsaken(), GlobalForsaken(2.0), PolarGame(1.0), PolarGame(1 / 3),
                                  WeakMinty(-0.3, 2.0)], ids=repr)  # fmt: skip
def test_lipschitz_constants_are_the_largest_norm_of_a_jacobian(game):
    saddle = game.saddle()
    z = grid(game, 201, getattr(game, "radius", game.view[1]) / game.view[1])
    found = float(torch.linalg.matrix_norm(jacobian(saddle.operator, z), 2).max())
    assert saddle.lipschitz * (1 - 2e-3) < found <= saddle.lipschitz * (1 + 1e-12)


@pytest.mark.parametrize("game", [PolarGame(1), PolarGame(3 / 4), PolarGame(1 / 3), WeakMinty(-0.3, 2), WeakMinty(0.2)],
                         ids=repr)  # fmt: skip
def test_weak_minty_parameters_are_the_least_ratio(game):
    found = weak_minty_on(game.saddle(), game.solutions, grid(game))
    assert found == pytest.approx(game.weak_minty, rel=1e-3, abs=1e-9)


def test_published_constants():
    """Pethick et al., ICLR 2022, to the digits there."""
    assert Forsaken().saddle().lipschitz == pytest.approx(12.4026, abs=5e-5)
    assert Forsaken().solutions.flatten().tolist() == pytest.approx([0.0780267, 0.4119339], abs=5e-8)
    for a, rho, constant in ((1.0, -0.047742, 18.548), (3 / 4, -0.035843, 13.938), (1 / 3, -0.015946, 6.306)):
        game = PolarGame(a)
        assert game.weak_minty == pytest.approx(rho, abs=5e-7)
        assert game.saddle().lipschitz == pytest.approx(constant, abs=5e-4)
    worst = weak_minty_on(Forsaken().saddle(), Forsaken().solutions, grid(Forsaken(), 401))
    assert worst < -1 / (2 * Forsaken().saddle().lipschitz)


def arrived(game, solver, n=16, steps=5000):
    found = run_solver(game.saddle(), solver, game.starts(n), steps, center=game.solutions[0])
    return int(((found.last - game.solutions[0]).norm(dim=1) < 1e-3).sum()), outcomes(game.saddle(), found)


@pytest.mark.parametrize("name", ["gda", "alternating_gda", "extragradient", "optimistic", "past_extragradient",
                                  "eg_plus", "adaptive_eg_plus", "lookahead", "rapp"])  # fmt: skip
def test_forsaken_keeps_most_solvers_on_a_cycle(name):
    hits, ended = arrived(Forsaken(), SOLVERS[name](), steps=3000)
    assert hits == 0 and set(ended) == {Outcome.CYCLE}


@pytest.mark.parametrize("name", ["curvature_eg_plus", "consensus"])
def test_two_solvers_pass_the_cycles_of_forsaken_to_a_point_that_is_no_equilibrium(name):
    hits, ended = arrived(Forsaken(), SOLVERS[name](), steps=2000)
    assert hits == 16 and set(ended) == {Outcome.NOT_NASH}


@pytest.mark.parametrize(("a", "reach"), [
    (1.0, {"curvature_eg_plus", "consensus"}),
    pytest.param(3 / 4, {"curvature_eg_plus", "consensus", "eg_plus", "adaptive_eg_plus", "lookahead"},
                 marks=pytest.mark.slow),
    pytest.param(1 / 3, {"curvature_eg_plus", "consensus", "eg_plus", "adaptive_eg_plus", "lookahead", "extragradient",
                         "optimistic", "past_extragradient", "rapp"}, marks=pytest.mark.slow),
])  # fmt: skip
def test_polar_game_sorts_the_solvers(a, reach):
    game = PolarGame(a)
    outside = game.starts(64)
    outside = outside[outside.norm(dim=1) > 0.9][:8]  # beyond the cycle that repels: only these are hard
    for name, solver in SOLVERS.items():
        if name.startswith("mirror") or name in ("bc_seg_plus", "langevin"):
            continue
        found = run_solver(game.saddle(), solver(), outside, 1500)
        hits = int((found.last.norm(dim=1) < 1e-2).sum())
        assert hits == (8 if name in reach else 0), (name, hits)


def test_weak_minty_quadratic_sorts_extragradient_from_eg_plus():
    z = WeakMinty().starts(4)
    for rho, name, goes in ((-0.1, "extragradient", False), (-0.1, "eg_plus", True), (-0.1, "optimistic", True),
                            (-1 / 3, "eg_plus", False), (-1 / 3, "adaptive_eg_plus", True),
                            (-0.6, "adaptive_eg_plus", False)):  # fmt: skip
        found = run_solver(WeakMinty(rho).saddle(), SOLVERS[name](), z, 500)
        shrank = bool((found.last.norm(dim=1) < 0.6 * z.norm(dim=1)).all())
        assert shrank is goes, (rho, name)


def test_the_almost_bilinear_game_converges_to_its_repelling_point_with_a_long_step():
    """eta >= eps: no cycle, and the point it goes to is no equilibrium."""
    game = AlmostBilinear(0.01)
    found = run_solver(game.saddle(), SOLVERS["extragradient"](0.1), game.starts(4), 20_000)
    assert float(found.last.norm(dim=1).max()) < 1e-3
    assert set(outcomes(game.saddle(), found)) == {Outcome.NOT_NASH}


def test_quartic_keeps_extragradient_on_its_curve_of_critical_points():
    game = Quartic()
    found = run_solver(game.saddle(), SOLVERS["gda"](0.01), torch.tensor([[0.926, 0.941]]).double(), 4000)
    assert float(found.last.prod(1) - 0.5) == pytest.approx(0, abs=1e-3)


def test_starts_are_the_same_for_every_number_of_them():
    for name, make in GAMES.items():
        few, many = make().starts(3, seed=5), make().starts(8, seed=5)
        assert torch.equal(few, many[:3]), name
        feasible = make().saddle().feasible
        assert feasible is None or float(feasible.violation(many).max()) < 1e-12
    assert not torch.equal(Forsaken().starts(3, 0), Forsaken().starts(3, 1))


@pytest.mark.parametrize(("make", "text"), [
    (lambda: MatrixGame([[0, float("nan")], [1, 0]]), "got nan in row 0, column 1"),
    (lambda: MatrixGame([[0, 1], [1]]), "rows of numbers, all of one length"),
    (lambda: MatrixGame([1.0, 2.0]), "expected a matrix (m, n), got shape (2,)"),
    (lambda: MatrixGame("rock_paper_scisors"), "did you mean 'rock_paper_scissors'?"),
    (lambda: AlmostBilinear(0), "expected a number in (0, 1), got 0"),
    (lambda: WeakMinty(-1.5), "|rho| < 1 / lipschitz"),
    (lambda: PolarGame(-1), "PolarGame.a"),
    (lambda: Forsaken().starts(0), "starts: expected at least 1"),
])  # fmt: skip
def test_bad_games_are_refused(make, text):
    with pytest.raises(InputError) as error:
        make()
    assert text in str(error.value)


def test_consensus_can_stand_still_where_f_is_not_zero():
    """Phi = x + x^3 / 3 - y^2 / 2: F_x = 1 + x^2 is nowhere 0, and its square has a minimum."""
    saddle = Saddle.of(lambda x, y: (x + x**3 / 3 - y**2 / 2).sum(1), 1)
    z = torch.tensor([[0.3, 0.2]]).double()
    found = run_solver(saddle, Consensus(0.003, 100.0), z, 2000)
    assert float(residual(saddle, found.last)) > 0.9
    assert outcomes(saddle, found) == [Outcome.STUCK]
