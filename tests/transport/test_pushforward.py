"""Push-forwards: chi-square by squaring a Gaussian, densities in closed form that integrate to 1, missing branches."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Exponential, MultivariateNormal, Normal, Uniform

from danskin.errors import InputError
from danskin.recipes.e1.cells import LINES, banana, integral, polar
from danskin.transport import Branch, PushForward, kolmogorov_smirnov

stats = pytest.importorskip("scipy.stats")
GAUSS = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
BOTH = (Branch(torch.sqrt), Branch(lambda y: -y.sqrt()))


def test_the_square_of_a_gaussian_is_chi_square():
    law = PushForward(GAUSS, torch.square, BOTH)
    sample = law.sample(20_000, seed=1)
    assert stats.kstest(sample.numpy(), stats.chi2(1).cdf).pvalue > 0.01
    assert stats.kstest(sample.numpy(), stats.chi2(2).cdf).pvalue < 1e-10
    grid = torch.linspace(1e-3, 20, 500, dtype=torch.float64)
    np.testing.assert_allclose(law.log_prob(grid).exp(), stats.chi2(1).pdf(grid.numpy()), rtol=1e-12)
    assert law.log_prob(torch.tensor([-1.0], dtype=torch.float64)).item() == -math.inf


def test_one_branch_alone_is_refused_because_its_density_is_half_of_it():
    with pytest.raises(InputError, match=r"come back through one of them, got \d\d.\d% that do not"):
        PushForward(GAUSS, torch.square, torch.sqrt)
    with pytest.raises(InputError, match=r"got 100.0% that do not"):
        PushForward(GAUSS, torch.exp, torch.exp)


@pytest.mark.parametrize("name", LINES)
def test_densities_of_numbers_are_closed_forms_and_integrate_to_one(name):
    made, cdf, density, (low, high) = LINES[name]
    law = made()
    assert integral(lambda y: law.log_prob(y).exp(), low, high) == pytest.approx(1, abs=1e-6)
    grid = torch.linspace(low, high, 301, dtype=torch.float64)[1:]
    grid = grid[grid != 0]
    torch.testing.assert_close(law.log_prob(grid).exp(), density(grid), rtol=1e-10, atol=1e-14)
    assert kolmogorov_smirnov(law.sample(5000), cdf).p_value > 0.01


def test_a_matrix_makes_a_gaussian_of_a_gaussian_whatever_the_sign_of_its_determinant():
    matrix = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)  # determinant -5
    base = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    law = PushForward(base, lambda w: w @ matrix.T, lambda y: torch.linalg.solve(matrix, y.T).T)
    y = law.sample(50, 3)
    wanted = MultivariateNormal(torch.zeros(2, dtype=torch.float64), matrix @ matrix.T)
    torch.testing.assert_close(law.log_prob(y), wanted.log_prob(y))


def test_volumes_that_change_everywhere_integrate_to_one():
    base = MultivariateNormal(torch.zeros(2).double(), torch.diag(torch.tensor([0.09, 0.16])).double())
    law = PushForward(base, polar, lambda y: torch.stack([y.norm(dim=1).log(), torch.atan2(y[:, 1], y[:, 0])], 1))
    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    total = law.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(total) == pytest.approx(1, abs=1e-6)


def test_the_banana_keeps_volumes_but_for_a_half():
    base = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    law = PushForward(base, banana, lambda y: torch.stack([y[:, 0], 2 * (y[:, 1] - y[:, 0] ** 2)], 1))
    w = base.sample((20,))
    torch.testing.assert_close(law.log_prob(banana(w)), base.log_prob(w) + math.log(2))


def test_points_outside_the_support_of_the_base_have_no_density():
    law = PushForward(Uniform(torch.tensor(0.0), torch.tensor(1.0)), lambda w: 2 * w, lambda y: y / 2)
    found = law.log_prob(torch.tensor([-0.5, 1.0, 2.5]))
    assert found[1].exp() == pytest.approx(0.5) and found[0] == found[2] == -math.inf


def test_a_branch_may_say_where_it_has_preimages():
    law = PushForward(
        Uniform(torch.tensor(-1.0), torch.tensor(1.0)), torch.abs,
        (Branch(lambda y: y, covers=lambda y: y >= 0), Branch(lambda y: -y, covers=lambda y: y >= 0)),
    )  # fmt: skip
    found = law.log_prob(torch.tensor([-0.5, 0.5])).exp()
    assert found.tolist() == pytest.approx([0, 1])


def test_a_generator_into_another_dimension_gives_samples_and_no_density():
    base = MultivariateNormal(torch.zeros(2), torch.eye(2))
    net = torch.nn.Linear(2, 5)
    state = torch.random.get_rng_state()
    one = PushForward(base, net).sample(7, seed=4)
    assert one.shape == (7, 5) and torch.equal(one, PushForward(base, net).sample(7, seed=4))
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(InputError, match="expected branches with inverses, got none"):
        PushForward(base, net).log_prob(one.detach())
    with pytest.raises(InputError, match="between spaces of one dimension for a density, got 2 to"):
        PushForward(base, net, lambda y: y)
    with pytest.raises(InputError, match="expected one distribution"):
        PushForward(Normal(torch.zeros(3), torch.ones(3)), torch.exp)


@pytest.mark.parametrize("n", [20, 500])
def test_kolmogorov_smirnov_is_that_of_scipy(n):
    sample = Exponential(torch.tensor(1.1, dtype=torch.float64)).sample((n,))
    found = kolmogorov_smirnov(sample, lambda y: 1 - torch.exp(-y))
    wanted = stats.kstest(sample.numpy(), stats.expon.cdf)
    assert found.statistic == pytest.approx(wanted.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(wanted.pvalue, abs=0.02)
    assert kolmogorov_smirnov(sample + 3, lambda y: 1 - torch.exp(-y)).p_value < 1e-6
