"""Divergences: identities of discrete measures, Gaussians by quadrature, discriminators as lower bounds. Row E8."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal
from torch.nn.functional import logsigmoid, softplus

from danskin.errors import InputError
from danskin.transport import (
    F_DIVERGENCES,
    from_discriminator,
    jensen_shannon,
    kullback_leibler,
    total_variation,
)

LOG2 = math.log(2)


def law(values):
    w = torch.tensor(values, dtype=torch.float64) + 1e-3
    return w / w.sum()


laws = st.lists(st.floats(0, 1), min_size=5, max_size=5).map(law)


@settings(max_examples=60, deadline=None)
@given(laws, laws, laws)
def test_inequalities_hold_between_divergences_of_discrete_measures(p, q, r):
    jsd, tv = jensen_shannon(p, q), total_variation(p, q)
    assert 0 <= jsd <= LOG2 and 0 <= tv <= 1
    assert tv**2 / 2 <= jsd + 1e-12 and jsd <= LOG2 * tv + 1e-12
    assert kullback_leibler(p, q) >= 2 * tv**2 - 1e-12  # Pinsker
    roots = [math.sqrt(jensen_shannon(*pair)) for pair in ((p, q), (p, r), (r, q))]
    assert roots[0] <= roots[1] + roots[2] + 1e-7
    assert jsd == pytest.approx(jensen_shannon(q, p), abs=1e-12)


def test_jensen_shannon_is_not_half_of_jeffreys():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    assert jensen_shannon(p, q) == pytest.approx(LOG2 / 2)
    assert (kullback_leibler(p, q) + kullback_leibler(q, p)) / 2 == math.inf
    assert jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == pytest.approx(LOG2)


@settings(max_examples=30, deadline=None)
@given(laws, laws)
def test_the_best_discriminator_of_the_vanilla_gan_attains_twice_the_divergence_less_log_four(p, q):
    s = (p / q).log()
    value = float((p * logsigmoid(s)).sum() + (q * logsigmoid(-s)).sum())
    assert value == pytest.approx(2 * jensen_shannon(p, q) - math.log(4), abs=1e-10)


@pytest.mark.parametrize("kind", F_DIVERGENCES)
@settings(max_examples=30, deadline=None)
@given(p=laws, q=laws, noise=st.lists(st.floats(-1, 1), min_size=5, max_size=5))
def test_terms_are_a_lower_bound_that_the_log_ratio_attains(kind, p, q, noise):
    divergence, s = F_DIVERGENCES[kind], (p / q).log()
    left, right = divergence.terms(s, s)
    assert float((p * left).sum() - (q * right).sum()) == pytest.approx(divergence.of(p, q), rel=1e-9, abs=1e-9)
    wrong = s + torch.tensor(noise, dtype=torch.float64)
    left, right = divergence.terms(wrong, wrong)
    assert float((p * left).sum() - (q * right).sum()) <= divergence.of(p, q) + 1e-9


def test_f_divergences_of_discrete_measures_are_the_closed_forms():
    p, q = law([0.1, 0.4, 0.2, 0.9, 0.3]), law([0.3, 0.3, 0.1, 0.2, 0.8])
    wanted = {
        "kl": kullback_leibler(p, q), "reverse_kl": kullback_leibler(q, p), "total_variation": total_variation(p, q),
        "jensen_shannon": jensen_shannon(p, q), "chi_square": float(((p - q) ** 2 / q).sum()),
        "squared_hellinger": float(((p.sqrt() - q.sqrt()) ** 2).sum()),
    }  # fmt: skip
    assert {kind: F_DIVERGENCES[kind].of(p, q) for kind in F_DIVERGENCES} == pytest.approx(wanted)


def gaussians(mean):
    """N(0, 1), N(mean, 1) and their divergences by quadrature."""
    grid = torch.linspace(-12, 12 + mean, 40_001, dtype=torch.float64)
    p, q = Normal(0.0, 1.0), Normal(float(mean), 1.0)
    u, v = p.log_prob(grid), q.log_prob(grid)
    step = float(grid[1] - grid[0])
    middle = torch.logaddexp(u, v) - LOG2
    jsd = float((u.exp() * (u - middle) + v.exp() * (v - middle)).sum() * step / 2)
    return p, q, {
        "jensen_shannon": jsd, "kl": mean**2 / 2, "reverse_kl": mean**2 / 2,
        "squared_hellinger": 2 - 2 * math.exp(-(mean**2) / 8), "total_variation": math.erf(mean / 2**1.5),
        "chi_square": math.exp(mean**2) - 1,
    }  # fmt: skip


@pytest.mark.parametrize("kind", F_DIVERGENCES)
def test_the_best_discriminator_estimates_divergences_of_gaussians(kind):
    p, q, wanted = gaussians(1.0)
    x, y = p.sample((200_000,)), q.sample((200_000,))
    found = from_discriminator(p.log_prob(x) - q.log_prob(x), p.log_prob(y) - q.log_prob(y), kind)
    assert abs(found.value - wanted[kind]) < 4 * found.standard_error
    assert found.lower == found.value - 2 * found.standard_error
    assert found.standard_error < (0.05 if kind == "chi_square" else 0.01)


def test_a_trained_discriminator_comes_near_the_divergence_from_below_and_never_beyond_log_two():
    for mean in (0.7, 3.0):
        p, q, wanted = gaussians(mean)
        g = torch.nn.Linear(1, 1)
        steps = torch.optim.Adam(g.parameters(), 0.05)
        x, y = p.sample((4000, 1)), q.sample((4000, 1))
        for _ in range(400):
            steps.zero_grad()
            (softplus(-g(x)).mean() + softplus(g(y)).mean()).backward()
            steps.step()
        fresh = from_discriminator(g(p.sample((100_000, 1))), g(q.sample((100_000, 1))))
        assert fresh.value < LOG2 and fresh.lower <= wanted["jensen_shannon"]
        assert fresh.value == pytest.approx(wanted["jensen_shannon"], abs=0.01)
    certain = from_discriminator(torch.full((5,), 1e4), torch.full((5,), -1e4))
    assert certain.value == pytest.approx(LOG2) and certain.standard_error == 0


@pytest.mark.parametrize(("call", "text"), [
    (lambda: jensen_shannon(torch.tensor([0.5, 0.6]), torch.tensor([0.5, 0.5])), "p: expected finite numbers"),
    (lambda: kullback_leibler(torch.tensor([0.5, 0.5]), torch.tensor([1.5, -0.5])), "q: expected finite numbers"),
    (lambda: total_variation(torch.tensor([1.0]), torch.tensor([0.5, 0.5])), "expected one length, got 1 and 2"),
    (lambda: jensen_shannon(torch.tensor([1, 0]), torch.tensor([0.5, 0.5])), "p: expected probabilities"),
    (lambda: F_DIVERGENCES["chi_square"].of(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])), "mass where p has"),
    (lambda: from_discriminator(torch.zeros(3), torch.zeros(3), "jenson_shannon"), "did you mean 'jensen_shannon'"),
    (lambda: from_discriminator(torch.zeros(1), torch.zeros(3)), "real: expected two or more logits"),
    (lambda: from_discriminator(torch.zeros(3), torch.tensor([0.0, math.nan])), "fake: expected two or more logits"),
])  # fmt: skip
def test_bad_input_is_refused_with_a_sentence(call, text):
    with pytest.raises(InputError, match=text):
        call()
