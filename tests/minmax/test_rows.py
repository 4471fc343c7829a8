"""What is cut along with the rows of a batch."""

from dataclasses import dataclass, field

import pytest
import torch

from danskin.attacks import PGD, CarliniWagner, SquareClimb
from danskin.attacks.climb import Abreast, Chain, Wary
from danskin.attacks.single_step import NoisyStep
from danskin.minmax import L2, Ascent, BestOf, Box, Linf, Restarts, Streams
from danskin.minmax.adaptive import AdaptiveAscent, ShrinkingBalls
from danskin.minmax.rows import rows_of
from danskin.minmax.steps import SteppedAscent

AT = torch.tensor([2, 0, 2])
STEP = torch.tensor([0.1, 0.2, 0.3])
CUT = [0.3, 0.1, 0.3]


@dataclass(frozen=True)
class Strange:
    """A maximiser of somebody else's, without a word on rows."""

    inner: tuple
    each: torch.Tensor
    table: torch.Tensor
    made: int = field(default=0, init=False)


def test_any_dataclass_is_cut():
    thing = Strange((Ascent(1, STEP), 7), STEP, torch.zeros(3, 2))
    got = rows_of(thing, AT)
    assert got.each.tolist() == pytest.approx(CUT)
    assert got.inner[0].step.tolist() == pytest.approx(CUT)
    assert got.inner[1] == 7
    assert got.table is thing.table


@pytest.mark.parametrize(
    "same", [3.0, Ascent(1, 0.1), Ascent(1, torch.tensor([0.1])), Ascent(1, torch.tensor(0.1)), print]
)
def test_what_is_for_all_rows_stays(same):
    assert rows_of(same, AT) is same


@pytest.mark.parametrize("make", [
    lambda a: Restarts(a, 2), lambda a: BestOf((a, a)), lambda a: Chain((a,)), lambda a: Abreast(a, 2),
    lambda a: Wary(a, a, a, 0.1), lambda a: Restarts(Wary(a, Chain((a, a)), Abreast(a, 2), 0.1), 3),
])  # fmt: skip
def test_maximisers_that_hold_others(make):
    text = repr(rows_of(make(Ascent(1, STEP)), AT))
    assert text == repr(make(Ascent(1, STEP[AT])))
    assert text != repr(make(Ascent(1, STEP)))


@pytest.mark.parametrize("kind", [AdaptiveAscent, SteppedAscent])
def test_steps(kind):
    assert kind(3, STEP).rows(AT).step.tolist() == pytest.approx(CUT)
    assert ShrinkingBalls(AdaptiveAscent(3, STEP)).rows(AT).ascent.step.tolist() == pytest.approx(CUT)


def test_sets_and_attacks():
    assert NoisyStep(Linf(STEP), STEP).rows(AT).noise.value.tolist() == pytest.approx(CUT)
    attack = PGD(L2(STEP), step=STEP, box=(torch.zeros(3), torch.ones(3))).rows(AT)
    assert attack.ball.value.tolist() == attack.step.tolist() == pytest.approx(CUT)
    assert attack.box[1].tolist() == [1, 1, 1]
    assert SquareClimb(Linf(STEP)).rows(AT).maximizer().probe.links[1].step.tolist() == pytest.approx(
        [0.15, 0.05, 0.15]
    )
    assert Linf(torch.tensor([0.3])).rows(AT).value.tolist() == pytest.approx([0.3])
    assert CarliniWagner(L2(STEP)).rows(AT).ball.value.tolist() == pytest.approx(CUT)


class Hill:
    """-(y - 3)^2 per row; example 0 is settled everywhere."""

    def __init__(self, rows):
        self.index = rows

    def __call__(self, y):
        return -((y - 3) ** 2).sum(1), self.index == 0

    def rows(self, index):
        return Hill(self.index[index])


@pytest.mark.parametrize("make", [lambda a: Abreast(a, 2), lambda a: Abreast(a, 2, 1), lambda a: Chain((a, a)),
                                  lambda a: Wary(a, a, Abreast(a, 2), 9.0)])  # fmt: skip
def test_each_row_goes_its_own_step(make):
    steps, every = torch.tensor([0.5, 0.2, 0.125]), torch.arange(3)
    whole = make(Ascent(2, steps))(Hill(every), torch.zeros(3, 1), Box(-5, 5), Streams.of(0, every))
    for i in every.split(1):
        alone = make(Ascent(2, float(steps[i])))(Hill(i), torch.zeros(1, 1), Box(-5, 5), Streams.of(0, i))
        assert torch.equal(alone.y, whole.y[i])
    assert len(set(whole.y.flatten().tolist())) == 3
