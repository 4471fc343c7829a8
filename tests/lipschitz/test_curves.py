"""Slopes of activations: never too narrow, and as wide as they are said to be."""

import pytest
import torch
from torch import nn

from danskin.evaluation.certify import certify
from danskin.lipschitz import product_bound, read
from danskin.lipschitz.chain import slopes_of
from danskin.lipschitz.curves import Curve
from danskin.lipschitz.kinks import spelled_out
from danskin.minmax import L2, Linf
from danskin.testing.models import seeded

MODULES = {
    "gelu": nn.GELU(), "gelu tanh": nn.GELU("tanh"), "silu": nn.SiLU(), "mish": nn.Mish(), "hardswish": nn.Hardswish(),
    "elu": nn.ELU(), "steep elu": nn.ELU(2.5), "celu": nn.CELU(0.5), "selu": nn.SELU(), "softplus": nn.Softplus(2.0),
    "log sigmoid": nn.LogSigmoid(), 
    "softshrink": nn.Softshrink(0.3), "hardsigmoid": nn.Hardsigmoid(), "hardtanh": nn.Hardtanh(-0.5, 2.0),
    "relu6": nn.ReLU6(), "leaky": nn.LeakyReLU(0.2),
    "falling leak": nn.LeakyReLU(-0.3), "steep leak": nn.LeakyReLU(3.0),
    "prelu": nn.PReLU(3), "relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
}  # fmt: skip
with torch.no_grad():
    MODULES["prelu"].weight.copy_(torch.tensor([0.5, -0.2, 1.7]))
#: To four digits, of distributions.md or closed forms: the largest absolute slope.
LARGEST = {
    "gelu": 1.1289, "silu": 1.0998, "mish": 1.0885, "hardswish": 1.5, "elu": 1.0, "steep elu": 2.5, "celu": 1.0,
    "selu": 1.7581, "softplus": 1.0, "hardsigmoid": 1 / 6, "relu6": 1.0, "falling leak": 1.0,
    "steep leak": 3.0, "prelu": 1.7, "sigmoid": 0.25,
}  # fmt: skip


def operation(name):
    return read(MODULES[name].double(), torch.zeros(1, 3, dtype=torch.float64)).nodes[-1].operation


@pytest.mark.parametrize("name", MODULES)
def test_an_activation_is_read_as_it_computes(name):
    x = torch.linspace(-8, 8, 999, dtype=torch.float64).view(-1, 3)
    network = read(MODULES[name].double(), x)
    torch.testing.assert_close(network(x), MODULES[name](x).detach(), rtol=1e-12, atol=1e-8)
    torch.testing.assert_close(spelled_out(network)(x), network(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_slope_is_the_known_one(name):
    assert product_bound(MODULES[name].double(), (3,)).value == pytest.approx(LARGEST[name], abs=6e-5)


INTERVALS = [(low, low + width) for low in (-5.0, -2.0, -0.9, -0.1, 0.0, 0.7, 2.2) for width in (0.01, 0.4, 1.9, 6.0)]


@pytest.mark.parametrize("name", MODULES)
def test_quotients_over_an_interval_are_within_its_slopes_and_values_within_its_range(name):
    activation = operation(name)
    for low, high in INTERVALS:
        x = torch.linspace(low, high, 201, dtype=torch.float64)[:, None].expand(-1, 3)
        y = activation.apply(x)
        quotients = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
        least, most = slopes_of(activation, x[0], x[-1])
        assert bool((quotients.amin(0) >= least - 1e-9).all()) and bool((quotients.amax(0) <= most + 1e-9).all())
        if isinstance(activation, Curve):
            bottom, top = activation.range(x[:1], x[-1:])
            assert bool((y >= bottom - 1e-13).all()) and bool((y <= top + 1e-13).all())


def test_slopes_are_narrow_where_the_curve_is_nearly_straight():
    low, high = torch.tensor([4.0, -9.0, -0.1]).double().split(1), torch.tensor([5.0, -6.0, 0.1]).double().split(1)
    (a, b), (c, d), (e, f) = (slopes_of(operation("gelu"), lo, hi) for lo, hi in zip(low, high, strict=True))
    assert (
        0.999 < float(a) <= float(b) < 1.001 and -1e-3 < float(c) <= float(d) < 1e-3 and 0.4 < float(e) < float(f) < 0.6
    )


@pytest.mark.parametrize(
    "name", ["gelu", "silu", "mish", "hardswish", "steep elu", "softplus", "falling leak", "relu6"]
)
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.2)], ids=str)
def test_certified_margins_are_below_sampled_ones(name, ball):
    model = seeded(nn.Sequential(nn.Linear(3, 8), MODULES[name], nn.Linear(8, 3)), 4, 2.0) if name != "prelu" else None
    random = torch.Generator().manual_seed(0)
    x = torch.rand(6, 3, generator=random)
    y = model(x).argmax(1).detach()
    for method in ("ibp", "crown", "alpha-crown"):
        found = certify(model, (x, y), ball, method=method, box=None)
        delta = torch.randn(500, 3, generator=random)
        delta = ball.project(delta) if ball.order == 2 else delta.clamp(-0.1, 0.1)
        with torch.no_grad():
            z = model(x[:, None] + delta)
        own = z.gather(2, y[:, None, None].expand(-1, 500, 1))[..., 0]
        others = z.scatter(2, y[:, None, None].expand(-1, 500, 1), -torch.inf).amax(2)
        assert bool((found.margin <= (own - others).amin(1) + 1e-5).all())
        assert method == "ibp" or bool((found.margin > (own - others).amin(1) - 3.0).all())


def test_mobile_networks_pay_nothing_for_relu6():
    plain, capped = (nn.Sequential(nn.Linear(4, 4), f, nn.Linear(4, 2)) for f in (nn.ReLU(), nn.ReLU6()))
    capped.load_state_dict(plain.state_dict())
    assert product_bound(capped, (4,)).value == pytest.approx(product_bound(plain, (4,)).value)
