"""Penalties on slopes: per example, over all dimensions, in any dual norm, safe at 0; the defects of public code."""

import math

import pytest
import torch
from torch import nn

from danskin.errors import InputError, ModelError
from danskin.gan import R1R2, GradientPenalty, Unconstrained, WeightClip, dual, input_gradients, row_norms, scores


class Linear(nn.Module):
    """s(x) = <w, x>."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return x.flatten(1) @ self.w


def images(n=8, seed=0):
    return torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [1, 1.5, 2, 4, math.inf])
def test_the_penalty_of_a_linear_critic_is_that_of_the_dual_norm(p):
    w = torch.randn(48, dtype=torch.float64)
    x, z = images().double(), images(seed=1).double()
    found = GradientPenalty(10, norm=p).penalty(Linear(w), x, z)
    q = {1: math.inf, math.inf: 1}.get(p, p / (p - 1) if p not in (1, math.inf) else None)
    size = float(torch.linalg.vector_norm(w, q))
    assert found.value.item() == pytest.approx(10 * (size - 1) ** 2, rel=1e-12)
    assert torch.allclose(found.norms, torch.full((8,), size, dtype=torch.float64))


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_a_translation_is_worth_its_length_in_the_data_norm(p):
    """sup <w, d> over dual norm 1 is |d|_p: what a linear critic at the penalty's optimum earns."""
    d = torch.tensor([0.3, -1.2, 0.5], dtype=torch.float64)
    w = {1: d.sign(), 2: d / d.norm(), math.inf: torch.tensor([0, -1.0, 0]).double()}[p]
    assert float(torch.linalg.vector_norm(w, dual(p))) == pytest.approx(1)
    assert float(w @ d) == pytest.approx(float(torch.linalg.vector_norm(d, p)), rel=1e-12)
    assert GradientPenalty(1, norm=p).penalty(Linear(w), d[None], 0 * d[None]).value.item() < 1e-20


def test_norms_are_each_examples_own_over_all_dimensions_where_public_code_has_batch_or_pixel_norms():
    w = torch.ones(48, dtype=torch.float64) / math.sqrt(48)  # every example's slope is 1
    x = images(64).double()
    gradients = input_gradients(Linear(w), x, differentiable=False)
    assert GradientPenalty(1).penalty(Linear(w), x, x).value.item() < 1e-20
    assert float((gradients.norm() - 1) ** 2) == pytest.approx(49)  # of the whole batch (torchgan): (8 - 1)^2
    assert float((gradients.norm(2, dim=1) - 1).square().mean()) > 0.5  # of a pixel's channels (wgan-gp of caogang)


def test_every_example_has_a_random_place_of_its_own_on_its_line_and_pixels_share_it():
    seen = []

    def critic(a):
        seen.append(a.detach())
        return a.flatten(1).sum(1)

    x, z = torch.ones(64, 3, 4, 4), torch.zeros(64, 3, 4, 4)
    GradientPenalty(1).penalty(critic, x, z, generator=torch.Generator().manual_seed(0))
    places = seen[0].flatten(1)
    assert (places == places[:, :1]).all() and len(places[:, 0].unique()) == 64
    assert 0 <= places.min() < 0.1 and 0.9 < places.max() <= 1


@pytest.mark.parametrize("q", [1, 1.5, 2, 3, math.inf])
def test_a_slope_of_zero_gives_finite_second_gradients(q):
    critic = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        critic[0].bias.fill_(-100)  # every unit is off: the slope is 0
    norm = {1: math.inf, math.inf: 1}.get(q, q / (q - 1) if q not in (1, math.inf) else 2)
    found = GradientPenalty(10, norm=norm).penalty(critic, torch.randn(5, 3), torch.randn(5, 3))
    assert found.value.item() == 10
    for g in torch.autograd.grad(found.value, critic.parameters(), allow_unused=True):
        assert g is None or g.isfinite().all()


@pytest.mark.parametrize("q", [1, 1.5, 2, 3, math.inf])
def test_row_norms_are_those_of_torch_with_their_gradient(q):
    g = torch.randn(6, 2, 5, dtype=torch.float64, requires_grad=True)
    theirs = torch.linalg.vector_norm(g.flatten(1), q, dim=1)
    assert torch.allclose(row_norms(g, q), theirs)
    ours, other = (torch.autograd.grad(t.sum(), g)[0] for t in (row_norms(g, q), theirs))
    assert torch.allclose(ours, other)
    assert row_norms(torch.full((1, 4), 1e-15), q).item() == pytest.approx(4 ** (1 / q) * 1e-15, rel=1e-5)


def test_the_penalty_is_the_derivative_of_a_finite_difference_in_the_weights():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    x, z = torch.randn(7, 4).double(), torch.randn(7, 4).double()

    def value():
        return GradientPenalty(3, norm=4).penalty(critic, x, z, generator=torch.Generator().manual_seed(1)).value

    w = critic[0].weight
    exact = torch.autograd.grad(value(), w)[0][2, 1]
    h = 1e-6
    with torch.no_grad():
        w[2, 1] += h
        above = value()
        w[2, 1] -= 2 * h
        below = value()
    assert float((above - below) / (2 * h)) == pytest.approx(float(exact), rel=1e-6)


def test_one_sided_penalties_leave_flat_critics_alone():
    x = torch.randn(5, 4)
    flat, steep = Linear(torch.full((4,), 0.1)), Linear(torch.full((4,), 1.0))
    assert GradientPenalty(1, sided="one").penalty(flat, x, x).value.item() == 0
    assert GradientPenalty(1).penalty(flat, x, x).value.item() == pytest.approx(0.64)
    assert GradientPenalty(1, sided="one").penalty(steep, x, x).value.item() == pytest.approx(1)


@pytest.mark.parametrize("where", ["interpolation", "data", "fake", "ball"])
def test_slopes_are_looked_at_where_it_is_said(where):
    seen = []

    def critic(a):
        seen.append(a.detach())
        return a.sum(1)

    x, z = torch.zeros(500, 2), torch.full((500, 2), 10.0)
    GradientPenalty(1, where=where, radius=0.5).penalty(critic, x, z, generator=torch.Generator().manual_seed(0))
    (points,) = seen
    if where in ("data", "fake"):
        assert torch.equal(points, x if where == "data" else z)
    elif where == "ball":
        lengths = points.norm(dim=1)
        assert lengths.max() <= 0.5 and float((lengths < 0.25).float().mean()) == pytest.approx(0.25, abs=0.06)
    else:
        assert torch.allclose(points[:, 0], points[:, 1]) and float(points.mean()) == pytest.approx(5, abs=0.5)
    own = GradientPenalty(1, where=lambda real, fake, generator: real + 1)
    own.penalty(critic, x, z)
    assert (seen[-1] == 1).all()


def test_r1_and_r2_are_half_gamma_times_squared_slopes_and_reach_the_weights():
    w = torch.tensor([1.0, 2.0], dtype=torch.float64)
    critic, x = Linear(w), torch.randn(5, 2).double()
    both, one = R1R2(0.5).penalty(critic, x, x), R1R2(0.5, fake=False).penalty(critic, x, x)
    assert both.value.item() == pytest.approx(2.5) and one.value.item() == pytest.approx(1.25)
    (g,) = torch.autograd.grad(both.value, critic.w)  # twice differentiated: gamma w for each of the two
    assert torch.allclose(g, w)


@pytest.mark.parametrize("constraint", [GradientPenalty(2, every=4), R1R2(2, every=4)])
def test_a_lazy_penalty_is_taken_every_few_steps_and_as_many_times_as_large(constraint):
    critic, x = Linear(torch.tensor([3.0, 0.0])), torch.randn(5, 2)
    due = [constraint.penalty(critic, x, x, step) for step in range(8)]
    assert [k for k, found in enumerate(due) if found is not None] == [0, 4]
    once = type(constraint)(2).penalty(critic, x, x)
    assert due[4].value.item() == pytest.approx(4 * once.value.item())


def test_no_gradient_of_the_penalty_reaches_the_generator():
    z = torch.randn(5, 2, requires_grad=True)
    critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    for constraint in (GradientPenalty(1), R1R2(1)):
        found = constraint.penalty(critic, torch.randn(5, 2), z * 1)
        assert torch.autograd.grad(found.value, z, allow_unused=True) == (None,)
        assert all(p.grad is None for p in critic.parameters())


def test_clipping_is_a_projection_and_leaves_normalisation_alone():
    critic = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    before = [p.detach().clone() for p in critic.parameters()]
    WeightClip(0.1).project_(critic)
    after = list(critic.parameters())
    for was, now, clipped in zip(before, after, [1, 1, 0, 0, 0, 0, 1, 1], strict=True):
        assert torch.equal(now, was.clamp(-0.1, 0.1) if clipped else was)


def test_bad_settings_are_refused_with_the_reason():
    for make, text in (
        (lambda: GradientPenalty(-1), "lambda >= 0"),
        (lambda: GradientPenalty(norm=0.5), r"p in \[1, inf\]"),
        (lambda: GradientPenalty(norm="two"), r"p in \[1, inf\]"),
        (lambda: GradientPenalty(where="middle"), "interpolation"),
        (lambda: GradientPenalty(sided="both"), "'one' or 'two'"),
        (lambda: GradientPenalty(every=0), "at least 1"),
        (lambda: R1R2(-0.1), "number >= 0"),
        (lambda: R1R2(real=False, fake=False), "got neither"),
        (lambda: WeightClip(0), "above 0"),
        (lambda: row_norms(torch.ones(2, 2), 0.5), "q >= 1"),
    ):
        with pytest.raises(InputError, match=text):
            make()
    with pytest.raises(InputError, match="as many real as generated"):
        GradientPenalty().penalty(Linear(torch.ones(2)), torch.ones(3, 2), torch.ones(4, 2))


def test_a_critic_must_give_one_score_for_each_example_that_depends_on_it():
    x = torch.randn(5, 2)
    assert scores(nn.Linear(2, 1), x).shape == (5,)
    for bad in (nn.Linear(2, 3), lambda x: x.sum(), lambda x: x[:, None, None, :1]):
        with pytest.raises(ModelError, match="one score per example"):
            scores(bad, x)
    with pytest.raises(ModelError, match="depend on the inputs"):
        input_gradients(lambda x: x.detach().sum(1), x)


def test_unconstrained_asks_for_nothing():
    critic = nn.Linear(2, 1)
    before = critic.weight.detach().clone()
    assert Unconstrained().penalty(critic, torch.ones(2, 2), torch.ones(2, 2)) is None
    Unconstrained().project_(critic)
    assert torch.equal(critic.weight, before)
