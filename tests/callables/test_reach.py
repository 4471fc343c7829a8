"""Modules behind every kind of callable are found, and nothing else is."""

import contextlib
import functools
import types
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from danskin.callables import reach

NET = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
OTHER = nn.Linear(4, 3)
HOLDER = types.ModuleType("mynets")
HOLDER.net = NET


class Wrapper:
    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)

    def logits(self, x):
        return self.net(x)


class Slotted:
    __slots__ = ("net",)

    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)


@dataclass
class Ensemble:
    members: list

    def __call__(self, x):
        return sum(m(x) for m in self.members)


class Unregistered(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.nets = {"one": [net]}

    def forward(self, x):
        return self.nets["one"][0](x)


class ByClass:
    net = NET

    def __call__(self, x):
        return self.net(x)


class ByGlobal:
    def __call__(self, x):
        return self.inner(x)

    @staticmethod
    def inner(x):
        return NET(x)


class ModuleByGlobal(nn.Module):
    def forward(self, x):
        return NET(x)


class ByProperty:
    def __init__(self, net):
        self.hidden = (net,)

    @property
    def net(self):
        return self.hidden[0]

    def __call__(self, x):
        return self.net(x)


def by_name(x):
    return NET(x)


def nested(x):
    return sum(f(x) for f in [lambda t: HOLDER.net(t)])


@functools.lru_cache(1)
def cached(x):
    return NET(x)


@torch.no_grad()
def decorated(x):
    return NET(x)


def closed_over(net):
    return lambda x: net(x).softmax(-1).log()


def first_argument(net, x, scale=1.0):
    return scale * net(x)


def with_default(x, net=NET):
    return net(x)


def hooked(net):
    outer = nn.Identity()
    outer.register_forward_hook(lambda module, inputs, output: net(output))
    return outer


@pytest.mark.parametrize("model", [
    NET, closed_over(NET), closed_over(closed_over(NET)), NET.forward, NET.__call__, by_name, nested, cached, decorated,
    with_default, functools.partial(first_argument, NET), functools.partial(first_argument, scale=2.0, net=NET),
    Wrapper(NET), Wrapper(Wrapper(NET)), Wrapper(NET).logits, Slotted(NET), Ensemble([NET]), Ensemble([Wrapper(NET)]),
    Unregistered(NET), ByClass(), ByGlobal(), ByProperty(NET), ModuleByGlobal(), hooked(NET), torch.vmap(NET),
    closed_over({"a": [(NET,)]}), closed_over({NET}), Wrapper(weakref.ref(NET)), nn.Sequential(Unregistered(NET)),
], ids=lambda m: getattr(m, "__qualname__", type(m).__name__))  # fmt: skip
def test_the_network_behind_a_callable_is_found(model):
    found = reach(model)
    assert set(NET.modules()) <= set(found.modules) and OTHER not in found.modules
    assert len({id(m) for m in found.modules}) == len(found.modules)


def test_only_globals_that_code_names_as_globals_count():
    def model(x):
        return types.SimpleNamespace(OTHER=x).OTHER + NET(x)  # an attribute that is called as a global is

    assert OTHER not in reach(model).modules


def test_roots_are_not_parts_of_one_another():
    assert reach(NET).roots == (NET,)
    assert reach(lambda x: NET(x) + OTHER(x)).roots == (NET, OTHER)
    assert reach(lambda x: x).roots == reach(torch.relu).roots == ()


def test_tensors_beside_modules():
    weight = torch.ones(4, 3)
    found = reach(lambda x: x @ weight)
    assert found.tensors == (weight,) and found.modules == ()


def test_circles_and_names_without_a_value_end():
    one, two = Wrapper(None), Wrapper(None)
    one.net, two.net, one.self = two, [one, NET], one

    def early(x):
        return later(x)  # noqa: F821

    assert NET in reach(one).modules and reach(early).modules == ()
    with contextlib.suppress(NameError):
        early(torch.ones(1))
    late = closed_over(early)
    assert reach(late).modules == ()
