"""A set of one's own as the ball of attacks, with the default box and without one."""

from dataclasses import dataclass

import pytest
import torch

from danskin.attacks import APGD, BETA, FABT, FGSM, FMN, PGA, PGD, RSFGSM, MajorizeMinimize, MultiTargeted, Square
from danskin.attacks.bounds import in_bounds
from danskin.attacks.climb import SquareClimb
from danskin.errors import InputError
from danskin.evaluation import evaluate
from danskin.minmax import L2, Box, Linf, Simplex
from danskin.testing.models import convnet
from own_sets import Ellipsoid, GroupLasso, Masked, Polytope, centres

SHAPE = (3, 6, 6)


def mask(like):
    return (torch.arange(36).view(6, 6) % 3 > 0).to(like).expand(1, *like.shape[1:])


BALLS = {
    "ellipsoid": lambda x: Ellipsoid(0.2, 1.0),
    "group lasso": lambda x: GroupLasso(1.5),
    "masked": lambda x: Masked(0.1, mask(x)),
    "polytope": lambda x: Polytope(0.2 * centres(x), 1.5),
    "simplex": lambda x: Simplex(1.0),
    "box": lambda x: Box(-0.1 * mask(x)[0], 0.05 * mask(x)[0]),
}
ATTACKS = {
    "fgsm": FGSM, "pga": lambda b, **k: PGA(b, steps=4, step=1.0, **k), "pgd": lambda b, **k: PGD(b, steps=6, **k),
    "pgd, 2 restarts": lambda b, **k: PGD(b, steps=4, restarts=2, stop=True, **k),
    "rs-fgsm": RSFGSM, "mm": lambda b, **k: MajorizeMinimize(b, steps=5, **k),
    "apgd": lambda b, **k: APGD(b, steps=10, **k), "apgd-t": lambda b, **k: MultiTargeted(b, steps=6, **k),
    "beta": lambda b, **k: BETA(b, steps=5, **k), "square": lambda b, **k: Square(b, queries=20, **k),
    "square-climb": lambda b, **k: SquareClimb(b, queries=10, steps=5, more=2, slack=5.0, **k),
}  # fmt: skip


@pytest.fixture(scope="module")
def problem():
    x = 0.2 + 0.6 * torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    x[:, :, 0] = 0.0  # where the box leaves no room below
    model = convnet(4)
    with torch.no_grad():
        return model, x, model(x).argmax(1)


@pytest.mark.parametrize("box", [(0, 1), None], ids=str)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("ball", BALLS)
def test_points_stay_inside_and_attacks_attack(ball, name, box, problem):
    model, x, y = problem
    own = BALLS[ball](x)
    attack = ATTACKS[name](own, box=box)
    found = attack(model, x, y)
    assert in_bounds(attack.ball, attack.box, found.x - x, found.x).all()
    start = own.project(torch.zeros_like(x))
    if box is None:
        with torch.no_grad():
            before = -model(x + start).gather(1, y[:, None]).squeeze(1)
            after = -model(found.x).gather(1, y[:, None]).squeeze(1)
        if name not in ("rs-fgsm", "square", "beta", "apgd-t") and (ball, name) != ("simplex", "apgd"):
            assert after.mean() > before.mean()


@pytest.mark.parametrize("ball", BALLS)
def test_each_example_alone_is_each_in_the_batch(ball, problem):
    model, x, y = problem
    own, model = BALLS[ball](x.double()), model.double()
    try:
        for make in (ATTACKS["pgd"], ATTACKS["apgd"]):
            whole = make(own)(model, x.double(), y)
            for i in torch.tensor([0, 3]).split(1):
                alone = make(own.rows(i))(model, x.double()[i], y[i])
                assert torch.allclose(alone.loss, whole.loss[i], atol=1e-6)
    finally:
        model.float()


@pytest.mark.parametrize("box", [(0, 1), None], ids=str)
@pytest.mark.parametrize("suite", [pytest.param("fast", marks=pytest.mark.slow), "short"])
def test_suites(suite, box, problem):
    model, x, y = problem
    ball = Ellipsoid(0.1, 0.4)
    if suite == "short":
        suite = {
            "apgd": APGD(ball, steps=5, box=box),
            "fab-t": FABT(ball, box=box),
            "square": Square(ball, queries=9, box=box),
        }
    found = evaluate(model, (x[:3], y[:3]), ball, suite, box=box, diagnostics=2 if box is None else 0)
    left = {s.name: s.left_out for s in found.stages if s.left_out}
    assert ("fab-t" in left) == (suite != "fast")
    assert all("measures no distances" in why for why in left.values())
    back = type(found).from_dict(found.to_dict())
    assert repr(back.ball) == "Ellipsoid(short=0.1, long=0.4)"
    assert torch.equal(back.broken_by, found.broken_by)
    with pytest.raises(InputError, match="expected a set, got the record"):
        back.ball.project(x)


def test_closest_attacks_say_which_balls_they_measure(problem):
    model, x, y = problem
    for attack in (FMN(Ellipsoid(0.1, 0.4)), FABT(Ellipsoid(0.1, 0.4))):
        with pytest.raises(InputError, match="expected Linf or L2 or L1, got Ellipsoid"):
            attack(model, x, y)


@dataclass(frozen=True)
class OnlyLeft(PGD):
    """Perturbations that touch the left half only, by `feasible`."""

    def feasible(self, x):
        side = torch.zeros_like(x)
        side[..., : x.shape[-1] // 2] = 0.1
        return Box(torch.maximum(-side, -x), torch.minimum(side, 1 - x))


def test_pgd_honours_feasible(problem):
    model, x, y = problem
    found = OnlyLeft(Linf(0.1), steps=5)(model, x, y)
    assert not found.delta[..., 3:].any()
    assert found.delta[..., :3].abs().amax() > 0.09


def test_a_class_made_from_linf_keeps_to_its_own_project(problem):
    model, x, y = problem
    found = PGD(Masked(0.1, mask(x)), steps=5)(model, x, y)
    assert not (found.delta * (1 - mask(x))).any()


def test_the_mask_of_ones_is_linf(problem):
    """The general way against the special one: the same losses, where both are exact."""
    model, x, y = problem
    own, known = Masked(0.05, torch.ones(1, *SHAPE)), Linf(0.05)
    assert torch.allclose(FGSM(own)(model, x, y).loss, FGSM(known)(model, x, y).loss, atol=3e-4)  # no exact vertex
    for make in (
        lambda b: APGD(b, steps=20, start="given"),
        lambda b: PGD(b, steps=10, first="step", random_start=False),
    ):
        assert torch.allclose(make(own)(model, x, y).loss, make(known)(model, x, y).loss, atol=1e-5)


def test_scaled_ball_in_l2_like_the_ball_itself(problem):
    """An ellipsoid with equal axes is the l2 ball."""
    model, x, y = problem
    for make in (FGSM, lambda b: PGD(b, steps=8, random_start=False), lambda b: APGD(b, steps=15, start="given")):
        got, wanted = make(Ellipsoid(0.5, 0.5))(model, x, y).loss, make(L2(0.5))(model, x, y).loss
        assert torch.allclose(got, wanted, atol=2e-3)
