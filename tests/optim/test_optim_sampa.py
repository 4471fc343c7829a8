"""SAMPa on one process: written out, its limits, and what it keeps."""

import io

import pytest
import torch
from optim_cases import batch, everything, network, same
from torch import nn
from torch.nn import functional as F

from danskin import SAM, InputError
from danskin.optim import SAMPa
from danskin.optim.peek import peek

A = torch.linspace(0.5, 3, 6, dtype=torch.float64).diag() + 0.1
START = torch.linspace(-1, 1, 6, dtype=torch.float64)
RATE = 0.05


def value(w, shift=0.0):
    return 0.5 * (w - shift) @ A @ (w - shift) + (w.sin() ** 2).sum()


def slope(w, shift=0.0):
    w = w.detach().requires_grad_()
    return torch.autograd.grad(value(w, shift), w)[0]


def walked(lam, rho=0.1, steps=30, shift=lambda t: 0.0, momentum=0.0, ball=None):
    w = nn.Parameter(START.clone())
    opt, path = SAMPa(torch.optim.SGD([w], lr=RATE, momentum=momentum), rho, lam), []
    if ball is not None:
        opt.ball = ball

    def closure(t):
        loss = value(w, t)
        loss.backward()
        return loss

    for t in range(steps):
        opt.step(closure, torch.tensor(shift(t), dtype=torch.float64))
        path.append(w.detach().clone())
    return torch.stack(path), opt


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", [0, 0.2, 1.0])
def test_written_out_with_another_batch_in_every_step(lam):
    def shift(t):
        return 0.1 * t

    x = START.clone()
    g = slope(x, shift(0))
    x, path = x - RATE * g, []
    path.append(x)
    for t in range(1, 30):
        p = slope(x + 0.1 * g / g.norm(), shift(t - 1))
        q = slope(x - RATE * g, shift(t))
        x, g = x - RATE * ((1 - lam) * p + lam * q), q
        path.append(x)
    close(walked(lam, shift=shift)[0], torch.stack(path))


def optimistic():
    """y_{t+1} = y_t - lr (2 g(y_t) - g(y_{t-1})), with 0 for the gradient before the first."""
    y, before, path = START.clone(), torch.zeros(6, dtype=torch.float64), []
    for _ in range(31):
        g = slope(y)
        y = y - RATE * (2 * g - before)
        before = g
        path.append(y)
    return path[:-1]


def ys(path):
    """The auxiliary points y_{t+1} = x_t - lr G_t of a path of x with lam = 1, where x_{t+1} = x_t - lr G_{t+1}."""
    out, g = [], slope(START)
    for x in path:
        y = x - RATE * g
        out.append(y)
        g = slope(y)
    return torch.stack(out)


def test_with_lambda_one_the_auxiliary_points_are_optimistic_gradient_descent():
    path, _ = walked(1.0)
    close(ys(path), torch.stack(optimistic()))


class Against:
    """rho = - lr |G|: the shift is - lr G."""

    def lmo(self, g, at):
        return [-RATE * t for t in g]


@pytest.mark.parametrize("lam", [0.0, 0.2, 0.7])
def test_with_a_shift_against_the_gradient_every_lambda_is_optimistic(lam):
    path, _ = walked(lam, ball=Against())
    close(ys(path), torch.stack(optimistic()))


def test_with_the_usual_shift_it_is_not():
    path, _ = walked(0.0)
    assert (ys(path) - torch.stack(optimistic())).abs().max() > 1e-3


def test_lambda_zero_goes_where_sam_goes_up_to_one_step_of_delay():
    a, _ = walked(0.0, steps=400)
    w = nn.Parameter(START.clone())
    opt = SAM(torch.optim.SGD([w], lr=RATE), 0.1)

    def closure():
        loss = value(w)
        loss.backward()
        return loss

    for _ in range(400):
        opt.step(closure)
    assert abs(float(value(a[-1])) - float(value(w.detach()))) < 1e-2


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    lambda p: torch.optim.AdamW(p, 0.1),
    lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
])  # fmt: skip
def test_a_peek_is_the_next_step_and_leaves_all_as_it_was(make):
    w = nn.Parameter(START.clone())
    opt = make([w])
    for k in range(3):
        w.grad = slope(w) * (k + 1)
        opt.step()
    w.grad, kept = None, [t.clone() for t in opt.state[w].values() if torch.is_tensor(t)]
    before, g = w.detach().clone(), slope(w)
    (there,) = peek([opt], [w], [g])
    assert torch.equal(w, before) and w.grad is None
    assert all(
        torch.equal(a, b) for a, b in zip(kept, [t for t in opt.state[w].values() if torch.is_tensor(t)], strict=True)
    )
    w.grad = g
    opt.step()
    assert torch.equal(there, w)


def closure_of(model):
    def closure(batch):
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss

    return closure


def go(model, opt, steps, first=0):
    for step in range(first, first + steps):
        opt.step(closure_of(model), batch(step))


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_a_resumed_run_is_the_uninterrupted_one(base):
    def made(model):
        own = model.parameters()
        return SAMPa(torch.optim.SGD(own, 0.1, momentum=0.9) if base == "sgd" else torch.optim.AdamW(own, 0.01))

    whole, model, later = network(), network(), network(seed=5)
    go(whole, made(whole), 9)
    opt = made(model)
    go(model, opt, 4)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    later.load_state_dict(kept["model"])
    again = made(later)
    again.load_state_dict(kept["opt"])
    go(later, again, 5, first=4)
    assert same(everything(whole), everything(later)) and again.steps == 9


def test_without_a_learning_rate_weights_stay_and_statistics_are_those_of_the_new_batches():
    model, twin = network(), network()
    opt = SAMPa(torch.optim.SGD(model.parameters(), lr=0.0))
    go(model, opt, 4)
    for step in range(4):
        twin(batch(step)[0])
    assert same(everything(model), everything(twin))


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_a_pass_that_is_not_finite_is_left_out(bad):
    model = network()
    opt = SAMPa(torch.optim.SGD(model.parameters(), lr=0.1))
    calls, inner = -1, closure_of(model)

    def closure(batch):
        nonlocal calls
        calls += 1
        loss = inner(batch)
        if calls == bad:
            next(model.parameters()).grad.fill_(float("nan"))
        return loss

    for step in range(4):
        before = [p.clone() for p in model.parameters()]
        opt.step(closure, batch(step))
        assert opt.last.skipped == all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert opt.skipped == 1 and all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: SAMPa(b, 0), "rho: expected a radius above 0, got 0"),
        (lambda b: SAMPa(b, 0.1, -0.1), r"SAMPa.lam: expected a share in \[0, 1\], got -0.1"),
        (lambda b: SAMPa(b, 0.1, 1.1), "SAMPa.lam"),
        (lambda b: SAMPa(b, clip=0), "SAMPa.clip"),
        (lambda b: SAMPa(b, group=object()), "SAMPa.model: expected the raw module with group="),
        (lambda b: SAMPa(b, group=object(), model=nn.Linear(1, 1)), "expected torch.distributed to have begun"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(InputError, match=message):
        make(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1))


def test_a_closure_without_a_batch():
    with pytest.raises(InputError, match=r"expected a closure and a batch, step\(closure, batch\)"):
        SAMPa(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)).step(lambda batch: None)


def test_counts():
    path, opt = walked(0.2)
    assert opt.last.gradients == 2 and opt.last.depth == 2 and len(path) == 30  # one process: one after the other
