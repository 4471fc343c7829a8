"""The Langevin solver: the rule for networks row by row, its stationary law, its noise, its errors."""

import math

import pytest
import torch

from danskin.errors import InputError
from danskin.games import GAMES
from danskin.games.langevin import LangevinGame
from danskin.minmax import Langevin, Outcome, Saddle, Streams, outcomes, run_solver
from danskin.testing import check_solver

TOY = GAMES["quartic"]()


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("inner", [1, 5])
def test_without_noise_it_is_the_rule_for_networks(frozen, inner):
    z = TOY.starts(6)
    settings = {"inner": inner, "beta": 0.6, "frozen": frozen, "epsilon": 0.0}
    found = run_solver(TOY.saddle(), Langevin(0.05, **settings), z, 9).last
    x, y = (part.clone().requires_grad_() for part in z.unbind(1))
    rule = LangevinGame([x], [y], lr=0.05, project=lambda p: p.clamp_(-2, 2), **settings)
    for _ in range(9):
        rule.step(lambda: (x * y - x**2 * y**2).sum())
    torch.testing.assert_close(found, torch.stack([x, y], 1).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("h", "eta", "epsilon"), [(2.0, 0.1, 0.5), (1.0, 0.5, 0.1)])
def test_a_quadratic_has_the_stationary_variance_of_its_closed_form(h, eta, epsilon):
    chains = 20_000
    bowl = Saddle(lambda z: h * z, 1)
    z = torch.zeros(chains, 2, dtype=torch.float64)
    found = run_solver(bowl, Langevin(eta, epsilon, inner=50, beta=1.0), z, 8, keep=1, seed=3).last
    wanted = epsilon**2 / (h * (1 - eta * h / 2))
    for player in found.unbind(1):
        assert float(player.var()) == pytest.approx(wanted, rel=5 * math.sqrt(2 / chains))
    assert abs(float((found[:, 0] * found[:, 1]).mean())) < 5 * wanted / math.sqrt(chains)


def test_frozen_opponents_are_counted_and_keep_the_contract():
    for frozen in (False, True):
        check_solver(lambda saddle, f=frozen: Langevin("0.1/L", inner=7, frozen=f))


def test_noise_belongs_to_the_row_and_to_the_seed():
    solver, z = Langevin(inner=3), TOY.starts(4)
    first, again, other = (run_solver(TOY.saddle(), solver, z, 5, seed=s).last for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    streams, row = Streams.of(0, torch.arange(4)), torch.tensor([2])
    state = solver.begin(TOY.saddle(), z[row], streams.rows(row))
    for _ in range(5):
        state = solver.step(TOY.saddle(), state)
    torch.testing.assert_close(state.z[0], first[2], rtol=0, atol=1e-15)


@pytest.mark.slow
def test_noise_leads_from_the_curve_to_the_equilibrium_and_averages_alone_do_not():
    z = torch.tensor([[0.926, 0.941]], dtype=torch.float64).repeat(100, 1)
    ends = {}
    for epsilon in (0.0, 0.03):
        found = run_solver(TOY.saddle(), Langevin(epsilon=epsilon), z, 300, seed=0)
        ends[epsilon] = float((found.last.abs().amax(1) < 0.2).double().mean())
    assert ends[0.0] == 0 and ends[0.03] > 0.4


def test_what_moves_by_noise_is_not_called_a_cycle():
    found = run_solver(TOY.saddle(), Langevin(inner=2), TOY.starts(5), 300, seed=0)
    assert found.noisy and not {Outcome.CYCLE, Outcome.STUCK} & set(outcomes(TOY.saddle(), found))


@pytest.mark.parametrize(("settings", "told"), [
    ({"epsilon": -0.1}, "epsilon: expected a number >= 0"), ({"epsilon": math.nan}, "epsilon"),
    ({"inner": 0}, "inner: expected a whole number"), ({"inner": 1.5}, "inner"), ({"beta": 0.0}, "beta: expected"),
    ({"beta": 1.5}, "beta"),
])  # fmt: skip
def test_numbers_outside_their_range_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        Langevin(**settings)


def test_noise_without_a_seed_is_refused():
    with pytest.raises(InputError, match="seed: expected a number for the noise of Langevin"):
        run_solver(TOY.saddle(), Langevin(), TOY.starts(2), 1)
    assert not run_solver(TOY.saddle(), Langevin(epsilon=0.0), TOY.starts(2), 1).noisy
