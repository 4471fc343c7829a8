"""Branches, sorted pairs and max pooling in a chain: the same function, and bounds in order."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from danskin.evaluation.certify import certify
from danskin.lipschitz import (
    chain_of,
    eclipse_fast,
    exact_by_regions,
    lipschitz,
    lipsdp,
    lipsdp_by_solver,
    product_bound,
    read,
    search_lower,
)
from danskin.lipschitz.layers import Abs, GroupSort, MaxMin
from danskin.minmax import L2
from danskin.testing.models import seeded


class Residual(nn.Module):
    """Two blocks around activations, the second in reach of the input, too."""

    def __init__(self, activation=None, width=4):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, width), nn.Linear(width, 3), nn.Linear(3, width)
        self.d, self.out = nn.Linear(width, 3, bias=False), nn.Linear(3, 2)
        self.activation = activation or nn.ReLU()

    def forward(self, x):
        h = x + self.b(self.activation(self.a(x)))
        h = h - self.d(self.activation(self.c(h)))
        return self.out(h + 0.5 * x)


class Dense(nn.Module):
    """Activations of different depth that meet."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(7, 2)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.out(torch.cat([h, torch.relu(self.b(h)), x], 1)) + torch.relu(x)


def sorted_pairs(order=None, width=4):
    return nn.Sequential(nn.Linear(3, width), order or MaxMin(), nn.Linear(width, 4), GroupSort(2), nn.Linear(4, 2))


def pooled():
    return nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    )


class Alternating(nn.Module):
    """|x| and ReLU side by side with something that is carried around both."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, x):
        return self.out(torch.abs(self.a(x)) + torch.relu(self.b(x))) + x[:, :1]


NETS = {
    "residual": (Residual, (3,)),
    "residual, gelu": (lambda: Residual(nn.GELU()), (3,)),
    "residual, sorted": (lambda: Residual(MaxMin()), (3,)),
    "dense": (Dense, (2,)),
    "maxmin": (sorted_pairs, (3,)),
    "group sort": (lambda: sorted_pairs(GroupSort(2)), (3,)),
    "abs": (lambda: nn.Sequential(nn.Linear(2, 4), Abs(), nn.Linear(4, 3), Abs(), nn.Linear(3, 1)), (2,)),
    "max pooling": (pooled, (1, 6, 5)),
    "max pooling alone": (lambda: nn.MaxPool2d(2), (2, 5, 4)),
    "maxmin of channels": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 2), MaxMin(), nn.Flatten(), nn.Linear(16, 2)), (1, 3, 3)
    ),
    "both": (Alternating, (2,)),
}  # fmt: skip


def made(name, seed=0):
    make, shape = NETS[name]
    return seeded(make(), seed, 2.0).double().eval(), shape


def chain(net, shape):
    return chain_of(read(net, torch.zeros(1, *shape, dtype=torch.float64)))


@pytest.mark.parametrize("name", NETS)
def test_a_chain_computes_what_the_network_computes(name):
    net, shape = made(name)
    x = torch.randn(50, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(chain(net, shape)(x.flatten(1)), net(x).detach().flatten(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [2, "inf"])
@pytest.mark.parametrize("name", NETS)
def test_bounds_are_in_order(name, norm):
    net, shape = made(name)
    found = chain(net, shape)
    lower = search_lower(net, shape, norm=norm, points=64, rounds=2).value
    neuron, layer = lipsdp(found, norm=norm).value, lipsdp(found, norm=norm, per="layer", steps=100).value
    assert lower <= neuron * (1 + 1e-5) and neuron <= layer * (1 + 1e-5)
    if norm == 2:
        product = product_bound(net, shape).value
        assert neuron <= product * (1 + 1e-5)
        assert found.branches or layer <= eclipse_fast(found).value * (1 + 1e-9) <= product * (1 + 1e-5)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["residual", "maxmin", "abs", "both"]))
def test_regions_are_those_that_samples_meet(seed, name):
    net, shape = made(name, seed)
    for norm in (2, "inf"):
        found = exact_by_regions(chain(net, shape), norm=norm)
        assert found.closed
        x = 8 * torch.randn(4000, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        jacobians = torch.func.vmap(torch.func.jacrev(lambda row: net(row[None])[0]))(x).detach()
        norms = torch.linalg.matrix_norm(jacobians, 2 if norm == 2 else torch.inf)
        assert float(norms.max()) <= found.upper.value * (1 + 1e-9)
        a, b = found.lower.witness
        moved = torch.linalg.vector_norm((net(a[None]) - net(b[None])).detach(), 2 if norm == 2 else torch.inf)
        assert float(moved / torch.linalg.vector_norm(a - b, 2 if norm == 2 else torch.inf)) == pytest.approx(
            found.lower.value, rel=1e-6
        )
        assert found.upper.value <= lipsdp(chain(net, shape), norm=norm).value * (1 + 1e-5)


@pytest.mark.parametrize("name", ["residual", "residual, gelu", "maxmin", "dense"])
def test_the_optimum_is_that_of_clarabel_with_what_is_carried_along(name):
    pytest.importorskip("cvxpy")
    net, shape = made(name)
    assert lipsdp(chain(net, shape)).value == pytest.approx(lipsdp_by_solver(chain(net, shape)).value, rel=1e-4)


def test_sorting_keeps_sums_which_lipsdp_knows_and_the_product_does_not():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), MaxMin(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, -2.0]]))
        net[2].weight.fill_(1.0)  # max + min = a + b = 4 x_1
    assert lipsdp(chain(net, (2,))).value == pytest.approx(4.0, rel=1e-4)
    assert exact_by_regions(chain(net, (2,))).upper.value == pytest.approx(4.0, rel=1e-8)
    assert product_bound(net, (2,)).value > 5.1


def test_what_cancels_around_a_branch_is_seen():
    class Cancel(nn.Module):
        def forward(self, x):
            return torch.relu(x) - 0.5 * x  # |x| / 2

    assert lipsdp(chain(Cancel(), (3,))).value == pytest.approx(0.5, rel=1e-4)
    assert product_bound(Cancel(), (3,)).value == pytest.approx(1.5)
    found = lipschitz(Cancel(), (2,), budget_s=5)
    assert found.exact and found.upper.value == pytest.approx(0.5, rel=1e-6)
    assert [name for name, why in found.skipped if "branches" in why] == ["eclipse-fast"]


def test_near_an_input_branches_are_tighter_too():
    net, shape = made("residual")
    at = torch.tensor([0.2, -0.1, 0.4])
    near = lipschitz(net, shape, at=at, radius=0.05, methods=("lipsdp",), budget_s=5)
    deltas = 0.05 * torch.nn.functional.normalize(torch.randn(3000, 3, dtype=torch.float64), dim=1)
    a, b = at + deltas[:1500], at + deltas[1500:]
    with torch.no_grad():
        quotients = (net(a) - net(b)).norm(dim=1) / (a - b).norm(dim=1)
    assert float(quotients.max()) <= near["LipSDP-neuron"].value <= near["product"].value * (1 + 1e-6)
    assert near["LipSDP-neuron"].value < lipsdp(chain(net, shape)).value


@pytest.mark.parametrize("name", ["residual", "maxmin"])
def test_certified_margins_take_them(name):
    net, shape = made(name)
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = net(x).argmax(1)
    found = certify(net, (x, y), L2(0.1), method="lipschitz", box=None)
    pairs = [(net(x)[:, 0] - net(x)[:, 1]).abs()[k] for k in range(len(x))]
    rows = torch.linalg.vector_norm(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert bool((found.margin >= torch.stack(pairs) - 0.1 * rows * product_bound(net, shape).value - 1e-9).all())
    deltas = torch.randn(8, 2000, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    deltas = 0.1 * torch.nn.functional.normalize(deltas, dim=2)
    with torch.no_grad():
        z = net((x[:, None] + deltas).flatten(0, 1)).view(8, 2000, 2)
    margins = z.gather(2, y.view(8, 1, 1).expand(-1, 2000, 1)) - z.gather(2, 1 - y.view(8, 1, 1).expand(-1, 2000, 1))
    assert bool((found.margin <= margins.amin((1, 2)) + 1e-9).all())


def test_all_orders_of_four_numbers_are_sorted_in_pairs():
    x = torch.tensor(list(itertools.permutations([1.0, 2.0, 3.0, 4.0])), dtype=torch.float64)
    for module in (GroupSort(2), MaxMin()):
        torch.testing.assert_close(chain(module, (4,))(x), module(x), rtol=0, atol=1e-14)
