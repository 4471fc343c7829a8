"""The ascent behind Sinkhorn's brackets: gradient and Newton step against autograd, and how many rounds it takes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from danskin.errors import DanskinWarning
from danskin.transport import ascent, sinkhorn, wasserstein
from danskin.transport.costs import cost_matrix


def points(n, seed, law="normal"):
    draw = torch.rand if law == "uniform" else torch.randn
    return draw(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problems(eps=0.3):
    """Two problems at once, with weights."""
    x, y = torch.stack([points(9, 0), points(9, 1)]), torch.stack([points(7, 2), points(7, 3) + 1])
    a, b = (torch.softmax(points(2 * n, 4).flatten()[: 2 * n].view(2, n), 1) for n in (9, 7))
    return ascent.Problems(cost_matrix(x, y, 2, 2.0), a, b, torch.tensor([eps, 2 * eps], dtype=torch.float64))


def test_rows_have_their_mass_and_the_gradient_is_what_is_missing_in_the_columns():
    s, g = problems(), points(7, 9).T.clone().requires_grad_()
    now = ascent.point_at(s, g.detach())
    torch.testing.assert_close(now.kernel.sum(2), s.a, rtol=1e-12, atol=0)
    z = (g[:, None] - s.cost) / s.eps[:, None, None]
    value = (s.a * s.eps[:, None] * (s.a.log() - torch.logsumexp(z, 2))).sum() + (s.b * g).sum()
    assert float(value.detach()) == pytest.approx(float(now.value.sum()), rel=1e-12)
    (slope,) = torch.autograd.grad(value, g)
    torch.testing.assert_close(slope, s.b - now.kernel.sum(1), rtol=1e-9, atol=1e-12)


def test_the_step_is_that_of_newton():
    s, g = problems(), points(7, 9).T.clone()
    now = ascent.point_at(s, g)
    step = ascent._newton(s, now) * s.eps[:, None]

    def value(h, k):
        one = ascent.Problems(*(part[k : k + 1] for part in s))
        z = (h - one.cost[0]) / one.eps
        return (one.a[0] * one.eps * -torch.logsumexp(z, 1)).sum() + one.b[0] @ h

    for k in (0, 1):
        hessian = torch.autograd.functional.hessian(lambda h, k=k: value(h, k), g[k])
        missing = s.b[k] - now.kernel[k].sum(0)
        torch.testing.assert_close(hessian @ step[k], -missing, rtol=1e-6, atol=1e-9)
        assert float(now.kernel[k].sum(0) @ step[k]) == pytest.approx(0, abs=1e-8)  # no constant in it


@pytest.mark.parametrize("eps", [1.0, 0.1, 1e-2])
def test_no_round_goes_down_and_marginals_come_out_exact(eps):
    s = problems(eps)
    g, before = torch.zeros_like(s.b), torch.full((2,), -torch.inf, dtype=torch.float64)
    for _ in range(60):
        now = ascent.ascend(s, g)
        assert bool((now.value >= before - 1e-12).all())
        g, before = now.g, now.value
    assert float((now.kernel.sum(1) - s.b).abs().max()) < 1e-9


def test_where_scalings_overflow_a_plain_step_goes_up():
    s = problems(1e-5)
    g = torch.zeros_like(s.b)
    start = ascent.point_at(s, g)
    assert not bool(ascent._scalings(s, start.kernel).isfinite().all())
    now = ascent.ascend(s, g)
    assert bool((now.value > start.value).all()) and bool(now.kernel.isfinite().all())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 10**6), st.sampled_from([0.0, 1e-300, 0.5, 1.0, 1e6]))
def test_any_matrix_is_rounded_to_a_plan_with_the_marginals(n, m, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    kernel = scale * torch.rand(3, n, m, generator=generator, dtype=torch.float64)
    kernel[kernel < 0.3 * scale] = 0
    a, b = (torch.rand(3, k, generator=generator, dtype=torch.float64) + 1e-3 for k in (n, m))
    a[:, :-1][a[:, :-1] < 0.2] = 0
    a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    plan = sinkhorn.rounded(kernel, a, b)
    assert float(plan.min()) >= 0
    torch.testing.assert_close(plan.sum(2), a, rtol=0, atol=1e-15)
    torch.testing.assert_close(plan.sum(1), b, rtol=0, atol=1e-15)
    torch.testing.assert_close(sinkhorn.rounded(plan, a, b), plan, rtol=0, atol=1e-15)  # a plan stays


def rounds(monkeypatch):
    seen, real = [], sinkhorn.ascend

    def counted(*words):
        seen.append(1)
        return real(*words)

    monkeypatch.setattr(sinkhorn, "ascend", counted)
    return seen


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize(("law", "shift", "most"), [("normal", 1.0, 12), ("uniform", 0.0, 18)])
def test_256_points_are_known_to_a_per_mille_after_few_rounds(monkeypatch, law, shift, most, q):
    seen = rounds(monkeypatch)
    found = wasserstein(points(256, 0, law), points(256, 1, law) + shift, q, method="sinkhorn")
    assert found.bracket.gap <= 1e-3 and len(seen) <= most


def hard():
    x, y = points(60, 0), points(50, 1)
    zeros = torch.rand(60, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    zeros[:9] = 0
    uneven = torch.exp(3 * points(60, 3)[:, 0])
    yield "weights of 0", x, y, zeros / zeros.sum()
    yield "weights over six powers of ten", x, y, uneven / uneven.sum()
    yield "heavy tails", x / points(60, 4)[:, :1], y / points(50, 5)[:, :1], None
    yield "two groups apart", torch.cat([x[:30], x[30:] + 100]), torch.cat([y[:25], y[25:] + 100]), None
    yield "more columns than rows", x[:8], y, None


@pytest.mark.parametrize("case", list(hard()), ids=lambda case: case[0])
@pytest.mark.parametrize("q", [1, 2])
def test_hard_problems_are_known_to_1e_minus_6_too(case, q):
    _, x, y, a = case
    found, exact = wasserstein(x, y, q, a=a, method="sinkhorn", tolerance=1e-6), wasserstein(x, y, q, a=a).bracket
    assert found.bracket.gap <= 1e-6
    assert found.bracket.lower <= exact.upper and exact.lower <= found.bracket.upper
    f, g = found.potentials
    assert float((f[:, None] + g - cost_matrix(x, y, q, 2.0)).max()) <= 1e-12 * float(cost_matrix(x, y, q, 2.0).max())


def test_sinkhorn_says_what_it_did_not_reach():
    x = points(20, 0)
    with pytest.warns(DanskinWarning, match="expected a bracket within 1e-14"):
        found = wasserstein(x, points(20, 1), 2, method="sinkhorn", tolerance=1e-14)
    assert found.bracket.gap < 1e-3


def test_sinkhorn_of_a_sample_with_itself_has_zero_inside():
    x = points(20, 0)
    found = wasserstein(x, x.clone(), method="sinkhorn")
    assert found.bracket.lower == 0 and found.bracket.upper < 1e-9
