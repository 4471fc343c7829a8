"""ESAM, BiSAM, SAF and MESA against their formulas written out."""

import io
import math

import pytest
import torch
from optim_cases import batch, everything, network, same, sgd
from torch import nn
from torch.nn import functional as F

from danskin import SAM, InputError
from danskin.optim import ESAM, MESA, SAF, BiSAM
from danskin.optim.bisam import error_bound
from danskin.optim.saf import distillation


def forward_of(model, x):
    return lambda rows: model(x if rows is None else x[rows])


def go(model, opt, steps, first=0, index=False):
    for step in range(first, first + steps):
        x, y = batch(step % 3)
        places = torch.arange(16) + 16 * (step % 3)
        opt.step(forward_of(model, x), y, places) if index else opt.step(forward_of(model, x), y)
    return model


def plain_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


METHODS = {
    "esam": lambda base, **o: ESAM(base, 0.1, **o),
    "esam tensors": lambda base, **o: ESAM(base, 0.1, mask="tensor", **o),
    "bisam": lambda base, **o: BiSAM(base, 0.1, **o),
    "saf": lambda base, **o: SAF(base, 48, lag=2, begin=2, **o),
    "mesa": lambda base, **o: MESA(base, decay=0.5, **o),
}
every = pytest.mark.parametrize("method", METHODS)


def test_esam_with_everything_is_sam():
    a, b = network(), network()
    one, two = SAM(sgd(a), 0.1), ESAM(sgd(b), 0.1, 1.0, 1.0)
    for step in range(5):
        x, y = batch(step)

        def closure(x=x, y=y):
            loss = F.cross_entropy(a(x), y)
            loss.backward()
            return loss

        one.step(closure)
        two.step(forward_of(b, x), y)
    assert same(everything(a), everything(b)) and two.last.gradients == 2 and two.last.forwards == 0


def test_esam_written_out():
    model, twin = plain_net(), plain_net()
    x, y = batch(0)
    x = x.double()
    opt = ESAM(torch.optim.SGD(model.parameters(), lr=0.1), 0.5, 0.6, 0.25, seed=3)
    opt.step(forward_of(model, x), y)
    weights = list(twin.parameters())
    before = F.cross_entropy(twin(x), y, reduction="none")
    g = torch.autograd.grad(before.mean(), weights)
    length = torch.cat([t.flatten() for t in g]).norm()
    generator = torch.Generator().manual_seed(3 << 32)
    with torch.no_grad():
        masks = [torch.rand(t.shape, generator=generator) < 0.6 for t in g]
        shift = [m * 0.5 * t / length / 0.6 for m, t in zip(masks, g, strict=True)]
        for w, v in zip(weights, shift, strict=True):
            w += v
    after = F.cross_entropy(twin(x), y, reduction="none")
    hurt = (after - before).topk(4).indices
    second = torch.autograd.grad(F.cross_entropy(twin(x[hurt]), y[hurt]), weights)
    for w, v, s, mine in zip(weights, shift, second, model.parameters(), strict=True):
        torch.testing.assert_close(mine, w - v - 0.1 * s, rtol=0, atol=1e-12)
    assert opt.last.gradients == 1.25 and opt.last.forwards == 1


def test_masks_are_one_over_beta_in_the_mean_and_others_in_every_step():
    w = nn.Parameter(torch.ones(40_000))
    opt = ESAM(torch.optim.SGD([w], lr=0.0), 1.0, 0.25)
    a = opt._ball().lmo([torch.ones(40_000)], [w])[0]
    opt._told("steps_taken", 1)
    b = opt._ball().lmo([torch.ones(40_000)], [w])[0]
    assert float(a.sum()) == pytest.approx(200, rel=0.05) and not torch.equal(a, b)
    assert a.unique().tolist() == [0.0, pytest.approx(1 / 200 / 0.25)]


@pytest.mark.parametrize("phi", ["tanh", "log"])
def test_the_error_bound_written_out_and_below_its_limit(phi):
    z, y = torch.randn(50, 4, dtype=torch.float64), torch.randint(0, 4, (50,))
    got = error_bound(z, y, phi, 10.0, 0.1)
    for row, label, q in zip(z, y, got, strict=True):
        total = 0.0
        for j in range(4):
            s = float(row[j] - row[label])
            bounded = math.tanh(0.1 * s) if phi == "tanh" else 1 - math.log(1 + math.exp(math.log(math.e - 1) - s))
            assert bounded <= (1.0 if s > 0 else 0.0) + 1e-12  # below the step function
            total += math.exp(10 * bounded)
        assert float(q) == pytest.approx(math.log(total) / 10)


def test_bisam_written_out():
    model, twin = plain_net(), plain_net()
    x, y = batch(1)
    x = x.double()
    BiSAM(torch.optim.SGD(model.parameters(), lr=0.1), 0.3, phi="log", mu=1.0).step(forward_of(model, x), y)
    weights = list(twin.parameters())
    g = torch.autograd.grad(error_bound(twin(x), y, "log", 1.0, 0.1).mean(), weights)
    length = torch.cat([t.flatten() for t in g]).norm()
    shift = [0.3 * t / length for t in g]
    with torch.no_grad():
        for w, v in zip(weights, shift, strict=True):
            w += v
    second = torch.autograd.grad(F.cross_entropy(twin(x), y), weights)
    for w, v, s, mine in zip(weights, shift, second, model.parameters(), strict=True):
        torch.testing.assert_close(mine, w - v - 0.1 * s, rtol=0, atol=1e-12)


def test_bisam_is_plain_before_its_tail():
    model, bare = network(), network()
    opt = BiSAM(sgd(model), start=2)
    go(model, opt, 2)
    base = sgd(bare)
    for step in range(2):
        x, y = batch(step)
        base.zero_grad()
        F.cross_entropy(bare(x), y).backward()
        base.step()
    assert same(everything(model), everything(bare))


def test_saf_written_out():
    model, twin = plain_net(), plain_net()
    opt, base = SAF(sgd(model), 16, 0.5, 2.0, lag=2, begin=2), sgd(twin)
    x, y = batch(0)
    x, logits = x.double(), []
    for visit in range(5):
        opt.step(forward_of(model, x), y, torch.arange(16))
        z = twin(x)
        loss = F.cross_entropy(z, y)
        if visit >= 2:
            old = logits[visit - 2].half().double()
            kl = (old / 2).softmax(1) * ((old / 2).log_softmax(1) - (z / 2).log_softmax(1))
            loss = loss + 0.5 * 4 * kl.sum(1).mean()
        logits.append(z.detach())
        base.zero_grad()
        loss.backward()
        base.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert opt.last.gradients == 1


def test_mesa_written_out():
    model, twin = plain_net(), plain_net()
    opt, base = MESA(sgd(model), 0.5, 2.0, decay=0.75), sgd(twin)
    mean = None
    for step in range(5):
        x, y = batch(step)
        x = x.double()
        opt.step(forward_of(model, x), y)
        z = twin(x)
        loss = F.cross_entropy(z, y)
        if mean is not None:
            with torch.no_grad():
                old = torch.func.functional_call(twin, mean, (x,))
            loss = loss + 0.5 * distillation(old, z, 2.0).mean()
        base.zero_grad()
        loss.backward()
        base.step()
        now = {n: p.detach().clone() for n, p in twin.named_parameters()}
        mean = now if mean is None else {n: 0.75 * mean[n] + 0.25 * now[n] for n in now}
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert opt.last.gradients == 1 and opt.last.forwards == 1


def test_distillation_is_zero_at_home_and_safe_for_masked_classes():
    z = torch.tensor([[1.0, -torch.inf, 2.0]])
    assert float(distillation(z, z, 5.0)) == pytest.approx(0)
    far = torch.tensor([[500.0, 0.0, -500.0]])
    assert torch.isfinite(distillation(far, -far, 1.0)).all()


@every
def test_a_resumed_run_is_the_uninterrupted_one(method):
    index = method == "saf"
    whole = network()
    go(whole, METHODS[method](sgd(whole)), 12, index=index)
    model = network()
    opt = METHODS[method](sgd(model))
    go(model, opt, 7, index=index)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    later = network(seed=5)
    later.load_state_dict(kept["model"])
    again = METHODS[method](sgd(later))
    again.load_state_dict(kept["opt"])
    go(later, again, 5, first=7, index=index)
    assert same(everything(whole), everything(later))


@every
def test_without_a_learning_rate_weights_stay_and_statistics_move_once(method):
    model, twin = network(), network()
    opt = METHODS[method](torch.optim.SGD(model.parameters(), lr=0.0))
    go(model, opt, 5, index=method == "saf")
    for step in range(5):
        twin(batch(step % 3)[0])
    assert same(everything(model), everything(twin))


@every
def test_logits_that_are_not_finite_leave_no_trace(method):
    model = network()
    opt = METHODS[method](sgd(model))
    go(model, opt, 7, index=method == "saf")
    before = {n: p.clone() for n, p in model.named_parameters()}
    x, y = batch(0)
    opt.step(lambda rows: forward_of(model, x)(rows) * float("nan"), y, torch.arange(16))
    assert opt.last.skipped and all(torch.equal(before[n], p) for n, p in model.named_parameters())
    go(model, opt, 4, index=method == "saf")
    assert not opt.last.skipped


@every
def test_a_scaler_changes_nothing_but_the_range(method):
    index = method == "saf"
    plain, model = network(), network()
    go(plain, METHODS[method](sgd(plain)), 6, index=index)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    go(model, METHODS[method](sgd(model), scaler=scaler), 6, index=index)
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: ESAM(b, beta=0), r"ESAM.beta: expected a share in \(0, 1\], got 0"),
        (lambda b: ESAM(b, gamma=2), "ESAM.gamma"),
        (lambda b: ESAM(b, mask="row"), "ESAM.mask"),
        (lambda b: BiSAM(b, phi="relu"), "BiSAM.phi"),
        (lambda b: BiSAM(b, mu=0), "BiSAM.mu"),
        (lambda b: SAF(b, 0), "SAF.examples"),
        (lambda b: SAF(b, 4, tau=0), "SAF.tau"),
        (lambda b: MESA(b, decay=1), "MESA.decay"),
        (lambda b: MESA(b, -1), "MESA.weight"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(InputError, match=message):
        make(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1))


def test_what_step_is_not_given():
    model = network()
    x, y = batch(0)
    saf, esam = SAF(sgd(model), 16), ESAM(sgd(model))
    with pytest.raises(InputError, match=r"SAF\.step: expected index="):
        saf.step(forward_of(model, x), y)
    with pytest.raises(InputError, match="expected places below examples=16, got up to 31"):
        saf.step(forward_of(model, x), y, torch.arange(16) + 16)
    with pytest.raises(InputError, match="expected forward and labels"):
        esam.step(forward_of(model, x))
    with pytest.raises(InputError, match="expected logits"):
        esam.step(lambda rows: x[:3], y)
    with pytest.raises(InputError, match="use reduction='none'"):
        ESAM(sgd(model), loss=F.cross_entropy).step(forward_of(model, x), y)
