"""A run cut anywhere and resumed from its last checkpoint equals one that was never cut, bit for bit."""

import io
import random

import pytest
import torch

from danskin.attacks import FGSM, PGD
from danskin.minmax import Linf
from danskin.training import SGD, AdamW, AdversarialTraining, Augment, Cosine, Hooks, OverfittingWatch

OBJECTIVE = AdversarialTraining(PGD(Linf(0.1), 2, keep="last"), batchnorm="batch_frozen")  # dropout in the attack too
MONITOR = PGD(Linf(0.1), 2)


class Killed(Exception):
    pass


class Killer:
    """Hooks that keep the last checkpoint as bytes and raise at their n-th call."""

    def __init__(self, calls=None):
        self.left, self.calls, self.saved = calls, 0, None
        self.events = {}

    def _call(self):
        self.calls += 1
        if self.left is not None and self.calls > self.left:
            raise Killed

    def event(self, event):
        self._call()
        known = {k: v for k, v in event.items() if k not in ("seconds", "cpu_seconds")}
        key = event["event"], event["step"]
        assert self.events.setdefault(key, known) == known

    def checkpoint(self, state):
        self._call()
        stream = io.BytesIO()
        torch.save(state.state_dict(), stream)
        self.saved = stream.getvalue()


def trainer_of(make_trainer, optimizer):
    return make_trainer(
        optimizer=optimizer,
        schedule=Cosine(0.2),
        ema=0.9,
        clip=1.0,
        augment=Augment(1, True),
        watch=OverfittingWatch(every=2, examples=10, steps=1),
    )


def run(trainer, model, data, killer, resume=None):
    torch.manual_seed(11)  # dropout of a fresh run
    state = trainer.start(model)
    if resume is not None:
        torch.manual_seed(random.randrange(1000))
        state.load_state_dict(torch.load(io.BytesIO(resume), weights_only=True))
    hooks = Hooks(killer.event, killer.checkpoint, checkpoint_every=2)
    return trainer.fit(state, OBJECTIVE, *data, monitor=MONITOR, seed=5, hooks=hooks)


def without_seconds(value):
    if isinstance(value, dict):
        return {k: without_seconds(v) for k, v in value.items() if k not in ("seconds", "cpu_seconds")}
    return [without_seconds(v) for v in value] if isinstance(value, list | tuple) else value


def equal(a, b):
    """Bit by bit, whatever is inside."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(equal(p, q) for p, q in zip(a, b, strict=True))
    return a == b


def contents(state):
    return without_seconds(state.state_dict())


@pytest.mark.parametrize("optimizer", [SGD(0.1), AdamW(0.01)], ids=["sgd", "adamw"])
def test_resume_is_bit_identical_wherever_the_run_is_cut(optimizer, digits, make_model, make_trainer):
    trainer, whole = trainer_of(make_trainer, optimizer), Killer()
    truth = contents(run(trainer, make_model(0.3), digits, whole))
    moments = [*sorted(random.sample(range(1, whole.calls), 6)), whole.calls - 1]
    for moment in moments:
        killer = Killer(moment)
        with pytest.raises(Killed):
            run(trainer, make_model(0.3), digits, killer)
        killer.left = None
        state = run(trainer, make_model(0.3), digits, killer, killer.saved)
        assert equal(contents(state), truth), moment
        assert killer.events == whole.events, moment


def test_resume_after_several_cuts(digits, make_model, make_trainer):
    trainer, whole = trainer_of(make_trainer, SGD(0.1)), Killer()
    truth = contents(run(trainer, make_model(0.3), digits, whole))
    saved, cuts = None, 0
    while True:
        killer = Killer(5)  # just enough to reach the next checkpoint
        killer.saved = saved
        try:
            state = run(trainer, make_model(0.3), digits, killer, saved)
            break
        except Killed:
            cuts, saved = cuts + 1, killer.saved
    assert cuts >= 2
    assert equal(contents(state), truth)


def test_resume_of_a_finished_run_changes_nothing(digits, make_model, make_trainer):
    trainer, whole, again = trainer_of(make_trainer, SGD(0.1)), Killer(), Killer(0)
    truth = contents(run(trainer, make_model(0.3), digits, whole))
    assert equal(contents(run(trainer, make_model(0.3), digits, again, whole.saved)), truth)
    assert again.calls == 0


def test_dropout_is_drawn_anew_in_each_step(digits, make_model, make_trainer):
    """Without the saved generator the equality above would not hold: another start, other weights."""
    found = []
    for seed in (1, 2):
        trainer = make_trainer()
        torch.manual_seed(seed)
        state = trainer.fit(trainer.start(make_model(0.3)), AdversarialTraining(FGSM(Linf(0.1))), *digits)
        found.append(state.model[4].weight.detach())
    assert not torch.equal(*found)
