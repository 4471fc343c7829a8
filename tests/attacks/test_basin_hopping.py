"""Basin hopping: kicks and exchanges as said, who leaves, what it costs, and what it finds where gradients mislead."""

import math

import pytest
import torch
from torch import nn

from danskin import InputError
from danskin.attacks import PGD, BasinHopping
from danskin.attacks.patches import exchanged, kicked, patch, share_between
from danskin.minmax import L1, L2, Box, Intersection, Linf, Streams
from danskin.testing import ATTACK_CHECKS, check_attack
from danskin.testing.models import Counted, convnet

BALLS = {"linf": Linf(0.05), "l2": L2(0.3), "l1": L1(1.0)}


@pytest.mark.parametrize("check", ATTACK_CHECKS)
@pytest.mark.parametrize("norm", BALLS)
def test_conformance(norm, check):
    attack = BasinHopping(BALLS[norm], hops=3, climb=3, chains=3, least=2, stop=check != "seed_decides", width=8)
    check_attack(attack, only=[check])


@pytest.mark.parametrize("loss", ["hinge", "logistic", "dlr", "cross_entropy"])
def test_conformance_of_losses(loss):
    check_attack(BasinHopping(Linf(0.05), hops=2, climb=3, chains=2, loss=loss), skip=["batch_and_order_do_not_matter"])


def _streams(n):
    return Streams.of(0, torch.arange(n))


def test_a_patch_of_an_image_is_a_square_of_its_share():
    share = torch.tensor([1e-9, 0.01, 0.04, 0.25, 0.36, 1.0])
    part = patch(torch.zeros(6, 3, 20, 20), share, _streams(6))
    assert part.shape == (6, 1, 20, 20)
    for one, side in zip(part[:, 0], (1, 2, 4, 10, 12, 20), strict=True):
        at = one.nonzero()
        assert len(at) == side**2
        assert (at.amax(0) - at.amin(0) == side - 1).all()


def test_a_patch_of_a_vector_is_a_share_of_its_coordinates_and_never_empty():
    share = torch.tensor([1e-9, 0.1, 0.5]).repeat_interleave(50)
    part = patch(torch.zeros(150, 400), share, _streams(150)).float()
    assert (part[:50].sum(1) == 1).all()
    assert part[50:100].mean() == pytest.approx(0.1, abs=0.01)
    assert part[100:].mean() == pytest.approx(0.5, abs=0.02)


def test_shares_are_uniform_in_their_logarithm():
    assert torch.allclose(share_between(0.01, 1.0, torch.tensor([0.0, 0.5, 1.0])), torch.tensor([0.01, 0.1, 1.0]))


@pytest.mark.parametrize("shape", [(2, 9, 9), (81,)])
def test_a_kick_goes_to_a_vertex_on_its_patch_and_changes_nothing_else(shape):
    x = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    Y = Intersection(Linf(0.3), Box(-x, 1 - x))
    share = torch.full((40,), 0.1)
    y = kicked(torch.zeros_like(x), Y, share, _streams(40))
    part = patch(x, share, _streams(40).child(0)).expand_as(x)
    low, high = Y.bounds(x)
    assert torch.equal(y != 0, part & (y != 0)) and (y[part] != 0).float().mean() > 0.99
    assert ((y == low) | (y == high))[part].all()
    ups = (y == high).flatten(1).sum(1)
    assert bool((ups > 0).any() and (ups == 0).any()) or len(shape) == 1
    if len(shape) == 3:  # one sign for each channel of the square
        for image, low_, high_, inside in zip(y, low, high, part, strict=True):
            for c in range(2):
                here = inside[c]
                assert (image[c] == low_[c])[here].all() or (image[c] == high_[c])[here].all()


@pytest.mark.parametrize("ball", [L2(0.5), L1(2.0)], ids=["l2", "l1"])
def test_a_kick_stays_in_the_set_and_moves(ball):
    x = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    Y = Intersection(ball, Box(-x, 1 - x))
    before = Y.sample(x, _streams(30))
    y = kicked(before, Y, torch.full((30,), 0.1), _streams(30).child(3))
    assert float(Y.violation(y).max()) < 1e-6
    assert ((y - before).flatten(1).norm(dim=1) > 0.05).all()


def test_an_exchange_takes_from_another_chain_of_the_same_example():
    chains, n = 4, 25
    y = torch.arange(n * chains).float()[:, None, None, None].expand(-1, 1, 6, 6).contiguous()
    out = exchanged(y, chains, torch.full((n * chains,), 0.25), _streams(n * chains))
    taken = out.view(n, chains, 36)
    givers = set()
    for example in range(n):
        for chain in range(chains):
            values, counts = taken[example, chain].unique(return_counts=True)
            mine = example * chains + chain
            assert sorted(counts.tolist()) == [9, 27] and float(values[counts.argmax()]) == mine
            (giver,) = (int(v) for v in values if int(v) != mine)
            assert giver // chains == example
            givers.add((giver - mine) % chains)
    assert givers == {1, 2, 3}


class Trap(nn.Module):
    """Two classes. Gradients lead all pixels up, to a lead of -0.1; with a corner of 3 x 3 pixels down it is +1."""

    def forward(self, x):
        d = (x - 0.5) / 0.3
        decoy = d.flatten(1).mean(1) - 1.1
        hidden = -3 - 4 * d[..., :3, :3].flatten(1).mean(1)
        lead = torch.maximum(decoy, hidden)
        return torch.stack([torch.zeros_like(lead), lead], 1)


def test_hops_leave_a_basin_that_ascent_stays_in():
    x = torch.full((6, 1, 8, 8), 0.5) + 0.001 * torch.arange(6).view(-1, 1, 1, 1)
    y = torch.zeros(6, dtype=torch.int64)
    ball = Linf(0.3)
    assert not PGD(ball, steps=50, restarts=5, loss="margin")(Trap(), x, y).success.any()
    alone = BasinHopping(ball, hops=1, chains=1, slack=math.inf, stop=True)(Trap(), x, y)
    assert not alone.success.any() and torch.allclose(alone.loss, torch.tensor(-0.1), atol=0.05)
    assert BasinHopping(ball, hops=100, slack=math.inf, stop=True)(Trap(), x, y).success.all()


def test_more_hops_are_never_worse():
    model, x = convnet(4, seed=2), torch.rand(10, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1).detach()
    losses = [BasinHopping(Linf(0.02), hops=n, climb=4, chains=3)(model, x, y).loss for n in (1, 2, 5)]
    assert (losses[1] >= losses[0]).all() and (losses[2] >= losses[1]).all()
    assert (losses[2] > losses[0]).any()


class Far(nn.Module):
    """The lead of class 1 is a (mean of x) - b: linear, so that one climb gains all there is."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        lead = self.a * x.flatten(1).mean(1) - self.b
        return torch.stack([torch.zeros_like(lead), lead], 1)


@pytest.mark.parametrize(("slack", "hops"), [(0.9, 4), (1.1, 10), (math.inf, 10)])
def test_who_is_far_leaves_after_the_least_hops(slack, hops):
    # at 0.5: -2 a eps; what hops can gain is a eps; so the lack is as much as the gain
    a, eps = 10.0, 0.1
    model = Counted(Far(a, a * 0.5 + 2 * a * eps))
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    out = BasinHopping(Linf(eps), hops=10, climb=5, chains=2, least=4, slack=slack, stop=True)(model, x, y)
    assert torch.allclose(out.loss, torch.full((3,), -a * eps), atol=1e-4)
    assert model.forwards == out.cost.forwards == 3 * 2 * hops * 6
    assert model.backwards == out.cost.backwards == 3 * 2 * hops * 5


def test_costs_are_exact():
    model = Counted(convnet(5, seed=1))
    x = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model.model(x).argmax(1).detach()
    out = BasinHopping(Linf(0.05), hops=4, climb=5, chains=3, stop=True, width=10)(model, x, y)
    assert (out.cost.forwards, out.cost.backwards, out.cost.calls) == (model.forwards, model.backwards, model.calls)
    assert 0 < int(out.success.sum()) < 12


@pytest.mark.parametrize("wrong", [
    {"hops": 0}, {"climb": 0}, {"chains": 0}, {"least": 0}, {"exchange": 1.5}, {"exchange": -0.1}, {"slack": -1.0},
    {"slack": math.nan},
])  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"BasinHopping.{name}: expected"):
        BasinHopping(Linf(0.1), **wrong)(convnet(4), torch.rand(2, 3, 6, 6), torch.zeros(2, dtype=torch.int64))
