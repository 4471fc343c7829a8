"""The neural network distance: eq. 11 of the lecture."""

import itertools
import math

import pytest
import torch

from danskin.critics import Kantorovich, NetworkDistance
from danskin.critics.network_distance import _FirstLayer
from danskin.errors import InputError
from danskin.testing import check_set


def gaussians(n=150, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, 2, generator=g, dtype=torch.float64) for _ in range(2))
    return x, y * torch.tensor([0.5, 1.5]) + torch.tensor([1.0, 0.0])


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_without_bias_it_is_blind_to_a_mean_that_is_kept_and_with_bias_it_is_not(activation):
    one, both = torch.tensor([[1.0]]), torch.tensor([[0.0], [2.0]])
    for width in (1, 2):
        assert float(NetworkDistance(width, activation, bias=False).value(one, both)) == pytest.approx(0, abs=1e-12)
        seen = float(NetworkDistance(width, activation).value(one, both))
        assert seen == pytest.approx({"relu": 0.5, "abs": 1.0}[activation], rel=1e-6)


@pytest.mark.parametrize("activation", ["relu", "abs", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
def test_twice_the_width_never_lowers_it_and_it_stays_below_w1(activation, bias):
    x, y = gaussians()
    w1 = float(Kantorovich().value(x, y))
    found = [float(NetworkDistance(h, activation, bias=bias, steps=30).value(x, y)) for h in (1, 2, 4)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(found)) and found[-1] <= w1
    assert found[-1] > found[0]


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_a_bias_never_lowers_it(activation):
    z = torch.randn(60, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([z, -z])  # wide against narrow: in 20 dimensions few steps from random biases find less
    without, with_bias = (float(NetworkDistance(4, activation, bias=b, steps=3).value(x, 2 * x)) for b in (False, True))
    assert with_bias >= without - 1e-12


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_with_a_bias_it_is_at_least_the_distance_of_the_means(activation):
    x, y = gaussians(30)  # a kink beyond all points leaves a linear function
    found = float(NetworkDistance(1, activation, steps=1, restarts=1).value(x, y))
    assert found >= float((x.mean(0) - y.mean(0)).norm()) * (1 - 1e-12)


def test_one_unit_in_one_dimension_is_the_best_of_a_grid():
    x, y = (t[:40, :1] for t in gaussians())
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    best = max(
        float((torch.relu(sign * x + grid).mean(0) - torch.relu(sign * y + grid).mean(0)).abs().max())
        for sign in (1, -1)
    )
    assert float(NetworkDistance(1, steps=300).value(x, y)) == pytest.approx(best, rel=1e-4)


def test_second_layer_is_in_closed_form_and_the_witness_is_1_lipschitz():
    x, y = gaussians(60)
    f = NetworkDistance(4, steps=60).witness(x, y)
    z = torch.randn(2000, 2, dtype=torch.float64) * 3
    moved = (f(z) - f(z.flip(0))).abs() / (z - z.flip(0)).norm(dim=1).clamp_min(1e-9)
    assert float(moved.max()) <= 1 + 1e-9
    assert float(f(x).mean() - f(y).mean()) == pytest.approx(float(NetworkDistance(4, steps=60).value(x, y)), rel=1e-9)


def test_its_gradient_in_the_points_is_the_witness_slope():
    x, y = gaussians(20)
    x.requires_grad_()
    distance = NetworkDistance(4, steps=60)
    (slope,) = torch.autograd.grad(distance.value(x, y), x)
    z = x.detach().clone().requires_grad_()
    (wanted,) = torch.autograd.grad(distance.witness(x, y)(z).mean(), z)
    assert torch.allclose(slope, wanted, atol=1e-12)


@pytest.mark.parametrize("bias", [0.0, 0.7])
def test_the_set_of_first_layers_keeps_the_contract_of_sets(bias):
    check_set(lambda like: _FirstLayer(bias), (3, 4, 3), skip=[] if bias else ["steepest_is_dual"])


def test_bad_settings_are_refused():
    for make in (
        lambda: NetworkDistance(0), lambda: NetworkDistance(activation="gelu"), lambda: NetworkDistance(restarts=0),
        lambda: NetworkDistance().value(torch.zeros(2, 1), torch.full((2, 1), math.nan)),
    ):  # fmt: skip
        with pytest.raises(InputError, match="expected"):
            make()
