"""Boxes with a bound for each channel: what normalised inputs have."""

import json

import pytest
import torch
from torch import nn

from danskin.attacks import APGD, BETA, FABT, FGSM, FMN, PGD, Boundary, CarliniWagner, DeepFool, HopSkipJump, Square
from danskin.attacks.climb import SquareClimb
from danskin.errors import InputError
from danskin.evaluation import Verdict, certify, diagnose, evaluate
from danskin.minmax import L1, L2, Linf
from danskin.minmax.data_box import box_for, box_from_list, box_text, box_to_list, same_box
from danskin.testing.models import convnet

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.25, 0.2, 0.3])
BOX = (-MEAN / STD, (1 - MEAN) / STD)
RESHAPED = {
    "(C,)": lambda b: b, "(C, 1, 1)": lambda b: b.view(3, 1, 1), "(1, C, 1, 1)": lambda b: b.view(1, 3, 1, 1),
    "float64": lambda b: b.double(), "whole": lambda b: b.view(3, 1, 1).expand(3, 8, 8),
}  # fmt: skip


class Unnormalised(nn.Module):
    """A network on [0, 1] that takes normalised inputs."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x * STD.view(3, 1, 1).to(x) + MEAN.view(3, 1, 1).to(x))


@pytest.fixture(scope="module")
def problem():
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x[0] = 0.0
    net = convnet(4)
    with torch.no_grad():
        y = net(x).argmax(1)
    return Unnormalised(net).eval(), (x - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1), y


ATTACKS = {
    "fgsm": FGSM, "pgd": lambda b, **k: PGD(b, steps=5, **k), "apgd": lambda b, **k: APGD(b, steps=8, **k),
    "beta": lambda b, **k: BETA(b, steps=4, **k), "fab-t": lambda b, **k: FABT(b, steps=5, **k),
    "square": lambda b, **k: Square(b, queries=20, **k), "fmn": lambda b, **k: FMN(b, steps=10, **k),
    "square-climb": lambda b, **k: SquareClimb(b, queries=10, steps=5, more=1, **k),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("ball", [Linf(0.3), L2(1.0), L1(6.0)], ids=repr)
def test_points_stay_in_the_box_of_their_channel(ball, name, problem):
    model, x, y = problem
    found = ATTACKS[name](ball, box=BOX)(model, x, y)
    low, high = (b.view(3, 1, 1) for b in BOX)
    assert (found.x >= low - 1e-6).all()
    assert (found.x <= high + 1e-6).all()
    assert (ball.violation(found.delta) <= 1e-6 * max(1, ball.value)).all()
    if name == "fgsm":
        assert ((found.x == low) | (found.x == high)).any()  # the box is felt


@pytest.mark.parametrize("attack", [
    CarliniWagner(L2(1.0), steps=5, searches=1, box=BOX), DeepFool(L2(1.0), box=BOX),
    HopSkipJump(L2(1.0), queries=120, box=BOX),
    Boundary(L2(1.0), queries=60, box=BOX), PGD(Linf(0.3), steps=3, grid=255, box=BOX),
])  # fmt: skip
def test_other_attacks(attack, problem):
    model, x, y = problem
    if attack.grid:  # images of 8 bits
        low, high = (b.view(3, 1, 1) for b in BOX)
        x = low + ((x - low) / (high - low) * 255).round() / 255 * (high - low)
    found = attack(model, x, y)
    low, high = (b.view(3, 1, 1) for b in BOX)
    assert ((found.x >= low - 1e-6) & (found.x <= high + 1e-6)).all()


@pytest.mark.parametrize("name", RESHAPED)
def test_shapes_mean_the_same(name, problem):
    model, x, y = problem
    wanted = PGD(Linf(0.3), steps=4, box=tuple(b.view(3, 1, 1) for b in BOX))(model, x, y)
    got = PGD(Linf(0.3), steps=4, box=tuple(RESHAPED[name](b) for b in BOX))(model, x, y)
    assert torch.equal(got.x, wanted.x)


def test_equal_tensors_are_the_numbers(problem):
    model, x, y = problem
    wide = (torch.full((3,), -4.0), torch.full((3,), 4.0))
    assert torch.equal(PGD(Linf(0.3), box=wide)(model, x, y).x, PGD(Linf(0.3), box=(-4, 4))(model, x, y).x)


@pytest.mark.parametrize("suite", ["fast", "standard"])
def test_evaluate_asks_the_same_question(suite, problem):
    """In normalised units, with the l_inf ball so large that the box decides: as on [0, 1]."""
    model, x, y = problem
    found = evaluate(model, (x, y), Linf(5.0), [APGD(Linf(5.0), steps=10, stop=True, box=BOX)], box=BOX, diagnostics=2)
    plain = evaluate(model.net, (x * STD.view(3, 1, 1) + MEAN.view(3, 1, 1), y), Linf(1.0),
                     [APGD(Linf(1.0), steps=10, stop=True)], diagnostics=0)  # fmt: skip
    assert found.robust.hits == plain.robust.hits
    small = evaluate(model, (x, y), Linf(0.05), suite, box=BOX, diagnostics=0)
    back = Verdict.from_dict(json.loads(json.dumps(small.to_dict())))
    assert same_box(back.box, BOX)
    assert Verdict.merge([small]).robust.hits == small.robust.hits


def test_certificates_and_diagnosis(problem):
    model, x, y = problem
    bound = certify(
        model.net, (x, y), Linf(0.001), box=tuple(b.expand(3) for b in (torch.full((3,), -9.0), torch.full((3,), 9.0)))
    )
    plain = certify(model.net, (x, y), Linf(0.001), box=(-9.0, 9.0))
    assert torch.equal(bound.margin, plain.margin)
    diagnose(model, x, y, Linf(0.1), box=BOX)


def test_what_is_refused(problem):
    model, x, y = problem
    with pytest.raises(InputError, match=r"box: expected .* each of 3 channels.*of shape \(4,\)"):
        PGD(Linf(0.1), box=(torch.zeros(4), torch.ones(4)))(model, x, y)
    with pytest.raises(InputError, match=r"x: expected .* of its channel or coordinate, within \[0, 1\]"):
        PGD(Linf(0.1), box=(torch.zeros(3), torch.ones(3)))(model, x, y)
    with pytest.raises(InputError, match="box: expected"):
        PGD(Linf(0.1), box=(torch.ones(3), torch.zeros(3)))(model, x, y)


def test_words():
    assert box_text((0, 1)) == "(0, 1)"
    assert box_text(None) == "None"
    assert same_box((0, 1), (0.0, 1.0))
    assert not same_box((0, 1), None)
    assert not same_box(BOX, (BOX[0], BOX[1] + 1))
    assert same_box(box_from_list(box_to_list(BOX)), BOX)
    assert box_for((torch.zeros(5), 1), torch.zeros(2, 5))[0].shape == (5,)


def test_bytes_go_to_the_box_of_their_channel(problem):
    model, _, y = problem
    pixels = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    low, high = (b.view(3, 1, 1) for b in BOX)
    suite = [FGSM(Linf(0.05), box=BOX)]
    got = evaluate(model, (pixels, y), Linf(0.05), suite, box=BOX, diagnostics=0)
    wanted = evaluate(model, (low + (high - low) * (pixels / 255), y), Linf(0.05), suite, box=BOX, diagnostics=0)
    assert torch.equal(got.broken_by, wanted.broken_by)


def test_a_journal_knows_the_box(problem, tmp_path):
    from danskin.run.journal import DiskJournal

    model, x, y = problem
    suite = [FGSM(Linf(0.05), box=BOX)]
    seen = []
    for _ in range(2):
        journal = DiskJournal(tmp_path, 0, 1)
        seen.append(evaluate(model, (x, y), Linf(0.05), suite, box=BOX, diagnostics=0, journal=journal).broken_by)
        journal.close()
    assert torch.equal(*seen)
