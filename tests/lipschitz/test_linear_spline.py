"""Learnable linear splines: slopes in [-1, 1] whatever the optimiser does, and the functions they start as."""

import pytest
import torch

from danskin.errors import InputError
from danskin.evaluation.certify import certify
from danskin.lipschitz import product_bound, read
from danskin.lipschitz.layers import LinearSpline, OrthogonalLinear
from danskin.lipschitz.operations import Spline


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_slopes_hold_exactly_after_a_thousand_random_steps(dtype):
    torch.manual_seed(0)
    spline = LinearSpline(4, knots=21, reach=0.5, init="maxmin").to(dtype)
    optimizer = torch.optim.Adam(spline.parameters(), lr=0.05)
    x = torch.randn(64, 4, dtype=dtype)
    for _ in range(1000):
        optimizer.zero_grad()
        (spline(x) * torch.randn(64, 4, dtype=dtype)).sum().backward()
        optimizer.step()
    spline.requires_grad_(False)
    assert spline.lipschitz <= 1.0  # not 1 + eps
    assert float((spline.values.diff(dim=1) / spline.step).abs().max()) > 1.5, "the parameters themselves did break it"
    if dtype == torch.float64:
        a = 3 * torch.randn(100_000, 4, dtype=dtype)
        b = a + 10.0 ** (-3 * torch.rand(100_000, 4, dtype=dtype))
        assert float(((spline(a) - spline(b)).abs() / (a - b).abs()).max()) <= 1 + 1e-11
        assert product_bound(spline, (4,)).value <= 1.0


@pytest.mark.parametrize(
    ("init", "function"),
    [
        ("identity", lambda x: x),
        ("relu", torch.relu),
        ("abs", torch.abs),
        ("maxmin", lambda x: torch.stack([x[:, 0].abs(), x[:, 1], x[:, 2].abs(), x[:, 3]], 1)),
    ],
)
def test_starts_are_the_named_functions_also_outside_the_knots(init, function):
    x = 4 * torch.randn(200, 4, dtype=torch.float64)
    spline = LinearSpline(4, init=init).double()
    assert torch.allclose(spline(x), function(x), atol=1e-6)
    assert spline.lipschitz <= 1


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    spline = LinearSpline(3, knots=6, init="abs").double()
    with torch.no_grad():
        spline.values.add_(0.1 * torch.randn_like(spline.values))
        spline.log_alpha.normal_()
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)

    def output(x, values, log_alpha):
        return torch.func.functional_call(spline, {"values": values, "log_alpha": log_alpha}, (x,))

    assert torch.autograd.gradcheck(output, (x, spline.values, spline.log_alpha))


def test_scaling_moves_knots_and_no_slope():
    spline = LinearSpline(2, init="relu")
    with torch.no_grad():
        spline.log_alpha.fill_(2.0)
    x = torch.linspace(-3, 3, 50)[:, None].expand(-1, 2)
    assert torch.allclose(spline(x), x.relu(), atol=1e-6)
    assert spline.lipschitz <= 1


@torch.no_grad()
def test_second_order_variation_counts_kinks():
    assert float(LinearSpline(3, init="identity").tv2()) == pytest.approx(0, abs=1e-4)
    assert float(LinearSpline(3, init="abs").tv2()) == pytest.approx(6, rel=1e-4)
    assert float(LinearSpline(3, init="relu").tv2()) == pytest.approx(3, rel=1e-4)


def test_the_grid_moves_and_is_saved_with_the_layer():
    spline = LinearSpline(2, reach=0.3).double()
    assert spline.grid.dtype == torch.float64 and "grid" in spline.state_dict()


def test_nan_and_infinity_pass_through_as_such():
    spline = LinearSpline(1, init="abs")
    out = spline(torch.tensor([[float("nan")], [float("inf")], [1.0]]))
    assert out[0].isnan() and out[1].isinf() and out[2] == 1


def test_networks_with_splines_are_certified_by_intervals_and_constants():
    torch.manual_seed(0)
    net = torch.nn.Sequential(OrthogonalLinear(4, 6), LinearSpline(6, init="maxmin"), OrthogonalLinear(6, 3))
    with torch.no_grad():
        net[1].values.add_(0.2 * torch.randn_like(net[1].values))
    x = torch.rand(20, 4)
    y = net(x).argmax(1)
    for ball in ("l2:0.05", "linf:0.02"):
        found = certify(net, (x, y), ball)
        moved = x[:, None] + (torch.rand(20, 500, 4) - 0.5) * (0.04 if ball.startswith("linf") else 0.0499)
        logits = net(moved.clamp(0, 1).flatten(0, 1)).view(20, 500, 3)
        margin = logits.gather(2, y.view(-1, 1, 1).expand(-1, 500, 1)).squeeze(2)
        others = logits.scatter(2, y.view(-1, 1, 1).expand(-1, 500, 1), -torch.inf).amax(2)
        assert (found.margin <= (margin - others).amin(1)).all()
    assert certify(net, (x, y), "l2:0.05").certified.any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"knots": 1}, "knots: expected at least 2"),
        ({"knots": 2.5}, "knots: expected a whole number"),
        ({"reach": 0.0}, "positive"),
        ({"reach": float("inf")}, "positive"),
        ({"init": "tanh"}, "expected one of"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(InputError, match=said):
        LinearSpline(2, **arguments)
    with pytest.raises(InputError, match="2 channels"):
        LinearSpline(2)(torch.zeros(1, 3))
    with pytest.raises(InputError, match="dimension 2 of channels"):
        LinearSpline(2, dim=2)(torch.zeros(1, 2))


def test_the_range_of_a_spline_over_an_interval_is_that_of_many_points():
    torch.manual_seed(1)
    spline = LinearSpline(3, knots=9, reach=1.0, init="abs").double()
    with torch.no_grad():
        spline.values.add_(torch.randn_like(spline.values))
        spline.log_alpha.copy_(torch.tensor([-0.5, 0.0, 0.7]))
    operation = next(
        n.operation for n in read(spline, torch.zeros(1, 3).double()).nodes if isinstance(n.operation, Spline)
    )
    low = torch.randn(50, 3, dtype=torch.float64)
    high = low + 2 * torch.rand(50, 3, dtype=torch.float64)
    least, most = operation.range(low, high)
    share = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None, None]
    with torch.no_grad():
        seen = torch.stack([spline(row) for row in low + share * (high - low)])
    assert (least <= seen.amin(0) + 1e-12).all() and (most >= seen.amax(0) - 1e-12).all()
    assert torch.allclose(least, seen.amin(0), atol=2e-3) and torch.allclose(most, seen.amax(0), atol=2e-3)
