"""W1 by neural duals: what is certified is below the truth, and a gap alone proves nothing."""

import copy
import math

import pytest
import torch
from own_samples import eight
from torch import nn

from danskin.critics import (
    AdamAscent,
    Kantorovich,
    NeuralDual,
    certified,
    gradient_penalty,
    population_bound,
)
from danskin.errors import InputError, ModelError
from danskin.lipschitz import LipschitzBound
from danskin.testing import CRITIC_CHECKS, check_critic
from danskin.transport import Bracket, wasserstein


def mlp(dims=2, width=16, activation=nn.ReLU):
    with torch.random.fork_rng():
        torch.manual_seed(dims)
        return nn.Sequential(
            nn.Linear(dims, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, 1)
        )


@pytest.mark.parametrize(
    ("critic", "shape"),
    [
        (nn.Linear(3, 1), (3,)),
        (mlp(2), (2,)),
        (mlp(5, activation=nn.Tanh), (5,)),
        (mlp(3, activation=nn.LeakyReLU).double(), (3,)),
        (nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1)), (1, 4, 4)),
    ],
    ids=lambda v: "" if isinstance(v, tuple) else type(v).__name__,
)  # fmt: skip
def test_critics_certify_no_more_than_w1(critic, shape):
    check_critic(critic, shape)


class TooSmall(nn.Module):
    def forward(self, z):
        return z.sum(1, keepdim=True)


def test_the_suite_sees_a_certificate_that_is_too_small():
    def claimed(model, shape):
        return LipschitzBound(0.5, "upper", "wishful")

    for check in ("no_quotient_exceeds_the_certificate", "the_certified_bound_is_below_w1"):
        others = [name for name in CRITIC_CHECKS if name != check]
        with pytest.raises(AssertionError, match="expected"):
            check_critic(TooSmall(), (3,), bound=claimed, skip=others)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_a_translation_is_certified_exactly_by_a_linear_critic(p):
    shift = torch.tensor([3.0, 0.0])
    x = torch.randn(20, 2)
    line = nn.Linear(2, 1)
    line.weight.data = -7 * shift[None]
    found = certified(line, x, x + shift, p=p)
    assert found.gap == pytest.approx(7 * 9, rel=1e-5)
    assert found.lower == pytest.approx(3 / (math.sqrt(2) if p == math.inf else 1), rel=1e-5)
    assert certified(line, x + shift, x, p=p).lower == pytest.approx(found.lower)


def test_fitting_repeats_leaves_the_critic_as_found_and_grows_with_steps():
    x, y = eight(128)
    critic = mlp()
    before = copy.deepcopy(critic.state_dict())
    state = torch.get_rng_state()
    short, again, long = (NeuralDual(critic, AdamAscent(k, batch=64, every=1), seed=3).fit(x, y) for k in (10, 10, 150))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in critic.state_dict().items()) and critic.training
    assert short.bound.lower == again.bound.lower and short.history == again.history and len(short.history) == 10
    assert long.bound.gap > short.bound.gap


@pytest.mark.parametrize("upper", ["sinkhorn", "independent", "exact"])
def test_the_bracket_holds_the_exact_distance(upper):
    x, y = eight(60)
    a = torch.rand(60, dtype=torch.float64)
    a = a / a.sum()
    found = NeuralDual(mlp(), AdamAscent(60), upper=upper).value(x, y, a)
    exact = float(Kantorovich().value(x, y, a))
    assert isinstance(found, Bracket) and found.lower <= exact * (1 + 1e-9) <= found.upper * (1 + 2e-9)
    assert found.lower > 0.05 * exact
    assert {"sinkhorn": 1.011, "independent": 3.0, "exact": 1 + 1e-6}[upper] > found.upper / exact


def test_the_witness_is_1_lipschitz_and_earns_the_bound():
    x, y = eight(60)
    dual = NeuralDual(mlp(), AdamAscent(60))
    f = dual.witness(y, x)
    earned = float(f(y).mean() - f(x).mean())
    assert earned == pytest.approx(dual.lower_bound(y, x), rel=1e-9)


@pytest.mark.slow
def test_the_gap_under_a_gradient_penalty_exceeds_w1_and_certifies_little():
    x, y = eight(1024)
    exact = wasserstein(x, y).bracket.value
    found = NeuralDual(mlp(width=64), AdamAscent(1000, 1e-3, penalty=1.0)).fit(x, y).bound
    assert found.gap > exact and found.lower < 0.5 * exact


def test_the_gradient_penalty_is_that_of_each_point_and_finite_at_gradient_0():
    line = nn.Linear(2, 1)
    line.weight.data = torch.tensor([[0.0, 3.0]])
    g = torch.Generator().manual_seed(0)
    at_3 = gradient_penalty(line, torch.randn(50, 2), torch.randn(40, 2), g)
    assert float(at_3.detach()) == pytest.approx(4, rel=1e-6)
    half = torch.tensor([[-5.0], [-3.0], [2.0], [4.0]])  # slope 0 on one half, 1 on the other
    assert float(gradient_penalty(nn.ReLU(), half, half, g).detach()) == 0.5
    line.weight.data.zero_()
    loss = gradient_penalty(line, torch.randn(5, 2), torch.randn(5, 2), g)
    loss.backward()
    assert float(loss.detach()) == 1 and bool(line.weight.grad.isfinite().all())


def test_bounds_of_populations_hold_as_often_as_they_say():
    g, below = torch.Generator().manual_seed(1), {"hoeffding": 0, "bootstrap": 0}
    dual = NeuralDual(nn.Linear(1, 1), AdamAscent(3))
    for k in range(100):
        x, y = torch.randn(60, 1, generator=g), torch.randn(60, 1, generator=g) + 0.5
        for method in below:
            found = population_bound(dual, x, y, method=method, draws=300, seed=k)
            below[method] += found.lower <= 0.5
            assert found.n == 30 and found.lower <= max(found.estimate, 0)
    assert below["hoeffding"] >= 99 and 88 <= below["bootstrap"] <= 99


def test_hoeffdings_bound_is_his_formula_on_the_clipped_critic():
    x, y = torch.randn(400, 1, dtype=torch.float64), torch.randn(300, 1, dtype=torch.float64) + 2
    line = nn.Linear(1, 1).double()
    found = population_bound(NeuralDual(line, AdamAscent(3)), x, y, confidence=0.9, seed=5)
    g = torch.Generator().manual_seed(5)
    (i, j) = (torch.randperm(n, generator=g) for n in (400, 300))
    critic = found.fitted.critic.requires_grad_(False)
    seen = critic(torch.cat([x[i[:200]], y[j[:150]]]))
    u, v = (critic(t).clamp(seen.min(), seen.max()) for t in (x[i[200:]], y[j[150:]]))
    gap = abs(float(u.mean() - v.mean()))
    slack = float(seen.max() - seen.min()) * math.sqrt(math.log(10) * (1 / 200 + 1 / 150) / 2)
    assert gap > 1.5 * slack
    assert found.lower == pytest.approx((gap - slack) / float(critic.weight.abs()), rel=1e-6)
    assert found.estimate == pytest.approx(gap / float(critic.weight.abs()), rel=1e-6)


def test_what_cannot_be_a_critic_is_refused():
    x, y = eight(8)
    refused = {
        "to train": nn.Flatten(), "one value for each": nn.Linear(2, 3), "there is no bound": _Exponential(),
    }  # fmt: skip
    for match, critic in refused.items():
        with pytest.raises(ModelError, match=match):
            NeuralDual(critic, AdamAscent(2)).fit(x, y)
    for match, make in {
        "torch.nn.Module": lambda: NeuralDual(lambda z: z).fit(x, y),
        "certified upper bound": lambda: certified(mlp(), x, y, bound=LipschitzBound(1.0, "lower", "seen")),
        "finite numbers": lambda: certified(mlp(), x / 0, y),
        "certificate|certified": lambda: certified(mlp(), x, y, bound=1.0),
        "certified upper": lambda: certified(mlp(), x, y, bound=lambda critic, shape: 1.0),
        "draws": lambda: population_bound(NeuralDual(mlp(), AdamAscent(2)), x, y, method="bootstrap", draws=0),
        "l1|1, 2 or inf": lambda: certified(mlp(), x, y, p=3),
        "AdamAscent.steps": lambda: AdamAscent(0),
        "AdamAscent.lr": lambda: AdamAscent(lr=math.nan),
        "AdamAscent.penalty": lambda: AdamAscent(penalty=-1.0),
        "NeuralDual.upper": lambda: NeuralDual(mlp(), upper="plan"),
        "at least 4": lambda: population_bound(NeuralDual(mlp()), x[:3], y),
        "confidence": lambda: population_bound(NeuralDual(mlp()), x, y, confidence=95),
        "method": lambda: population_bound(NeuralDual(mlp()), x, y, method="normal"),
    }.items():
        with pytest.raises(InputError, match=match):
            make()


class _Exponential(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def forward(self, z):
        return self.line(z).exp()
