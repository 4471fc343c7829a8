"""Losses of GANs against closed forms, at scores of any size."""

import math

import pytest
import torch

from danskin.gan import GAN_OBJECTIVES, Hinge, NonSaturating, Relativistic, Saturating, Wasserstein


def gradient(loss, s):
    s = s.clone().requires_grad_()
    return torch.autograd.grad(loss(s), s)[0]


def test_the_best_classifier_is_paid_twice_the_jensen_shannon_divergence_less_log_four():
    p, q = (
        torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64),
        torch.tensor([0.1, 0.2, 0.2, 0.5], dtype=torch.float64),
    )
    m = (p + q) / 2
    kl = lambda a: torch.where(a > 0, a * (a / m).log(), 0.0).sum()  # noqa: E731
    s = (p.clamp_min(1e-300) / q).log()
    value = -(p * torch.nn.functional.softplus(-s)).sum() - (q * torch.nn.functional.softplus(s)).sum()
    assert float(value) == pytest.approx(float(kl(p) + kl(q)) - math.log(4), abs=1e-12)
    weight = (1000 * p).round().long(), (1000 * q).round().long()  # the same as an average over examples
    real, fake = (s.repeat_interleave(w) for w in weight)
    assert float(-Saturating().critic_loss(real, fake)) == pytest.approx(float(value), abs=1e-12)


def test_saturating_gradients_vanish_where_non_saturating_ones_do_not():
    for s in (-20.0, -30.0, -80.0):
        fake = torch.tensor([s])
        assert float(gradient(NonSaturating().generator_loss, fake)) == pytest.approx(-1, abs=1e-6)
        assert abs(float(gradient(Saturating().generator_loss, fake))) < 1e-8
    fake = torch.tensor([-15.0])
    assert float(gradient(Saturating().generator_loss, fake)) == pytest.approx(-3.06e-7, rel=1e-2)


@pytest.mark.parametrize("name", GAN_OBJECTIVES)
def test_losses_are_finite_at_scores_of_a_million_and_weights_are_slopes(name):
    objective = GAN_OBJECTIVES[name]()
    big = torch.tensor([1e6, -1e6, 0.0, 3.0])
    assert objective.critic_loss(big, -big).isfinite() and objective.generator_loss(big, -big).isfinite()
    fake, real = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    slope = gradient(lambda s: 50 * objective.generator_loss(s, real), fake).abs()
    assert torch.allclose(slope, objective.generator_weight(fake, real), atol=1e-12)


@pytest.mark.parametrize("name", [n for n, o in GAN_OBJECTIVES.items() if o.zero_sum])
def test_zero_sum_objectives_pay_the_generator_what_the_critic_loses(name):
    objective = GAN_OBJECTIVES[name]()
    fake, real = torch.randn(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    critic = gradient(lambda s: objective.critic_loss(real, s), fake)
    assert torch.allclose(critic, -gradient(objective.generator_loss, fake))


def test_the_objectives_of_one_player_only_do_not_claim_to_be_zero_sum():
    assert not any(o.zero_sum for o in (NonSaturating, Hinge, Relativistic))


def test_signs_are_as_stated():
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])
    assert float(Wasserstein().critic_loss(real, fake)) == -3.0  # minus the gap
    assert float(Wasserstein().generator_loss(fake)) == -1.0
    assert float(Hinge().critic_loss(real, fake)) == 2.0 and float(Hinge().critic_loss(real, -fake)) == 0.0
    pairs = Relativistic().critic_loss(real, fake)
    assert float(pairs) == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-4))) / 2, rel=1e-6)
