"""TRADES and MART: golden values, slow twins, limits, and where each draws its line."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.attacks import BETA, PGA, PGD
from danskin.errors import InputError
from danskin.losses import kl
from danskin.minmax import Linf
from danskin.training import MART, TRADES
from danskin.training.objective import Found, Step

NATURAL = torch.tensor([[2.0, 1, 0], [0.5, 0.2, -0.3]], dtype=torch.float64)
MOVED = torch.tensor([[1.0, 1.5, 0], [0.1, 0.4, -0.2]], dtype=torch.float64)
Y = torch.tensor([0, 1])
ATTACK = PGD(Linf(0.1), 3, "2.5*radius/steps", start_noise=0.001, keep="last")


def given(x):
    """Inputs are their own logits."""
    return x


def net():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batch(n=12):
    return torch.rand(n, 5, dtype=torch.float64), torch.arange(n) % 3


def found():
    return Found(NATURAL, Y, MOVED)


def test_divergence_is_that_of_the_reference():
    value = kl(MOVED, NATURAL.log_softmax(1))
    assert value.tolist() == pytest.approx([0.2394014, 0.0388915], abs=1e-7)
    twin = F.kl_div(MOVED.log_softmax(1), NATURAL.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(value, twin, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (TRADES(ATTACK), 1.5806661),
        (TRADES(ATTACK, beta=0), 0.7457874),
        (MART(ATTACK), 1.8216574),
        (MART(ATTACK, guard=0), 1.8218415),
        (MART(ATTACK, beta=0), 1.5569618),
    ],
)
def test_golden_values(objective, value):
    losses = objective.losses(given, found(), Step())
    assert losses.value.mean().item() == pytest.approx(value, abs=2e-7)
    assert losses.wrong.tolist() == [True, False]


def twin_trades(clean, moved, y, beta):
    p, q = clean.softmax(1), moved.softmax(1)
    divergence = sum(p[:, k] * (p[:, k].log() - q[:, k].log()) for k in range(p.shape[1]))
    return (F.cross_entropy(clean, y, reduction="none") + beta * divergence).mean()


def twin_mart(clean, moved, y, beta):
    total = 0
    for p, q, b in zip(clean.softmax(1), moved.softmax(1), y.tolist(), strict=True):
        rival = max(q[k] for k in range(len(q)) if k != b)
        divergence = (p * (p.log() - q.log())).sum()
        total = total - q[b].log() - (1.0001 - rival).log() + beta * (1 - p[b]) * divergence
    return total / len(y)


@pytest.mark.parametrize(("kind", "twin"), [(TRADES, twin_trades), (MART, twin_mart)])
def test_value_and_gradient_are_those_of_the_slow_twin(kind, twin):
    model, (x, y) = net(), batch()
    objective = kind(ATTACK, beta=4.0)
    loss = objective(model, x, y, seed=3)
    points = objective.search(model, x, y, Step(seed=3)).points
    assert 0.01 < (points - x).abs().max() <= 0.1 + 1e-12
    truth = twin(model(x), model(points), y, 4.0)
    assert loss.item() == pytest.approx(truth.item(), abs=1e-9)
    weights = list(model.parameters())
    for a, b in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(truth, weights), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def test_the_divergence_has_no_gradient_where_it_is_zero():
    """Why there is noise at the start: from the clean input true gradients lead nowhere, signs follow rounding."""
    model, (x, y) = net(), batch()
    still = TRADES(PGA(Linf(0.1), 5, step=1000.0, keep="last"))
    torch.testing.assert_close(still.search(model, x, y, Step()).points, x, atol=1e-6, rtol=0)
    moved = TRADES(PGA(Linf(0.1), 5, step=1000.0, random_start=True, keep="last")).search(model, x, y, Step()).points
    assert (moved - x).abs().max() > 0.05


def test_the_adversary_raises_the_divergence_and_may_raise_its_own_loss_instead():
    model, (x, y) = net(), batch(60)
    far = PGD(Linf(0.3), 20, start_noise=0.001)
    reference = model(x).log_softmax(1)
    points = [TRADES(far, inner=inner).search(model, x, y, Step()).points for inner in ("kl", "attack")]
    divergence = [kl(model(p), reference).mean().item() for p in points]
    loss = [F.cross_entropy(model(p), y).item() for p in points]
    assert divergence[0] > divergence[1] and loss[0] < loss[1]


def test_gradients_flow_through_both_arguments():
    weight = torch.zeros(3, requires_grad=True, dtype=torch.float64)

    def model(x):
        return x + weight * x.sum(1, keepdim=True)

    TRADES(ATTACK, beta=2.0).losses(model, found(), Step()).value.mean().backward()
    got, weight.grad = weight.grad, None
    twin_trades(model(NATURAL), model(MOVED), Y, 2.0).backward()
    torch.testing.assert_close(got, weight.grad, atol=1e-12, rtol=0)
    weight.grad = None
    twin_trades(model(NATURAL).detach(), model(MOVED), Y, 2.0).backward()
    assert not torch.allclose(got, weight.grad)


def test_smoothing_is_of_the_clean_term_alone():
    plain, smooth = (TRADES(ATTACK, smoothing=s).losses(given, found(), Step()).value for s in (0.0, 0.1))
    uniform = -NATURAL.log_softmax(1).mean(1)
    clean = F.cross_entropy(NATURAL, Y, reduction="none")
    torch.testing.assert_close(smooth - plain, 0.1 * (uniform - clean), atol=1e-12, rtol=0)


def test_passes_of_ten_steps_are_27_forwards():
    """20 of the attack, the clean prediction once, and two passes that go back to the weights."""
    counts = {"forward": 0, "backward": 0}

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            counts["forward"] += 1
            out = self.inner(x)
            if out.requires_grad:
                out.register_hook(lambda g: counts.__setitem__("backward", counts["backward"] + 1))
            return out

    x, y = batch()
    TRADES(PGD(Linf(0.1), 10, start_noise=0.001, keep="last"))(Counted(), x, y).backward()
    assert counts == {"forward": 13, "backward": 12}  # the last two backward passes also reach the weights
    # 10 * 2 + 1 + 2 * 3


def test_batch_and_order_change_nothing():
    model, (x, y) = net(), batch()
    objective, order = TRADES(ATTACK), torch.randperm(12)
    whole = objective.losses(model, objective.search(model, x, y, Step()), Step()).value
    mixed = objective.losses(model, objective.search(model, x[order], y[order], Step()), Step()).value
    torch.testing.assert_close(mixed, whole[order], atol=1e-9, rtol=0)
    parts = [objective(model, x[i : i + 4], y[i : i + 4]) for i in (0, 4, 8)]
    assert sum(parts).item() / 3 == pytest.approx(whole.mean().item(), abs=1e-9)


def test_mart_is_finite_where_the_model_is_sure_and_wrong_in_low_precision():
    sure = torch.tensor([[60.0, 0.0, 0.0]])
    for dtype in (torch.float32, torch.bfloat16):
        value = MART(ATTACK, guard=0).losses(given, Found(sure.to(dtype), torch.tensor([1]), sure.to(dtype)), Step())
        assert torch.isfinite(value.value).all() and value.value.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TRADES(ATTACK, beta=-1), "TRADES.beta: expected a number >= 0"),
        (lambda: MART(ATTACK, beta=-1), "MART.beta"),
        (lambda: MART(ATTACK, guard=-1), "MART.guard"),
        (lambda: TRADES(ATTACK, inner="margin"), "TRADES.inner"),
        (lambda: TRADES(ATTACK, smoothing=1.0), "TRADES.smoothing"),
        (lambda: TRADES(BETA(Linf(0.1)))(net(), *batch()), "loss: expected a targeted loss"),
        (lambda: TRADES(ATTACK)(net(), *(t[:0] for t in batch())), "TRADES: expected at least one example"),
        (lambda: PGD(Linf(0.1), loss="kl")(net(), *batch(), targets=batch()[1]), "targets: expected none"),
        (lambda: PGD(Linf(0.1), start_noise=0.1, random_start=False)(net(), *batch()), "start_noise"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_divergence_is_a_payoff_of_any_attack():
    model, (x, y) = net().eval(), batch(40)
    out = PGD(Linf(0.2), 10, loss="kl", start_noise=0.01)(model, x, y)
    torch.testing.assert_close(out.loss, kl(model(out.x), model(x).log_softmax(1)).detach(), atol=1e-9, rtol=0)
    assert (out.loss > PGD(Linf(0.2), 1, 0.001, loss="kl", start_noise=0.01)(model, x, y).loss).all()
    assert torch.equal(out.success, model(out.x).argmax(1) != y)
