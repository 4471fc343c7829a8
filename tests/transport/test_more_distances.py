"""Normal laws, slices, maps, batches, debiased divergences, projections: closed forms and independent references."""

import math

import pytest
import torch
from torch import nn

from danskin.errors import DanskinWarning, InputError
from danskin.transport import (
    Empirical,
    barycentric_map,
    gaussian_map,
    gaussian_w2,
    max_sliced,
    moment_bound,
    monge_map,
    monotone_map,
    sinkhorn_divergence,
    sliced,
    wasserstein,
    wasserstein_batch,
    wasserstein_projection,
)

ot = pytest.importorskip("ot")


def cloud(n, d, seed, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def masses(n, seed):
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05
    return w / w.sum()


def covariance(d, seed):
    a = cloud(d, d, seed)
    return a @ a.T + 0.1 * torch.eye(d, dtype=torch.float64)


# normal laws


def test_w2_of_normal_laws_is_that_of_pot_and_the_diagonal_closed_form():
    m, n = cloud(3, 1, 0)[:, 0], cloud(3, 1, 1)[:, 0]
    s, r = covariance(3, 2), covariance(3, 3)
    wanted = ot.gaussian.bures_wasserstein_distance(m, n, s, r)
    assert float(gaussian_w2(m, s, n, r)) == pytest.approx(float(wanted), rel=1e-9)
    u, v = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 1.0, 0.0]).double()
    wanted = float(((m - n) ** 2).sum() + ((u.sqrt() - v.sqrt()) ** 2).sum()) ** 0.5
    assert float(gaussian_w2(m, u.diag(), n, v.diag())) == pytest.approx(wanted, rel=1e-9)
    assert float(gaussian_w2(m, s, m, s)) == pytest.approx(0, abs=1e-6)


def test_w2_of_normal_laws_has_the_gradient_of_finite_differences():
    m, s, r = cloud(2, 1, 0)[:, 0].requires_grad_(), covariance(2, 1).requires_grad_(), covariance(2, 2)

    def value(mean, half):
        return gaussian_w2(mean, (half + half.T) / 2, torch.zeros(2, dtype=torch.float64), r)

    assert torch.autograd.gradcheck(value, (m, s))


def test_the_gaussian_map_pushes_one_law_to_the_other_and_costs_w2():
    m, n, s, r = cloud(2, 1, 0)[:, 0], cloud(2, 1, 1)[:, 0], covariance(2, 2), covariance(2, 3)
    push = gaussian_map(m, s, n, r)
    x = torch.distributions.MultivariateNormal(m, s).sample((200_000,))
    y = push(x)
    torch.testing.assert_close(y.mean(0), n, rtol=0, atol=0.02)
    torch.testing.assert_close(y.T.cov(), r, rtol=0.02, atol=0.02)
    assert float((x - y).square().sum(1).mean().sqrt()) == pytest.approx(float(gaussian_w2(m, s, n, r)), rel=0.01)
    with pytest.raises(InputError, match="without full rank"):
        gaussian_map(m, torch.ones(2, 2), n, r)


def test_a_positive_linear_map_is_optimal_so_w2_of_its_samples_is_the_closed_form_of_their_moments():
    x, s = cloud(60, 3, 0), covariance(3, 2)
    y = x @ s + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)  # the gradient of a convex function (Brenier)
    wanted = float((x - y).square().sum(1).mean().sqrt())
    assert wasserstein(x, y[torch.randperm(60)], 2).bracket.value == pytest.approx(wanted, rel=1e-10)
    moments = (x.mean(0), x.T.cov(correction=0), y.mean(0), y.T.cov(correction=0))
    assert float(gaussian_w2(*moments)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_moments_and_slices_bound_w2_from_below(seed):
    x, y, a = cloud(40, 3, seed), cloud(30, 3, seed + 9, 1.0) ** 2, masses(40, seed)
    exact = wasserstein(x, y, 2, a=a).bracket
    assert 0 < moment_bound(x, y, a=a) <= exact.upper
    assert moment_bound(x, x + 2) == pytest.approx(2 * 3**0.5, rel=1e-6)  # tight for a translation


@pytest.mark.parametrize(("matrix", "text"), [
    (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
    (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "no negative eigenvalue"),
    (torch.full((2, 2), math.nan), "finite"),
    (torch.eye(3), r"a matrix \(2, 2\)"),
])  # fmt: skip
def test_what_is_no_covariance_is_refused(matrix, text):
    with pytest.raises(InputError, match=text):
        gaussian_w2(torch.zeros(2), matrix, torch.zeros(2), torch.eye(2))


# slices


@pytest.mark.parametrize("q", [1, 2, 3])
def test_slices_are_ordered_below_the_distance(q):
    x, y, b = cloud(60, 4, 0), cloud(50, 4, 1, 0.5), masses(50, 2)
    mean, most = sliced(x, y, q, b=b, directions=50), max_sliced(x, y, q, b=b, directions=50)
    exact = wasserstein(x, y, q, b=b).bracket
    assert float(mean.distance) <= mean.lower <= most.lower <= exact.upper
    for k in (0, 7):  # each value is W_q on its line
        line = wasserstein(x @ mean.directions[k], y @ mean.directions[k], q, b=b).bracket
        assert float(mean.values[k]) == pytest.approx(line.value, rel=1e-10)
    assert float(most.directions.norm()) == pytest.approx(1)


def test_the_best_direction_of_a_translation_is_the_translation():
    x, shift = cloud(100, 5, 0), torch.tensor([2.0, 0, 0, 1, 0], dtype=torch.float64)
    most = max_sliced(x, x + shift, 2, steps=200)
    assert most.lower == pytest.approx(5**0.5, rel=1e-6)
    assert abs(float(most.directions[0] @ shift)) == pytest.approx(5**0.5, rel=1e-5)


def test_sliced_is_the_mean_over_the_sphere_and_says_how_well():
    """Of two points in the plane a unit apart: W_1 along t is |cos t|, whose mean is 2/pi."""
    x, y = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    found = sliced(x, y, directions=4000, seed=1)
    assert found.standard_error == pytest.approx(0.308 / 4000**0.5, rel=0.05)
    assert float(found.distance) == pytest.approx(2 / math.pi, abs=4 * found.standard_error)
    root = sliced(x, y, 2, directions=4000, seed=1)
    assert root.standard_error == pytest.approx(0.25 / 4000**0.5, rel=0.05)  # of a root, by the delta method
    assert float(root.distance) == pytest.approx(0.5**0.5, abs=4 * root.standard_error)
    wanted = ot.sliced_wasserstein_distance(
        cloud(30, 3, 0).numpy(), cloud(30, 3, 1).numpy(), n_projections=4000, seed=0
    )
    assert float(sliced(cloud(30, 3, 0), cloud(30, 3, 1), 2, directions=4000).distance) == pytest.approx(
        wanted, rel=0.03
    )


def test_slices_have_gradients():
    x = cloud(6, 2, 0).requires_grad_()
    y = cloud(5, 2, 1)
    assert torch.autograd.gradcheck(lambda z: sliced(z, y, 2, directions=5).distance, (x,))
    max_sliced(x, y, directions=5).distance.backward()
    assert bool(x.grad.isfinite().all()) and float(x.grad.abs().sum()) > 0
    a = masses(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: sliced(x.detach(), y, 2, directions=5, a=w / w.sum()).distance, (a,))
    line, other = x.detach()[:, :1], y[:, :1]  # on the line every direction says the same, and W_q has potentials
    slopes = []
    for distance in (sliced, max_sliced, wasserstein):
        w = a.detach().clone().requires_grad_()
        distance(line, other, 2, a=w).distance.backward()
        slopes.append(w.grad)
    for slope in slopes[:2]:
        torch.testing.assert_close(slope, slopes[2], rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="directions: expected at least 1"):
        sliced(x, y, directions=0)


# maps


def test_the_monge_map_is_a_permutation_that_attains_the_distance():
    x, y = cloud(30, 2, 0), cloud(30, 2, 1)
    found = monge_map(x, y, 2)
    assert sorted(found.index.tolist()) == list(range(30))
    cost = float((x - found.targets).square().sum(1).mean())
    assert cost**0.5 == pytest.approx(found.bracket.value, rel=1e-10)


def test_mass_that_must_be_split_has_no_map_but_a_mean():
    x, y = torch.tensor([[0.0]]), torch.tensor([[1.0], [3.0]])
    with pytest.raises(InputError, match="splits point 0 of x into 2"):
        monge_map(x, y)
    assert barycentric_map(wasserstein(x, y), y).tolist() == [[2.0]]
    with pytest.raises(InputError, match="expected the 2 points that x went to, got 1"):
        barycentric_map(wasserstein(x, y), y[:1])
    joined = monge_map(y, x)  # the other way there is one
    assert joined.index.tolist() == [0, 0]


def test_the_monotone_map_goes_through_quantiles():
    x, y = cloud(50, 1, 0)[:, 0], cloud(50, 1, 1)[:, 0] ** 3
    push = monotone_map(x, y)
    torch.testing.assert_close(push(x).sort().values, y.sort().values)
    cost = float((x - push(x)).abs().mean())
    assert cost == pytest.approx(wasserstein(x, y).bracket.value, rel=1e-10)
    t = torch.linspace(-5, 5, 301, dtype=torch.float64)
    assert bool((push(t).diff() >= 0).all())
    big, other = cloud(20_000, 1, 2)[:, 0], 3 * cloud(15_000, 1, 3)[:, 0] + 1
    middle = torch.linspace(-1.5, 1.5, 20, dtype=torch.float64)
    torch.testing.assert_close(monotone_map(big, other, points=200)(middle), 3 * middle + 1, rtol=0, atol=0.15)
    with pytest.raises(InputError, match="equal numbers of points, got 3 and 2"):
        monotone_map(big[:3], other[:2])


# batches


@pytest.mark.parametrize("method", ["exact", "sinkhorn"])
def test_a_batch_is_its_pairs_one_by_one(method):
    x, y = torch.stack([cloud(20, 2, k) for k in range(6)]), torch.stack([cloud(25, 2, k + 9, 0.5) for k in range(6)])
    a = torch.stack([masses(20, k) for k in range(6)])
    found = wasserstein_batch(x, y, 2, a=a, method=method)
    for k in range(6):
        alone = wasserstein(x[k], y[k], 2, a=a[k], method=method)
        assert float(found.lower[k]) == pytest.approx(alone.bracket.lower, rel=1e-9)
        assert float(found.upper[k]) == pytest.approx(alone.bracket.upper, rel=1e-9)
        exact = wasserstein(x[k], y[k], 2, a=a[k]).bracket
        assert float(found.lower[k]) <= exact.upper and exact.lower <= float(found.upper[k])


@pytest.mark.parametrize("method", ["exact", "sinkhorn"])
def test_a_batch_has_gradients_in_points_and_masses(method):
    x, y = torch.stack([cloud(6, 2, k) for k in range(3)]), torch.stack([cloud(6, 2, k + 5) for k in range(3)])
    a = torch.stack([masses(6, k) for k in range(3)]).requires_grad_()
    x.requires_grad_()
    wasserstein_batch(x, y, 2, a=a, method=method, tolerance=1e-6).distance.sum().backward()
    points, weights = x.grad.clone(), a.grad.clone()
    for k in range(3):
        u, w = x[k].detach().requires_grad_(), a[k].detach().requires_grad_()
        wasserstein(u, y[k], 2, a=w).distance.backward()
        torch.testing.assert_close(points[k], u.grad, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(weights[k], w.grad, rtol=1e-2, atol=1e-3)


def test_the_batched_solver_of_pot_without_regularisation_is_far_from_the_optimum():
    batch = pytest.importorskip("ot.batch")
    x, y = torch.stack([cloud(32, 2, k) for k in range(8)]), torch.stack([cloud(32, 2, k + 50) for k in range(8)])
    exact = wasserstein_batch(x, y).distance
    cost = torch.cdist(x, y)
    solved = batch.solve_batch(cost, reg=None) if _takes_reg(batch) else batch.solve_batch(cost)
    wrong = (solved.plan * cost).sum((1, 2))
    assert float((wrong / exact).mean()) > 1.1


def _takes_reg(batch):
    import inspect

    return "reg" in inspect.signature(batch.solve_batch).parameters


def test_bad_batches_are_refused_and_the_pair_is_named():
    x = torch.zeros(2, 3, 1)
    bad = x.clone()
    bad[1, 2] = math.nan
    for method in ("exact", "sinkhorn"):
        with pytest.raises(InputError, match="pair 1: x: expected finite numbers, got NaN in row 2"):
            wasserstein_batch(bad, x, method=method)
    with pytest.raises(InputError, match=r"expected batches \(B, n, d\)"):
        wasserstein_batch(x[0], x[0])
    with pytest.raises(InputError, match="expected exact or sinkhorn, got 'exakt'"):
        wasserstein_batch(x, x, method="exakt")
    with pytest.raises(InputError, match=r"got list and \(2, 3, 1\)"):
        wasserstein_batch([[0.0]], x)
    with pytest.raises(InputError, match="threads: expected at least 1, got 0"):
        wasserstein_batch(x, x, threads=0)


# debiased divergences


def test_the_debiased_divergence_is_zero_of_equal_measures_positive_else_and_near_the_distance():
    x, y = cloud(40, 2, 0), cloud(40, 2, 1, 1.0)
    assert float(sinkhorn_divergence(x, x.clone(), eps=0.5, steps=3000)) == pytest.approx(0, abs=1e-6)
    exact = wasserstein(x, y, 2).bracket.value ** 2
    near = float(sinkhorn_divergence(x, y, eps=0.05, steps=5000, tolerance=1e-5))
    far = float(sinkhorn_divergence(x, y, eps=1.0))
    assert 0 < far and abs(near - exact) < abs(far - exact) and near == pytest.approx(exact, rel=0.1)
    mean = float((x.mean(0) - y.mean(0)).square().sum())  # eps to infinity: the distance of the means
    assert float(sinkhorn_divergence(x, y, eps=1e4)) == pytest.approx(mean, rel=1e-2)


def test_the_debiased_divergence_has_gradients_and_warns_when_it_has_not_converged():
    x, y = cloud(5, 2, 0).requires_grad_(), cloud(6, 2, 1)
    a = masses(5, 0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, w: sinkhorn_divergence(z, y, eps=0.5, a=w / w.sum(), steps=5000, tolerance=1e-13), (x, a), atol=1e-5
    )
    with pytest.warns(DanskinWarning, match="expected marginals to 1e-3"):
        sinkhorn_divergence(x.detach(), y, eps=1e-3, steps=3)
    with pytest.raises(InputError, match="eps: expected a number above 0"):
        sinkhorn_divergence(x, y, eps=0.0)


# projections (row E7)


class Point(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(1, d, dtype=torch.float64))

    def forward(self, noise):
        return self.at + 0 * noise


class Normal(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
        self.scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, noise):
        return self.mean + self.scale * noise


def test_the_nearest_point_is_the_median_for_w1_and_the_mean_for_w2():
    x = cloud(31, 1, 0).exp()
    for q, wanted in ((1, x.median()), (2, x.mean())):
        family = Point(1)
        found = wasserstein_projection(x, family, torch.zeros(1, 1).double(), q=q, steps=400, learning_rate=0.1)
        assert float(family.at.detach()) == pytest.approx(float(wanted), abs=0.02)
        assert found.bracket.closed and found.trace[-1] <= found.trace[0]


def test_the_nearest_normal_law_is_the_closed_form():
    """On the line: mean of the sample, and the covariance of its quantiles with those of the normal law."""
    x = cloud(400, 1, 0).exp()
    levels = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    z = torch.special.ndtri(levels)
    family = Normal()
    found = wasserstein_projection(x, family, z[:, None], q=2, steps=400, learning_rate=0.1)
    sorted_x = x[:, 0].sort().values
    scale = float((sorted_x * z).sum() / (z * z).sum())
    assert float(family.mean.detach()) == pytest.approx(float(x.mean()), abs=2e-3)
    assert float(family.scale.detach()) == pytest.approx(scale, abs=2e-3)
    assert found.bracket.value == pytest.approx(
        float((sorted_x - x.mean() - scale * z).square().mean()) ** 0.5, rel=1e-4
    )


def test_a_generator_in_the_plane_comes_down_to_the_sampling_floor():
    target = cloud(200, 2, 0) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]).double() + 2
    family = nn.Linear(2, 2).double()
    found = wasserstein_projection(
        target, family, lambda n, g: torch.randn(n, 2, generator=g, dtype=torch.float64), steps=120, points=200,
        learning_rate=0.1,
    )  # fmt: skip
    floor = wasserstein(target, cloud(200, 2, 5) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]).double() + 2, 2).bracket.value
    assert found.bracket.value < 2 * floor < found.trace[0] / 2


def test_a_projection_says_what_it_cannot_do():
    x = cloud(5, 1, 0)
    with pytest.raises(InputError, match="expected parameters that require gradients"):
        wasserstein_projection(x, nn.Identity(), x)
    with pytest.raises(InputError, match="expected none with a weighted target"):
        wasserstein_projection(Empirical(x, masses(5, 0)), Point(1), x, batch=3)
    with pytest.raises(InputError, match="points of one space"):
        wasserstein_projection(x, Point(2), torch.zeros(1, 1).double())
