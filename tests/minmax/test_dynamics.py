"""Solvers of two-player dynamics: exact rates on the bilinear game, identities between them, rows that do not mix."""

import math

import pytest
import torch

from danskin.errors import InputError
from danskin.games import AlmostBilinear, Bilinear, ConstrainedBilinear, Forsaken, MatrixGame, PolarGame
from danskin.minmax import (
    GDA,
    RAPP,
    SOLVERS,
    AdaptiveEGPlus,
    AlternatingGDA,
    BCSEGPlus,
    CurvatureEGPlus,
    EGPlus,
    Extragradient,
    Lookahead,
    MirrorProx,
    OptimisticGDA,
    PastExtragradient,
    Saddle,
    Streams,
    run_solver,
)

PLANE = [name for name in SOLVERS if not name.startswith("mirror")]


def walk(saddle, solver, z, steps, streams=None):
    """All iterates, (steps + 1, batch, d)."""
    state = solver.begin(saddle, z, streams)
    out = [state.z]
    for _ in range(steps):
        state = solver.step(saddle, state)
        out.append(state.z)
    return torch.stack(out)


def starts(n=5, d=2, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth(d=6):
    """A non-convex, non-concave payoff of x and y with d / 2 coordinates each."""
    g = torch.Generator().manual_seed(1)
    A, B = (torch.randn(d // 2, d // 2, dtype=torch.float64, generator=g) for _ in range(2))
    return Saddle.of(lambda x, y: ((x @ A).sin() * y).sum(1) + 0.1 * (y @ B).cos().sum(1), d // 2)


@pytest.mark.parametrize("eta", [0.05, 0.3, 1.0])
def test_descent_ascent_leaves_the_bilinear_game_at_exactly_its_rate(eta):
    z = starts()
    path = walk(Bilinear().saddle(), GDA(eta), z, 40)
    wanted = z.norm(dim=1) * (1 + eta**2) ** 20
    torch.testing.assert_close(path[-1].norm(dim=1), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("eta", [0.05, 0.3, 0.9])
def test_extragradient_nears_the_bilinear_equilibrium_at_exactly_its_rate(eta):
    z = starts(d=8)
    path = walk(Bilinear(size=4).saddle(), Extragradient(eta), z, 40)
    factor = math.sqrt((1 - eta**2) ** 2 + eta**2)
    torch.testing.assert_close(path[-1].norm(dim=1), z.norm(dim=1) * factor**40, rtol=1e-11, atol=0)


def test_eg_plus_has_its_rate_on_the_bilinear_game():
    gamma, alpha, z = 0.8, 0.5, starts()
    factor = math.hypot(1 - alpha * gamma**2, alpha * gamma)
    path = walk(Bilinear().saddle(), EGPlus(gamma, alpha), z, 30)
    torch.testing.assert_close(path[-1].norm(dim=1), z.norm(dim=1) * factor**30, rtol=1e-11, atol=0)


def test_alternating_steps_stay_on_an_ellipse_of_the_bilinear_game():
    eta, z = 0.3, starts()
    path = walk(Bilinear().saddle(), AlternatingGDA(eta), z, 500)
    x, y = path.unbind(-1)
    invariant = x**2 + y**2 - eta * x * y  # x+ = x - eta y, y+ = y + eta x+ keeps this form
    torch.testing.assert_close(invariant, invariant[:1].expand_as(invariant), rtol=1e-9, atol=1e-12)


def test_optimistic_steps_have_the_root_of_their_recursion_as_rate():
    """On z' = i z the step is z+ = (1 - 2 i eta) z + i eta z-: its larger root is the rate."""
    eta = 0.2
    a, b = -(1 - 2j * eta), -1j * eta
    root = max(abs((-a + s * (a * a - 4 * b) ** 0.5) / 2) for s in (1, -1))
    path = walk(Bilinear().saddle(), OptimisticGDA(eta), starts(), 400).norm(dim=-1)
    rate = (path[-1] / path[-201]) ** (1 / 200)
    torch.testing.assert_close(rate, torch.full_like(rate, root), rtol=1e-6, atol=0)


def test_points_ahead_of_past_extragradient_are_optimistic_iterates():
    F, z, eta, steps = smooth(), starts(d=6), 0.05, 60
    state, ahead = PastExtragradient(eta).begin(F, z), []
    for _ in range(steps):
        before = state.memory[0] if state.memory else F(state.z)
        ahead.append(state.z - eta * before)
        state = PastExtragradient(eta).step(F, state)
    # optimistic steps from ahead[0], whose gradient before is that of z
    y, before = ahead[0], F(z)
    for k in range(1, steps):
        value = F(y)
        y, before = y - 2 * eta * value + eta * before, value
        torch.testing.assert_close(y, ahead[k], rtol=0, atol=1e-12)
    torch.testing.assert_close(walk(F, OptimisticGDA(eta), z, 1)[1], ahead[0], rtol=0, atol=1e-14)


def test_the_y_sequence_of_sampa_1_is_optimistic_descent():
    """SAMPa with lambda = 1: y+ = x - eta g(y), x+ = x - eta g(y+), with F = g the gradient of one function."""
    F, z, eta = smooth(), starts(d=6), 0.05
    g = F.operator
    x, y = z, z - eta * g(z)
    path = [z, y]
    for _ in range(50):
        # x_{t+1} = x_t - eta g(y_{t+1}) with y_{t+1} = x_t - eta g(y_t)
        x = x - eta * g(y)
        y = x - eta * g(y)
        path.append(y)
    optimistic = walk(F, OptimisticGDA(eta), z, 51)
    torch.testing.assert_close(torch.stack(path), optimistic, rtol=0, atol=1e-12)


def test_unnormalised_sam_with_a_descent_shift_is_extragradient():
    """x+ = x - eta g(x + e) with e = -eta g(x)."""
    F, z, eta = smooth(), starts(d=6), 0.05
    x = z
    for _ in range(30):
        x = x - eta * F(x + -eta * F(x))
    torch.testing.assert_close(walk(F, Extragradient(eta), z, 30)[-1], x, rtol=0, atol=1e-13)


def test_eg_plus_with_one_in_all_of_space_is_extragradient():
    F, z = smooth(), starts(d=6)
    a, b = (walk(F, solver, z, 20) for solver in (EGPlus(0.1, 1.0), Extragradient(0.1)))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_lookahead_with_a_full_pull_is_its_base_and_rapp_with_two_steps_is_extragradient():
    F, z = smooth(), starts(d=6)
    for base in (GDA(0.1), OptimisticGDA(0.1)):
        same = walk(F, Lookahead(base, 3, 1.0), z, 20)
        torch.testing.assert_close(same, walk(F, base, z, 20), rtol=0, atol=1e-13)
    same = walk(F, RAPP(0.1, 2, 1.0), z, 20)
    torch.testing.assert_close(same, walk(F, Extragradient(0.1), z, 20), rtol=0, atol=1e-13)


def test_lookahead_pulls_halfway_back_to_where_it_was_k_steps_ago():
    F, z = Bilinear().saddle(), starts()
    fast = walk(F, GDA(0.1), z, 5)[-1]
    path = walk(F, Lookahead(GDA(0.1), 5, 0.5), z, 5)
    torch.testing.assert_close(path[-1], (z + fast) / 2, rtol=0, atol=1e-14)


def test_bias_correction_without_noise_looks_ahead_exactly_and_beta_one_is_eg_plus():
    F, z, gamma, alpha = smooth(), starts(d=6), 0.1, 0.5
    plain = walk(F, EGPlus(gamma, alpha), z, 20)
    for beta in (1.0, 0.3):  # h = H(z) + (1 - beta)(h- - H(z-)) and the bracket is 0 without noise
        torch.testing.assert_close(walk(F, BCSEGPlus(gamma, alpha, beta), z, 20), plain, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_bias_correction_lowers_the_noise_floor_of_a_constrained_game():
    game = ConstrainedBilinear(0.3)
    saddle, z = game.saddle(), game.starts(40)
    floor = []
    for beta in ("alpha", 1.0):
        found = run_solver(saddle, BCSEGPlus(0.5, "0.1/(t/100+1)", beta), z, 4000, seed=0)
        floor.append(float((found.last - game.solutions).norm(dim=1).mean()))
    assert floor[0] < 0.4 * floor[1], floor


@pytest.mark.parametrize("name", PLANE)
def test_a_batch_is_a_loop(name):
    """Row by row, bit for bit, also with noise and with constraints."""
    game = ConstrainedBilinear(0.2)
    saddle, z, solver = game.saddle(), game.starts(7), SOLVERS[name]()
    streams = Streams.of(3, torch.arange(7))
    whole = walk(saddle, solver, z, 6, streams)
    for i in range(7):
        row = torch.tensor([i])
        alone = walk(saddle, solver, z[row], 6, streams.rows(row))
        torch.testing.assert_close(alone, whole[:, row], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", PLANE)
def test_steps_stay_in_the_set_and_solutions_stay_put(name):
    game = Forsaken()
    saddle, solver = game.saddle(), SOLVERS[name]()
    path = walk(saddle, solver, game.starts(8) * 3, 30)
    if name not in ("eg_plus", "adaptive_eg_plus", "curvature_eg_plus", "bc_seg_plus"):  # these step over the edge
        assert float(saddle.feasible.violation(path.flatten(0, 1)).max()) <= 1e-15
    z = game.solutions
    assert float((walk(saddle, solver, z, 5) - z).abs().max()) < 1e-12


@pytest.mark.parametrize("name", SOLVERS)
def test_a_step_leaves_the_state_it_was_given_as_it_was(name):
    game = MatrixGame() if name.startswith("mirror") else Forsaken()
    saddle, solver = game.saddle(), SOLVERS[name]()
    state = solver.step(saddle, solver.begin(saddle, game.starts(3)))
    kept = [state.z.clone(), *(m.clone() for m in state.memory)]
    first, second = solver.step(saddle, state), solver.step(saddle, state)
    assert torch.equal(first.z, second.z) and state.t == 1 and first.t == 2
    assert all(torch.equal(a, b) for a, b in zip(kept, [state.z, *state.memory], strict=True))


def test_a_step_size_may_be_one_per_row_or_a_text_in_time():
    F, z = Bilinear().saddle(), starts(2)
    both = walk(F, GDA(torch.tensor([0.1, 0.2], dtype=torch.float64)), z, 3)
    for i, eta in enumerate((0.1, 0.2)):
        torch.testing.assert_close(both[:, i], walk(F, GDA(eta), z[i : i + 1], 3)[:, 0], rtol=0, atol=0)
    falling = walk(F, GDA("0.5/(t+1)"), z, 2)
    by_hand = z - 0.5 * F(z)
    by_hand = by_hand - 0.25 * F(by_hand)
    torch.testing.assert_close(falling[-1], by_hand, rtol=0, atol=1e-15)


def test_adaptive_steps_are_as_long_as_the_hyperplane_allows():
    """With delta = 0 in all of space, z+ projects z on {q : <F(w), q - w> = 0}."""
    F, z = smooth(), starts(d=6)
    w = z - 0.1 * F(z)
    value = F(w)
    share = (value * (z - w)).sum(1, keepdim=True) / value.square().sum(1, keepdim=True)
    wanted = z - share * value
    torch.testing.assert_close(walk(F, AdaptiveEGPlus(0.1, 0.0), z, 1)[1], wanted, rtol=0, atol=1e-12)


def test_curvature_steps_meet_their_line_search():
    saddle = PolarGame(1.0).saddle()
    z = PolarGame(1.0).starts(50)
    value = saddle(z)
    gamma, ahead, there = CurvatureEGPlus()._look(saddle, z, value)
    change, moved = (there - value).norm(dim=1), (ahead - z).norm(dim=1)
    assert bool((gamma[:, 0] * change <= 0.99 * moved * (1 + 1e-9)).all())
    assert float(gamma.max()) > 2 / saddle.lipschitz  # longer than what the global constant allows


def test_mirror_prox_is_written_out_on_two_by_two():
    A = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    saddle, eta = MatrixGame(A.tolist()).saddle(), 0.2
    x, y = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)

    def moved(p, g):
        q = p * (-eta * g).exp()
        return q / q.sum()

    a, b = moved(x, A @ y), moved(y, -A.T @ x)
    wanted = torch.cat([moved(x, A @ b), moved(y, -A.T @ a)])
    got = walk(saddle, MirrorProx(eta), torch.cat([x, y])[None], 1)[1, 0]
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-14)


def test_the_operator_of_a_payoff_is_its_signed_gradient():
    for game in (Forsaken(), AlmostBilinear(), ConstrainedBilinear(0), MatrixGame("random", 3, 4)):
        saddle = game.saddle()
        n = saddle.split
        auto = Saddle.of(lambda x, y, s=saddle: s.payoff(torch.cat([x, y], 1)), n)
        z = game.starts(6)
        torch.testing.assert_close(auto(z), saddle(z), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("call", "text"), [
    (lambda: walk(AlmostBilinear().saddle(), GDA(), starts(), 1), "no L is known of this F"),
    (lambda: walk(Bilinear().saddle(), GDA(-0.1), starts(), 1), "expected a number above 0, got -0.1"),
    (lambda: walk(Bilinear().saddle(), MirrorProx(0.1), starts(), 1), "expected a set with entropic steps"),
    (lambda: EGPlus(0.1, 1.5), "EGPlus.alpha: expected a number in (0, 1], got 1.5"),
    (lambda: RAPP(0.1, 0), "RAPP.k: expected a whole number"),
    (lambda: run_solver(Bilinear().saddle(), GDA(), torch.ones(2), 5), "expected finite starts of shape (batch, d)"),
    (lambda: run_solver(Bilinear().saddle(), GDA(), torch.full((1, 2), math.nan), 5), "NaN"),
    (lambda: run_solver(Bilinear().saddle(), GDA(), torch.ones(1, 1), 5), "expected more than 1 coordinates"),
    (lambda: run_solver(Bilinear().saddle(), GDA(), torch.ones(1, 2), 0), "steps: expected at least 1"),
    (lambda: Saddle.of(lambda x, y: (x * y).sum(), 1)(starts()), "expected one value for each of 5 rows"),
])  # fmt: skip
def test_bad_input_is_told(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value)


def test_a_thousand_starts_diverge_and_converge_each_for_itself():
    saddle = Saddle.of(lambda x, y: (x**4 / 4 - x**2 * y**2 / 2).sum(1) + (x * y).sum(1), 1, None)
    z = torch.randn(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = run_solver(saddle, Extragradient(0.2), 2 * z, 300)
    assert 0 < int(found.diverged.sum()) < 1000
    assert bool(found.points.isfinite().all()) and bool(found.average.isfinite().all())
    again = run_solver(saddle, Extragradient(0.2), 2 * z[17:18], 300)
    assert torch.equal(again.last, found.last[17:18])


@pytest.mark.parametrize("solver", [GDA(0.2), Extragradient(0.2), MirrorProx(0.2)], ids=lambda s: type(s).__name__)
def test_the_average_is_of_the_points_ahead_where_these_converge(solver):
    game = MatrixGame("random", 3, 4)
    saddle, z = game.saddle(), game.starts(2)
    state, points = solver.begin(saddle, z), []
    for _ in range(9):
        state = solver.step(saddle, state)
        points.append(state.z if isinstance(solver, GDA) else state.ahead)
    found = run_solver(saddle, solver, z, 9)
    torch.testing.assert_close(found.average, torch.stack(points).mean(0), rtol=0, atol=1e-14)
    assert found.times.tolist() == list(range(10)) and torch.equal(found.points[-1], found.last)
    if not isinstance(solver, GDA):
        assert not torch.equal(points[-1], state.z)
