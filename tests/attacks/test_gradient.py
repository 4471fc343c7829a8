"""FGSM, PGA and PGD against plain loops, each other, and the ways they are known to fail."""

import dataclasses
import math

import pytest
import torch

from danskin.attacks import ATTACKS, FGSM, NFGSM, PGA, PGD, Attack, MajorizeMinimize
from danskin.errors import InputError
from danskin.losses import cross_entropy, margin, predict
from danskin.minmax import L1, L2, Linf, Maximum, Status, Vertex
from danskin.testing import oracles
from danskin.testing.models import Counted, CrossEntropyTrap, RowwiseLinear, convnet, mlp

X = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(1))
MODEL = mlp(48, 4)
Y = predict(MODEL(X)).detach()
BALLS = [Linf(0.03), L2(0.3), L1(1.0)]


@pytest.mark.parametrize("box", [None, (0, 1)], ids=["no box", "box"])
@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_fgsm_is_one_pga_step_with_a_large_step(ball, box):
    one = PGA(ball, steps=1, step=1e9, keep="last", box=box)(MODEL.double(), X.double(), Y)
    fgsm = FGSM(ball, box=box)(MODEL, X.double(), Y)
    MODEL.float()
    assert torch.allclose(one.delta, fgsm.delta, rtol=0, atol=1e-6)  # projections of t g approach it at rate 1 / t


def test_fgsm_is_the_vertex():
    x, ball = X.clone().requires_grad_(), Linf("8/255")
    cross_entropy(MODEL(x), Y).sum().backward()
    assert torch.equal(FGSM(ball)(MODEL, X, Y).x, (X + 8 / 255 * x.grad.sign()).clamp(0, 1))
    assert isinstance(FGSM(ball).maximizer(), Vertex)
    MODEL.zero_grad()


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("model", [MODEL, convnet(4)], ids=["mlp", "convnet"])
def test_pgd_equals_a_plain_loop_bit_for_bit(model, steps):
    attack = PGD(Linf("8/255"), steps=steps, step="2/255", random_start=False, keep="last")
    plain = oracles.plain_pgd(lambda x: cross_entropy(model(x), Y), X, 8 / 255, 2 / 255, steps, (0, 1))
    model.zero_grad()
    assert torch.equal(attack(model, X, Y).x, plain)


@pytest.mark.parametrize("keep", ["best", "value"])
@pytest.mark.parametrize("step", [2 / 255, 8 / 255, 40 / 255], ids=["climbs", "overshoots", "jumps about"])
def test_the_point_kept_is_the_best_of_a_plain_loop(step, keep):
    model, radius, steps = convnet(4), 16 / 255, 9

    def loss(x):
        return cross_entropy(model(x), Y)

    visited = torch.stack([oracles.plain_pgd(loss, X, radius, step, k, (0, 1)) for k in range(steps + 1)])
    with torch.no_grad():
        value = torch.stack([loss(x) for x in visited])
        wrong = torch.stack([predict(model(x)) != Y for x in visited])
    rank = value.double() + 1e3 * wrong * (keep == "best")
    best = visited[rank.argmax(0), torch.arange(len(X))]
    model.zero_grad()
    attack = PGD(Linf(radius), steps=steps, step=step, random_start=False, keep=keep)
    assert torch.equal(attack(model, X, Y).x, best)


@pytest.mark.parametrize(("keep", "forwards"), [("last", 5), ("best", 6)])
@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_perturb_gives_the_points_of_the_call_and_does_not_judge_them(ball, keep, forwards):
    attack, counted = PGD(ball, steps=5, keep=keep), Counted(MODEL)
    points = attack.perturb(counted, X, Y, seed=3)
    assert (counted.forwards, counted.backwards) == (forwards * len(X), 5 * len(X))
    assert torch.equal(points, attack(MODEL, X, Y, seed=3).x) and not points.requires_grad
    assert attack.perturb(MODEL, X[:0], Y[:0]).shape == (0, *X.shape[1:])


def test_perturb_serves_attacks_that_are_only_trained_with():
    points = NFGSM(Linf("8/255")).perturb(MODEL, X, Y)
    assert bool(((points - X).abs() > 8 / 255 + 1e-4).any())
    with pytest.raises(InputError, match="trained with"):
        NFGSM(Linf("8/255"))(MODEL, X, Y)


def test_random_starts_depend_on_seed_and_example_only():
    attack = PGD(Linf(0.03), steps=1, step=0.0, keep="last")
    a, b = attack(MODEL, X, Y, seed=0).x, attack(MODEL, X, Y, seed=1).x
    assert bool((a != b).any()) and torch.equal(attack(MODEL, X[3:5], Y[3:5], seed=0).x, a[3:5])


def test_names_of_examples_replace_their_content():
    attack = PGD(Linf(0.03), steps=1, step=0.0, keep="last", box=None)
    same = X[:1].expand(2, -1, -1, -1)
    twins = attack(MODEL, same, Y[:1].expand(2)).delta
    named = attack(MODEL, same, Y[:1].expand(2), index=torch.tensor([7, 8])).delta
    assert torch.equal(twins[0], twins[1]) and not torch.equal(named[0], named[1])


def test_default_step_can_cross_the_ball():
    ascent = PGD(Linf(0.1), steps=10).maximizer().maximizer
    assert ascent.step == pytest.approx(2.5 * 0.1 / 10)


def test_targets_are_reached():
    model, x = RowwiseLinear(48, 4, scale=1.0), X
    y, targets = predict(model(x)), (predict(model(x)) + 2) % 4
    for loss in ("cross_entropy", "margin", "targeted_margin", "targeted_dlr"):
        out = PGD(Linf(0.5), steps=30, loss=loss)(model, x, y, targets=targets)
        assert bool(out.success.all()) and torch.equal(predict(model(out.x)), targets), loss


def test_success_with_targets_means_the_target():
    model = RowwiseLinear(48, 4, scale=1.0)
    y = predict(model(X))
    out = PGD(Linf(0.5), loss="margin")(model, X, y)
    assert bool(out.success.all())
    away = PGD(Linf(1e-6), loss="margin")(model, X, (y + 1) % 4, targets=(y + 1) % 4)
    assert not bool(away.success.any())  # the prediction is "wrong", but it is not the target


def test_cross_entropy_fails_where_the_margin_succeeds():
    x, y = torch.zeros(200, 1), torch.zeros(200, dtype=torch.int64)
    index = torch.arange(200)
    trap = CrossEntropyTrap()
    by_value = {
        loss: PGD(Linf(1.0), steps=40, step=0.05, loss=loss, box=None, keep="value")(trap, x, y, index=index)
        for loss in ("cross_entropy", "margin")
    }
    best = by_value["cross_entropy"].loss.argmax()
    assert by_value["cross_entropy"].loss[best].item() == pytest.approx(2.2073, abs=1e-4)
    assert not bool(by_value["cross_entropy"].success[best])  # the strongest point by cross-entropy is no error
    best = by_value["margin"].loss.argmax()
    assert by_value["margin"].loss[best].item() == pytest.approx(0.04, abs=1e-4)
    assert bool(by_value["margin"].success[best])


def test_the_trap_is_as_documented():
    z = CrossEntropyTrap()(torch.tensor([[-1.0], [1.0]]))
    y = torch.zeros(2, dtype=torch.int64)
    assert cross_entropy(z, y).tolist() == pytest.approx([2.2073, 0.7133], abs=1e-4)
    assert margin(z, y).tolist() == pytest.approx([-0.0953, 0.0400], abs=1e-4)


def test_success_counts_before_value():
    """With keep="best" the trap does not hide an error that was visited on the way to the larger loss."""
    x, y = torch.full((1, 1), 1.0), torch.zeros(1, dtype=torch.int64)
    trap = CrossEntropyTrap()
    walk = PGA(Linf(2.0), steps=3, step=-0.0, box=None)  # stays at the clean point, which is an error already
    assert bool(walk(trap, x, y).success.all())


COUNTED = {
    "fgsm": (FGSM(BALLS[0]), 2, 1),
    "pgd": (PGD(BALLS[0], steps=5), 6, 5),
    "pgd, last": (PGD(BALLS[0], steps=5, keep="last"), 6, 5),
    "pgd, restarts": (PGD(BALLS[0], steps=5, restarts=3), 18, 15),
    "pga": (PGA(BALLS[1], steps=4), 5, 4),
    "mm": (MajorizeMinimize(BALLS[0], steps=4), 5, 4),
    "bfloat16": (PGD(BALLS[0], steps=5, precision="bfloat16"), 7, 5),
}


@pytest.mark.parametrize("name", COUNTED)
def test_costs_are_exact(name):
    attack, forwards, backwards = COUNTED[name]
    counted = Counted(MODEL)
    cost = attack(counted, X, Y).cost
    assert (counted.forwards, counted.backwards, counted.calls) == (12 * forwards, 12 * backwards, forwards)
    assert (cost.forwards, cost.backwards, cost.calls) == (12 * forwards, 12 * backwards, forwards)
    assert cost.seconds > 0


def test_stop_gives_as_many_successes_for_less():
    whole, less = (PGD(Linf(0.03), loss="margin", stop=stop)(Counted(MODEL), X, Y) for stop in (False, True))
    assert torch.equal(whole.success, less.success) and less.cost.forwards < whole.cost.forwards


def test_cost_of_stopping_is_exact():
    counted = Counted(MODEL)
    cost = PGD(Linf(0.03), restarts=3, stop=True)(counted, X, Y).cost
    assert (cost.forwards, cost.backwards, cost.calls) == (counted.forwards, counted.backwards, counted.calls)


class _RoundsInBfloat16(torch.nn.Module):
    """A score that is an error in bfloat16 only: 256 + 0.25 x is rounded to 256, a tie that class 0 wins."""

    def forward(self, x):
        own = x[:, 0] * 0.25 + 256.0
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
        return torch.stack([torch.full_like(own, 256.0), own], 1).to(dtype)


def test_success_in_low_precision_is_not_believed():
    x, y = torch.full((3, 2), 0.9), torch.ones(3, dtype=torch.int64)
    out = PGD(Linf(0.1), precision="bfloat16")(_RoundsInBfloat16(), x, y)
    assert not bool(out.success.any())
    with torch.autocast("cpu", torch.bfloat16):
        assert not bool(PGD(Linf(0.1))(_RoundsInBfloat16(), x, y).success.any())


@pytest.mark.parametrize("ball", BALLS, ids=repr)
def test_low_precision_search_reports_successes_of_the_plain_model(ball):
    out = PGD(ball, precision="bfloat16", loss="margin")(MODEL, X, Y)
    assert torch.equal(out.success, predict(MODEL(out.x)) != Y) and bool(out.success.any())
    assert torch.allclose(out.loss, margin(MODEL(out.x), Y))


@dataclasses.dataclass(frozen=True)
class _Cheats(Attack):
    """An attack whose maximiser leaves the ball, or the finite numbers."""

    step: float = 0.0

    def maximizer(self):
        return lambda f, y0, Y, generator: Maximum(
            y0 + self.step, *f(y0 + self.step), FGSM(self.ball).maximizer()(f, y0, Y).cost, Status.DONE
        )


def test_audit_refuses_points_outside_the_ball():
    model = RowwiseLinear(48, 4, scale=9.0)
    y = (predict(model(X)) + 1) % 4  # wrong anyway: only the audit can say no
    assert bool(_Cheats(Linf(0.1), step=0.1)(model, X * 0.5, y).success.any())
    assert not bool(_Cheats(Linf(0.1), step=0.1001)(model, X * 0.5, y).success.any())


def test_single_precision_rounding_passes_the_audit():
    """x + delta is rounded in float32; a box attack at 8/255 must not lose successes to that."""
    model = RowwiseLinear(48, 4, scale=9.0)
    out = PGD(Linf("8/255"), steps=20)(model, X, predict(model(X)))
    assert torch.equal(out.success, predict(model(out.x)) != predict(model(X)))


def test_saturated_loss_is_reported():
    model = lambda x: x.flatten(1)[:, :3] * 1e6  # noqa: E731
    x = torch.tensor([[1.0, 0.0, 0.5]])
    out = PGD(Linf(0.01), random_start=False)(model, x, torch.tensor([0]))
    assert out.status is Status.ZERO_GRADIENT and "margin" in str(out.status)


def test_attacks_are_values():
    assert PGD(Linf("8/255"), steps=10) == PGD(Linf("8/255"), steps=10) != PGD(Linf("8/255"), steps=9)
    assert "radius='8/255'" in repr(PGD(Linf("8/255")))
    with pytest.raises(dataclasses.FrozenInstanceError):
        PGD(Linf(0.1)).steps = 3
    assert all(issubclass(attack, Attack) for attack in ATTACKS.values())


def test_largest_radius_is_the_whole_box():
    out = PGD(Linf(1.0))(MODEL, X, Y)
    assert float(out.x.min()) >= 0 and float(out.x.max()) <= 1
    assert PGD(L2(math.sqrt(48)))(MODEL, X, Y).x.isfinite().all()
