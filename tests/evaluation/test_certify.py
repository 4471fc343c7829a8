"""Certificates against answers known exactly: linear models, grids, and mixed-integer programs."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import Bounds as Limits
from scipy.optimize import LinearConstraint, milp
from torch import nn

from danskin.attacks import PGD
from danskin.errors import InputError, ModelError
from danskin.evaluation.certify import Certified, certify
from danskin.metrics import Share
from danskin.minmax import L1, L2, Linf
from danskin.models import Normalize
from danskin.testing.models import convnet, mlp, seeded
from danskin.testing.oracles import linear_worst_case

LINEAR = ("ibp", "crown-ibp", "crown", "alpha-crown")
ORDER = {Linf: "linf", L2: "l2", L1: "l1"}


def points(n, *shape, seed=0, dtype=torch.float64):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def margins(model, x, y):
    z = model(x).detach().double()
    if z.shape[1] == 1:
        return z[:, 0] * y
    return z.gather(1, y[:, None])[:, 0] - z.scatter(1, y[:, None], -torch.inf).amax(1)


def exact_linf(layers, x, y, radius, box):
    """The worst margin of a ReLU network by a mixed-integer program, one example; big-M by intervals."""
    low, high = np.maximum(x - radius, box[0]), np.minimum(x + radius, box[1])
    sizes = [len(x)] + [len(b) for _, b in layers]
    hidden = sizes[1:-1]
    total = len(x) + 3 * sum(hidden)  # inputs, then per layer: before, after, on/off
    lower, upper = np.full(total, -np.inf), np.full(total, np.inf)
    integer, rows, least, most = np.zeros(total), [], [], []
    lower[: len(x)], upper[: len(x)] = low, high
    at, before = len(x), np.arange(len(x))
    for weight, bias in layers[:-1]:
        n = len(bias)
        z, h, on = (np.arange(at + k * n, at + (k + 1) * n) for k in range(3))
        at += 3 * n
        l = np.minimum(weight * low, weight * high).sum(1) + bias
        u = np.maximum(weight * low, weight * high).sum(1) + bias
        integer[on], lower[on], upper[on], lower[h] = 1, 0, 1, 0
        for i in range(n):
            for terms, lo, hi in (
                ([(z[i], 1.0), *zip(before, -weight[i], strict=True)], bias[i], bias[i]),
                ([(h[i], 1.0), (z[i], -1.0)], 0, np.inf),
                ([(h[i], 1.0), (z[i], -1.0), (on[i], -min(l[i], 0))], -np.inf, -min(l[i], 0)),
                ([(h[i], 1.0), (on[i], -max(u[i], 0))], -np.inf, 0),
            ):
                row = np.zeros(total)
                for k, v in terms:
                    row[k] += v
                rows.append(row), least.append(lo), most.append(hi)
        before, low, high = h, np.maximum(l, 0), np.maximum(u, 0)
    weight, bias = layers[-1]
    worst = np.inf
    for j in range(len(bias)):
        if j != y:
            cost = np.zeros(total)
            cost[before] = weight[y] - weight[j]
            found = milp(
                cost,
                integrality=integer,
                bounds=Limits(lower, upper),
                constraints=LinearConstraint(np.array(rows), least, most),
                options={"mip_rel_gap": 0},
            )
            assert found.success
            worst = min(worst, found.fun + bias[y] - bias[j])
    return worst


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("radius", [0.05, 0.3])
def test_bounds_and_truth_are_ordered_on_relu_networks(seed, radius):
    model = seeded(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), seed, 2.0)
    model = model.double()
    x = points(4, 3, seed=seed)
    y = model(x).argmax(1)
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in model if isinstance(m, nn.Linear)]
    truth = torch.tensor([exact_linf(layers, v.numpy(), int(k), radius, (0, 1)) for v, k in zip(x, y, strict=True)])
    found = {m: certify(model, (x, y), Linf(radius), method=m).margin for m in (*LINEAR, "lipschitz", "auto")}
    for name, margin in found.items():
        assert bool((margin <= truth + 1e-7).all()), name
    for looser, tighter in (("ibp", "crown-ibp"), ("ibp", "crown"), ("crown", "alpha-crown")):
        assert bool((found[looser] <= found[tighter] + 1e-9).all()), (looser, tighter)
    assert float((found["crown"] - found["crown-ibp"]).min()) > -1e-3  # tighter neurons may choose another line
    assert float(found["ibp"].mean()) < float(found["crown"].mean())
    if radius == 0.05:  # near the point the network is nearly linear
        assert float((truth - found["crown"]).mean()) < 0.2 * float((truth - found["ibp"]).mean())


@pytest.mark.parametrize("ball", [Linf(0.2), L2(0.3), L1(0.4)], ids=str)
@pytest.mark.parametrize("box", [None, (0, 1)], ids=str)
@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown", "auto", "lipschitz"])
def test_linear_models_are_certified_exactly(ball, box, method):
    model = nn.Sequential(Normalize([0.2, 0.4], [0.5, 0.3]), nn.Flatten(), nn.Linear(8, 3)).double()
    seeded(model, 3, 1.0)
    x = points(6, 2, 4)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3  # a wrong one: intervals only
    w = torch.func.jacrev(lambda v: model(v[None])[0])(x[0]).detach().flatten(1)
    limits = (-math.inf, math.inf) if box is None else box
    truth = []
    for v, k in zip(x, y.tolist(), strict=True):
        z, room = model(v[None])[0].detach(), v.flatten().tolist()
        low, high = [limits[0] - t for t in room], [limits[1] - t for t in room]
        falls = [
            linear_worst_case((w[j] - w[k]).tolist(), ball.value, low, high, ORDER[type(ball)])[0]
            for j in range(3)
            if j != k
        ]
        gaps = [float(z[k] - z[j]) for j in range(3) if j != k]
        truth.append(min(g - f for g, f in zip(gaps, falls, strict=True)))
    truth = torch.tensor(truth, dtype=torch.float64)
    found = certify(model, (x, y), ball, method=method, box=box)
    assert bool((found.margin <= truth + 1e-12).all())
    right = found.correct
    assert right.sum() >= 5
    if method not in ("ibp", "lipschitz"):
        torch.testing.assert_close(found.margin[right], truth[right], rtol=0, atol=1e-9)
    if method == "lipschitz" and isinstance(ball, L2) and box is None:  # one row, one factor for normalisation
        plain = nn.Sequential(nn.Flatten(), model[2])
        direct = certify(plain, (x, y), ball, method=method, box=box).margin
        weight = model[2].weight.detach()
        steep = torch.stack([(weight[k] - weight).norm(dim=1) for k in y.tolist()])
        z = plain(x).detach()
        gap = z.gather(1, y[:, None]) - z - ball.value * steep
        gap.scatter_(1, y[:, None], torch.inf)
        torch.testing.assert_close(direct, gap.amin(1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.15), L1(0.2)], ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU])
def test_no_point_of_a_dense_grid_is_below_the_bound(ball, activation):
    layers = nn.Linear(2, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3)
    model = seeded(nn.Sequential(*layers), 5, 3.0).double()
    x = points(6, 2, seed=4)
    y = model(x).argmax(1)
    side = torch.linspace(-1, 1, 81, dtype=torch.float64) * ball.value
    shifts = torch.cartesian_prod(side, side)
    shifts = shifts[ball.violation(shifts) <= 0]
    worst = torch.stack([
        margins(model, p[((p >= 0) & (p <= 1)).all(1)], k.expand(int(((p >= 0) & (p <= 1)).all(1).sum()))).min()
        for p, k in zip(x[:, None] + shifts, y, strict=True)
    ])  # fmt: skip
    found = {m: certify(model, (x, y), ball, method=m).margin for m in (*LINEAR, "lipschitz", "auto")}
    for name, margin in found.items():
        assert bool((margin <= worst).all()), name
    assert bool((found["auto"] >= found["crown"] - 1e-12).all())
    assert float((worst - found["auto"]).mean()) < 0.7 * float((worst - found["ibp"]).mean())


class Images(nn.Module):
    """Strides with remainders, padding, residual branches, batch normalisation, both kinds of pooling."""

    def __init__(self, pool):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.norm, self.pool = nn.BatchNorm2d(4), pool
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        h = F.relu(self.norm(self.first(x)))
        h = F.relu(self.second(h) - h + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)))
        return self.out(self.pool(h).mean((2, 3)))


@pytest.mark.parametrize("ball", [Linf(0.03), L2(0.1), L1(0.3)], ids=str)
@pytest.mark.parametrize("pool", [nn.Identity(), nn.AvgPool2d(2, 1), nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 2, 1)])
def test_no_attack_is_below_the_bound_on_images(ball, pool):
    model = seeded(Images(pool), 1, 3.0).double()
    model.norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    x = points(8, 2, 6, 6, seed=2)
    y = model(x).argmax(1)
    found = {m: certify(model, (x, y), ball, method=m) for m in (*LINEAR, "lipschitz")}
    attack = PGD(ball, steps=40, restarts=3, loss="margin", box=(0, 1))
    attacked = attack(model, x, y)
    worst = margins(model, attacked.x, y)
    for name, certified in found.items():
        assert bool((certified.margin <= worst + 1e-9).all()), name
        assert not bool((certified.certified & attacked.success).any())
    assert float((worst - found["crown"].margin).mean()) < 0.5 * float((worst - found["ibp"].margin).mean())
    if isinstance(ball, Linf):
        assert float((worst - found["crown"].margin).mean()) < 0.5 * float(worst.mean() + 1)


def test_max_pooling_of_one_winner_is_exact():
    """One pixel of each window is above the others whatever happens: the pool is linear there."""
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2)).double()
    x = 0.1 * points(3, 1, 4, 4)
    x[:, :, ::2, 1::2] += 0.6
    y = model(x).argmax(1)
    rows = model[2].weight.detach()
    fall = 0.1 * (rows[0] - rows[1]).abs().sum()
    found = certify(model, (x, y), Linf(0.1), method="crown")
    torch.testing.assert_close(found.margin, margins(model, x, y) - fall, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["lipschitz", *LINEAR])
def test_results_do_not_depend_on_batches_or_order(dtype, method):
    model, x = convnet(4).to(dtype), points(7, 3, 6, 6, dtype=dtype)
    y = model(x).argmax(1)
    y[3] = (y[3] + 1) % 4
    radius = torch.linspace(0.001, 0.02, 7)
    whole = certify(model, (x, y), Linf(radius), method=method)
    small = certify(model, (x, y), Linf(radius), method=method, batch_size=2)
    pairs = certify(model, [(x[:3], y[:3]), (x[3:], y[3:])], Linf(radius), method=method)
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    mixed = certify(model, (x[order], y[order]), Linf(radius[order]), method=method)
    for other in (small, pairs):
        torch.testing.assert_close(other.margin, whole.margin, rtol=1e-9, atol=1e-9)
        assert torch.equal(other.certified, whole.certified)
    torch.testing.assert_close(mixed.margin, whole.margin[order], rtol=1e-9, atol=1e-9)
    single = certify(model, (x[2:3], y[2:3]), Linf(float(radius[2])), method=method)
    torch.testing.assert_close(single.margin, whole.margin[2:3], rtol=1e-9, atol=1e-9)
    assert not whole.correct[3] and not whole.certified[3] and whole.margin[3] < 0


def test_larger_radii_are_never_easier_and_zero_is_the_clean_margin():
    model, x = mlp(5, 3).double(), points(10, 5)
    y = model(x).argmax(1)
    clean = margins(model, x, y)
    for method in ("lipschitz", *LINEAR):
        found = [certify(model, (x, y), L2(r), method=method).margin for r in (0.0, 0.01, 0.1, 1.0)]
        torch.testing.assert_close(found[0], clean, rtol=0, atol=1e-8)
        assert all(bool((b <= a).all()) for a, b in itertools.pairwise(found))


def test_float32_slack_is_subtracted_and_small():
    model, x = mlp(5, 3), points(10, 5, dtype=torch.float32)
    y = model(x).argmax(1)
    wide = certify(model.double(), (x.double(), y), Linf(0.01), method="crown").margin
    narrow = certify(model.float(), (x, y), Linf(0.01), method="crown").margin
    assert bool((narrow < wide).all()) and float((wide - narrow).max()) < 1e-4


def test_one_output_and_labels_of_both_signs():
    model = nn.Sequential(nn.Linear(3, 1)).double()
    x, y = points(6, 3), torch.tensor([1, -1, 1, -1, 1, -1])
    z, w = model(x)[:, 0].detach(), model[0].weight.detach()
    found = certify(model, (x, y), Linf(0.1), method="crown", box=None)
    right = z * y > 0
    assert torch.equal(found.correct, right)
    torch.testing.assert_close(found.margin[right], (z * y - 0.1 * w.abs().sum())[right], rtol=0, atol=1e-9)


def test_result_and_empty_data():
    model, x = mlp(5, 3), points(10, 5, dtype=torch.float32)
    y = model(x).argmax(1)
    found = certify(model, (x, y), Linf("1/255"))
    assert isinstance(found, Certified) and found.share == Share(int(found.certified.sum()), 10)
    assert torch.equal(found.certified, found.correct & (found.margin > 0))
    assert found.method == "alpha-crown" and found.seconds > 0 and "certified" in str(found)
    assert certify(model, (x, y), L2(0.01)).method == "lipschitz and alpha-crown"
    empty = certify(model, (x[:0], y[:0]), Linf(0.1))
    assert empty.margin.shape == (0,) and empty.share.n == 0
    assert certify(model, [], Linf(0.1)).share.n == 0


def large():
    """(model, x, y): a network with two wide layers, and an example."""
    layers = [nn.Linear(5, 2000), nn.ReLU(), nn.Linear(2000, 3000), nn.ReLU(), nn.Linear(3000, 3)]
    x = points(1, 5, dtype=torch.float32)
    model = seeded(nn.Sequential(*layers))
    return model, x, model(x).argmax(1)


def test_a_budget_that_is_too_small_is_said_and_cheaper_methods_stand():
    model, x, y = large()
    found = certify(model, (x, y), Linf(0.001), budget=1e9)
    assert found.method == "crown-ibp" and found.budget == 1e9
    assert [(s.method, s.tried, s.over) for s in found.steps] == [
        ("ibp", 1, 0), ("crown-ibp", 1, 0), ("crown", 0, 1), ("alpha-crown", 0, 1),
    ]  # fmt: skip
    assert certify(model, (x, y), Linf(0.001), budget=1.0).method == "ibp"


class Steps(nn.Module):
    """Residual blocks wide enough that "auto" climbs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)]) for _ in range(3)
        )
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        h = F.relu(self.first(x))
        for a, b in self.blocks:
            h = F.relu(h + b(F.relu(a(h))))
        return self.out(h.mean((2, 3)))


@pytest.fixture(scope="module")
def steps():
    """(model, x, y, radius): radii at which each method of the ladder has something to prove."""
    model, x = seeded(Steps(), 0, 1.0), points(24, 1, 16, 16, dtype=torch.float32)
    y = model(x).argmax(1)
    y[5] = (y[5] + 1) % 3
    return model, x, y, torch.logspace(-6, -1.5, 24)


def test_auto_climbs_example_by_example(steps):
    model, x, y, radius = steps
    found = certify(model, (x, y), Linf(radius))
    ibp, lines, crown, alpha = found.steps
    assert [s.method for s in found.steps] == ["ibp", "crown-ibp", "crown", "alpha-crown"]
    assert ibp.tried == 23 and ibp.proved > 0 and lines.proved > 0 and crown.proved > 0
    for cheap, dear in itertools.pairwise(found.steps):
        assert dear.tried == cheap.tried - cheap.proved  # what is proved goes no further
    assert sum(s.proved for s in found.steps) == int(found.certified.sum())
    dearest = certify(model, (x, y), Linf(radius), method="alpha-crown")
    assert torch.equal(found.certified, dearest.certified) and len(dearest.steps) == 1
    assert alpha.tried > 0 and "crown proved" in str(found)
    for method in ("ibp", "crown-ibp", "crown"):
        assert not bool((certify(model, (x, y), Linf(radius), method=method).certified & ~found.certified).any())


def test_examples_that_attacks_broke_are_not_tried_by_dear_methods(steps):
    model, x, y, radius = steps
    whole = certify(model, (x, y), Linf(radius))
    worth = torch.arange(24) % 2 == 0
    half = certify(model, (x, y), Linf(radius), worth=worth)
    torch.testing.assert_close(half.margin[worth], whole.margin[worth], rtol=1e-9, atol=1e-9)
    cheap = certify(model, (x, y), Linf(radius), method="crown-ibp")
    torch.testing.assert_close(half.margin[~worth], cheap.margin[~worth], rtol=1e-9, atol=1e-9)
    left = int((cheap.correct & ~cheap.certified & ~worth).sum())
    assert left > 0 and [s.broken for s in half.steps] == [0, 0, left, left]
    assert f"{left} broken by attacks and not tried" in str(half)


def test_a_budget_ends_an_example_by_itself(steps):
    """What an example may cost decides about it alone, in any company."""
    model, x, y, radius = steps
    free = certify(model, (x, y), Linf(radius), budget=1e15)
    some = certify(model, (x, y), Linf(radius), budget=2e8)
    assert 0 < some.steps[2].over < some.steps[2].tried
    assert bool((some.margin <= free.margin + 1e-9).all())
    single = [certify(model, (x[i : i + 1], y[i : i + 1]), Linf(float(radius[i])), budget=2e8) for i in range(24)]
    assert sum(s.steps[2].over for s in single) == some.steps[2].over
    torch.testing.assert_close(torch.cat([s.margin for s in single]), some.margin, rtol=1e-6, atol=1e-6)


def test_progress_is_told(steps):
    model, x, y, radius = steps
    events = []
    found = certify(model, (x, y), Linf(radius), batch_size=10, progress=events.append)
    assert [e["done"] for e in events][-1] == 24 and len(events) >= 3
    assert all(e["total"] == 24 and e["work"] == "certificates" for e in events)
    assert events[-1]["proved"] == int(found.certified.sum())
    unknown, batches = [], []
    certify(model, iter([(x[:3], y[:3])]), Linf(0.01), progress=unknown.append)
    certify(model, [(x[:3], y[:3]), (x[3:5], y[3:5])], Linf(0.01), progress=batches.append)
    assert unknown[-1]["total"] is None and batches[-1]["total"] == batches[-1]["done"] == 5


def test_model_is_left_as_found():
    model = convnet(4).train()
    x = points(3, 3, 6, 6, dtype=torch.float32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.inference_mode():
        certify(model, (x, torch.tensor([0, 1, 2])), Linf(0.01))
    assert all(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


class Hidden(nn.Module):
    """Computes something else at other values, where tracing at zeros does not look."""

    def forward(self, x):
        return x * float(x.detach().abs().max() > 0)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m, x, y: certify(m, (x, y), Linf(0.1), method="magic"), InputError, "method"),
        (lambda m, x, y: certify(m, (x, y), Linf(0.1), batch_size=0), InputError, "batch_size"),
        (lambda m, x, y: certify(m, (x, y), Linf(8.0)), InputError, "8/255"),
        (lambda m, x, y: certify(m, (x + 5, y), Linf(0.1)), InputError, "box"),
        (lambda m, x, y: certify(m, (x, y + 7), Linf(0.1)), InputError, "classes"),
        (lambda m, x, y: certify(m, (x, y), Linf(torch.tensor([0.1, 0.2]))), InputError, "radius"),
        (lambda m, x, y: certify(m, (x, y), Linf(torch.full((9,), 0.1))), InputError, "radius"),
        (lambda m, x, y: certify(m, [x], Linf(0.1)), InputError, "data"),
        (lambda m, x, y: certify(m, (x, y), Linf(0.1), budget=0), InputError, "budget"),
        (lambda m, x, y: certify(m, (x, y), Linf(0.1), worth=torch.ones(4, dtype=torch.bool)), InputError, "worth"),
        (lambda m, x, y: certify(m, (x, y), Linf(0.1), worth=torch.ones(6, dtype=torch.bool)), InputError, "worth"),
        (lambda m, x, y: certify(m, (x, y), Linf(0.1), worth=torch.ones(5)), InputError, "worth"),
        (lambda m, x, y: certify(nn.Sequential(m, nn.Softmax(1)), (x, y), Linf(0.1)), ModelError, "softmax"),
        (lambda m, x, y: certify(Hidden(), (x, y), Linf(0.1)), ModelError, "model"),
        (lambda m, x, y: certify(lambda t: m(t) + torch.rand(3), (x, y), Linf(0.1)), ModelError, "model"),
    ],
)
def test_bad_calls_say_what_to_do(call, error, says):
    with pytest.raises(error, match=says):
        call(mlp(4, 3), points(5, 4, dtype=torch.float32), torch.tensor([0, 1, 2, 0, 1]))
