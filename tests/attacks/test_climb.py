"""Square, then a climb: who gets more work, and what that finds."""

import pytest
import torch

from danskin.attacks.climb import Abreast, Chain, SquareClimb, Wary
from danskin.minmax import L1, L2, Ascent, Box, Linf, Maximum, Streams
from danskin.minmax.result import Cost, Status
from danskin.testing import ATTACK_CHECKS, check_attack
from danskin.testing.models import Counted, convnet

# Square is for images; the number of queries changes its schedule
SKIPPED = {"tabular", "more_work_is_never_worse"}


@pytest.mark.parametrize("check", [c for c in ATTACK_CHECKS if c not in SKIPPED])
@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.3), L1(1.0)], ids=["linf", "l2", "l1"])
def test_conformance(ball, check):
    check_attack(SquareClimb(ball, queries=12, steps=4, more=2, stop=check != "seed_decides", width=9), only=[check])


def test_conformance_with_hops():
    attack = SquareClimb(Linf(0.05), queries=12, steps=4, hops=2, slack=9.0, stop=True, width=9)
    check_attack(attack, skip=[*SKIPPED, "seed_decides"])


class Hill:
    """-(y - 3)^2 per row, settled above a row's own level."""

    def __init__(self, level):
        self.level = level

    def __call__(self, y):
        value = 9 - ((y - 3) ** 2).sum(1)
        return value - self.level, value > self.level

    def rows(self, index):
        return Hill(self.level[index])


def _fixed(value):
    """A maximiser that finds this value (relative to the level), and counts the rows it is asked about."""
    asked = []

    def run(f, y0, Y, generator):
        asked.append(len(y0))
        v = value[: len(y0)] if isinstance(value, torch.Tensor) else torch.full((len(y0),), value)
        return Maximum(y0, v.clone(), v > 0, Cost(len(y0)), Status.DONE)

    return run, asked


@pytest.mark.parametrize(("start", "usual", "probe", "more"), [
    (-10.0, -0.5, -0.5, 1),   # lacks less than a tenth of the gain
    (-10.0, -2.0, -2.0, 0),   # does not
    (-10.0, -2.0, -1.0, 1),   # the probe found as much as is lacking
    (-10.0, -2.0, -1.6, 0),   # the probe found something, but more is lacking
    (-10.0, 0.5, 0.5, 0),     # settled already
])  # fmt: skip
def test_who_gets_more(start, usual, probe, more):
    f = Hill(torch.tensor([9.0 - (0 - 3) ** 2 - start]))  # at y = 0 the value is `start`
    first, second, third = (_fixed(v) for v in (usual, probe, 1.0))
    found = Wary(first[0], second[0], third[0], 0.1)(f, torch.zeros(1, 1), Box(-5, 5), Streams.of(0, torch.arange(1)))
    assert len(third[1]) == more
    assert bool(found.settled) == (more == 1 or usual > 0)


@pytest.mark.parametrize("onward", [False, True])
def test_where_the_further_work_begins(onward):
    began = []

    def at(y, value):
        def run(f, y0, Y, generator):
            began.append(float(y0))
            return Maximum(torch.full_like(y0, y), torch.full((1,), value), torch.zeros(1).bool(), Cost(1), Status.DONE)

        return run

    wary = Wary(at(1.0, -0.5), at(2.0, -0.4), at(3.0, -0.6), 9.0, onward)
    found = wary(Hill(torch.tensor([100.0])), torch.zeros(1, 1), Box(-5, 5), Streams.of(0, torch.arange(1)))
    assert began == [0, 0, 2.0 if onward else 0] and float(found.y) == 2.0


def test_chain_goes_on_from_the_best():
    f, Y = Hill(torch.tensor([100.0, 100.0])), Box(-5, 5)
    step = Ascent(3, 0.5, direction="steepest")
    found = Chain((step, step))(f, torch.zeros(2, 1), Y, Streams.of(0, torch.arange(2)))
    assert torch.allclose(found.y, torch.full((2, 1), 3.0))
    assert found.cost.backwards == 2 * 6


def test_abreast_keeps_the_best_of_each_row():
    def run(f, y0, Y, streams):
        value = streams.uniform(y0.new_empty(len(y0), 1)).view(-1) - 2
        return Maximum(y0 + value[:, None], value, value > 0, Cost(len(y0)), Status.DONE)

    streams = Streams.of(0, torch.arange(3))
    found = Abreast(run, 5)(Hill(torch.zeros(3)), torch.zeros(3, 1), Box(-5, 5), streams)
    each = [streams.child(torch.full((3,), k)).uniform(torch.empty(3, 1)).view(-1) - 2 for k in range(5)]
    assert torch.allclose(found.value, torch.stack(each).amax(0))
    assert torch.allclose(found.y.view(-1), found.value)
    assert found.cost.forwards == 15


@pytest.mark.parametrize("width", [1, 3, 7, 8])
def test_runs_abreast_hold_no_more_rows_than_asked_for(width):
    held = []

    def run(f, y0, Y, streams):
        held.append(len(y0))
        value = streams.uniform(y0.new_empty(len(y0), 1)).view(-1) - f.level / 100
        return Maximum(y0 + value[:, None], value, value > 0, Cost(len(y0), 0, 1), Status.DONE)

    problem = Hill(torch.arange(7.0)), torch.zeros(7, 1), Box(-5, 5), Streams.of(0, torch.arange(7))
    whole, parts = Abreast(run, 4)(*problem), Abreast(run, 4, width)(*problem)
    for name in ("y", "value", "settled"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    assert held[0] == 28 and max(held[1:]) <= 4 * width and sum(held[1:]) == 28
    assert (parts.cost.forwards, parts.cost.calls) == (28, len(held) - 1)


@pytest.mark.parametrize("further", [{"more": 3}, {"hops": 2}])
def test_costs_are_exact(further):
    model = Counted(convnet(5, seed=1))
    x = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    y = model.model(x).argmax(1).detach()
    out = SquareClimb(Linf(0.1), queries=15, steps=5, **further, stop=True, width=8)(model, x, y)
    assert (out.cost.forwards, out.cost.backwards, out.cost.calls) == (model.forwards, model.backwards, model.calls)
    assert 0 < int(out.success.sum()) < 12
