"""Mixed equilibria on particles: closed forms, mirror descent and mirror-prox as special cases, rates."""

import math

import pytest
import torch

from danskin import InputError
from danskin.games.mixed import Domain, MixedGame, circle, square_distance
from danskin.games.particles import Measure, WassersteinFisherRao, gap_of


def test_the_square_distance_is_played_with_a_point_against_two():
    played = WassersteinFisherRao(0.5, 0.05).play(square_distance(), 20, 3000)
    x, y = played.x.merged(0.05, 1e-3), played.y.merged(0.05, 1e-3)
    assert len(x.points) == 1 and abs(float(x.points)) < 1e-3
    assert sorted(y.points.flatten().tolist()) == pytest.approx([-1, 1], abs=1e-3)
    assert y.weights.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert played.gap.found < 1e-3 < played.gap.bound < 0.05


def test_the_gap_on_the_circle_is_the_first_fourier_mode():
    game, generator = circle(), torch.Generator().manual_seed(0)
    for _ in range(5):
        x, y = (
            Measure(
                2 * math.pi * torch.rand(6, 1, generator=generator, dtype=torch.float64),
                torch.rand(6, generator=generator, dtype=torch.float64).softmax(0),
            )
            for _ in range(2)
        )
        modes = [abs((m.weights * torch.exp(1j * m.points[:, 0])).sum()) for m in (x, y)]
        gap = gap_of(game, x, y, 400)
        assert gap.found <= float(sum(modes)) + 1e-12 <= gap.bound + 1e-9
        assert gap.found == pytest.approx(float(sum(modes)), abs=1e-3)


def test_the_gap_is_never_negative_and_zero_at_an_equilibrium():
    point = Measure(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    two = Measure.uniform(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    assert gap_of(square_distance(), point, two, 401).found == pytest.approx(0, abs=1e-12)
    assert gap_of(square_distance(), point, point, 401).found == pytest.approx(1)  # y answers 1, x stays


def matrix_of(game, x, y):
    return game.payoff(x, y)


@pytest.mark.parametrize("extrapolate", [False, True])
def test_with_frozen_positions_it_is_mirror_descent_or_mirror_prox_on_a_matrix(extrapolate):
    game, rule = circle(), WassersteinFisherRao(0.3, 0.0, extrapolate)
    x, y = (Measure.uniform(game.x.grid(7) + shift) for shift in (0.1, 0.5))
    A = game.payoff(x.points, y.points)
    a, b = x.weights, y.weights * torch.linspace(0.5, 1.5, 7, dtype=torch.float64)
    x, y, b = x, Measure(y.points, b / b.sum()), b / b.sum()
    for _ in range(20):
        x, y, *_ = rule.step(game, x, y)
        u, v = a, b
        if extrapolate:
            u = a * torch.exp(-0.3 * A @ b)
            v = b * torch.exp(0.3 * A.T @ a)
            u, v = u / u.sum(), v / v.sum()
        a, b = a * torch.exp(-0.3 * A @ v), b * torch.exp(0.3 * A.T @ u)
        a, b = a / a.sum(), b / b.sum()
    torch.testing.assert_close(x.weights, a, rtol=0, atol=1e-12)
    torch.testing.assert_close(y.weights, b, rtol=0, atol=1e-12)


def test_with_frozen_weights_it_is_descent_ascent_of_many_points():
    game, rule = square_distance(), WassersteinFisherRao(0.0, 0.05, extrapolate=False)
    x, y = (Measure.uniform(torch.tensor(p, dtype=torch.float64)[:, None]) for p in ([0.2, -0.4], [0.1, 0.3, -0.7]))
    new_x, new_y, *_ = rule.step(game, x, y)
    gx = 2 * (x.points - y.points.mean())
    gy = 2 * (y.points - x.points.mean())
    torch.testing.assert_close(new_x.points, (x.points - 0.05 * gx).clamp(-1, 1))
    torch.testing.assert_close(new_y.points, (y.points + 0.05 * gy).clamp(-1, 1))
    assert torch.equal(new_x.weights, x.weights)


def test_extrapolation_converges_where_the_plain_rule_turns():
    """On the circle with weights alone: the last iterate, after the same number of steps."""
    last = {}
    for extrapolate in (False, True):
        rule, game = WassersteinFisherRao(0.5, 0.0, extrapolate), circle()
        x, y = (Measure(game.x.grid(8), torch.linspace(1, 3, 8, dtype=torch.float64).softmax(0)) for _ in range(2))
        y = Measure(y.points, y.weights.flip(0).roll(3))
        for _ in range(800):
            x, y, *_ = rule.step(game, x, y)
        last[extrapolate] = gap_of(game, x, y).found
    assert last[True] < 1e-3 < 0.3 < last[False]


def test_averages_of_the_extrapolated_rule_have_a_gap_of_one_over_the_steps():
    def gap(steps):
        rule, game = WassersteinFisherRao(0.5, 0.0), circle()
        x, y = (Measure(game.x.grid(8), torch.linspace(1, 3, 8, dtype=torch.float64).softmax(0)) for _ in range(2))
        y, total = Measure(y.points, y.weights.roll(3)), [0, 0]
        for _ in range(steps):
            x, y, *at = rule.step(game, x, y)
            total = [t + m.weights / steps for t, m in zip(total, at, strict=True)]
        means = [Measure(m.points, t) for m, t in zip((x, y), total, strict=True)]
        return gap_of(game, *means).found

    # regret of entropic mirror-prox: (log 8 + log 8) / (eta T)
    for steps in (20, 200, 2000):
        assert gap(steps) <= 2 * math.log(8) / (0.5 * steps)


def test_a_run_reports_its_path_and_averages():
    played = WassersteinFisherRao(0.3, 0.02).play(square_distance(), 10, 200, average=True, look=50, points=100)
    assert [k for k, _ in played.path] == [50, 100, 150, 200] and played.path[-1][1] == played.gap.found
    assert 0 <= played.averages.found < 0.5


def test_the_same_seed_is_the_same_run_and_particles_are_their_own():
    rule = WassersteinFisherRao(0.3, 0.02)
    a, b, c = (rule.play(circle(), 10, 20, seed=s, points=50) for s in (1, 1, 2))
    assert torch.equal(a.x.points, b.x.points) and not torch.equal(a.x.points, c.x.points)


def test_two_dimensions():
    domain = Domain(-1, 1, 2)
    game = MixedGame(lambda x, y: ((x[:, None] - y[None]) ** 2).sum(2), domain, domain, 2.0)
    played = WassersteinFisherRao(0.5, 0.05).play(game, 40, 1500, points=40)
    assert played.gap.found < 0.05 and played.gap.bound is None
    value = float(played.x.weights @ game.payoff(played.x.points, played.y.points) @ played.y.weights)
    assert value == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WassersteinFisherRao(-1), "step_weights: expected a step >= 0, got -1"),
        (lambda: Domain(1, 0), "Domain: expected low < high"),
        (lambda: WassersteinFisherRao().play(circle(), 0), "at least 1 of particles, got 0"),
        (lambda: WassersteinFisherRao().play(circle(), 3, 0), "at least 1 of steps"),
        (lambda: Domain().grid(1), "grid: expected at least 2 points"),
        (
            lambda: WassersteinFisherRao().play(MixedGame(lambda x, y: x.sum(1), Domain(), Domain()), 3, 2),
            r"payoff: expected \(3, 3\) values",
        ),
        (
            lambda: WassersteinFisherRao().play(MixedGame(lambda x, y: (x - y.T) / 0, Domain(), Domain()), 3, 2),
            "payoff: expected finite values",
        ),
    ],
)
def test_wrong_words(make, message):
    with pytest.raises(InputError, match=message):
        make()
