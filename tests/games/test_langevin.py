"""The Langevin rule: stationary laws in closed form, the recursion by a plain loop, and the game that needs noise."""

import math

import pytest
import torch

from danskin.errors import InputError
from danskin.games.langevin import LangevinGame, LangevinStep, Noise, at, geometric

CHAINS = 20_000


def variance_of(h, lr, epsilon, steps=300, **settings):
    x = torch.zeros(CHAINS, dtype=torch.float64, requires_grad=True)
    game = LangevinGame([x], [], lr=lr, epsilon=epsilon, beta=1.0, **settings)
    for _ in range(steps):
        game.step(lambda: (h * x**2 / 2).sum())
    return float(x.detach().var())


@pytest.mark.parametrize(("h", "lr", "epsilon"), [(2.0, 0.1, 0.5), (1.0, 0.5, 0.1), (4.0, 0.4, 1.0)])
def test_a_quadratic_has_the_stationary_variance_of_its_closed_form(h, lr, epsilon):
    expected = epsilon**2 / (h * (1 - lr * h / 2))
    assert variance_of(h, lr, epsilon) == pytest.approx(expected, rel=5 * math.sqrt(2 / CHAINS))


@pytest.mark.parametrize("precision", [0.5, 3.0])
def test_a_frozen_preconditioner_changes_the_pace_and_not_the_law(precision):
    h, lr, epsilon = 2.0, 0.05, 0.5
    move = LangevinStep(rms=1 - 1e-15, floor=1e-12)
    x, v, noise = torch.zeros(CHAINS, dtype=torch.float64), torch.full((CHAINS,), precision**2).double(), Noise(0)
    for t in range(400):
        move(x, h * x, v, lr, epsilon, noise([x], t)[0])
    expected = epsilon**2 / (h * (1 - lr * h / (2 * precision)))
    assert float(x.var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / CHAINS))
    assert float(v.mean()) == pytest.approx(precision**2)


def test_the_mean_loss_of_n_examples_at_temperature_one_over_n_is_the_posterior():
    data = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.zeros(4000, dtype=torch.float64, requires_grad=True)
    lr = 0.05
    game = LangevinGame([x], [], lr=lr, epsilon=1 / math.sqrt(len(data)), beta=1.0)
    for _ in range(200):
        game.step(lambda: ((x[:, None] - data) ** 2 / 2).mean(1).sum())
    assert float(x.detach().mean()) == pytest.approx(float(data.mean()), abs=0.01)
    assert float(x.detach().var()) == pytest.approx(1 / len(data) / (1 - lr / 2), rel=5 * math.sqrt(2 / 4000))


def by_hand(x, y, gx, gy, *, lr, inner, beta, rms, frozen, steps):
    """The recursion on two numbers, without noise."""
    vx = vy = 0.0
    for _ in range(steps):
        cx, cy, mx, my = x, y, x, y
        for _ in range(inner):
            a, b = (gx(cx, y), gy(x, cy)) if frozen else (gx(cx, cy), gy(cx, cy))
            dx = dy = 1.0
            if rms is not None:
                vx, vy = rms * vx + (1 - rms) * a * a, rms * vy + (1 - rms) * b * b
                dx, dy = math.sqrt(vx) + 1e-8, math.sqrt(vy) + 1e-8
            cx, cy = cx - lr * a / dx, cy + lr * b / dy
            mx, my = (1 - beta) * mx + beta * cx, (1 - beta) * my + beta * cy
        x, y = (1 - beta) * x + beta * mx, (1 - beta) * y + beta * my
    return x, y


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("rms", [None, 0.9])
@pytest.mark.parametrize("inner", [1, 4])
def test_without_noise_it_is_the_recursion_of_the_paper(frozen, rms, inner):
    x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(-0.4, dtype=torch.float64, requires_grad=True)
    settings = {"lr": 0.1, "inner": inner, "beta": 0.6, "rms": rms, "frozen": frozen}
    game = LangevinGame([x], [y], epsilon=0.0, **settings)
    for _ in range(7):
        game.step(lambda: x * y + 0.3 * x**2 - 0.2 * y**2)
    slopes = (lambda p, q: q + 0.6 * p), (lambda p, q: p - 0.4 * q)
    expected = by_hand(0.7, -0.4, *slopes, steps=7, **settings)
    assert (float(x.detach()), float(y.detach())) == pytest.approx(expected, abs=1e-12)


def test_one_inner_step_is_a_langevin_step_shortened_by_beta_squared():
    x = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    game = LangevinGame([x], [], lr=0.1, epsilon=0.3, beta=0.9, seeds=5)
    xi = Noise(5)([x], 0)[0]
    whole = x.detach() - 0.1 * 2 * x.detach() + math.sqrt(0.2) * 0.3 * xi
    expected = torch.lerp(x.detach().clone(), whole, 0.81)
    game.step(lambda: (x**2).sum())
    torch.testing.assert_close(x.detach(), expected)


def share_at_the_equilibrium(epsilon, starts=100, steps=300):
    """Of runs of max over x, min over y of x²y² - xy (critical: 0, and xy = 1/2) those that end with |x|, |y| < 0.2.

    Settings of the authors' toy: both chains move together, eta = 0.1, beta = 0.5, K = 100, clipped to [-2, 2].
    """
    y = torch.full((starts, 1), 0.941, dtype=torch.float64, requires_grad=True)
    x = torch.full((starts, 1), 0.926, dtype=torch.float64, requires_grad=True)
    game = LangevinGame(
        [y], [x], lr=0.1, epsilon=epsilon, inner=100, beta=0.5, frozen=False,
        project=lambda p: p.clamp_(-2, 2), seeds=range(starts),
    )  # fmt: skip
    for _ in range(steps):
        game.step(lambda: (x**2 * y**2 - x * y).sum())
    near = torch.maximum(x.detach().abs(), y.detach().abs()) < 0.2
    return float(near.double().mean())


@pytest.mark.slow
def test_only_noise_leaves_the_bad_stationary_curve():
    """0.70 of 200 seeds in a NumPy script of its own: 0.4 is six standard errors of 100 seeds below it."""
    assert share_at_the_equilibrium(0.0) == 0
    assert share_at_the_equilibrium(0.03) > 0.4


def test_schedules_are_read_at_every_outer_step():
    seen = []
    x = torch.ones(1, requires_grad=True)
    game = LangevinGame([x], [], lr=lambda t: seen.append(t) or 0.1, epsilon=0.0, inner=lambda t: 1 + t, beta=1.0)
    calls = []

    def payoff():
        calls.append(1)
        return x.sum()

    game.step(payoff)
    game.step(payoff)
    assert len(calls) == 1 + 2 and seen[-2:] == [0, 1]
    assert at(geometric(1.0, 0.5), 3) == 0.125 and at(2, 9) == 2.0


def test_a_network_of_a_stack_is_given_its_own_noise_whatever_stands_beside_it():
    like = [torch.zeros(3, 4, 2), torch.zeros(3, 5)]
    stack, alone = Noise([7, 8, 9])(like, 2), Noise([8])([t[:1] for t in like], 2)
    for many, one in zip(stack, alone, strict=True):
        assert torch.equal(many[1:2], one)
    assert not torch.equal(stack[0][0], stack[0][1])
    assert not torch.equal(Noise(8)(like, 3)[1], Noise(8)(like, 4)[1])


@pytest.mark.parametrize("rms", [None, 0.99])
def test_going_on_from_a_state_is_bit_for_bit_the_same(rms, tmp_path):
    def start():
        x, y = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
        game = LangevinGame([x], [y], lr=0.01, epsilon=0.1, inner=3, rms=rms)
        return game, x, y, lambda: x.sum() * y.sum() + (x**2).sum()

    game, x, y, payoff = start()
    for _ in range(4):
        game.step(payoff)
    torch.save({"x": x.detach(), "y": y.detach(), "game": game.state_dict()}, tmp_path / "state.pt")
    for _ in range(3):
        game.step(payoff)
    other, x2, y2, payoff2 = start()
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    with torch.no_grad():
        x2.copy_(saved["x"])
        y2.copy_(saved["y"])
    other.load_state_dict(saved["game"])
    for _ in range(3):
        other.step(payoff2)
    assert torch.equal(x, x2) and torch.equal(y, y2)


def test_a_payoff_that_fails_leaves_the_outer_points():
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    game, calls = LangevinGame([x], [y], lr=0.1, epsilon=0.1, inner=3), []

    def payoff():
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no batch left")
        return (x * y).sum()

    with pytest.raises(RuntimeError, match="no batch left"):
        game.step(payoff)
    assert torch.equal(x, torch.ones(2)) and torch.equal(y, torch.ones(2))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lr": 0.0}, "lr > 0"),
        ({"epsilon": -1.0}, "epsilon >= 0"),
        ({"epsilon": math.nan}, "epsilon >= 0"),
        ({"inner": 0}, "inner steps"),
        ({"inner": 1.5}, "inner steps"),
        ({"beta": 0.0}, "beta in"),
        ({"rms": 1.0}, "rms in"),
    ],
)
def test_numbers_outside_their_range_are_refused(settings, told):
    x = torch.ones(1, requires_grad=True)
    with pytest.raises(InputError, match=told):
        LangevinGame([x], [], **({"lr": 0.1, "epsilon": 0.1} | settings))


def test_players_without_parameters_or_of_another_stack_are_refused():
    with pytest.raises(InputError, match="require gradients"):
        LangevinGame([torch.ones(1)], [], lr=0.1, epsilon=0.1)
    x = torch.ones(3, requires_grad=True)
    game = LangevinGame([x], [], lr=0.1, epsilon=0.1, seeds=[0, 1])
    with pytest.raises(InputError, match="leading dimension of 2"):
        game.step(lambda: x.sum())
