"""How far an evaluation is: passes of those that may be needed, all of them at the end, and only heard when asked."""

import pytest
import torch
from torch import nn

from danskin.attacks import APGD, FABT, BasinHopping, Square
from danskin.evaluation import evaluate, meter
from danskin.minmax import Linf

BALL = Linf(0.05)
#: Passes an example that withstands all may cost: 10, then 7 queries twice.
SUITE = {"apgd": APGD(BALL, steps=10, box=(0, 1)), "square": Square(BALL, queries=7, restarts=2, box=(0, 1))}
X = torch.rand(30, 1, 4, 4)
NET = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
Y = NET(X).argmax(1)


def heard(monkeypatch, data=(X, Y), model=NET, **settings):
    """Every event of progress, not only a few a second."""
    monkeypatch.setattr(meter, "_OFTEN", -1)
    events = []
    evaluate(model, data, BALL, SUITE, progress=events.append, diagnostics=0, **settings)
    return [e for e in events if "state" not in e]


def test_all_that_may_be_needed_is_done_at_the_end(monkeypatch):
    events = heard(monkeypatch, chunk=20)
    assert {e["total"] for e in events} == {30 * (10 + 2 * 7)}
    done = [e["done"] for e in events]
    assert done == sorted(done) and done[-1] == 30 * 24
    assert len({e["done"] for e in events if e["stage"] == "square"}) > 3  # passes inside a stage are seen


def test_examples_wrong_without_attack_owe_nothing(monkeypatch):
    wrong = (Y + 1) % 3
    events = heard(monkeypatch, (X, wrong))
    assert [(e["stage"], e["done"], e["total"]) for e in events] == [("clean", 0, 720), ("clean", 720, 720)]


def test_a_stage_never_claims_more_than_its_own_passes(monkeypatch):
    """The first stage of the first chunk ends at 20 x 10 passes, however many were made."""
    first = [e["done"] for e in heard(monkeypatch, chunk=20) if e["stage"] == "apgd"]
    assert max(d for d in first if d < 20 * 24) <= 20 * 10


def test_a_share_of_the_examples_counts_as_that(monkeypatch):
    events = heard(monkeypatch, shard=(1, 4))
    assert events[-1]["total"] == events[-1]["done"] == 8 * 24  # 1, 5, ..., 29


def test_batches_of_unknown_number_have_no_total(monkeypatch):
    events = heard(monkeypatch, [(X[:10], Y[:10]), (X[10:], Y[10:])])
    assert {e["total"] for e in events} == {None} and events[-1]["done"] == 30 * 24


def test_counting_leaves_no_hook_behind(monkeypatch):
    class Stop(Exception):
        pass

    def stop(event):
        raise Stop

    with pytest.raises(Stop):
        evaluate(NET, (X, Y), BALL, SUITE, progress=stop, diagnostics=0)
    assert not NET._forward_hooks
    heard(monkeypatch, model=lambda x: NET(x))
    assert not NET._forward_hooks


def test_the_most_passes_of_an_attack():
    assert meter.most_passes(FABT(BALL, steps=5, restarts=2, classes=3)) == 30
    assert meter.most_passes(APGD(BALL, steps=5, draws=4)) == 20
    assert meter.most_passes(BasinHopping(BALL, hops=3, climb=4, chains=5)) == 60
