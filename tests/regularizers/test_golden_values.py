"""Values on a quadratic that were worked out by hand, and closed forms on quadratic and affine losses."""

import pytest
import torch
from torch import nn

from danskin.minmax import L1, L2, Linf
from danskin.regularizers import CURE, ELLE, LLR, REGULARIZERS, GradAlign, LLRRandom
from danskin.regularizers.cure import gradient_change
from danskin.regularizers.elle import interpolation_error
from danskin.regularizers.gradalign import misalignment
from danskin.regularizers.llr import linearization_error

H = torch.tensor([[2, 0.5], [0.5, 1]], dtype=torch.float64)
G = torch.tensor([0.3, -0.7], dtype=torch.float64)
A = torch.tensor([[0.2, -0.1]], dtype=torch.float64)
B = torch.tensor([[-0.4, 0.5]], dtype=torch.float64)
BALLS = [Linf(0.3), L2(0.3), L1(0.3)]


def value(at):
    return ((at @ H) * at).sum(1) / 2 + at @ G


def slope(at):
    return at @ H + G


def batch(n=5, d=4):
    return torch.rand(n, d, dtype=torch.float64), torch.ones(n, dtype=torch.int64)


def test_the_interpolation_error():
    t = torch.tensor([0.3], dtype=torch.float64)
    e = interpolation_error(value(A), value(B), value(0.7 * A + 0.3 * B), t)
    assert e.item() == pytest.approx(-0.0756, abs=1e-12)
    assert e.item() ** 2 == pytest.approx(0.00571536, abs=1e-12)


def test_the_linearization_error():
    assert linearization_error(value(B), value(A), slope(A), B - A).item() == pytest.approx(0.36, abs=1e-12)


def test_the_misalignment():
    assert misalignment(slope(A), slope(B)).item() == pytest.approx(0.7392307, abs=5e-8)


def test_the_gradient_change():
    assert gradient_change(slope(A), slope(B)).item() == pytest.approx(0.9486833, abs=5e-8)


def test_elle_on_a_quadratic_is_the_mean_over_t_of_the_closed_form(quadratic):
    """E over t of e^2 = E[((a - b)' H (a - b))^2] / 120; both sides over the draws of many equal examples."""
    model, ball = quadratic(), Linf(0.3)
    x, y = batch(1)
    x, y, n = x.repeat(40_000, 1), y.repeat(40_000), 40_000
    x = x + 1e-3 * torch.randn_like(x)  # equal examples would share their draws
    found = ELLE(ball, loss="raw").values(model, x, y).detach()
    a, b = (torch.rand(2, n, 4, dtype=torch.float64) * 2 - 1) * 0.3
    expected = (((a - b) @ model.H.detach()) * (a - b)).sum(1) ** 2 / 120
    error = (found.var() / n + expected.var() / n) ** 0.5
    assert (found.mean() - expected.mean()).abs() < 4 * error
    assert 4 * error < 0.1 * expected.mean()


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_cure_on_a_quadratic_is_the_length_of_hz(quadratic, ball):
    model = quadratic()
    x, y = batch()
    z = ball.steepest(x @ model.H.detach() + model.g.detach())
    z = z / z.norm(dim=1, keepdim=True)
    expected = 0.7 * (z @ model.H.detach()).norm(dim=1)
    found = CURE(ball, h=0.7, loss="raw").values(model, x, y)
    torch.testing.assert_close(found.detach(), expected**2, atol=1e-10, rtol=1e-10)
    released = CURE(ball, h=0.7, loss="raw", quirks="released").values(model, x, y)
    torch.testing.assert_close(released.detach(), expected / len(x), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_cure_without_h_looks_at_the_end_of_the_ball(quadratic, ball):
    model = quadratic()
    x, y = batch()
    shift = ball.lmo(x @ model.H.detach() + model.g.detach())
    found = CURE(ball, loss="raw").values(model, x, y)
    torch.testing.assert_close(found.detach(), (shift @ model.H.detach()).norm(dim=1) ** 2, atol=1e-10, rtol=1e-10)


def test_llr_on_a_quadratic_finds_the_largest_gap(quadratic):
    """For a positive definite H the largest gap is at a corner of the cube: look at all of them."""
    M = torch.randn(4, 4, dtype=torch.float64)
    model = quadratic(M @ M.T + 0.1 * torch.eye(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64))
    x, y = batch(1)
    x = x + torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]  # thirty searches of the same answer
    corners = 0.3 * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    gaps = ((corners @ model.H.detach()) * corners).sum(1) / 2
    found = LLR(Linf(0.3), mu=0.0, loss="raw").values(model, x, y.repeat(30)).detach()
    assert bool((found <= gaps.max() + 1e-12).all())
    assert found.max().item() == pytest.approx(gaps.max().item(), rel=1e-10)


def test_llr_in_an_l2_ball_is_the_largest_eigenvalue(quadratic):
    M = torch.randn(4, 4, dtype=torch.float64)
    model = quadratic(M @ M.T, torch.zeros(4, dtype=torch.float64))
    x, y = batch()
    found = LLR(L2(0.3), mu=0.0, steps=300, step="radius", loss="raw").values(model, x, y).detach()
    top = torch.linalg.eigvalsh(model.H.detach())[-1] * 0.3**2 / 2
    torch.testing.assert_close(found, top.expand(5), atol=1e-6, rtol=1e-4)


def test_llr_bounds_the_worst_loss(smooth):
    """L(x + d) <= L(x) + gamma + |<d, grad L(x)>| at the maximiser found."""
    s = smooth()
    whole = LLR(Linf(0.1), weight=1.0, mu=1.0).values(s.net, s.x, s.y)
    gap = LLR(Linf(0.1), weight=1.0, mu=0.0).values(s.net, s.x, s.y)
    heavy = LLR(Linf(0.1), weight=2.0, mu=6.0).values(s.net, s.x, s.y)
    assert bool((whole > gap).all())
    torch.testing.assert_close(heavy - gap, 3 * (whole - gap))


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_an_affine_loss_costs_nothing(quadratic, name, ball):
    model = quadratic(torch.zeros(4, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64))
    options = {"mu": 0.0} if name == "llr" else {}
    found = REGULARIZERS[name](ball, loss="raw", **options).values(model, *batch())
    assert found.abs().max() < 1e-12


def test_gradalign_of_binary_linear_logits_is_zero():
    """The loss bends, but its gradient keeps its direction."""
    x, y = batch(8)
    for model, loss, labels in (
        (nn.Linear(4, 1).double(), "logistic", y * torch.tensor([1, -1] * 4)),
        (nn.Linear(4, 2).double(), "cross_entropy", torch.arange(8) % 2),
    ):
        assert GradAlign(Linf(0.5), loss=loss).values(model, x, labels).abs().max() < 1e-12
        assert ELLE(Linf(0.5), loss=loss).values(model, x, labels).min() > 0


def test_gradients_of_zero_count_zero_and_break_nothing():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = torch.rand(6, 4, dtype=torch.float64), torch.arange(6) % 3
    net[0].bias.data.fill_(-100)
    x[0] = 300 * net[0].weight.data[0].sign()  # the only one with an active neuron
    for term in (GradAlign(Linf(0.1)), GradAlign(Linf(0.1), detach=False), CURE(Linf(0.1)), CURE(Linf(0.1), h=1.0)):
        values = term.values(net, x, y)
        assert values[1:].abs().max() == 0
        for g in torch.autograd.grad(values.sum(), list(net.parameters()), allow_unused=True):
            assert g is None or bool(g.isfinite().all())


def test_llr_random_released_compares_with_a_linear_term_too_small(quadratic):
    """With gradients of the mean loss and a batch so large that they vanish, (L(b) - L(a))^2 is left."""
    model = quadratic(torch.zeros(4, 4, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
    x, y = batch(50)
    right = LLRRandom(Linf(0.3), loss="raw").values(model, x, y)
    released = LLRRandom(Linf(0.3), loss="raw", quirks="released").values(model, x, y)
    assert right.max() < 1e-20
    assert released.mean() > 1e-2
