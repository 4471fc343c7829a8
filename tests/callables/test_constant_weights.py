"""Weights that are promised not to change are computed once, and never where a gradient flows to them."""

import threading

import torch

from danskin.attacks import PGD
from danskin.callables import constant_weights
from danskin.lipschitz.layers import OrthogonalLinear
from danskin.minmax import L2


class Counted(OrthogonalLinear):
    calls = 0

    def make_weight(self):
        self.calls += 1
        return super().make_weight()


def test_an_attack_computes_the_weight_once():
    net, x, y = Counted(6, 3), torch.rand(8, 6), torch.randint(3, (8,))
    PGD(L2(0.5), steps=20)(net, x, y, seed=0)
    assert net.calls <= 2  # once for the search, once for the verdict
    with torch.no_grad():
        net.weight.mul_(-1)
    first = net(x)
    PGD(L2(0.5), steps=1)(net, x, y, seed=0)
    assert torch.equal(net(x), first) and net.weight.grad is None


def test_outside_the_promise_every_call_sees_the_weights_of_now():
    net, x = Counted(4, 4), torch.rand(2, 4)
    with torch.no_grad():
        before = net(x)
        with constant_weights():
            net(x), net(x)
        net.weight.mul_(-1)
        with constant_weights():
            assert torch.allclose(net(x) - net.bias, net.bias - before, atol=1e-5)
    assert net.calls == 3


def test_weights_that_carry_a_gradient_are_not_kept():
    net, x = Counted(4, 4), torch.rand(2, 4)
    with constant_weights():
        for _ in range(2):  # a kept weight would have lost its graph after the first
            net(x).sum().backward()
    assert net.calls == 2 and net.weight.grad is not None


def test_the_promise_belongs_to_one_thread():
    net, x = Counted(4, 4).requires_grad_(False), torch.rand(2, 4)
    with constant_weights():
        net(x)
        other = threading.Thread(target=lambda: (net(x), net(x)))
        other.start()
        other.join()
        net(x)
    assert net.calls == 3
