"""Every regulariser against an obvious loop over examples, and what must not change its values."""

import pytest
import torch
import torch.nn.functional as F

from danskin.minmax import L1, L2, Linf, Streams
from danskin.regularizers import CURE, ELLE, ELLE_A, LLR, GradAlign, LLRRandom

SEED = 5


def loss(net, x, y):
    return F.cross_entropy(net(x[None]), y[None])


def gradient(net, x, y, graph=True):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(net, x, y), x, create_graph=graph)[0]


def point(ball, x, child):
    return x + ball.sample(x[None], Streams.of_content(SEED, x[None]).child(child))[0]


def slow_gradalign(ball, net, x, y):
    a, b = gradient(net, x, y, False), gradient(net, point(ball, x, 1), y)
    return 1 - (a * b).sum() / (a.norm() * b.norm())


def slow_elle(ball, net, x, y, clean=False):
    a, b = x if clean else point(ball, x, 0), point(ball, x, 1)
    t = Streams.of_content(SEED, x[None]).child(2).uniform(x.new_empty(1, 1))[0, 0]
    c = (1 - t) * a + t * b
    return (loss(net, c, y) - (1 - t) * loss(net, a, y) - t * loss(net, b, y)) ** 2


def slow_llr_random(ball, net, x, y, batch=1):
    a, b = point(ball, x, 0), point(ball, x, 1)
    return (loss(net, b, y) - loss(net, a, y) - ((b - a) * gradient(net, a, y)).sum() / batch) ** 2


def slow_llr(ball, net, x, y, weight=4.0, mu=3.0, steps=10):
    """Sign ascent in the cube by hand, keeping the point with the largest gap."""
    g, r = gradient(net, x, y), ball.value
    fixed, at = g.detach(), loss(net, x, y)
    delta, best, held = point(ball, x, 1) - x, None, -1.0
    for k in range(steps + 1):
        leaf = delta.clone().requires_grad_()
        gap = (loss(net, x + leaf, y) - at.detach() - (leaf * fixed).sum()).abs()
        if gap.item() > held:
            best, held = delta.clone(), gap.item()
        if k < steps:
            (slope,) = torch.autograd.grad(gap, leaf)
            delta = (delta + 2.5 * r / steps * slope.sign()).clamp(-r, r)
    lead = (best * g).sum()
    return (loss(net, x + best, y) - at - lead).abs() + mu / weight * lead.abs()


def slow_cure(net, x, y, h):
    g = gradient(net, x, y)
    z = g.detach().sign()
    return ((gradient(net, x + h * z / z.norm(), y) - g) ** 2).sum()


BALL = Linf(0.1)
TWINS = {
    "gradalign": (GradAlign(BALL), lambda *a: slow_gradalign(BALL, *a)),
    "gradalign l2": (GradAlign(L2(0.4)), lambda *a: slow_gradalign(L2(0.4), *a)),
    "elle": (ELLE(BALL), lambda *a: slow_elle(BALL, *a)),
    "elle clean": (ELLE(BALL, endpoints="clean_random"), lambda *a: slow_elle(BALL, *a, clean=True)),
    "elle l1": (ELLE(L1(0.8)), lambda *a: slow_elle(L1(0.8), *a)),
    "elle_a": (ELLE_A(BALL), lambda *a: slow_elle(BALL, *a)),
    "llr": (LLR(BALL), lambda *a: slow_llr(BALL, *a)),
    "llr_random": (LLRRandom(BALL), lambda *a: slow_llr_random(BALL, *a)),
    "llr_random released": (LLRRandom(BALL, quirks="released"), lambda *a: slow_llr_random(BALL, *a, batch=6)),
    "cure": (CURE(BALL, h=0.3), lambda *a: slow_cure(*a, h=0.3)),
    "cure released": (CURE(BALL, h=0.3, quirks="released"), lambda *a: slow_cure(*a, h=0.3).sqrt() / 6),
    "cure vertex": (CURE(BALL), lambda *a: slow_cure(*a, h=0.1 * 6**0.5)),
}
PLAIN = [name for name in TWINS if "released" not in name]


@pytest.mark.parametrize("name", TWINS)
def test_fast_is_slow_with_gradients_to_the_weights(smooth, name):
    s = smooth()
    term, slow = TWINS[name]
    fast = term.values(s.net, s.x, s.y, seed=SEED)
    truth = torch.stack([slow(s.net, *pair) for pair in zip(s.x, s.y, strict=True)])
    torch.testing.assert_close(fast, truth, atol=1e-9, rtol=1e-6)
    for p, q in zip(
        torch.autograd.grad(fast.mean(), list(s.net.parameters()), allow_unused=True, materialize_grads=True),
        torch.autograd.grad(truth.mean(), list(s.net.parameters()), allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(p, q, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_neither_the_batch_nor_its_order_matters(smooth, name, dtype):
    s, term = smooth(7, dtype=dtype), TWINS[name][0]
    whole = term.values(s.net, s.x, s.y, seed=SEED)
    alone = torch.cat([term.values(s.net, s.x[i : i + 1], s.y[i : i + 1], seed=SEED) for i in range(7)])
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    turned = term.values(s.net, s.x[order], s.y[order], seed=SEED)
    torch.testing.assert_close(whole, alone, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(whole[order], turned, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in PLAIN if "cure" not in n])
def test_the_seed_matters(smooth, name):
    s, term = smooth(), TWINS[name][0]
    one, other = (term.values(s.net, s.x, s.y, seed=seed) for seed in (0, 1))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", PLAIN)
def test_values_are_a_metric_under_no_grad(smooth, name):
    s, term = smooth(), TWINS[name][0]
    with_graph = term.values(s.net, s.x, s.y, seed=SEED)
    assert with_graph.requires_grad
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            found = term.values(s.net, s.x.clone(), s.y.clone(), seed=SEED)
        assert found.shape == (6,)
        assert not found.requires_grad
        torch.testing.assert_close(found.clone(), with_graph.detach(), atol=1e-12, rtol=1e-9)


DIFFERENTIABLE = {
    "gradalign": GradAlign(BALL, detach=False),
    "elle": ELLE(BALL),
    "llr": LLR(BALL),
    "llr_random": LLRRandom(BALL),
    "llr_random released": LLRRandom(BALL, quirks="released"),
    "cure": CURE(BALL, h=0.3),
    "cure released": CURE(BALL, quirks="released"),
}


def against_differences(term, s, numeric, **known):
    def scalar():
        return term.values(s.net, s.x, s.y, seed=SEED, **known).sum()

    found = torch.autograd.grad(scalar(), list(s.net.parameters()), allow_unused=True, materialize_grads=True)
    for p, q in zip(found, numeric(s.net, scalar), strict=True):
        torch.testing.assert_close(p, q, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_to_the_weights_are_those_of_finite_differences(smooth, numeric, name):
    against_differences(DIFFERENTIABLE[name], smooth(3), numeric)


@pytest.mark.parametrize("term", [GradAlign(BALL), CURE(BALL, detach=True)], ids=["gradalign", "cure"])
def test_a_known_gradient_is_held_fixed(smooth, numeric, term):
    s = smooth(3)
    g = torch.stack([gradient(s.net, *pair, False) for pair in zip(s.x, s.y, strict=True)])
    torch.testing.assert_close(
        term.values(s.net, s.x, s.y, seed=SEED), term.values(s.net, s.x, s.y, seed=SEED, gradient=g)
    )
    against_differences(term, s, numeric, gradient=g)
