"""Every attack through the suite that third parties run."""

import dataclasses

import pytest
import torch

from danskin.attacks import FGSM, PGA, PGD, LinearWorstCase, MajorizeMinimize
from danskin.minmax import L1, L2, Linf
from danskin.testing import ATTACK_CHECKS, check_attack

BALLS = {"linf": Linf(0.05), "l2": L2(0.3), "l1": L1(1.0)}
ATTACKS = {
    "fgsm": FGSM,
    "pga": lambda ball: PGA(ball, steps=5, step=10.0),
    "pgd": lambda ball: PGD(ball, steps=5),
    "pgd from zero, last": lambda ball: PGD(ball, steps=3, random_start=False, keep="last"),
    "mm": lambda ball: MajorizeMinimize(ball, steps=5),
    "linear": LinearWorstCase,
}
VARIANTS = {
    "stop and restarts": PGD(L1(1.0), steps=4, restarts=2, stop=True, loss="margin"),
    "mm, stop and restarts": MajorizeMinimize(L2(0.3), steps=4, restarts=2, random_start=True, stop=True),
    "by value": PGD(Linf(0.05), steps=4, keep="value"),
    "binary": PGD(Linf(0.05), steps=4, loss="hinge"),
    "binary, logistic": FGSM(L2(0.3), loss="logistic"),
    "binary, linear": LinearWorstCase(L2(0.3), loss="logistic"),
    "targeted": PGD(L2(0.3), steps=4, loss="targeted_margin"),
    "targeted dlr": PGD(Linf(0.05), steps=4, loss="targeted_dlr"),
    "bfloat16": PGD(Linf(0.05), steps=4, precision="bfloat16", loss="dlr"),
    "eval": PGD(Linf(0.05), steps=4, batchnorm="eval"),
    "batch_frozen": FGSM(Linf(0.05), batchnorm="batch_frozen"),
}


@pytest.mark.parametrize("check", ATTACK_CHECKS)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", BALLS)
def test_attack(norm, name, check):
    check_attack(ATTACKS[name](BALLS[norm]), only=[check], affine=name == "linear")


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name):
    attack = VARIANTS[name]
    check_attack(attack, affine=isinstance(attack, LinearWorstCase))


def test_suite_takes_a_function():
    check_attack(lambda ball, box: FGSM(ball, box=box), ball=Linf(0.05), only=["stays_in_ball_and_box", "tabular"])


# Attacks with one fault each: the suite must see it.


@dataclasses.dataclass(frozen=True)
class _Faulty(PGD):
    """PGD with something done to its outcome."""

    fault: str = ""

    def __call__(self, model, x, y, **others):
        if self.fault == "trains" and isinstance(model, torch.nn.Module):
            model.train()
        if self.fault == "seeds":
            torch.manual_seed(0)
        if self.fault == "grad" and isinstance(model, torch.nn.Module):
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
        out = super().__call__(model, x, y, **others)
        if self.fault == "outside" and len(x):
            return dataclasses.replace(out, x=out.x + 1e-4, delta=out.delta + 1e-4)
        if self.fault == "boasts":
            return dataclasses.replace(out, success=torch.ones_like(out.success))
        if self.fault == "couples" and len(x) > 1:
            return dataclasses.replace(out, loss=out.loss + 1e-3 * len(x))
        return out


@pytest.mark.parametrize(("fault", "check"), [
    ("outside", "stays_in_ball_and_box"), ("boasts", "stays_in_ball_and_box"), ("seeds", "model_left_as_found"),
    ("trains", "model_left_as_found"), ("grad", "model_left_as_found"), ("grad", "failing_model_left_as_found"),
    ("couples", "batch_and_order_do_not_matter"),
])  # fmt: skip
def test_suite_sees_faults(fault, check):
    with pytest.raises(AssertionError, match=f"^{check}: "):
        check_attack(_Faulty(Linf(0.05), steps=3, fault=fault), only=[check])
    check_attack(_Faulty(Linf(0.05), steps=3), only=[check])
