"""m-sharpness and loss surfaces: closed forms of linear and quadratic losses, invariances, model left as found."""

import copy
import math

import pytest
import torch
from torch import nn

from danskin.errors import InputError
from danskin.losses import cross_entropy
from danskin.metrics.surface import filter_direction, loss_line, loss_plane
from danskin.metrics.weight_sharpness import m_sharpness

N, D = 24, 5


def regression(seed=0):
    """A linear model without bias, inputs, and signs as labels."""
    g = torch.Generator().manual_seed(seed)
    model = nn.Linear(D, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, D, generator=g, dtype=torch.float64))
    x = torch.randn(N, D, generator=g, dtype=torch.float64)
    return model, x, torch.where(torch.rand(N, generator=g) < 0.5, 1, -1)


def network(*, norm=False, seed=0):
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layers = [nn.Linear(D, 7, bias=False), *([nn.BatchNorm1d(7)] if norm else []), nn.ReLU(), nn.Linear(7, 3)]
    x = torch.randn(N, D, generator=g, dtype=torch.float64)
    return nn.Sequential(*layers).double(), x, torch.randint(3, (N,), generator=g)


def worst_on_quadratic(h, g, radius):
    """Max over |v| <= radius of <g, v> + v'Hv/2, H >= 0: (mu I - H) v = g with |v| = radius, by bisection."""
    values, q = torch.linalg.eigh(h)
    b = q.T @ g
    low, high = values[-1].item(), values[-1].item() + 10 * g.norm().item() / radius
    for _ in range(200):
        mu = (low + high) / 2
        low, high = (mu, high) if (b / (mu - values)).norm() > radius else (low, mu)
    v = q @ (b / (high - values))
    return (g @ v + v @ h @ v / 2).item()


@pytest.mark.parametrize("m", [1, 4, N])
def test_where_the_loss_is_linear_sharpness_is_radius_times_the_length_of_the_group_gradients(m):
    model, x, y = regression()
    with torch.no_grad():
        model.weight.zero_()
    x = x / 100  # so that no example of the hinge leaves its linear part
    found = m_sharpness(model, x, y, 0.5, m, loss="hinge", seed=3)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    pulls = (-y[:, None] * x)[order].view(N // m, m, D).mean(1)
    torch.testing.assert_close(found.rises, 0.5 * pulls.norm(dim=1), rtol=1e-9, atol=0)
    assert found.value == pytest.approx(0.5 * pulls.norm(dim=1).mean().item())


def test_one_step_is_the_loss_at_the_normalised_gradient():
    model, x, y = network()
    loss = cross_entropy(model(x), y).mean()
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    length = torch.cat([s.reshape(-1) for s in slopes]).norm()
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p, s in zip(moved.parameters(), slopes, strict=True):
            p.add_(0.1 * s / length)
    wanted = cross_entropy(moved(x), y).mean() - loss
    assert m_sharpness(model, x, y, 0.1, N).value == pytest.approx(wanted.item(), rel=1e-9)


@pytest.mark.parametrize("radius", [0.1, 1.0])
def test_many_steps_reach_the_worst_shift_of_a_quadratic_and_never_exceed_it(radius):
    model, x, y = regression()
    h, residual = 2 * x.T @ x / N, (x @ model.weight.detach()[0]) - y
    wanted = worst_on_quadratic(h, 2 * x.T @ residual / N, radius)
    found = [m_sharpness(model, x, y, radius, N, steps=s, loss="squared").value for s in (1, 3, 20, 200)]
    assert found == sorted(found)
    assert all(value <= wanted + 1e-12 for value in found)
    assert found[-1] == pytest.approx(wanted, rel=1e-3)
    assert found[0] < found[1]


def test_small_groups_are_sharper():
    model, x, y = network()
    values = [m_sharpness(model, x, y, 0.05, m).value for m in (1, 4, N)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("steps", [1, 5])
def test_adaptive_sharpness_does_not_change_when_layers_trade_scale(steps):
    model, x, y = network()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(8)
        other[2].weight.div_(8)
    torch.testing.assert_close(other(x), model(x))
    options = {"radius": 1.0, "m": 8, "steps": steps}
    one = m_sharpness(model, x, y, adaptive=True, **options).value
    assert steps == 1 or one > m_sharpness(model, x, y, 1.0, 8, adaptive=True).value * 1.001
    assert m_sharpness(other, x, y, adaptive=True, **options).value == pytest.approx(one, rel=1e-9)
    assert m_sharpness(other, x, y, **options).value != pytest.approx(
        m_sharpness(model, x, y, **options).value, rel=0.1
    )


def test_batches_change_nothing_and_a_remainder_is_counted():
    model, x, y = network()
    whole = m_sharpness(model, x, y, 0.1, 10)
    pieces = m_sharpness(model, x, y, 0.1, 10, batch_size=3)
    torch.testing.assert_close(whole.rises, pieces.rises, rtol=1e-9, atol=1e-12)
    assert (len(whole.rises), whole.left_out) == (2, 4)
    assert "at least" in str(whole)


def test_where_the_step_overshoots_the_rise_is_that_of_no_shift_and_not_negative():
    class Wave(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.1 - math.pi / 2))

        def forward(self, x):
            return self.w.sin() * x

    x, y = (
        torch.ones(2, 1),
        torch.tensor([1, 1]),
    )  # the loss 1 - sin(w) is near its top, and half a turn away at its least
    assert m_sharpness(Wave(), x, y, math.pi, 2, loss="hinge").value == 0
    assert m_sharpness(Wave(), x, y, 0.1, 2, loss="hinge").value == pytest.approx(1 - math.cos(0.1), rel=1e-3)


def test_weights_and_buffers_come_back_bit_for_bit_also_after_an_error():
    model, x, y = network(norm=True)
    model.train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    m_sharpness(model, x, y, 0.3, 6, steps=3)
    loss_line(model, x, y, points=3)
    calls = []

    def broken(inputs):
        calls.append(1)
        if len(calls) > 1:
            raise KeyError("broken")
        return model(inputs)

    with pytest.raises(KeyError):
        m_sharpness(broken, x, y, 0.3, N)
    assert model.training
    assert len(calls) == 2
    for n, t in model.state_dict().items():
        assert torch.equal(t, before[n]), n


@pytest.mark.parametrize(
    ("options", "told"),
    [({"radius": 0}, "radius"), ({"radius": -1}, "radius"), ({"radius": torch.tensor([0.1, 0.2])}, "radius"),
     ({"m": 0}, "m: "), ({"m": N + 1}, "m: "), ({"steps": 0}, "steps: ")],
)  # fmt: skip
def test_bad_settings_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        m_sharpness(*regression(), loss="squared", **options)


# --- surfaces -----------------------------------------------------------------------------------------------


def test_every_filter_of_a_direction_is_as_long_as_that_of_the_weights():
    torch.manual_seed(0)
    weights = (nn.Conv2d(3, 4, 3).weight, nn.Linear(6, 2).weight, nn.Linear(6, 2).bias)
    way = filter_direction(weights, torch.Generator().manual_seed(0))
    conv, matrix, bias = way.split([108, 12, 2])
    torch.testing.assert_close(conv.view(4, 27).norm(dim=1), weights[0].detach().double().view(4, 27).norm(dim=1))
    torch.testing.assert_close(matrix.view(2, 6).norm(dim=1), weights[1].detach().double().norm(dim=1))
    assert bias.eq(0).all()


def test_a_line_through_a_quadratic_is_its_parabola():
    model, x, y = regression()
    found = loss_line(model, x, y, span=2, points=5, draws=3, loss="squared", seed=4)
    dice, w = torch.Generator().manual_seed(4), model.weight.detach()[0]
    for row in found.loss:
        way = filter_direction((model.weight,), dice)
        wanted = [((x @ (w + a * way) - y) ** 2).mean() for a in (-2, -1, 0, 1, 2)]
        torch.testing.assert_close(row, torch.stack(wanted), rtol=1e-9, atol=0)
    assert found.at.tolist() == [-2, -1, 0, 1, 2]


def test_a_plane_has_the_line_in_its_middle_column_and_the_loss_in_its_middle():
    model, x, y = network()
    plane = loss_plane(model, x, y, span=0.5, points=5, seed=1)
    line = loss_line(model, x, y, span=0.5, points=5, seed=1)
    torch.testing.assert_close(plane.loss[:, 2], line.loss[0])
    assert plane.loss[2, 2].item() == pytest.approx(cross_entropy(model(x), y).mean().item())
    assert not torch.allclose(plane.loss, plane.loss.T)


def test_lines_do_not_change_when_layers_trade_scale():
    model, x, y = network()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(8)
        other[2].weight.div_(8)
    torch.testing.assert_close(loss_line(other, x, y).loss, loss_line(model, x, y).loss)


@pytest.mark.parametrize(
    ("options", "told"), [({"points": 4}, "odd"), ({"points": 1}, "points"), ({"span": 0}, "span"),
                          ({"span": math.inf}, "span"), ({"draws": 0}, "draws")]
)  # fmt: skip
def test_bad_grids_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        loss_line(*network(), **options)
