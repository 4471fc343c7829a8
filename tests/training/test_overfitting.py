"""Catastrophic overfitting: when it is called so, and the smallest example of it."""

import os
from pathlib import Path

import pytest
import torch

from danskin.attacks import FGSM, PGD
from danskin.attacks.outcomes import outcomes
from danskin.data import load, to_float
from danskin.errors import MissingError
from danskin.metrics import Average, Share, gradient_misalignment
from danskin.minmax import Linf
from danskin.models import build
from danskin.training import AdamW, AdversarialTraining, Hooks, OneCycle, OverfittingWatch, StandardTraining, Trainer


@pytest.mark.parametrize(
    ("fgsm", "pgd", "catastrophic"),
    [
        (99, 0, True),
        (40, 19, True),
        (40, 20, False),  # half of what FGSM leaves
        (30, 11, False),  # less than 20 points apart
        (20, 0, True),
        (60, 50, False),
        (0, 0, False),
        (10, 40, False),
    ],
)
def test_catastrophic(fgsm, pgd, catastrophic):
    assert OverfittingWatch().catastrophic(Share(fgsm, 100), Share(pgd, 100)) is catastrophic


def test_look_counts_attacked_points_of_all_examples(digits, make_model):
    """Also those that are wrong without attack; with the ball of the attack, on the first examples only."""
    model, attack, (x, y) = make_model().eval(), FGSM(Linf(0.2)), digits[1]
    fgsm, pgd, turned = OverfittingWatch(examples=30, steps=5).look(model, x, y, attack, to_float)
    inputs, labels = to_float(x[:30]), y[:30]
    at_fgsm = model(FGSM(Linf(0.2))(model, inputs, labels).x).argmax(1) == labels
    at_pgd = model(PGD(Linf(0.2), 5, "radius/4")(model, inputs, labels).x).argmax(1) == labels
    assert (fgsm, pgd) == (Share.of(at_fgsm), Share.of(at_pgd))
    assert turned == Average.of(gradient_misalignment(model, inputs, labels, Linf(0.2)))


def test_look_sees_attacked_points_that_are_right_where_the_clean_one_is_wrong():
    """An overfitted model does that: FGSM overshoots into the right class."""

    def model(x):
        t = x[:, 0] - 0.5
        return torch.stack([-0.1 - t + 50 * t**2, 0 * t], 1)

    x, y = torch.full((4, 1), 0.5), torch.zeros(4, dtype=torch.int64)
    assert not outcomes(model, x, y).correct.any()
    fgsm, pgd, _ = OverfittingWatch().look(model, x, y, FGSM(Linf(0.2)), to_float)
    assert (fgsm, pgd) == (Share(4, 4), Share(0, 4))


def watched(objective, digits, make_model, make_trainer, **watch):
    events = []
    trainer = make_trainer(watch=OverfittingWatch(examples=20, steps=2, **watch))
    state = trainer.fit(trainer.start(make_model()), objective, *digits, hooks=Hooks(events.append))
    return state, [e for e in events if e["event"] in ("watch", "catastrophic_overfitting")]


def test_watch_looks_every_so_often_and_at_the_end_of_epochs(digits, make_model, make_trainer):
    _, events = watched(AdversarialTraining(FGSM(Linf(0.1))), digits, make_model, make_trainer, every=2)
    assert [e["step"] for e in events] == [2, 3, 4, 6]  # two epochs of three steps


def test_watch_of_standard_training_is_idle(digits, make_model, make_trainer):
    assert watched(StandardTraining(), digits, make_model, make_trainer, every=1)[1] == []


def test_overfitting_is_told_once_with_its_first_step(digits, make_model, make_trainer, monkeypatch):
    monkeypatch.setattr(OverfittingWatch, "catastrophic", lambda self, fgsm, pgd: True)
    state, events = watched(AdversarialTraining(FGSM(Linf(0.1))), digits, make_model, make_trainer, every=2)
    told = [e for e in events if e["event"] == "catastrophic_overfitting"]
    assert [e["step"] for e in told] == [2]
    assert state.overfitted == 2


def train_one_conv(attack, steps):
    """Conv3x3 with 16 filters on 10,000 CIFAR-10 images at 16/255: accuracies at FGSM and PGD-20, events."""
    folder = os.environ.get("DANSKIN_DATA") or Path.home() / ".cache" / "danskin"
    try:
        data = load("cifar10", folder)
    except MissingError:
        pytest.skip("needs CIFAR-10 in $DANSKIN_DATA")
    events, (x, y) = [], (data.x_test[:400], data.y_test[:400])
    train = data.x_train[:10_000], data.y_train[:10_000]
    trainer = Trainer(
        epochs=round(steps / 78),
        batch_size=128,
        optimizer=AdamW(0.01, weight_decay=5e-4),
        schedule=OneCycle(0.4),
        watch=OverfittingWatch(every=39, examples=400),
    )
    state = trainer.start(build("one_conv", input_shape=(3, 32, 32), classes=10, filters=16))
    trainer.fit(state, AdversarialTraining(attack), train, (x, y), hooks=Hooks(events.append))
    ball = Linf("16/255")
    accuracies = [
        outcomes(state.weights, x, y, a, prepare=to_float).correct.float().mean().item()
        for a in (FGSM(ball), PGD(ball, 20, "radius/4"))
    ]
    return accuracies, state, [e["event"] for e in events], [e for e in events if e["event"] == "watch"]


@pytest.mark.slow
def test_fgsm_training_of_one_convolution_overfits_catastrophically():
    torch.manual_seed(0)
    (fgsm, pgd), state, events, seen = train_one_conv(FGSM(Linf("16/255")), 468)
    assert fgsm >= 0.9, seen
    assert pgd <= 0.02, seen
    assert state.overfitted is not None
    assert events.count("catastrophic_overfitting") == 1


@pytest.mark.slow
def test_pgd_training_of_one_convolution_does_not():
    torch.manual_seed(0)
    attack = PGD(Linf("16/255"), 3, "radius/2", keep="last")
    (fgsm, pgd), state, events, seen = train_one_conv(attack, 468)
    assert fgsm - pgd <= 0.08, seen
    assert pgd >= 0.12, seen
    assert state.overfitted is None
    assert "catastrophic_overfitting" not in events
