"""Where a cheaper form of the model cannot tell the two sides of the decision apart, the plain model speaks."""

from dataclasses import replace

import torch

from danskin.attacks import APGD, FAB, Square
from danskin.attacks.asking import Heard
from danskin.attacks.fab_steps import Nearest
from danskin.minmax import Linf
from danskin.testing.models import RowwiseLinear


def data(n):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def within(payoff, radius, **changes):
    return replace(payoff, asking=replace(payoff.asking, reach=Linf(radius), **changes))


def test_values_in_doubt_are_those_of_the_plain_model():
    model, x = RowwiseLinear(64, 3), data(200)
    y = model(x).argmax(1)

    def coarse(x):
        return model(x).to(torch.bfloat16)

    attack = Square(Linf(0.1), 200, stop=True, box=None)
    batch = attack.batch(x, y)
    asked = []

    def plain(x):
        asked.append(len(x))
        return model(x)

    payoff = attack.problem(plain, quick=coarse).adversary_payoff(batch)
    value, _ = payoff(torch.zeros_like(x))
    exact, low = model(x), coarse(x).float()
    rest = torch.arange(3) == y[:, None]
    lead = low.masked_fill(rest, -torch.inf).amax(1) - low.gather(1, y[:, None])[:, 0]
    near = lead.abs() <= 2 * torch.finfo(torch.bfloat16).eps * low.abs().amax(1)
    near |= low.argmax(1) != y
    truth = exact.masked_fill(rest, -torch.inf).amax(1) - exact.gather(1, y[:, None])[:, 0]
    assert 0 < near.sum() < len(x) and asked == [int(near.sum())]
    assert torch.equal(value[near], truth[near]) and torch.equal(value[~near], lead[~near])


def test_gradients_in_doubt_are_those_of_the_cheaper_form_except_for_a_search_of_the_boundary():
    model, x = RowwiseLinear(64, 3), data(200)
    y = model(x).argmax(1)

    def coarse(x):
        return 2 * model(x).to(torch.bfloat16)  # another slope, the same decision

    attack = APGD(Linf(0.1), stop=True, box=None, loss="margin")
    climb = attack.problem(model, quick=coarse).adversary_payoff(attack.batch(x, y))
    point = x.clone().requires_grad_()
    truth = climb.goal.lead(model(point))
    (true,) = torch.autograd.grad(truth.sum(), point)
    for payoff, factor in ((climb, 2.0), (within(climb, 1.0), 1.0)):
        before = payoff.asking.tally.forwards, payoff.asking.tally.backwards
        value, hit, slope = payoff.with_gradient(torch.zeros_like(x))
        asked = payoff.asking.tally.forwards - before[0]
        plain = (value - truth).abs() < 1e-5
        assert 0 < asked < len(x) and int(plain.sum()) == asked and not hit.any()
        assert payoff.asking.tally.backwards - before[1] == (asked if factor == 1 else 0)
        off = (slope - torch.where(plain, factor, 2.0)[:, None, None, None] * true).flatten(1).norm(dim=1)
        assert float(off.max()) < 0.05 and float(true.flatten(1).norm(dim=1).min()) > 0.2


def test_what_only_the_cheaper_form_gets_wrong_is_no_success():
    model, x = RowwiseLinear(64, 3), data(20)
    y = model(x).argmax(1)
    payoff = Square(Linf(0.1), 20, stop=True, box=None).problem(model, quick=lambda x: -9 * model(x))
    payoff = payoff.adversary_payoff(Square(Linf(0.1), 20, box=None).batch(x, y))
    assert payoff.goal.adversarial(payoff.logits(x)).all()
    value, hit = payoff(torch.zeros_like(x))
    assert not hit.any() and (value < 0).all()


def test_beyond_its_reach_a_search_goes_by_the_cheaper_form():
    model, x = RowwiseLinear(64, 3), data(50)
    y, delta = model(x).argmax(1), torch.zeros_like(x)
    delta[25:] = 0.2
    attack = Square(Linf(0.1), 20, stop=True, box=None)
    payoff = attack.problem(model, quick=lambda x: 0 * model(x)).adversary_payoff(attack.batch(x, y))  # always in doubt
    logits, _ = within(payoff, 0.1).look(x + delta)
    assert payoff.asking.tally.forwards == 25
    assert torch.equal(logits[:25], model(x)[:25]) and not logits[25:].any()


def test_beyond_its_reach_a_success_is_believed():
    model, x = RowwiseLinear(64, 3), data(50)
    y, delta, heard = model(x).argmax(1), torch.zeros_like(x), []
    delta[25:] = 0.2
    attack = Square(Linf(0.1), 20, stop=True, box=None)
    payoff = attack.problem(model, quick=lambda x: -model(x)).adversary_payoff(attack.batch(x, y))
    payoff = within(payoff, 0.1, heard=Heard(torch.arange(50), lambda names, _: heard.append(names)))
    hit = payoff.goal.adversarial(payoff.logits(x))
    truth = torch.cat([torch.zeros(25, dtype=torch.bool), torch.ones(25, dtype=torch.bool)])
    assert hit.all() and torch.equal(payoff.confirmed(x + delta, hit), truth) and payoff.asking.tally.forwards == 25
    assert torch.equal(payoff.confirmed(x + delta, truth), truth) and payoff.asking.tally.forwards == 25 and not heard


def test_every_backward_pass_is_counted():
    model, x = RowwiseLinear(64, 4), data(10)
    attack = FAB(Linf(0.1), box=None)
    batch = attack.batch(x, model(x).argmax(1))
    calls = []

    def seen(x):
        x = x.view_as(x)
        x.register_hook(lambda g: calls.append(int(g.flatten(1).any(1).sum())))
        return model(x)

    payoff = attack.problem(seen, quick=lambda x: 0 * model(x)).adversary_payoff(batch)
    payoff = within(payoff, 0.1, confirm=True)
    Nearest(payoff, attack.ball).with_gradient(torch.zeros_like(x))
    assert calls == [10] * 3  # one for each boundary, of the plain model
    assert payoff.asking.tally.backwards == 2 * sum(calls) - 10  # and of the cheaper one; the caller counts one of them
