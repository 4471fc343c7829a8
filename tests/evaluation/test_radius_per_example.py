"""A radius for each example, in every suite."""

import pytest
import torch

from danskin.attacks import APGD, PGD, BasinHopping, SquareClimb
from danskin.evaluation import evaluate
from danskin.evaluation.suites import SUITES
from danskin.minmax import L1, L2, Linf
from danskin.testing import check_suite
from danskin.testing.models import convnet

BALLS = [Linf(0.05), L2(0.5), L1(3.0)]


def small(ball):
    """Members of the suites fast and deep, and others, with less to do."""
    return [
        APGD(ball, steps=8, stop=True),
        SquareClimb(ball, queries=20, steps=8, more=2, slack=5.0, stop=True),
        BasinHopping(ball, hops=4, climb=5, chains=3, least=2, slack=5.0, stop=True),
        PGD(ball, steps=5),
    ]


@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_suite_of_ones_own(ball):
    check_suite(small, ball)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_suites(name, ball):
    check_suite(name, ball, n=4, batch_size=3)


def test_fast_takes_a_tensor():
    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = convnet(4)
    y = model(x).argmax(1)
    one = evaluate(model, (x, y), Linf(0.02), "fast", diagnostics=0)
    many = evaluate(model, (x, y), Linf(torch.full((8,), 0.02)), "fast", diagnostics=0)
    assert torch.equal(one.broken_by, many.broken_by)


def test_a_step_per_example_goes_with_its_example():
    """The data are cut into batches; each example keeps the step it was given."""
    x = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    model = convnet(4)
    y = model(x).argmax(1)
    steps = torch.tensor([0.0, 0.1, 0.0, 0.1, 0.1, 0.0])
    attack = PGD(Linf(0.3), steps=3, step=steps, random_start=False)
    found = evaluate(model, (x, y), Linf(0.3), [attack], batch_size=2, diagnostics=0, keep_points=True)
    moved = (found.points != x).flatten(1).any(1)
    assert not moved[steps == 0].any()
    assert moved[steps > 0].any()
