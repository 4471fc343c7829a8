"""Linear bounds of sorted pairs and splines: valid, tight where all is decided, and what "auto" makes of them."""

import pytest
import torch
from torch import nn

from danskin.evaluation.certificates.relaxations import Pairs, relax
from danskin.evaluation.certify import certify
from danskin.lipschitz import read
from danskin.lipschitz.layers import GroupSort, LinearSpline, MaxMin
from danskin.lipschitz.operations import Sort
from danskin.minmax import L2, Linf
from danskin.testing.models import seeded


def intervals(shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    ends = 3 * torch.randn(2, *shape, generator=random, dtype=torch.float64)
    return ends.amin(0), ends.amax(0)


def worst_gap(relaxation, activation, low, high):
    """(n,): the least <a, f(z)> - <b, z> - c over random a and z in [low, high]: below 0 for what is no bound."""
    random, gaps = torch.Generator().manual_seed(1), []
    example = torch.arange(len(low))
    for _ in range(300):
        a = torch.randn(low.shape, generator=random, dtype=torch.float64)
        b, c = relaxation.pull(a, example)
        share = torch.rand(low.shape, generator=random, dtype=torch.float64).round(decimals=1)  # often at an end
        z = low + share * (high - low)
        gaps.append(((a * activation.apply(z)) - b * z).flatten(1).sum(1) - c)
    return torch.stack(gaps).amin(0)


@pytest.mark.parametrize("style", ["parallel", "adaptive"])
@pytest.mark.parametrize(("shape", "dim"), [((200, 2), -1), ((100, 1, 2, 1, 1), -3)])
@pytest.mark.parametrize("descending", [True, False])
def test_lines_of_sorted_pairs_are_bounds(shape, dim, descending, style):
    sort, (low, high) = Sort(dim, descending), intervals(shape)
    relaxation = relax(sort, low, high, style)
    assert isinstance(relaxation, Pairs)
    gaps = worst_gap(relaxation, sort, low, high)
    assert float(gaps.min()) > -1e-12 and float(gaps.max()) < 0.5  # each comes near its pair somewhere
    index = torch.tensor([3, 1])
    assert float(worst_gap(relaxation.rows(index), sort, low[index], high[index]).min()) > -1e-12


def test_pairs_of_which_the_larger_is_known_are_exact():
    low = torch.tensor([[[0.0, 2.0], [5.0, -1.0]]], dtype=torch.float64)
    sort, z = Sort(-1, False), low + 0.5
    b, c = relax(sort, low, low + 1, "adaptive").pull(
        a := torch.tensor([[[1.0, -2.0], [3.0, 0.5]]]).double(), torch.tensor([0])
    )
    torch.testing.assert_close((b * z).sum() + c, (a * sort.apply(z)).sum()[None])


def spline():
    layer = LinearSpline(3, knots=9)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 0.3)
    if hasattr(layer, "project_"):
        layer.project_()
    return layer


def test_lines_of_splines_are_bounds_and_touch():
    operation = read(spline().double(), torch.zeros(1, 3, dtype=torch.float64)).nodes[-1].operation
    for width in (1e-10, 0.05, 1.0, 4.0):
        low, high = intervals((6, 3), 2)
        high = torch.minimum(high, low + width)
        lines = relax(operation, low, high, "adaptive")
        t = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None, None]
        z = low + t * (high - low)
        y = operation.apply(z.flatten(0, 1)).view(z.shape)
        under, over = y - lines.lower * z - lines.below, lines.upper * z + lines.above - y
        assert float(under.min()) > -1e-13 and float(over.min()) > -1e-13
        assert float(under.amin(0).max()) < 1e-2 * width + 1e-9 and float(over.amin(0).max()) < 1e-2 * width + 1e-9


NETS = {
    "maxmin": lambda: nn.Sequential(nn.Linear(4, 8), MaxMin(), nn.Linear(8, 6), GroupSort(2), nn.Linear(6, 3)),
    "spline": lambda: nn.Sequential(nn.Linear(4, 3), spline(), nn.Linear(3, 3)),
    "images": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 2, padding=1), MaxMin(), nn.Flatten(), nn.Linear(36, 3)
    ),
}


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.1)], ids=str)
@pytest.mark.parametrize("name", NETS)
def test_certified_margins_are_below_sampled_ones_and_above_intervals(name, ball):
    model = seeded(NETS[name](), 3, 1.5).double()
    random = torch.Generator().manual_seed(0)
    x = torch.rand(6, 4, generator=random, dtype=torch.float64)
    y = model(x).argmax(1).detach()
    delta = torch.randn(2000, 4, generator=random, dtype=torch.float64)
    delta = ball.project(delta) if ball.order == 2 else 0.05 * delta.sign()
    with torch.no_grad():
        z = model((x[:, None] + delta).flatten(0, 1)).view(6, 2000, 3)
    pick = y[:, None, None].expand(-1, 2000, 1)
    worst = (z.gather(2, pick)[..., 0] - z.scatter(2, pick, -torch.inf).amax(2)).amin(1)
    found = {m: certify(model, (x, y), ball, method=m, box=None).margin for m in ("ibp", "crown-ibp", "crown")}
    for margin in found.values():
        assert bool((margin <= worst + 1e-9).all())
    assert bool((found["crown"] >= found["ibp"] - 1e-12).all())
    assert float((worst - found["crown"]).mean()) < 0.5 * float((worst - found["ibp"]).mean())


def test_auto_takes_lines_for_l_inf_where_there_are_some():
    model, other = (
        seeded(nn.Sequential(nn.Linear(4, 6), s, nn.Linear(6, 3)), 1, 1.5) for s in (MaxMin(), GroupSort(3))
    )
    x = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    batch = x, model(x).argmax(1)

    def auto(net, ball):
        return certify(net, batch, ball, method="auto", box=None).margin

    def by(net, ball, method):
        return certify(net, batch, ball, method=method, box=None).margin

    torch.testing.assert_close(auto(model, Linf(0.05)), by(model, Linf(0.05), "alpha-crown"))
    assert bool((auto(model, Linf(0.05)) > by(model, Linf(0.05), "ibp")).all())
    torch.testing.assert_close(auto(other, Linf(0.05)), by(other, Linf(0.05), "ibp"))
    expected = torch.maximum(by(model, L2(0.05), "lipschitz"), by(model, L2(0.05), "ibp"))
    torch.testing.assert_close(auto(model, L2(0.05)), expected)
