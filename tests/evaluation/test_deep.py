"""The suite deep: all of standard, and basin hopping on what that leaves."""

import dataclasses
import math

import pytest
import torch

from danskin.attacks import BasinHopping
from danskin.attacks.autoattack import stages
from danskin.evaluation import evaluate
from danskin.evaluation.deep import deep
from danskin.evaluation.suites import suite_of
from danskin.minmax import L1, L2, Linf
from danskin.testing.models import Counted, mlp

BALL = Linf(0.12)


def short(attacks, steps=5):
    """The same attacks with much less to do."""
    less = {"steps": steps, "queries": 30, "hops": 4, "climb": 6, "chains": 3, "least": 2}
    return {
        name: dataclasses.replace(a, **{k: v for k, v in less.items() if hasattr(a, k)}) for name, a in attacks.items()
    }


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(2.0)], ids=repr)
def test_it_begins_with_standard(ball):
    name, attacks = suite_of("deep", ball, (0, 1))
    assert name == "deep" and list(attacks) == [*stages(ball), "basin-hopping"]
    assert {k: attacks[k] for k in stages(ball)} == stages(ball)
    assert attacks["basin-hopping"] == BasinHopping(ball, stop=True)


@pytest.mark.parametrize("box", [(0.0, 1.0), (-1.0, 2.0), None])
def test_it_is_about_the_box_asked_for(box):
    assert all(attack.box == box for attack in deep(BALL, box=box).values())


def test_it_breaks_what_standard_breaks_and_more(digits_net):
    model, x, y = digits_net
    standard = evaluate(model, (x, y), BALL, short(stages(BALL), 1), diagnostics=0)
    found = evaluate(model, (x, y), BALL, short(deep(BALL), 1), diagnostics=0, keep_points=True)
    broken = standard.broken_by > 0
    assert torch.equal(found.broken_by[broken], standard.broken_by[broken])
    more = found.broken_by == 5
    assert more.any() and not broken[more].any()
    assert ((found.points - x).abs().amax((1, 2, 3)) <= 0.12 + 1e-6).all()
    assert (model(found.points[more]).argmax(1) != y[more]).all()


@pytest.mark.parametrize("ball", [Linf(0.03), L2(0.2), L1(0.5)], ids=repr)
@pytest.mark.parametrize(("shape", "classes"), [((20,), 2), ((20,), 3), ((1, 6, 6), 2), ((2, 9), 4)])
@pytest.mark.filterwarnings("ignore:model")
def test_any_shape_and_few_classes(ball, shape, classes):
    model = mlp(math.prod(shape), classes, seed=1)
    x = torch.rand(12, *shape, generator=torch.Generator().manual_seed(0))
    got = evaluate(model, (x, model(x).argmax(1)), ball, short(deep(ball)), diagnostics=0)
    assert [s.name for s in got.stages if s.left_out] == ([] if len(shape) == 3 else ["square"])
    assert got.stages[-1].seen > 0 and got.stages[-1].cost.forwards > 0


class Near(torch.nn.Module):
    """Ten classes; the margin is mean(x) - 0.63: -0.13 at 0.5, and at most -0.01 with a shift of 0.12."""

    def forward(self, x):
        lead = x.flatten(1).mean(1, keepdim=True) - 0.63 - 0.001 * torch.arange(9)
        return torch.cat([torch.zeros_like(lead[:, :1]), lead], 1)


def test_it_costs_at_most_fifteen_times_standard_where_all_survive():
    x, y, work = torch.full((2, 1, 8, 8), 0.5), torch.zeros(2, dtype=torch.int64), {}
    for suite in ("standard", "deep"):
        model = Counted(Near())
        found = evaluate(model, (x, y), BALL, suite, diagnostics=0)
        assert found.robust.hits == 2
        work[suite] = model.forwards + 2 * model.backwards, model.forwards + model.backwards
    assert 9 < work["deep"][0] / work["standard"][0] < 15
    assert 9 < work["deep"][1] / work["standard"][1] < 15
