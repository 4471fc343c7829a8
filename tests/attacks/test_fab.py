"""FAB: the least distance on affine models, a slow twin, and what it may not do."""

import dataclasses
import itertools
import math

import cvxpy
import numpy as np
import pytest
import torch
from torch import nn

from danskin.attacks.fab import FAB, FABT
from danskin.attacks.fab_steps import PullBack
from danskin.errors import InputError, ModelError
from danskin.minmax import L1, L2, Linf, Status, Streams
from danskin.minmax.hyperplane import project_hyperplane
from danskin.testing import ATTACK_CHECKS, check_attack
from danskin.testing.models import RowwiseLinear, mlp

BALLS = {"linf": Linf(0.05), "l2": L2(0.3), "l1": L1(1.0)}
ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}
# more steps come closer to the clean input, where the loss, which this check looks at, is lower
SKIP = ("more_work_is_never_worse",)


class Counted(nn.Module):
    """A model that counts the examples it has seen, and those that were differentiated."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x):
        self.forwards += len(x)
        out = self.model(x)
        if out.requires_grad:
            out.register_hook(self.count)
        return out

    def count(self, g):
        self.backwards += len(g)


@pytest.mark.parametrize("check", [name for name in ATTACK_CHECKS if name not in SKIP])
@pytest.mark.parametrize("attack", [FAB, FABT])
@pytest.mark.parametrize("norm", BALLS)
def test_conformance(norm, attack, check):
    check_attack(attack(BALLS[norm], steps=3), only=[check])


@pytest.mark.parametrize(
    "attack",
    [
        FAB(Linf(0.05), steps=2, restarts=2, stop=True),
        FABT(L2(0.3), steps=4, stop=True, patience=1, classes=2, width=20),
        FAB(Linf(0.05), steps=4, loss="logistic"),
        FAB(L2(0.3), steps=4, loss="targeted_margin"),
        FABT(Linf(0.05), steps=3, precision="bfloat16"),
    ],
    ids=["restarts", "narrow", "binary", "targets", "bfloat16"],
)
def test_variants(attack):
    heavy = () if attack.width else ("batch_and_order_do_not_matter",)  # once is enough
    check_attack(attack, skip=(*SKIP, *heavy))


def data(n=24, shape=(1, 4, 4), seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def least(model, x, y, order, boxed):
    """The least norm that reaches another class of an affine model, by a convex program for each class."""
    w, b = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    out = []
    for xi, yi in zip(x.double().flatten(1).numpy(), y.tolist(), strict=True):
        each = []
        for j in range(len(b)):
            if j == yi:
                continue
            d = cvxpy.Variable(len(xi))
            limits = [(w[j] - w[yi]) @ (xi + d) + b[j] - b[yi] >= 0]
            limits += [xi + d >= 0, xi + d <= 1] if boxed else []
            norm = cvxpy.norm(d, "inf" if order == math.inf else order)
            each.append(cvxpy.Problem(cvxpy.Minimize(norm), limits).solve(solver="CLARABEL"))
        out.append(min(each))
    return torch.tensor(out)


@pytest.mark.parametrize("attack", [FAB, FABT])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("norm", BALLS)
def test_exact_on_affine_models(norm, classes, attack):
    model, x = RowwiseLinear(16, classes), data()
    y = model(x).argmax(1)
    w, z = model.weight.detach(), model(x).detach()
    dual = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
    gaps = (z.gather(1, y[:, None]) - z) / torch.linalg.vector_norm(w[y][:, None] - w, dual, dim=2)
    exact = torch.where(gaps.isnan(), math.inf, gaps).amin(1)
    out = attack(type(BALLS[norm])(100.0), steps=30, box=None)(model, x, y)
    distance = out.delta.flatten(1).norm(ORDERS[norm], dim=1)
    assert out.success.all()
    assert torch.allclose(distance, exact, rtol=1e-3)


@pytest.mark.parametrize("norm", BALLS)
def test_exact_on_affine_models_in_a_box(norm):
    model, x = RowwiseLinear(16, 3, seed=3), (1.6 * data(8) - 0.3).clamp(0, 1)
    y = model(x).argmax(1)
    exact = least(model, x, y, ORDERS[norm], boxed=True)
    ball = type(BALLS[norm])({"linf": 1.0, "l2": 4.0, "l1": 16.0}[norm])
    out = FABT(ball, steps=60, beta=0.97, eta=1.01)(model, x, y)  # finer than by default
    distance = out.delta.flatten(1).norm(ORDERS[norm], dim=1).double()
    reachable = exact.isfinite()
    assert reachable.sum() >= 6
    assert torch.equal(out.success, reachable)
    assert (distance[reachable] >= exact[reachable] * (1 - 1e-5)).all()
    assert torch.allclose(distance[reachable], exact[reachable], rtol=1e-3)


def twin(model, x, label, order, steps, box=(0.0, 1.0)):
    """One example, step by step: the least norm of the adversarial points that FAB looks at."""
    x = x[None]
    at, found = x.clone(), math.inf

    def look(p):
        norm = torch.linalg.vector_norm((p - x).flatten(), order).item()
        return norm if model(p).argmax(1).item() != label else math.inf

    for _ in range(steps):
        found = min(found, look(at))
        p = at.clone().requires_grad_()
        z = model(p)[0]
        gaps = [z[j] - z[label] for j in range(len(z)) if j != label]
        slopes = [torch.autograd.grad(g, p, retain_graph=True)[0] for g in gaps]
        dual = {math.inf: 1, 2: 2, 1: math.inf}[order]
        near = [
            abs(g.item()) / torch.linalg.vector_norm(w.flatten(), dual).item()
            for g, w in zip(gaps, slopes, strict=True)
        ]
        g, w = gaps[int(np.argmin(near))].item(), slopes[int(np.argmin(near))]
        b = (w * at).sum()[None] - g
        d1, d2 = (project_hyperplane(t, w, b, box[0], box[1], order) - t for t in (at, x))
        n1, n2 = (max(torch.linalg.vector_norm(d.flatten(), order).item(), 1e-8) for d in (d1, d2))
        a = min(n1 / (n1 + n2), 0.1)
        at = ((1 - a) * (at + 1.05 * d1) + a * (x + 1.05 * d2)).clamp(*box)
        found = min(found, look(at))
        if look(at) < math.inf:
            at = x + 0.9 * (at - x)
    return found


@pytest.mark.parametrize("norm", BALLS)
def test_fast_is_slow(norm):
    model, x = mlp(16, 4, seed=2).double(), data(10, seed=5).double()
    y = model(x).argmax(1)
    ball = type(BALLS[norm])({"linf": 1.0, "l2": 4.0, "l1": 16.0}[norm])
    for steps in (1, 2, 7):
        out = FAB(ball, steps=steps, refine=0, patience=None)(model, x, y)
        for i in range(len(x)):
            wanted = twin(model, x[i], y[i].item(), ORDERS[norm], steps)
            got = ball.norm(out.delta[i : i + 1]).item() if out.success[i] else math.inf
            assert got == pytest.approx(wanted, rel=1e-9), (steps, i)


@pytest.mark.parametrize("attack", [FAB, FABT])
def test_more_steps_never_move_away(attack):
    model, x = mlp(16, 4, seed=2), data()
    y = model(x).argmax(1)
    norms = []
    for steps in (1, 3, 9, 27):
        out = attack(L2(4.0), steps=steps, patience=4, refine=0)(model, x, y)
        norms.append(torch.where(out.success, L2(1.0).norm(out.delta), math.inf))
    assert all((more <= less).all() for less, more in itertools.pairwise(norms))
    assert (norms[-1] < norms[0]).any()


def test_the_pull_back_comes_closer_and_counts_its_looks():
    model, x = mlp(16, 4, seed=2), data()
    y = model(x).argmax(1)
    plain, pulled = (FAB(L2(4.0), steps=20, refine=refine)(model, x, y) for refine in (0, 4))
    ball = L2(1.0)
    assert (ball.norm(pulled.delta) <= ball.norm(plain.delta)).all()
    assert (ball.norm(pulled.delta) < 0.999 * ball.norm(plain.delta)).float().mean() > 0.5
    assert pulled.cost.forwards - plain.cost.forwards == 4 * len(x)


@pytest.mark.parametrize(("inside", "outside"), [(0.3, 3.0), (3.0, 0.05)])
def test_the_pull_back_finds_where_it_turns(inside, outside):
    class F:
        """Adversarial from a norm on; the lead bends there."""

        def __init__(self, y, at):
            self.x, self.at, self.y = torch.zeros_like(y), at, y

        def shifted(self, delta):
            return delta

        seen = shifted

        def confirmed(self, point, hit):
            return hit

        def __call__(self, delta):
            lead = delta.norm(dim=1) - self.at
            return torch.where(lead > 0, outside * lead, inside * lead), lead > 0

        def rows(self, index):
            return F(self.y[index], self.at[index])

    y = torch.eye(4).double()
    at = torch.tensor([0.95, 0.995, 0.85, 0.907]).double()
    out = PullBack(20, 0.9, False, None)(F(y, at), y, L2(2.0))
    assert (out.y.norm(dim=1) > at).all()
    assert torch.allclose(out.y.norm(dim=1), at, rtol=1e-3)
    far = torch.tensor([0.4, 0.5, 0.6, 0.7]).double()  # more than one share away
    assert torch.allclose(PullBack(30, 0.9, False, None)(F(y, far), y, L2(2.0)).y.norm(dim=1), far, rtol=5e-3)


def test_in_bfloat16_what_is_found_is_what_is_handed_out():
    model, x = mlp(16, 4, seed=2).bfloat16(), data().bfloat16()
    y = model(x).argmax(1)
    assert FABT(L2(4.0), steps=20)(model, x, y).success.all()
    x = data(60)
    model = mlp(16, 4, seed=2)
    assert FAB(L2(4.0), steps=60, precision="bfloat16")(model, x, model(x).argmax(1)).success.all()


@pytest.mark.parametrize("attack", [FAB, FABT])
@pytest.mark.parametrize("stop", [False, True])
def test_the_plain_model_is_asked_only_about_what_would_be_kept(attack, stop):
    model, x = mlp(16, 4, seed=2), data()
    y, plain = model(x).argmax(1), Counted(model)
    run = attack(L2(0.2 if stop else 1.0), steps=30, stop=stop)
    alone, confirmed = run(model, x, y), run(plain, x, y, quick=model)
    assert torch.equal(confirmed.x, alone.x) and torch.equal(confirmed.success, alone.success)
    assert alone.success.any()
    assert 0 < plain.forwards < 0.3 * alone.cost.forwards  # about half of the points are adversarial
    liar = mlp(16, 4, seed=3)
    got = run(model, x, y, quick=liar)
    assert (model(got.x[got.success]).argmax(1) != y[got.success]).all()


def test_stop_leaves_at_the_first_success_with_as_many_successes():
    model, x = mlp(16, 4, seed=2), data(40)
    y = model(x).argmax(1)
    ball = L2(0.35)
    go_on, stop = FABT(ball, steps=20)(model, x, y), FABT(ball, steps=20, stop=True)(model, x, y)
    assert torch.equal(go_on.success, stop.success) and 5 < int(stop.success.sum()) < 38
    assert stop.cost.forwards < 0.8 * go_on.cost.forwards
    assert (ball.norm(go_on.delta) <= ball.norm(stop.delta) + 1e-6)[stop.success].all()


def test_points_outside_the_ball_do_not_count():
    model, x = RowwiseLinear(16, 3), data()
    y = model(x).argmax(1)
    exact = Linf(1.0).norm(FAB(Linf(100.0), steps=30, box=None)(model, x, y).delta)
    radius = exact.median().item()
    out = FAB(Linf(radius), steps=30, box=None, stop=True)(model, x, y)
    assert torch.equal(out.success[exact < 0.99 * radius], torch.ones_like(out.success[exact < 0.99 * radius]))
    assert not out.success[exact > 1.01 * radius].any()
    outside = exact > 1.01 * radius  # the nearest point, projected: at the end of the ball
    assert torch.allclose(Linf(1.0).norm(out.delta)[outside], torch.tensor(radius))


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("attack", [FAB, FABT])
def test_cost_is_what_the_model_saw(attack, stop):
    model, x = Counted(mlp(16, 4, seed=2)), data()
    y = model.model(x).argmax(1)
    out = attack(L2(0.4), steps=7, stop=stop, restarts=2)(model, x, y)
    assert (out.cost.forwards, out.cost.backwards) == (model.forwards, model.backwards)


def test_cost_of_a_step_is_two_forward_passes_and_one_backward():
    model, x = mlp(16, 4, seed=2), data()
    y = model(x).argmax(1)
    n, steps = len(x), 9
    targeted = FABT(Linf(1e-4), steps=steps, stop=True, classes=2)(model, x, y).cost
    assert (targeted.forwards, targeted.backwards) == (n * (1 + 2 * 2 * steps + 1), n * 2 * steps)  # ranked, judged
    nearest = FAB(Linf(1e-4), steps=steps, stop=True)(model, x, y).cost
    assert (nearest.forwards, nearest.backwards) == (n * (2 * steps + 1), n * 3 * steps)


@pytest.mark.parametrize("attack", [FAB(L2(0.4), steps=9, patience=3), FABT(Linf(0.1), steps=9, stop=True, restarts=2)])
def test_width_changes_nothing(attack):
    model, x = RowwiseLinear(16, 4).double(), data(30).double()
    y = model(x).argmax(1)
    whole = attack(model, x, y)
    for width in (1, 7):
        got = dataclasses.replace(attack, width=width)(model, x, y)
        assert torch.equal(got.x, whole.x) and torch.equal(got.success, whole.success)
        assert (got.cost.forwards, got.cost.backwards) == (whole.cost.forwards, whole.cost.backwards)


def test_targets_are_reached():
    model, x = mlp(16, 4, seed=2), data()
    y = model(x).argmax(1)
    targets = (y + 2) % 4
    out = FAB(L2(4.0), steps=40)(model, x, y, targets=targets)
    assert torch.equal(out.success, model(out.x).argmax(1) == targets) and out.success.float().mean() > 0.8
    with pytest.raises(InputError, match="targets: expected none for FABT"):
        FABT(L2(4.0))(model, x, y, targets=targets)


def test_fresh_starts_find_what_the_clean_input_hides():
    class Flat(nn.Module):
        """No gradient near the clean input; a class to be found further out."""

        def forward(self, x):
            s = x.flatten(1)
            return torch.stack([torch.zeros(len(s)), ((s - 0.5).square().sum(1) - 0.05).clamp_min(0) - 0.05], 1)

    x, y = torch.full((6, 1, 3, 3), 0.5) + 0.01 * data(6, (1, 3, 3)), torch.zeros(6, dtype=torch.int64)
    never = FAB(L2(0.6), steps=20, patience=None)(Flat(), x, y)
    assert not never.success.any() and never.status is Status.ZERO_GRADIENT
    assert never.cost.calls < 10  # and it is not asked again and again
    # at once, not after 50 steps: without a gradient there is nothing to wait for
    assert FAB(L2(0.6), steps=20, patience=50)(Flat(), x, y).success.all()
    assert FAB(L2(0.6), steps=20, patience=None, restarts=2)(Flat(), x, y).success.all()


def test_fresh_starts_when_no_step_comes_closer():
    model, x = mlp(16, 10, seed=4), data(60)
    y = model(x).argmax(1)
    ball = Linf(0.5)
    never, three = (ball.norm(FAB(ball, steps=60, patience=p)(model, x, y).delta) for p in (None, 12))
    assert (three != never).any()  # elsewhere, and hardly worse where the first way was the best
    assert (three < 1.02 * never).all()


@pytest.mark.parametrize("label", [0, 1])  # argmax takes NaN for the largest: a success or not
def test_a_model_that_breaks_down_is_an_error(label):
    class Breaks(nn.Module):
        def forward(self, x):
            s = x.flatten(1).sum(1)
            z = torch.stack([s * 0 + 2, s - 8], 1)
            return torch.where((s > 8.05)[:, None] & (torch.arange(2) == 1), math.nan, z if label == 0 else -z)

    x = torch.full((3, 1, 4, 4), 0.5)
    with pytest.raises(ModelError, match="NaN"):
        FAB(Linf(0.3), steps=5)(Breaks(), x, torch.full((3,), label))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "FAB.steps: expected at least 1, got 0"),
        ({"beta": 1.5}, "FAB.beta: expected a number from 0 to 1"),
        ({"eta": 0.5}, "FAB.eta: expected at least 1"),
        ({"alpha_max": -0.1}, "FAB.alpha_max"),
        ({"restarts": 0}, "FAB.restarts"),
        ({"patience": 0}, "FAB.patience: expected at least 1"),
        ({"draws": 3}, "FAB.draws: expected 1, got 3"),
    ],
)
def test_bad_numbers(change, message):
    with pytest.raises(InputError, match=message):
        FAB(Linf(0.1), **change)(mlp(16, 4), data(), torch.zeros(24, dtype=torch.int64))


def test_classes():
    with pytest.raises(InputError, match="classes: expected at least 1"):
        FABT(Linf(0.1), classes=0)(mlp(16, 4), data(), torch.zeros(24, dtype=torch.int64))
    with pytest.raises(InputError, match="call the attack"):
        FAB(Linf(0.1)).maximizer()(lambda y: y.sum(1), torch.zeros(2, 3), Linf(0.1), Streams.of(0, torch.arange(2)))
