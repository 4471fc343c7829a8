"""Optimisers of several gradients in the trainer: against a loop of one's own, with every objective, resumed."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from danskin import (
    AWP,
    CFOL,
    ELLE_A,
    FGSM,
    PGD,
    SAM,
    TRADES,
    AdversarialTraining,
    ClassCVaR,
    FreeTraining,
    InputError,
    Linf,
    Regularized,
    StandardTraining,
    Trainer,
)
from danskin.training import OPTIMIZERS, SGD, AdamW, Constant
from danskin.training.passes import check_goes_with
from danskin.training.sharpness import WithAdversary, WithESAM, WithGSAM, WithLookSAM, WithSAF, WithSAM, WithSAMPa
from danskin.training.trainer import Hooks

BALL = Linf(0.1)
ADVERSARIES = {name: kind for name, kind in OPTIMIZERS.items() if issubclass(kind, WithAdversary)}
FAST = AdversarialTraining(FGSM(BALL))


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def data(n=48):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 6, generator=generator)
    return x, (x[:, :3].argmax(1))


def trainer(optimizer, epochs=2, **more):
    return Trainer(epochs=epochs, batch_size=16, optimizer=optimizer, schedule=Constant(), **more)


def trained(optimizer, objective, epochs=2, hooks=None, **more):
    own = trainer(optimizer, epochs, **more)
    return own.fit(own.start(net()), objective, data(), data(12), seed=3, hooks=hooks)


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ADVERSARIES)
def test_a_resumed_run_is_the_uninterrupted_one(name):
    settings, kept = ADVERSARIES[name](SGD(0.1)), {}

    def checkpoint(state):
        if state.epoch == 1 and not kept:
            kept.update(deepcopy(state.state_dict()))

    whole = trained(settings, FAST, 3, Hooks(checkpoint=checkpoint))
    own = trainer(settings, 3)
    state = own.start(net(9))
    state.load_state_dict(kept)
    own.fit(state, FAST, data(), data(12), seed=3)
    assert same(whole.model, state.model) and [r["gradients"] for r in whole.history] == [
        r["gradients"] for r in state.history
    ]


@pytest.mark.parametrize("attack", ["again", "held"])
def test_the_trainer_walks_the_path_of_a_loop_of_ones_own(attack):
    """Adversarial training under SAM: the attack at the weights, then at the shifted ones, or held."""
    objective = AdversarialTraining(PGD(BALL, 3, keep="last"))
    seen = []

    class Watched(StandardTraining):
        def search(self, model, x, y, step):
            found = objective.search(model, x, y, step)
            seen.append((x, y, step.seed))
            return found

        def losses(self, model, found, step):
            return objective.losses(model, found, step)

    state = trained(WithSAM(SGD(0.1), rho=0.5, attack=attack), Watched(), 1)
    model = net().train()
    opt = SAM(SGD(0.1)(model.parameters()), 0.5)
    own = replace(objective.attack, batchnorm=objective.batchnorm)
    for x, y, seed in seen[:: 2 if attack == "again" else 1]:
        points = []

        def closure(x=x, y=y, seed=seed, points=points):
            if not points or attack == "again":
                points.append(own.perturb(model, x, y, seed=seed))
            loss = F.cross_entropy(model(points[-1]), y)
            loss.backward()
            return loss

        opt.step(closure)
    for a, b in zip(state.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert len(seen) == (6 if attack == "again" else 3)


OBJECTIVES = {
    "standard": StandardTraining(),
    "fgsm": FAST,
    "trades": TRADES(PGD(BALL, 2, keep="last")),
    "awp": AWP(FAST, gamma=0.01),
    "cfol": CFOL(FAST, classes=3),
    "cvar": ClassCVaR(FAST, classes=3),
    "elle": Regularized(FAST, (ELLE_A(BALL, 10),)),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", [n for n in ADVERSARIES if n not in ("esam", "bisam", "saf", "mesa")])
def test_every_objective_with_every_adversary(name, objective):
    state = trained(ADVERSARIES[name](AdamW(0.01)), OBJECTIVES[objective], 2)
    assert all(p.isfinite().all() for p in state.model.parameters()) and not same(state.model, net())
    assert int(state.model[1].num_batches_tracked) >= 6  # regularisers may pass more often


def test_what_an_objective_keeps_moves_once_a_step():
    once, twice = (trained(o, OBJECTIVES["elle"], 2) for o in (SGD(1e-12), WithSAM(SGD(1e-12), rho=1e-9)))
    for name, kept in once.memory.items():
        torch.testing.assert_close(kept, twice.memory[name], rtol=1e-4, atol=1e-6)


def test_statistics_move_once_a_step():
    a, b = trained(WithSAM(SGD(0.1)), StandardTraining(), 1), trained(SGD(0.1), StandardTraining(), 1)
    c = trained(WithSAM(SGD(0.1), buffers="both"), StandardTraining(), 1)
    counts = [int(s.model[1].num_batches_tracked) for s in (a, b, c)]
    assert counts == [3, 3, 6]


def test_a_tail_is_plain_before():
    plain = trained(SGD(0.1), StandardTraining(), 2)
    events = []
    own = trainer(WithSAM(SGD(0.1), tail=0.5), 2)
    state = own.fit(own.start(net()), StandardTraining(), data(), data(12), seed=3, hooks=Hooks(events.append))
    assert [r["gradients"] for r in state.history] == [3, 6] and state.history[0]["train_loss"] == pytest.approx(
        plain.history[0]["train_loss"]
    )


def test_counts_in_the_history():
    def counts(settings):
        return [(r["gradients"], r["depth"]) for r in trained(settings, StandardTraining(), 2).history]

    assert counts(WithSAM()) == [(6, 6), (6, 6)] and counts(WithLookSAM(k=3)) == [(4, 4), (4, 4)]
    assert counts(WithESAM(SGD(0.01), gamma=0.5)) == [(4.5, 4.5)] * 2 and counts(WithSAMPa()) == [(5, 5), (6, 6)]
    assert "gradients" not in trained(SGD(), StandardTraining(), 1).history[0]


def test_the_radius_of_gsam_is_that_of_the_schedule():
    own = Trainer(2, 16, WithGSAM(SGD(0.1), rho=0.1, rho_min=0.01))
    state = own.fit(own.start(net()), StandardTraining(), data(), data(12), seed=3)
    assert 0.01 <= state.optimizer.radius() < 0.1


@pytest.mark.parametrize(
    ("settings", "objective", "more", "message"),
    [
        (WithSAM(), FreeTraining(BALL, replays=2), {}, "WithSAM: expected an objective with one step per batch"),
        (WithSAM(), StandardTraining(), {"steps_per_batch": 2}, "expected an objective with one step per batch"),
        (WithESAM(), OBJECTIVES["trades"], {}, "expected the objective 'standard' or 'adversarial' with esam"),
        (WithSAF(), OBJECTIVES["awp"], {}, "got AWP; use sam"),
    ],
)
def test_what_does_not_go_together(settings, objective, more, message):
    with pytest.raises(InputError, match=message):
        trained(settings, objective, 1, **more)


@pytest.mark.parametrize(
    ("settings", "objective", "world", "message"),
    [
        (WithSAF(), StandardTraining(), 2, "WithSAF: expected one process, got 2"),
        (WithSAMPa(), StandardTraining(), 4, "WithSAMPa: expected one process or two, one for each gradient, got 4"),
        (WithSAMPa(), OBJECTIVES["cfol"], 2, "expected an objective that keeps nothing from step to step on two"),
    ],
)
def test_numbers_of_processes(settings, objective, world, message):
    with pytest.raises(InputError, match=message):
        check_goes_with(settings, settings(net().parameters()), objective, world, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WithSAM(rho=0), "rho: expected a radius above 0"),
        (lambda: WithSAM(tail=0), "WithSAM.tail: expected a share of training"),
        (lambda: WithSAMPa(lam=2), "SAMPa.lam"),
        (lambda: WithSAMPa(tail=0.5), "SAMPa has no such options"),
        (lambda: WithLookSAM(k=0), "LookSAM.k"),
    ],
)
def test_wrong_settings_are_told_at_once(make, message):
    with pytest.raises(InputError, match=message):
        make()
