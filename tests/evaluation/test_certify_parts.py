"""The parts of certificates: regions, relaxations, windows, slopes; each against its definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danskin.evaluation.certificates.backward import Bounds
from danskin.evaluation.certificates.intervals import intervals
from danskin.evaluation.certificates.region import Region
from danskin.evaluation.certificates.relaxations import relax
from danskin.evaluation.certify import certify
from danskin.lipschitz import read
from danskin.lipschitz.operations import MaxPool, Relu, Sigmoid, Tanh
from danskin.minmax import L1, L2, Linf
from danskin.models import Normalize
from danskin.testing.models import seeded

BALLS = [Linf(0.1), L2(0.3), L1(0.5)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def between(low, high, samples, seed=0):
    """Random points of boxes, most coordinates at an end."""
    share = torch.rand(samples, *low.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * (2 * share - 0.5).clamp(0, 1)


@pytest.mark.parametrize("style", ["parallel", "adaptive"])
@pytest.mark.parametrize(
    "activation",
    [Relu(), Relu(0.2), Relu(1.0), Sigmoid(), Tanh(), MaxPool((2, 2), (2, 2)), MaxPool((3, 2), (1, 2), (1, 1)),
     MaxPool((2, 2), (2, 3), (1, 0), (2, 1), ceil=True)],
    ids=str,
)  # fmt: skip
def test_relaxations_are_below_for_all_inputs_in_their_bounds(activation, style):
    low, width = 2 * draw(5, 2, 5, 7), draw(5, 2, 5, 7, seed=1).abs()
    width[0], width[1] = 0, width[1] * 1e-9
    width[2] *= 0.05  # so that some windows have one winner
    high = low + width
    made = relax(activation, low, high, style)
    out = activation.apply(low).shape
    a, example = draw(40, *out[1:], seed=2), torch.arange(40) % 5
    b, constant = made.pull(a, example)
    for z in between(low, high, 100):
        value = (a * activation.apply(z)[example]).flatten(1).sum(1)
        bound = (b * z[example]).flatten(1).sum(1) + constant
        assert bool((bound <= value + 1e-9).all())
    if isinstance(activation, MaxPool):
        assert bool((made.wins > 0).any()) and bool((made.wins == 0).any())
    decided = relax(activation, low, low, style).pull(a, example)  # of a point the relaxation is exact
    value = (a * activation.apply(low)[example]).flatten(1).sum(1)
    torch.testing.assert_close((decided[0] * low[example]).flatten(1).sum(1) + decided[1], value, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ball", BALLS, ids=str)
@pytest.mark.parametrize("box", [None, (0, 1)], ids=str)
def test_regions_bound_linear_functions(ball, box):
    x = torch.rand(4, 2, 3, dtype=torch.float64)
    x[0] = 0.0
    region = Region.of(x, ball, box)
    shifts = ball.project(2 * draw(4000, 2, 3))
    shifts = torch.cat([shifts, ball.lmo(draw(4000, 2, 3, seed=5))])
    a, example = draw(12, 2, 3, seed=3), torch.arange(12) % 4
    loose, exact = region.least(a, example), region.least(a, example, exact=True)
    low, high = region.common_range(a)
    assert bool((loose <= exact + 1e-12).all())
    for k in range(12):
        p = x[example[k]] + shifts
        p = p[((p >= 0) & (p <= 1)).flatten(1).all(1)] if box else p
        values = (a[k] * p).flatten(1).sum(1)
        assert float(exact[k]) <= float(values.min()) + 1e-12
        assert float(low[example[k], k]) <= float(values.min()) + 1e-12
        assert float(high[example[k], k]) >= float(values.max()) - 1e-12
        assert float((p - x[example[k]]).flatten(1).norm(dim=1).max()) <= float(region.l2_radius[example[k]]) + 1e-9


class Branches(nn.Module):
    """Everything a window meets: strides, paddings, dilation, groups, scales, branches, sums, and what ends it."""

    def __init__(self, end):
        super().__init__()
        self.normalize = Normalize([0.1, 0.2], [0.5, 0.7])
        self.a, self.b = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(2, 4, 1, 2)
        self.c, self.norm = nn.Conv2d(4, 4, (3, 2), padding=(2, 1), dilation=(2, 1), groups=2), nn.BatchNorm2d(4)
        self.d, self.e = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 6, 2, padding=1)
        self.end, self.out = end, nn.Linear(6, 3)
        self.register_buffer("field", torch.linspace(0.5, 1.5, 42).view(6, 7))

    def forward(self, x):
        x = self.normalize(x)
        h = F.relu(self.norm(self.a(x)) - self.b(x))
        h = F.relu((self.c(h) * self.field + self.field)[:, :, :6, :6] - 2 * h)
        return self.out(F.relu(self.end(self.e(self.d(h)))).mean((2, 3)))


@pytest.mark.parametrize("ball", BALLS, ids=str)
@pytest.mark.parametrize("end", [nn.Identity(), nn.AvgPool2d(2), nn.ReLU(), nn.MaxPool2d(2, 1)], ids=str)
def test_windows_give_what_whole_images_give(ball, end, monkeypatch):
    model = seeded(Branches(end), 2, 2.0).double()
    x = torch.rand(3, 2, 11, 11, dtype=torch.float64)
    network, region = read(model, x), Region.of(x, ball, (0, 1))
    windows = Bounds.of(network, region, tighten=True)
    monkeypatch.setattr(Bounds, "_window_before", lambda *_: None)
    whole = Bounds.of(network, region, tighten=True)
    for fast, slow in zip(windows.intervals, whole.intervals, strict=True):
        torch.testing.assert_close(fast[0], slow[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(fast[1], slow[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("tighten", [False, True])
@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_no_value_of_any_node_leaves_its_bounds(ball, tighten):
    model = seeded(Branches(nn.MaxPool2d(2, 1)), 2, 2.0).double()
    x = torch.rand(3, 2, 11, 11, dtype=torch.float64)
    network, region = read(model, x), Region.of(x, ball, (0, 1))
    bounds = Bounds.of(network, region, tighten=tighten)
    for seed in range(60):
        shift = ball.project(draw(3, 2, 11, 11, seed=seed) * 10 ** (seed % 4 - 2))
        for value, (low, high) in zip(network.values((x + shift).clamp(0, 1)), bounds.intervals, strict=True):
            assert bool(((value >= low - 1e-9) & (value <= high + 1e-9)).all())


def test_intervals_of_differences_take_the_right_ends():
    class Difference(nn.Module):
        def forward(self, x):
            return F.relu(x) - 3 * torch.sigmoid(x)

    x = torch.tensor([[0.5, -0.5]], dtype=torch.float64)
    low, high = intervals(read(Difference(), x), Region.of(x, Linf(0.25), None))[-1]
    edges = torch.tensor([[0.25, -0.75], [0.75, -0.25]], dtype=torch.float64)
    torch.testing.assert_close(low, (F.relu(edges[0]) - 3 * torch.sigmoid(edges[1]))[None])
    torch.testing.assert_close(high, (F.relu(edges[1]) - 3 * torch.sigmoid(edges[0]))[None])


class Kink(nn.Module):
    """Margin relu(x) - 1.5 x: over [-1, 1] it is least at 1, -0.5; a "line below" of slope 1.5 would say 0."""

    def forward(self, x):
        return F.pad(F.relu(x) - 1.5 * x, (0, 1))


def test_slopes_stay_between_the_ends():
    x = torch.tensor([[-0.1]], dtype=torch.float64)
    found = certify(Kink(), (x, torch.tensor([0])), Linf(1.1), box=(-1, 1), method="alpha-crown")
    assert float(found.margin) == pytest.approx(-0.5, abs=1e-9)


class Corner(nn.Module):
    """Margin |x| - x / 2 + 0.05: above 0, which needs lines below relu(x) and relu(-x) whose slopes differ by 1/2."""

    def forward(self, x):
        return F.pad(F.relu(x) + F.relu(-x) - 0.5 * x + 0.05, (0, 1))


def test_better_slopes_certify_more():
    data = torch.tensor([[0.1]], dtype=torch.float64), torch.tensor([0])
    crown = certify(Corner(), data, Linf(0.6), box=None, method="crown")
    better = certify(Corner(), data, Linf(0.6), box=None, method="alpha-crown")
    assert float(crown.margin) < -0.1 and better.certified and float(better.margin) <= 0.05


def test_rounding_of_the_models_own_dtype_is_subtracted():
    """Logits that do not depend on x: what is left of the gap is the slack alone."""
    model, gaps = nn.Linear(3, 2), {}
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([1.0, 0.0]))
    for dtype in (torch.float32, torch.float64):
        x = torch.rand(2, 3, dtype=dtype)
        found = certify(model.to(dtype), (x, torch.tensor([0, 0])), Linf(0.1), method="crown")
        gaps[dtype] = float((1 - found.margin).max())
        assert gaps[dtype] == pytest.approx(16 * torch.finfo(dtype).eps * 2, rel=1e-3)


def test_regions_grow_by_the_rounding_of_float32():
    x = torch.rand(3, 4, 4)
    region = Region.of(x, Linf(0.1), None)
    for sign in (-1, 1):
        moved = (x + sign * 0.1).double()  # rounded as an attack's would be
        assert bool(((moved >= region.low) & (moved <= region.high)).all())
    assert float((region.high - region.low).max()) < 0.2 + 1e-6
