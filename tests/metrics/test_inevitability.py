"""The bounds against scipy, against classifiers that attain them, and against simulation."""

import math

import pytest
import torch

from danskin.errors import InputError
from danskin.metrics.inevitability import cap_measure, cube_bound, sphere_bound

special = pytest.importorskip("scipy.special")
stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("d", [2, 3, 4, 10, 101, 3072])
def test_caps_against_the_incomplete_beta_function(d):
    for angle in (0.0, 0.05, 0.5, 1.2, 1.55, math.pi / 2, 2.0, 3.1, math.pi):
        half = special.betainc((d - 1) / 2, 0.5, math.sin(angle) ** 2) / 2
        assert cap_measure(d, angle) == pytest.approx(half if angle <= math.pi / 2 else 1 - half, rel=1e-8, abs=1e-280)


@pytest.mark.parametrize("d", [2, 3, 20, 300])
@pytest.mark.parametrize("eps", [0.0, 0.02, 0.2, 0.7])
def test_a_half_space_attains_the_bound_on_the_sphere(d, eps):
    # uniform on the half <x, u> > 0, classified by it: adversarial where the angle to the equator is at most eps
    exact = 1 - special.betainc((d - 1) / 2, 0.5, math.cos(eps) ** 2)
    assert sphere_bound(d, eps, density=2) == pytest.approx(exact, abs=1e-9)


def test_a_cap_attains_the_bound_for_its_share():
    d, edge, eps = 12, 1.3, 0.15
    share = cap_measure(d, edge)
    exact = 1 - cap_measure(d, edge - eps) / share
    assert sphere_bound(d, eps, density=1 / share, share=share) == pytest.approx(exact, abs=1e-9)
    assert sphere_bound(d, 2.0, share=share) == 1


def test_the_sphere_by_simulation():
    x = torch.randn(40_000, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    to_equator = torch.asin(x[:, 0].abs() / x.norm(dim=1))
    assert sphere_bound(15, 0.2, density=2) == pytest.approx((to_equator <= 0.2).double().mean().item(), abs=0.01)


def test_the_published_closed_forms():
    value = 1 - 2 * math.sqrt(math.pi / 8) * math.exp(-99 / 2 * 0.3**2)
    assert sphere_bound(100, 0.3, density=2, form="closed") == pytest.approx(value)
    value = 1 - 3 * math.exp(-math.pi * 0.64) / (2 * math.pi * 0.8)
    assert cube_bound(50, 0.8, density=3, form="closed") == pytest.approx(value)
    d, eps = 50, 6.0  # l1: the exponent is pi eps^2 / d, the divisor 2 pi eps / sqrt(d)
    value = 1 - math.exp(-math.pi * eps**2 / d) / (2 * math.pi * eps / math.sqrt(d))
    assert cube_bound(d, eps, order=1, form="closed") == pytest.approx(value)


@pytest.mark.parametrize("d", [2, 3, 7, 50, 1000])
def test_closed_forms_are_weaker_and_the_sphere_holds_with_one_half(d):
    for eps in (0.001, 0.01, 0.1, 0.3, 0.7, 1.2, 1.5):
        assert sphere_bound(d, eps, form="closed") <= sphere_bound(d, eps) + 1e-12
        assert cube_bound(d, eps, form="closed") <= cube_bound(d, eps) + 1e-12
        assert cap_measure(d, math.pi / 2 - eps) <= 0.5 * math.exp(-(d - 1) * eps**2 / 2) + 1e-12


def test_the_cube_against_half_spaces():
    # x1 > 1/2: adversarial within eps on a share of 2 eps, which is what the bound promises for small eps
    assert cube_bound(9, 0.001, density=2) == pytest.approx(0.002, rel=1e-5)
    for eps in (0.01, 0.1, 0.3, 0.5):
        assert cube_bound(9, eps, density=2) <= 2 * eps
    # sum x > d/2, by simulation, in three norms
    d = 30
    lead = (torch.rand(40_000, d, generator=torch.Generator().manual_seed(0)) - 0.5).sum(1).abs()
    for order, dual in ((1, 1.0), (2, math.sqrt(d)), (math.inf, d)):
        for eps in (0.05, 0.3, 1.0, 3.0):
            measured = (lead / dual <= eps).double().mean().item()
            assert cube_bound(d, eps, density=2, order=order) <= measured + 0.01, (order, eps)


def test_the_cube_is_the_gaussian_half_space_pushed_forward():
    for share in (0.5, 0.2):
        wanted = 1 - 1.7 * stats.norm.cdf(stats.norm.ppf(share) - math.sqrt(2 * math.pi) * 0.4)
        assert cube_bound(5, 0.4, density=1.7, share=share) == pytest.approx(wanted)
    assert cube_bound(5, 0.4, order=4) == cube_bound(800, 0.4)


def test_bounds_grow_with_dimension_and_radius_and_fall_with_density():
    by_dimension = [sphere_bound(d, 0.3, density=2) for d in (2, 5, 20, 100)]
    assert by_dimension == sorted(by_dimension) and by_dimension[0] < 0.3 and by_dimension[-1] > 0.99
    assert cube_bound(9, 0.2) < cube_bound(9, 0.4) and cube_bound(9, 0.4, density=3) < cube_bound(9, 0.4)
    assert sphere_bound(5, 0.01, density=4) == 0 == cube_bound(5, 0, density=4, form="closed")


@pytest.mark.parametrize(
    "call",
    [
        lambda: sphere_bound(1, 0.1),
        lambda: sphere_bound(1, 0.1, form="closed"),
        lambda: sphere_bound(5, -0.1),
        lambda: sphere_bound(5, 0.1, density=0),
        lambda: sphere_bound(5, 0.1, share=0.6),
        lambda: sphere_bound(5, 0.1, form="paper"),
        lambda: cube_bound(5, 0.1, order=0.5),
        lambda: cube_bound(0, 0.1),
        lambda: cap_measure(4, 4.0),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(InputError, match="expected"):
        call()
