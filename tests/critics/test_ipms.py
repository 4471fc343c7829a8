"""Integral probability metrics against closed forms and independent references."""

import math

import numpy as np
import pytest
import torch

from danskin.critics import (
    IMQ,
    MMD,
    RBF,
    Dudley,
    EnergyDistance,
    FortetMourier,
    Kantorovich,
    Laplace,
    TotalVariation,
    gaussian_mmd_squared,
    median_distance,
)
from danskin.errors import InputError

ALL = {
    "mmd rbf": MMD(RBF(0.7)),
    "mmd laplace": MMD(Laplace(0.7)),
    "mmd imq": MMD(IMQ(0.7)),
    "energy": EnergyDistance(),
    "tv": TotalVariation(),
    "tv cells": TotalVariation(0.5),
    "W1": Kantorovich(),
    "W1 l1": Kantorovich(1),
    "W1 linf": Kantorovich(math.inf),
    "fortet mourier": FortetMourier(),
    "dudley": Dudley(),
}


def draw(n=20, m=15, d=2, shift=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(k, d, generator=g, dtype=torch.float64) for k in (n, m))
    a, b = (torch.rand(k, generator=g, dtype=torch.float64) for k in (n, m))
    return x, y + shift, a / a.sum(), b / b.sum()


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_the_linear_programme_is_the_optimal_transport_of_pot(p):
    ot = pytest.importorskip("ot")
    x, y, a, b = draw()
    cost = torch.cdist(x, y, p).numpy()
    ours = Kantorovich(p)
    assert float(ours.value(x, y, a, b)) == pytest.approx(ot.emd2(a.numpy(), b.numpy(), cost), rel=1e-9)
    assert ours.lower_bound(x, y, a, b) == pytest.approx(ot.emd2(a.numpy(), b.numpy(), cost), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1e4, 1e9])
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_the_linear_programme_does_not_rest_on_the_units_of_the_points(p, scale):
    """Tolerances of solvers are absolute: 0.6 % off at 1e-6, a fifth at 1e-8, if points are handed on as they are."""
    x, y, a, b = draw()
    wanted = scale * float(Kantorovich(p).value(x, y, a, b))
    assert float(Kantorovich(p).value(scale * x, scale * y, a, b)) == pytest.approx(wanted, rel=1e-9)
    assert Kantorovich(p).lower_bound(scale * x, scale * y, a, b) == pytest.approx(wanted, rel=1e-9)
    if scale < 1:  # the ceiling of 1 is far away, and L = 1 - O(scale)
        assert float(FortetMourier(p).value(scale * x, scale * y, a, b)) == pytest.approx(wanted, rel=1e-9)
        assert float(Dudley(p).value(scale * x, scale * y, a, b)) == pytest.approx(wanted, rel=5 * scale + 1e-6)


@pytest.mark.parametrize("shift", [0.3, 1.5, 6.0])
def test_bounded_lipschitz_distances_are_transport_of_truncated_costs(shift):
    ot = pytest.importorskip("ot")
    scipy = pytest.importorskip("scipy.optimize")
    x, y, a, b = draw(shift=shift)
    cost = torch.cdist(x, y).numpy()

    def moved(slope, ceiling):
        return ot.emd2(a.numpy(), b.numpy(), np.minimum(slope * cost, 2 * ceiling))

    best = scipy.minimize_scalar(lambda s: -moved(1 - s, s), bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    assert float(FortetMourier().value(x, y, a, b)) == pytest.approx(moved(1, 1), rel=1e-9)
    assert float(Dudley().value(x, y, a, b)) == pytest.approx(-best.fun, rel=1e-6)


def test_distances_of_two_points_are_known():
    for far in (0.5, 1.0, 3.0):
        x, y = torch.zeros(1, 1), torch.full((1, 1), far)
        assert float(Kantorovich().value(x, y)) == pytest.approx(far)
        assert float(FortetMourier().value(x, y)) == pytest.approx(min(far, 2))
        assert float(Dudley().value(x, y)) == pytest.approx(2 * far / (2 + far))  # L far = 2 s at L + s = 1
        assert float(TotalVariation().value(x, y)) == 1
        assert float(EnergyDistance().squared(x, y)) == pytest.approx(2 * far)
        assert float(MMD(Laplace(2.0)).squared(x, y)) == pytest.approx(2 - 2 * math.exp(-far / 2))
        assert float(MMD(IMQ(2.0)).squared(x, y)) == pytest.approx(2 - 2 / math.sqrt(1 + far**2 / 4))


@pytest.mark.parametrize("shift", [0.0, 0.4, 3.0])
def test_the_distances_are_in_their_order(shift):
    x, y, a, b = draw(shift=shift)
    dudley, fortet, w1 = (float(d.value(x, y, a, b)) for d in (Dudley(), FortetMourier(), Kantorovich()))
    assert fortet / 2 <= dudley + 1e-9 and dudley <= fortet + 1e-9 and fortet <= w1 + 1e-9
    assert fortet <= 2 * float(TotalVariation().value(x, y, a, b)) + 1e-9
    assert float(EnergyDistance().squared(x, y, a, b)) <= 2 * w1 + 1e-9
    assert float(MMD(RBF(1.0)).value(x, y, a, b)) <= w1 + 1e-9  # the feature map of this kernel is 1-Lipschitz


def test_energy_distance_in_one_dimension_is_twice_the_squared_distance_of_distribution_functions():
    stats = pytest.importorskip("scipy.stats")
    x, y, a, b = draw(d=1)
    at, order = torch.cat([x, y]).flatten().sort()
    steps = torch.cat([a, -b])[order].cumsum(0)
    twice = 2 * (steps[:-1] ** 2 * at.diff()).sum()
    assert float(EnergyDistance().squared(x, y, a, b)) == pytest.approx(float(twice), rel=1e-12)
    theirs = stats.energy_distance(*(t.flatten().numpy() for t in (x, y)), a.numpy(), b.numpy())
    assert float(EnergyDistance().value(x, y, a, b)) == pytest.approx(theirs, rel=1e-12)


def test_mmd_of_large_gaussian_samples_goes_to_the_closed_form_and_unbiased_has_no_bias():
    g = torch.Generator().manual_seed(0)
    exact = gaussian_mmd_squared([0, 0, 0], 1.0, [0.5, 0, 0], 1.5, scale=0.8)
    found = []
    for _ in range(400):
        x = torch.randn(20, 3, generator=g)
        y = 1.5 * torch.randn(15, 3, generator=g) + torch.tensor([0.5, 0, 0])
        found.append([float(MMD(RBF(0.8)).squared(x, y, estimator=e)) for e in ("unbiased", "biased")])
    found = np.array(found)
    error = found.std(0) / math.sqrt(len(found))
    assert abs(found[:, 0].mean() - exact) < 4 * error[0]
    assert found[:, 1].mean() - exact > 20 * error[1]


def test_unbiased_with_weights_is_the_sum_over_different_points():
    x, y, a, b = draw()
    kernel = RBF(0.6)

    def own(x, w):
        k = kernel(x, x) * w[:, None] * w
        return (k.sum() - k.diagonal().sum()) / (1 - (w**2).sum())

    slow = own(x, a) + own(y, b) - 2 * (kernel(x, y) * a[:, None] * b).sum()
    assert float(MMD(kernel).squared(x, y, a, b, estimator="unbiased")) == pytest.approx(float(slow), rel=1e-12)


def test_total_variation_adds_masses_of_equal_points_and_of_cells():
    x = torch.tensor([[0.0, 0.0], [-0.0, 0.0], [1.0, 0.2], [2.0, 0.0]])
    y = torch.tensor([[0.0, 0.0], [1.0, 0.3]])
    assert float(TotalVariation().value(x, y)) == pytest.approx((0 + 0.25 + 0.25 + 0.5) / 2)
    assert float(TotalVariation(0.5).value(x, y)) == pytest.approx((0 + 0.25 + 0.25) / 2)
    assert float(TotalVariation(10.0).value(x, y)) == 0


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("tv", "tv cells")])
def test_gradients_in_points_are_those_of_finite_differences(name):
    x, y, a, b = draw(5, 4)
    x.requires_grad_()
    distance = ALL[name]
    (slope,) = torch.autograd.grad(distance.value(x, y, a, b), x)
    for i, j in ((0, 0), (3, 1)):
        step = torch.zeros_like(x)
        step[i, j] = 1e-6
        with torch.no_grad():
            apart = distance.value(x + step, y, a, b) - distance.value(x - step, y, a, b)
        assert float(slope[i, j]) == pytest.approx(float(apart) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_gradients_in_weights_tell_what_moving_mass_does(name):
    x, y, a, b = draw(5, 4)
    a.requires_grad_()
    distance = ALL[name]
    (slope,) = torch.autograd.grad(distance.value(x, y, a, b), a)
    move = torch.zeros(5, dtype=torch.float64)
    move[0], move[3] = 1e-6, -1e-6
    with torch.no_grad():
        apart = distance.value(x, y, a + move, b) - distance.value(x, y, a - move, b)
    assert float(slope[0] - slope[3]) == pytest.approx(float(apart) / 2e-6, rel=1e-5, abs=1e-8)


def test_gradients_at_equal_samples_are_finite():
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    for distance in (MMD(), EnergyDistance(), Kantorovich()):
        (slope,) = torch.autograd.grad(distance.value(x, x.detach()), x)
        assert bool(slope.isfinite().all())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda x, y: (x[:0], y), "at least one point"),
        (lambda x, y: (x, y * math.nan), "finite numbers"),
        (lambda x, y: (x, y / 0), "finite numbers"),
        (lambda x, y: (x, y * 1e200), "rescale"),
        (lambda x, y: (x, y[:, :1]), "points of one space"),
        (lambda x, y: (x[:, 0], y), "points of one space"),
        (lambda x, y: (x.long(), y), "floating"),
        (lambda x, y: (x, y, torch.full((20,), 1 / 20).index_fill(0, torch.tensor(0), -1.0)), "none below 0|sum of 1"),
        (lambda x, y: (x, y, torch.full((20,), 0.06)), "sum of 1"),
        (lambda x, y: (x, y, torch.ones(3) / 3), "one for each of"),
    ],
)
def test_bad_samples_are_refused(name, spoil, match):
    x, y, _, _ = draw()
    for call in (ALL[name].value, ALL[name].witness, ALL[name].lower_bound):
        with pytest.raises(InputError, match=match):
            call(*spoil(x, y))


def test_bad_settings_are_refused():
    for make in (
        lambda: RBF(0.0), lambda: RBF(math.nan), lambda: TotalVariation(-1.0), lambda: Kantorovich(3),
        lambda: MMD().squared(torch.zeros(2, 1), torch.ones(2, 1), estimator="u"),
        lambda: MMD().squared(torch.zeros(1, 1), torch.ones(2, 1), estimator="unbiased"),
        lambda: median_distance(torch.zeros(2, 1), torch.zeros(2, 1)),
        lambda: median_distance(torch.tensor([[0.0], [math.nan]]), torch.ones(2, 1)),
        lambda: MMD(lambda x, y: torch.cdist(x, y) / 0).value(torch.zeros(2, 1), torch.ones(2, 1)),
        lambda: gaussian_mmd_squared([0], 1, [0], 1, scale=0),
        lambda: gaussian_mmd_squared([math.nan], 1, [0], 1),
        lambda: gaussian_mmd_squared([0], math.nan, [0], 1),
        lambda: Kantorovich().value(torch.rand(700, 1), torch.rand(700, 1)),
    ):  # fmt: skip
        with pytest.raises(InputError, match="expected"):
            make()
