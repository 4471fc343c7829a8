"""What all minimum-norm and decision-based attacks owe their users, whatever the algorithm."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from danskin.attacks.asking import Asking
from danskin.attacks.boundary import Boundary
from danskin.attacks.carlini_wagner import CarliniWagner
from danskin.attacks.closest import Closest
from danskin.attacks.ddn import DDN
from danskin.attacks.deepfool import DeepFool
from danskin.attacks.ead import EAD
from danskin.attacks.fmn import FMN
from danskin.attacks.goal import Goal
from danskin.attacks.hop_skip_jump import HopSkipJump
from danskin.attacks.payoff import ShiftPayoff
from danskin.errors import InputError, ModelError
from danskin.losses import get_loss
from danskin.minmax import L1, L2, Linf, Status, Streams
from danskin.testing import ATTACK_CHECKS, check_attack
from danskin.testing.models import Counted, RowwiseLinear, mlp

# Radii that break some of the suite's examples and leave others; few steps.
GRADIENT = {
    "carlini wagner": CarliniWagner(L2(0.3), steps=6, searches=3),
    "deepfool l2": DeepFool(L2(0.3), steps=5),
    "deepfool linf": DeepFool(Linf(0.05), steps=5),
    "ddn": DDN(L2(0.3), steps=8),
    "fmn linf": FMN(Linf(0.05), steps=8),
    "fmn l2": FMN(L2(0.3), steps=8),
    "fmn l1": FMN(L1(1.0), steps=8),
    "ead l1": EAD(L1(1.0), steps=6, searches=3),
    "ead l2": EAD(L2(0.3), steps=6, searches=3, rule="l1"),
}
DECISION = {
    "boundary": Boundary(L2(0.3), queries=18),
    "hop skip jump l2": HopSkipJump(L2(0.3), queries=40, probes=10),
    "hop skip jump linf": HopSkipJump(Linf(0.05), queries=40, probes=10),
}
ATTACKS = GRADIENT | DECISION
VARIANTS = {
    "stop": FMN(L2(0.3), steps=8, stop=True),
    "targeted": DDN(L2(0.3), steps=8, loss="targeted_margin"),
    "targeted, carlini wagner": CarliniWagner(L2(0.3), steps=6, searches=3, loss="targeted_margin", confidence=0.1),
    "binary": CarliniWagner(L2(0.3), steps=6, searches=3, loss="hinge"),
    "binary, deepfool": DeepFool(L2(0.3), loss="logistic"),
    "binary, decisions": HopSkipJump(L2(0.3), queries=60, probes=20, loss="hinge", stop=True),
    "bfloat16 search": FMN(L2(0.3), steps=8, precision="bfloat16"),
    "eval": DDN(L2(0.3), steps=8, batchnorm="eval"),
}
# More steps anneal along another path and end elsewhere; and nearer points have a lower loss, not a higher one, which
# is what the check compares. `test_more_work_is_never_farther` stands in for it.
ANNEALED = ("more_work_is_never_worse",)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_keeps_the_contract(name):
    attack = ATTACKS[name]
    check_attack(attack, skip=ANNEALED if isinstance(attack, DDN | FMN | EAD) else ())


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_keeps_the_contract(name):
    skip = {*ANNEALED, "batch_and_order_do_not_matter", "more_work_is_never_worse"}  # slow; the same code as above
    check_attack(VARIANTS[name], only=[check for check in ATTACK_CHECKS if check not in skip])


def problem(n=8, d=12, classes=4, seed=3):
    """A network with one hidden layer in float64, inputs well inside the box, labels it gives them."""
    model = mlp(d, classes, seed).double()
    x = 0.3 + 0.4 * torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return model, x, model(x).argmax(1).detach()


def wide(attack, **options):
    """The same attack on a ball that holds everything."""
    values = {Linf: 1.0, L2: 3.0, L1: 12.0}
    few = {"steps": 60, "searches": 5, "first_constant": 0.1} if hasattr(attack, "searches") else {}
    few |= {"queries": 200} if hasattr(attack, "queries") else {}
    return type(attack)(type(attack.ball)(values[type(attack.ball)]), **few, **options)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_large_ball_gives_the_norm_and_a_smaller_one_asks_about_it(name):
    model, x, y = problem()
    attack = wide(ATTACKS[name], **({} if name in DECISION else {"refine": 0}))
    out = attack(model, x, y)
    assert bool(out.success.all())
    norms = attack.ball.norm(out.delta)
    small = dataclasses.replace(attack, ball=type(attack.ball)(norms * torch.tensor([1.001, 0.5] * 4)))
    again = small(model, x, y)
    assert bool(again.success[::2].all())  # the same search, now with just enough room
    assert torch.equal(again.x[::2], out.x[::2])
    outside = again.x[1::2] - x[1::2]
    assert bool((small.ball.rows(torch.arange(1, 8, 2)).violation(outside) <= 1e-9).all())
    assert bool((outside != 0).any(1).all())  # the closest point projected, not the clean input and not nothing
    assert not bool(again.success[1::2].all())


@pytest.mark.parametrize("name", ATTACKS)
def test_stop_leaves_early_with_as_many_successes(name):
    model, x, y = problem()
    y[0] = (y[0] + 1) % 4
    options = {} if name in DECISION else {"refine": 0}
    full, early = (wide(ATTACKS[name], stop=stop, **options)(model, x, y) for stop in (False, True))
    assert bool(full.success.all()) and bool(early.success.all())
    assert early.status is Status.SETTLED
    norm = ATTACKS[name].ball.norm
    assert bool((norm(full.delta) <= norm(early.delta) + 1e-12).all())
    if not isinstance(ATTACKS[name], DeepFool):  # it leaves at its first success anyway
        assert early.cost.forwards < full.cost.forwards


@pytest.mark.parametrize("name", ATTACKS)
def test_mistakes_on_clean_inputs_come_back_unchanged_for_one_pass(name):
    model, x, y = problem()
    counted = Counted(model)
    out = ATTACKS[name](counted, x, (y + 1) % 4)
    assert bool(out.success.all()) and torch.equal(out.x, x) and out.status is Status.DONE
    assert counted.calls <= 2  # the look, and for decision-based ones the verdict


@pytest.mark.parametrize("name", ATTACKS)
def test_passes_are_counted_as_they_happen(name):
    model, x, y = problem()
    counted = Counted(model)
    out = ATTACKS[name](counted, x, y)
    assert (out.cost.forwards, out.cost.backwards, out.cost.calls) == (
        counted.forwards, counted.backwards, counted.calls,
    )  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_without_a_box(name):
    model, x, _ = problem()
    out = wide(ATTACKS[name], box=None)(model, 5 * x - 2, model(5 * x - 2).argmax(1))
    assert bool(out.success.all()) and bool((ATTACKS[name].ball.norm(out.delta) > 0).all())


@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_that_cannot_be_broken(name):
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True) * 0 + torch.tensor([2.0, 0.0, 0.0]).to(x)

    x, y = torch.rand(4, 6), torch.zeros(4, dtype=torch.int64)
    attack = ATTACKS[name]
    out = attack(Constant(), x, y)
    assert not bool(out.success.any()) and torch.equal(out.x, x)
    if name in GRADIENT:
        assert out.status is Status.ZERO_GRADIENT
    else:
        assert out.cost.forwards <= 4 * (attack.queries + 1)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_that_is_nan_away_from_the_data(name):
    """No endless loop, no infinity, and NaN never counts as broken."""
    model, x, y = problem()

    def brittle(z):
        far = (z - x[: len(z)]).abs().amax(1, keepdim=True) > 1e-5 if len(z) == len(x) else torch.ones(len(z), 1) > 0
        return torch.where(far, torch.nan, model(z))

    out = ATTACKS[name](brittle, x, y)
    assert not bool(out.success.any()) and bool(out.x.isfinite().all())
    with pytest.raises(ModelError, match="NaN"):
        ATTACKS[name](lambda z: model(z) * torch.nan, x, y)


def test_lead_is_what_the_adversary_is_ahead_by():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 1.5]])
    y, t = torch.tensor([1, 0]), torch.tensor([2, 2])
    x = torch.zeros(2, 1)
    f = ShiftPayoff(Asking(nn.Identity(), torch.float32), Goal(y, None, get_loss("margin")), x, None)
    assert f.goal.lead(logits).tolist() == [-1.0, -3.5]
    f = ShiftPayoff(Asking(nn.Identity(), torch.float32), Goal(y, t, get_loss("targeted_margin")), x, None)
    assert f.goal.lead(logits).tolist() == [-1.0, -3.5]
    assert f.goal.lead(torch.tensor([[1.0, 0.0, 9.0], [5.0, 9.0, 1.5]])).tolist() == [8.0, -7.5]
    b = torch.tensor([1, -1])
    f = ShiftPayoff(Asking(nn.Identity(), torch.float32), Goal(b, None, get_loss("hinge")), x, None)
    assert f.goal.lead(torch.tensor([[2.0], [3.0]])).tolist() == [-2.0, 3.0]


def _closest(stop=False, radius=1.0):
    model = RowwiseLinear(2, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        model.bias.copy_(torch.tensor([0.0, -0.5]))
    x, y = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    f = ShiftPayoff(Asking(model, torch.float64), Goal(y, None, get_loss("margin")), x, None)
    closest = Closest(f, torch.zeros_like(x), L2(radius), Streams.of(0, torch.arange(3)), stop=stop, labels_only=False)
    closest.look(closest.start)
    return closest


def test_closest_keeps_the_nearest_adversarial_point():
    closest = _closest()
    for size in (0.9, 0.4, 0.6, 0.7):  # adversarial above 0.5
        closest.look(torch.tensor([[size, 0.0]] * 3, dtype=torch.float64))
    assert closest.distance.tolist() == [0.6] * 3
    found = closest.result()
    assert found.y.tolist() == [[0.6, 0.0]] * 3 and bool(found.settled.all())
    assert torch.allclose(found.value, torch.full((3,), 0.1, dtype=torch.float64))
    assert closest.cost.forwards == 15 and closest.spent.tolist() == [5] * 3


def test_closest_prefers_a_point_inside_the_ball_to_a_better_ranked_one_outside():
    closest = _closest(radius=0.8)
    closest.rank = lambda delta: delta[:, 1]  # not the norm: outside, the second point would win
    closest.look(torch.tensor([[0.7, 0.3]] * 3, dtype=torch.float64))
    closest.look(torch.tensor([[2.0, -1.0]] * 3, dtype=torch.float64))
    assert closest.result().y.tolist() == [[0.7, 0.3]] * 3


def test_closest_projects_what_is_outside_and_evaluates_it():
    closest = _closest(radius=0.45)
    closest.look(torch.tensor([[0.9, 0.0]] * 3, dtype=torch.float64))
    found = closest.result()
    assert torch.allclose(found.y, torch.tensor([[0.45, 0.0]] * 3, dtype=torch.float64))
    assert not bool(found.settled.any()) and torch.allclose(found.value, torch.full((3,), -0.05, dtype=torch.float64))
    assert closest.cost.forwards == 9


def test_refine_pulls_to_the_boundary_and_counts():
    closest = _closest()
    closest.look(torch.tensor([[0.9, 0.0], [0.51, 0.3], [0.1, 0.1]], dtype=torch.float64))
    closest.refine(24)
    first, second, third = closest.distance.tolist()
    assert first == pytest.approx(0.5, rel=1e-4) and first >= 0.5
    assert second == pytest.approx(math.hypot(0.51, 0.3) * 0.5 / 0.51, rel=1e-4)
    assert third == math.inf  # nothing to pull
    assert closest.cost.forwards == 6 + 2 * 24


@pytest.mark.parametrize(("attack", "says"), [
    (lambda: CarliniWagner(Linf(0.1)), "expected L2, got Linf"), (lambda: DeepFool(L1(1.0)), "expected L2 or Linf"),
    (lambda: Boundary(Linf(0.1)), "expected L2"), (lambda: HopSkipJump(L1(1.0)), "expected L2 or Linf"),
    (lambda: EAD(Linf(0.1)), "expected L1 or L2"), (lambda: DDN(L1(0.1)), "expected L2"),
    (lambda: DDN(L2(0.1), steps=0), "DDN.steps: expected at least 1"), (lambda: FMN(L2(0.1), shrink=2), "FMN.shrink"),
    (lambda: CarliniWagner(L2(0.1), searches=0), "searches"), (lambda: EAD(L2(0.1), rule="l2"), "EAD.rule"),
    (lambda: DeepFool(L2(0.1), candidates=0), "DeepFool.candidates"), (lambda: DDN(L2(0.1), draws=4), "DDN.draws"),
    (lambda: HopSkipJump(L2(0.1), queries=0), "HopSkipJump.queries: expected at least 1"),
    (lambda: Boundary(L2(0.1), toward=2), "a number from 1e-12 to 1"),
    (lambda: HopSkipJump(L2(0.1), starts=torch.rand(3, 5)), "HopSkipJump.starts: expected inputs of shape"),
])  # fmt: skip
def test_wrong_settings_are_refused(attack, says):
    model, x, y = problem()
    with pytest.raises(InputError, match=says):
        attack()(model, x, y)


def test_deepfool_refuses_targets():
    model, x, y = problem()
    with pytest.raises(InputError, match=r"targets: expected none for DeepFool.*FMN"):
        DeepFool(L2(1.0))(model, x, y, targets=(y + 1) % 4)


@pytest.mark.parametrize("name", GRADIENT)
def test_a_model_without_a_gradient_is_refused(name):
    model, x, y = problem()
    with pytest.raises(ModelError, match="needs no gradient"):
        ATTACKS[name](lambda z: model(z).detach(), x, y)
