"""Square: its patterns against loops, its queries counted, and what one image's search owes to another's: nothing."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from danskin.attacks import square_patterns as patterns
from danskin.attacks.square import Square
from danskin.errors import InputError
from danskin.losses import margin
from danskin.minmax import L1, L2, Linf, Status, Streams
from danskin.testing import ATTACK_CHECKS, check_attack
from danskin.testing.models import RowwiseLinear, mlp

BALLS = {"linf": Linf(0.05), "l2": L2(0.3), "l1": L1(1.0)}
SKIP = ("tabular",)  # images only: see test_other_shapes_are_refused


def streams(n, seed=0):
    return Streams.of(seed, torch.arange(n))


def data(n=12, shape=(3, 6, 6), seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


class Asked(nn.Module):
    """A model that counts how often each example was asked about, and refuses to be differentiated."""

    def __init__(self, model, x):
        super().__init__()
        self.model, self.x, self.count = model, x, torch.zeros(len(x), dtype=torch.int64)

    def forward(self, x):
        assert not torch.is_grad_enabled() and not x.requires_grad
        nearest = torch.cdist(x.flatten(1), self.x.flatten(1)).argmin(1)
        self.count.index_add_(0, nearest, torch.ones_like(nearest))
        return self.model(x)


@pytest.mark.parametrize("check", [name for name in ATTACK_CHECKS if name not in SKIP])
@pytest.mark.parametrize("norm", BALLS)
def test_conformance(norm, check):
    check_attack(Square(BALLS[norm], queries=8), only=[check])


@pytest.mark.parametrize(
    "attack",
    [
        Square(Linf(0.05), queries=8, restarts=2, stop=True, width=5),
        Square(L1(1.0), queries=8, keep="value", loss="cross_entropy"),
        Square(Linf(0.05), queries=8, loss="hinge"),
        Square(L2(0.3), queries=8, loss="targeted_margin"),
        Square(Linf(0.05), queries=8, rescale=True, precision="bfloat16"),
    ],
    ids=["restarts", "by value", "binary", "targets", "bfloat16"],
)
def test_variants(attack):
    heavy = () if attack.width else ("batch_and_order_do_not_matter",)  # once is enough
    check_attack(attack, skip=(*SKIP, *heavy))


def test_other_shapes_are_refused():
    x = data(4, (20,))
    assert not Square.applies_to(x) and Square.applies_to(data())
    with pytest.raises(InputError, match=r"x: expected images \(batch, channels, height, width\), got shape \(4, 20\)"):
        Square(Linf(0.1))(mlp(20, 4), x, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 2), (1, 2, 9), (2, 9, 5), (5, 4, 4), (1, 28, 28)])
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.2), L1(0.5)], ids=["linf", "l2", "l1"])
def test_any_image_works(ball, shape):
    x, model = data(5, shape), mlp(math.prod(shape), 3)
    y = model(x).argmax(1)
    out = Square(ball, queries=25)(model, x, y)
    assert (out.loss > margin(model(x), y)).all() and (ball.violation(out.delta) < 1e-6).all()


# --- schedule


def test_schedule():
    at = [0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 6000, 6001, 8000, 8001, 20000]
    wanted = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    assert patterns.level(torch.tensor(at), None).tolist() == wanted
    assert patterns.level(torch.tensor([0, 5, 6, 25, 26, 4500]), 5000).tolist() == [0, 0, 1, 1, 2, 9]


def test_sides():
    # sqrt(0.8 / 2^k * 784): 25.04, 17.7, 12.5, 8.85, 6.26, 4.43, 3.13, 2.2, 1.6, 1.1
    assert patterns.sides(28, 28, 0.8, 1) == (25, 18, 13, 9, 6, 4, 3, 2, 2, 1)
    assert patterns.sides(28, 28, 0.8, 3) == (25, 19, 13, 9, 7, 5, 3, 3, 3, 3)
    assert patterns.sides(4, 40, 0.8, 3) == (4, 4, 4, 4, 3, 3, 3, 3, 3, 3)
    assert patterns.sides(2, 2, 1.0, 3) == (2,) * 10


# --- squares


def test_corners_take_every_place_equally_often():
    like, side = data(20000, (1, 5, 7)), torch.full((20000,), 3)
    top, left = patterns.corners(like, side, patterns.drawn(like, 2, streams(20000)))
    for got, places in ((top, 3), (left, 5)):
        counts = torch.bincount(got, minlength=places)
        assert len(counts) == places  # the last place too
        assert (counts / 20000 - 1 / places).abs().max() < 0.015
    assert abs(torch.corrcoef(torch.stack([top.float(), left.float()]))[0, 1]) < 0.03


def test_window_is_where_a_loop_says():
    like, top, left, side = (
        data(3, (2, 5, 6)),
        torch.tensor([0, 2, 4]),
        torch.tensor([5, 1, 0]),
        torch.tensor([1, 3, 1]),
    )
    got = patterns.window(like, top, left, side)
    assert got.shape == (3, 1, 5, 6)
    for n in range(3):
        wanted = torch.zeros(5, 6, dtype=torch.bool)
        wanted[top[n] : top[n] + side[n], left[n] : left[n] + side[n]] = True
        assert torch.equal(got[n, 0], wanted)


def test_a_square_changes_a_square_and_always_something():
    n = 400
    y = 0.1 * streams(n, 1).sign(data(n, (1, 6, 6)))
    low, high, which = torch.full_like(y, -0.1), torch.full_like(y, 0.1), torch.arange(n) % 3
    many = (3, 2, 1)
    out = patterns.square(y, low, high, many, which, streams(n))
    changed = out != y
    assert changed.flatten(1).any(1).all()  # with sides of 1, half of all signs would change nothing
    corner = patterns.corners(y, torch.tensor(many)[which], patterns.drawn(y, 2, streams(n)))
    inside = patterns.window(y, *corner, torch.tensor(many)[which])
    assert not (changed & ~inside).any()
    for i in range(n):  # one value per square
        assert len(out[i][inside[i]].unique()) == 1
    ups = torch.stack([out[i][inside[i]][0] for i in range(n)]) > 0
    assert 0.4 < ups[which == 0].float().mean() < 0.6


def test_channels_have_signs_of_their_own_and_ends_of_their_own():
    y, low, high = torch.zeros(200, 3, 4, 4), -0.1 * data(200, (3, 4, 4)), 0.1 * data(200, (3, 4, 4), 1)
    out = patterns.square(y, low, high, (4,), torch.zeros(200, dtype=torch.int64), streams(200))
    up, down = (out == high).flatten(2).all(2), (out == low).flatten(2).all(2)
    assert (up ^ down).all()
    assert up.any(1).logical_and(~up.all(1)).float().mean() > 0.6  # 6 of 8 combinations are mixed


def test_stripes_are_vertical():
    low, high = torch.full((50, 2, 5, 7), -0.1), torch.full((50, 2, 5, 7), 0.1)
    out = patterns.stripes(torch.zeros(50, 2, 5, 7), low, high, streams(50))
    assert (out == out[:, :, :1]).all() and (out.abs() == low.abs()).all()
    assert 0.4 < (out > 0).float().mean() < 0.6


def test_the_last_place_is_the_last():
    for places in range(1, 500):  # 1 - 2^-24 is the largest number that streams draw
        like, u = torch.zeros(1, 1, places, 6), torch.tensor([[1 - 2**-24, 2**-24]])
        top, left = patterns.corners(like, torch.tensor([1]), u)
        assert (top.item(), left.item()) == (places - 1, 0)


# --- bumps


def nested(height, width, power):
    """The rectangles one after the other."""
    out = torch.zeros(height, width, dtype=torch.float64)
    top, left = height // 2, width // 2
    for k in range(max(height // 2, width // 2) + 1):
        out[max(top - k, 0) : top + k + 1, max(left - k, 0) : left + k + 1] += 1 / (k + 1) ** power
    return out


@pytest.mark.parametrize(("norm", "power"), [(2, 2), (1, 4)])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 12])
def test_bumps_are_nested_rectangles_of_both_signs(side, norm, power):
    got = patterns.bump(side, norm)
    up, down = nested(side // 2, side, power), nested(side - side // 2, side, power)
    parts = [half / torch.linalg.vector_norm(half, norm) for half in (up, down) if half.numel()]
    wanted = torch.cat([*parts[:-1], -parts[-1]])
    assert torch.allclose(got, wanted / torch.linalg.vector_norm(wanted, norm))
    assert torch.linalg.vector_norm(got, norm).item() == pytest.approx(1)


def test_bumps_lie_at_their_corners():
    many, which = (5, 3), torch.tensor([0, 1, 1])
    corner, turned = (torch.tensor([0, 2, 4]), torch.tensor([1, 4, 0])), torch.tensor([False, True, False])
    got = patterns.bumps(data(3, (2, 7, 8)), corner, many, which, turned, 2)
    for n in range(3):
        side, wanted = many[which[n]], torch.zeros(7, 8)
        one = patterns.bump(side, 2).float()
        wanted[corner[0][n] : corner[0][n] + side, corner[1][n] : corner[1][n] + side] = one.T if turned[n] else one
        assert torch.equal(got[n, 0], wanted)


def swapped(y, here, there, side, bump, sign, radius, norm):
    """One image, window by window."""
    out, channels = y.clone(), len(y)
    spare = max(radius**norm - torch.linalg.vector_norm(y, norm).item() ** norm, 0)
    for c in range(channels):
        a = (slice(here[0], here[0] + side), slice(here[1], here[1] + side))
        b = (slice(there[0], there[0] + side), slice(there[1], there[1] + side))
        both = torch.zeros_like(y[c])
        both[a], both[b] = y[c][a], y[c][b]
        new = bump * sign[c] + y[c][a] / max(torch.linalg.vector_norm(y[c][a], norm).item(), 1e-12)
        size = (torch.linalg.vector_norm(both, norm).item() ** norm + spare / channels) ** (1 / norm)
        out[c][b] = 0
        out[c][a] = new / torch.linalg.vector_norm(new, norm) * size * (channels if norm == 1 else 1)
    return out


@pytest.mark.parametrize("norm", [1, 2])
def test_swap_is_what_a_loop_does(norm):
    n, many = 30, (5, 3)
    y, which, s = data(n, (2, 7, 8)).double() - 0.5, torch.arange(n) % 2, streams(n)
    y[::5] = 0
    radius = torch.linspace(0.1, 40, n).double()
    got = patterns.swap(y, many, which, radius, norm, s)
    side = torch.tensor(many)[which]
    u = patterns.drawn(y, 5, s)
    here, there = patterns.corners(y, side, u[:, :2]), patterns.corners(y, side, u[:, 2:4])
    turned, sign = u[:, 4] > 0.5, torch.where(u[:, 5:] > 0.5, 1.0, -1.0)
    assert 5 < int(turned.sum()) < 25
    for i in range(n):
        bump = patterns.bump(int(side[i]), norm)
        wanted = swapped(
            y[i], (here[0][i], here[1][i]), (there[0][i], there[1][i]), int(side[i]),
            bump.T if turned[i] else bump, sign[i], radius[i].item(), norm,
        )  # fmt: skip
        assert torch.allclose(got[i], wanted), i


def test_tiles_cover_the_image_with_bumps_of_norm_one():
    out = patterns.tiles(torch.zeros(40, 2, 28, 31), 2, streams(40))
    tile = out[:, :, 6:11, 5:10]  # 5 x 6 tiles of side 5, in the middle
    assert torch.allclose(tile.flatten(2).norm(dim=2), torch.ones(40, 2))
    one = patterns.bump(5, 2).float()
    forms = [one, -one, one.T, -one.T]
    seen = {next(i for i, form in enumerate(forms) if torch.equal(t, form)) for t in tile.flatten(0, 1)}
    assert seen == {0, 1, 2, 3}
    assert (out[:, :, 0] == 0).all() and (out[:, :, :, 30] == 0).all() and (out[:, :, 1:26] != 0).any(3).all()


# --- the search


@pytest.mark.parametrize("norm", BALLS)
def test_queries_are_counted_exactly_and_no_gradient_is_asked_for(norm):
    x = 0.5 + 0.01 * data(8, (1, 5, 5)) + torch.arange(8)[:, None, None, None] * 0.06 - 0.2
    inner = mlp(25, 3)
    y = inner(x).argmax(1)
    model = Asked(inner, x)
    ball = type(BALLS[norm])({"linf": 0.001, "l2": 0.001, "l1": 0.005}[norm])
    out = Square(ball, queries=17)(model, x, y)
    assert model.count.tolist() == [17] * 8
    assert (out.cost.forwards, out.cost.backwards, out.cost.calls) == (8 * 17, 0, 17)


def test_stop_leaves_at_the_first_success():
    model, x = mlp(108, 4), data(40)
    y = model(x).argmax(1)
    go_on = Square(Linf(0.5), queries=60)(model, x, y)
    stop = Square(Linf(0.5), queries=60, stop=True)(model, x, y)
    assert torch.equal(go_on.success, stop.success) and 5 < int(stop.success.sum()) < 35
    assert stop.cost.forwards < 0.8 * go_on.cost.forwards
    easy = Square(Linf(0.5), queries=200, stop=True)(model, x[go_on.success], y[go_on.success])
    assert easy.status is Status.SETTLED


@pytest.mark.parametrize("norm", BALLS)
def test_more_queries_never_lower_the_loss(norm):
    model, x = mlp(108, 4), data()
    y = model(x).argmax(1)
    losses = [Square(BALLS[norm], queries=q, keep="value")(model, x, y).loss for q in (1, 2, 5, 20, 80, 300)]
    assert torch.allclose(losses[0], margin(model(x), y))  # the clean image
    assert all((more >= less).all() for less, more in itertools.pairwise(losses))
    assert (losses[-1] > losses[1]).all()
    twice = Square(BALLS[norm], queries=20, keep="value", restarts=3)(model, x, y).loss
    assert (twice >= losses[3]).all() and (twice > losses[3]).any()


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.99), ("l2", 0.75), ("l1", 0.6)])
def test_comes_close_to_the_worst_case_of_an_affine_model(norm, share):
    model, x = RowwiseLinear(16, 2), 0.3 + 0.4 * data(6, (1, 4, 4))
    y = model(x).argmax(1)
    w = (model.weight[1] - model.weight[0]).detach() * (1 - 2 * y[:, None]).float()
    ball = type(BALLS[norm])({"linf": 0.02, "l2": 0.1, "l1": 0.3}[norm])
    gain = Square(ball, queries=400, keep="value")(model, x, y).loss - margin(model(x), y)
    most = ball.value * ball.dual_norm(w)
    assert (gain <= most * (1 + 1e-4)).all()
    assert (gain >= share * most).all(), (gain / most).min()


@pytest.mark.parametrize("norm", BALLS)
def test_all_of_the_radius_is_used(norm):
    model, x = mlp(108, 4), data()
    y = model(x).argmax(1)
    ball = BALLS[norm]
    for box in (None, (0, 1)):
        out = Square(ball, queries=60, box=box, keep="value")(model, x, y)
        used = ball.norm(out.delta) / ball.value
        assert (used > (0.999 if box is None or norm != "l2" else 0.95)).all(), (box, used)


def test_a_large_l1_radius_is_used_too():
    model, x = mlp(108, 4), data()
    out = Square(L1(200.0), queries=2, box=None, keep="value")(model, x, (model(x).argmax(1) + 1) % 4)
    used = L1(1.0).norm(out.delta)
    assert ((used == 0) | (used > 199.9)).all() and (used > 0).any()  # more than tiles of norm 1 have


def test_the_search_goes_on_from_the_first_pattern_though_it_be_worse():
    seen = []

    class Bowl(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            far = (x - 0.5).flatten(1).square().sum(1)
            return torch.stack([far, -far], 1)

    x = torch.full((20, 1, 8, 8), 0.5)
    Square(Linf(0.1), queries=3, p=0.1)(Bowl(), x, torch.zeros(20, dtype=torch.int64), index=torch.arange(20))
    assert torch.equal(seen[0], x) and (seen[1] != x).all()
    assert ((seen[2] != seen[1]).flatten(1).sum(1) <= 9).all() and (seen[2] != x).all()


@pytest.mark.parametrize("norm", BALLS)
def test_width_changes_nothing(norm):
    model, x = RowwiseLinear(108, 4).double(), data(30).double()
    y = model(x).argmax(1)
    ball = type(BALLS[norm])(8 * BALLS[norm].radius)
    attack = Square(ball, queries=40, stop=True)
    whole = attack(model, x, y)
    assert 3 < int(whole.success.sum()) < 30
    for width in (1, 7):
        got = dataclasses.replace(attack, width=width)(model, x, y)
        assert torch.equal(got.x, whole.x) and torch.equal(got.success, whole.success)
        # who is done waits for a tenth of the batch to leave with it: alone, for nobody
        assert int(whole.success.sum()) + 40 * int((~whole.success).sum()) <= got.cost.forwards <= whole.cost.forwards


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": 0}, "Square.queries: expected at least 1, got 0"),
        ({"restarts": 0}, "Square.restarts: expected at least 1"),
        ({"p": 0.0}, r"Square.p: expected a share in \(0, 1\]"),
    ],
)
def test_bad_numbers(change, message):
    with pytest.raises(InputError, match=message):
        Square(Linf(0.1), **change)(mlp(108, 4), data(), torch.zeros(12, dtype=torch.int64))
