"""What every `danskin.minmax.Set` must satisfy, as functions that third parties run on their own sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from danskin.minmax import Set, Streams
from danskin.testing.expect import expect, expect_close, expect_same

_ULPS = 16  # roundings of a handful of operations
_SCALES = (0.0, 1e-30, 1e-3, 0.3, 1.0, 30.0, 1e9)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per row in float64."""
    return (a.double() * b.double()).reshape(len(a), -1).sum(1)


def _size(a: Tensor) -> Tensor:
    """The l2 norm per row in float64."""
    return _dot(a, a).sqrt()


class SetCase:
    """One set with points to try on it.

    Args:
        make_set: like -> the set for a batch shaped, typed and placed as `like`.
        like: (batch, ...).
        trials: random points per scale, and random members.
        seed: of all random numbers here.
    """

    def __init__(self, make_set: Callable[[Tensor], Set], like: Tensor, trials: int, seed: int) -> None:
        self.Y, self.like, self.trials = make_set(like), like, trials
        self.name = f"{type(self.Y).__name__} {tuple(like.shape)} {like.dtype}"
        self.random = torch.Generator().manual_seed(seed)
        self.streams = Streams.of(seed, torch.arange(len(like), device=like.device))
        self.eps = torch.finfo(like.dtype).eps
        #: Of a set whose projections are approximate, and say so (`danskin.minmax.Intersection`).
        self.tolerance = getattr(self.Y, "tolerance", 0.0)

    def draw(self, scale: float = 1.0) -> Tensor:
        """A random normal tensor."""
        wide = torch.randn(self.like.shape, generator=self.random, dtype=torch.float64) * scale
        return wide.to(self.like)

    @cached_property
    def points(self) -> list[Tensor]:
        """Points inside and outside, of all sizes, with exact ties among them."""
        scales = [s for s in _SCALES if not self.tolerance or 1e-6 < s <= 1]  # from afar, iterations take long
        made = [self.draw(scale) for scale in scales for _ in range(self.trials)]
        ties = (self.draw(2.0)).round() / 4
        return [*made, ties, ties.abs()]

    @cached_property
    def gradients(self) -> list[Tensor]:
        """Directions of all sizes, with ties and zeros among the coordinates."""
        made = [self.draw(scale) for scale in (1e-30, 1e-6, 1.0, 1e9) for _ in range(self.trials)]
        return [*made, self.draw(2.0).round(), torch.ones_like(self.like), -torch.ones_like(self.like)]

    @cached_property
    def members(self) -> list[Tensor]:
        """Points that are in the set: samples, vertices, and points between them."""
        samples = [self.Y.sample(self.like, self.streams.child(k)) for k in range(4 * self.trials)]
        vertices = [self.Y.lmo(self.draw()) for _ in range(2 * self.trials)]
        between = [0.5 * (a + b) for a, b in zip(samples, vertices, strict=False)]
        return [*samples, *vertices, *between]

    @cached_property
    def size(self) -> Tensor:
        """(batch,) float64: the largest l2 norm of a known member."""
        return torch.stack([_size(q) for q in self.members]).amax(0)

    def rounding(self, y: Tensor | None = None) -> Tensor:
        """(batch,) how far rounding may move a result near the set, for the input y.

        Results are at the set's scale, so their rounding is too. An exact projection also cancels numbers
        as large as y; that it does in float64.
        """
        extra = 0.0 if y is None else torch.finfo(torch.float64).eps * _size(y)
        return _ULPS * (self.eps * self.size + extra) + self.tolerance * self.size

    def inside(self, y: Tensor, what: str, source: Tensor | None = None) -> None:
        """Expect y, made from `source`, in the set up to rounding."""
        most = self.rounding(source) * math.sqrt(max(math.prod(self.like.shape[1:]), 1))
        got = self.Y.violation(y).double()
        worst = (got - most).argmax()
        expect(got <= most, f"{self.name}: expected {what} in the set, got violation {float(got[worst]):.3g}")
        expect(y.isfinite(), f"{self.name}: expected {what} finite, got NaN or infinity")
        expect(
            y.shape == self.like.shape and y.dtype == self.like.dtype,
            f"{self.name}: expected {what} of shape {tuple(self.like.shape)} and {self.like.dtype}, "
            f"got {tuple(y.shape)} and {y.dtype}",
        )


def projection_is_nearest(case: SetCase) -> None:
    """<y - p, q - p> <= 0 for all members q, the best of which for this is the linear maximiser of y - p."""
    for y in case.points:
        p = case.Y.project(y)
        case.inside(p, "the projection", y)
        away = y - p
        slack = case.rounding(y)
        for q in [*case.members, case.Y.lmo(away)]:
            got = _dot(y.double() - p.double(), q.double() - p.double())
            most = (_size(away) + _size(q - p)) * slack + slack**2
            i = int((got - most).argmax())
            expect(
                got <= most,
                f"{case.name}.project: expected <y - p, q - p> <= {float(most[i]):.3g} for all q of the set, "
                f"got {float(got[i]):.3g} at |y| = {float(_size(y)[i]):.3g}; p is not the nearest point",
            )


def projection_is_idempotent(case: SetCase) -> None:
    """project(p) = p for members and for projections."""
    made: list[tuple[Tensor, Tensor | None]] = [(q, None) for q in case.members]
    for q, source in made + [(case.Y.project(y), y) for y in case.points]:
        moved = _size(case.Y.project(q) - q)
        kept = moved <= case.rounding(source)
        expect(kept, f"{case.name}.project: expected members kept, got {float(moved.max()):.3g} away")


def projection_is_nonexpansive(case: SetCase) -> None:
    """|project(y) - project(z)| <= |y - z|."""
    for y, z in zip(case.points, case.points[1:], strict=False):
        moved = _size(case.Y.project(y) - case.Y.project(z))
        most = _size(y.double() - z.double()) + case.rounding(y) + case.rounding(z)
        expect(moved <= most, f"{case.name}.project: expected projections no further apart than the points")


def lmo_is_optimal(case: SetCase) -> None:
    """<g, lmo(g)> is the most over the set, and what projections of t g approach at rate 1 / t."""
    for g in case.gradients:
        v = case.Y.lmo(g)
        case.inside(v, "the linear maximiser")
        best, slack = _dot(g, v), 2 * _size(g) * case.rounding()
        for q in case.members:
            gap = _dot(g, q) - best
            expect(gap <= slack, f"{case.name}.lmo: expected the most over the set, got {float(gap.max()):.3g} less")
        for t in (1.0, 1e3, 1e6) if not case.tolerance else (1.0,):
            far = (g.double() * (t / _size(g).amax().clamp_min(1e-300))).to(g)
            length = _size(far) / _size(g).clamp_min(1e-300)
            gap = best - _dot(g, case.Y.project(far))
            extra = slack + _size(g) * case.rounding(far)
            most = 2 * case.size**2 / length + extra
            expect(gap >= -extra, f"{case.name}.lmo: expected more than at a projection, got {float(gap.min()):.3g}")
            expect(
                gap <= most,
                f"{case.name}.lmo: expected projections of t g to reach <g, lmo(g)> within {float(most.min()):.3g}, "
                f"got {float(gap.max()):.3g} less at t |g| = {t:g}",
            )


def steepest_is_dual(case: SetCase) -> None:
    """norm(d) <= 1, <g, d> = dual_norm(g), and <g, q> <= dual_norm(g) norm(q)."""
    d_root = math.sqrt(max(math.prod(case.like.shape[1:]), 1))
    slack = _ULPS * case.eps * d_root
    for g in case.gradients:
        d, dual = case.Y.steepest(g), case.Y.dual_norm(g).double()
        expect(case.Y.norm(d) <= 1 + slack, f"{case.name}.steepest: expected norm <= 1, got {case.Y.norm(d).max()}")
        gap = (_dot(g, d) - dual).abs()
        expect(gap <= slack * dual, f"{case.name}.steepest: expected <g, d> = dual_norm(g), got {float(gap.max())} off")
        for q in (case.draw(), *case.members[:3]):
            most = dual * case.Y.norm(q).double() * (1 + slack)
            expect(_dot(g, q) <= most + 1e-300, f"{case.name}.dual_norm: expected <g, q> <= dual_norm(g) norm(q)")


def samples_are_members(case: SetCase) -> None:
    """Samples are inside, differ between streams, and repeat for the same stream."""
    first = case.Y.sample(case.like, case.streams)
    case.inside(first, "a sample")
    expect_same(case.Y.sample(case.like, case.streams), first, f"{case.name}.sample again")
    other = case.Y.sample(case.like, case.streams.child(1))
    one_point = (case.size <= 0) | torch.tensor(math.prod(case.like.shape[1:]) < 2)
    differs = (first != other).reshape(len(first), -1).any(1)
    expect(differs | one_point, f"{case.name}.sample: expected other points from another stream, got the same")


def violation_tells(case: SetCase) -> None:
    """0 inside, above 0 outside, infinite at NaN, one value per row."""
    for q in case.members:
        case.inside(q, "a member")
    for y in case.points:
        outside = _size(y - case.Y.project(y)) > 10 * case.rounding(y) + 1e-6 * case.size
        got = case.Y.violation(y)
        expect(got.shape == (len(y),), f"{case.name}.violation: expected shape ({len(y)},), got {tuple(got.shape)}")
        expect((got > 0) | ~outside, f"{case.name}.violation: expected above 0 outside the set, got 0")
        expect(got >= 0, f"{case.name}.violation: expected at least 0, got {float(got.min())}")
    spoiled = case.members[0].clone()
    spoiled[0].view(-1)[-1] = math.nan
    got = case.Y.violation(spoiled)
    expect(got[0] == math.inf, f"{case.name}.violation: expected infinity at NaN, got {float(got[0])}")
    expect(got[1:].isfinite(), f"{case.name}.violation: expected NaN in one row to stay there, got it in others")


def zero_gradient_is_fine(case: SetCase) -> None:
    """steepest(0) = 0 and lmo(0) is some member."""
    zero = torch.zeros_like(case.like)
    expect_same(case.Y.steepest(zero), zero, f"{case.name}.steepest(0)")
    case.inside(case.Y.lmo(zero), "lmo(0)")


def rows_are_slices(case: SetCase) -> None:
    """What the set of some rows says is what the whole set says of these rows: batch equals loop."""
    n = len(case.like)
    order = torch.randperm(n, generator=case.random).to(case.like.device)
    parts = [order[: n // 2 + 1], *(torch.tensor([i], device=case.like.device) for i in range(n))]
    slack = _ULPS * case.eps
    for y in (case.draw(0.3), case.draw(30.0)):
        whole = (case.Y.project(y), case.Y.lmo(y), case.Y.steepest(y), case.Y.violation(y))
        drawn = case.Y.sample(case.like, case.streams)
        for part in parts:
            Y, z = case.Y.rows(part), y[part]
            names = ("project", "lmo", "steepest", "violation")
            results = (Y.project(z), Y.lmo(z), Y.steepest(z), Y.violation(z))
            for name, got, wanted in zip(names, results, whole, strict=True):
                expect_close(got, wanted[part], slack, f"{case.name}.rows({part.tolist()}).{name}")
            sample = Y.sample(case.like[part], case.streams.rows(part))
            expect_close(sample, drawn[part], slack, f"{case.name}.rows({part.tolist()}).sample")


def layout_does_not_matter(case: SetCase) -> None:
    """Strides of the input change nothing."""
    y = case.draw()
    strided = y.transpose(0, -1).contiguous().transpose(0, -1)
    for name in ("project", "lmo", "steepest", "violation"):
        got, wanted = getattr(case.Y, name)(strided), getattr(case.Y, name)(y)
        expect_close(got, wanted, _ULPS * case.eps, f"{case.name}.{name} of a strided tensor")


#: The checks by name.
SET_CHECKS: dict[str, Callable[[SetCase], None]] = {
    f.__name__: f
    for f in (
        projection_is_nearest,
        projection_is_idempotent,
        projection_is_nonexpansive,
        lmo_is_optimal,
        steepest_is_dual,
        samples_are_members,
        violation_tells,
        zero_gradient_is_fine,
        rows_are_slices,
        layout_does_not_matter,
    )
}


def check_set(
    make_set: Callable[[Tensor], Set],
    shape: Sequence[int] = (5, 8),
    *,
    trials: int = 2,
    seed: int = 0,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.float64),
    skip: Sequence[str] = (),
) -> None:
    """Run all of `SET_CHECKS` on a bounded set.

    Args:
        make_set: like -> the set for a batch shaped, typed and placed as `like`. It may hold one value per row.
        shape: of the batch, (batch, ...).
        trials: random points of each scale; work grows with its square.
        seed: of the random points.
        dtypes: tried one after the other.
        skip: names of checks to leave out.

    Raises:
        AssertionError: the set breaks its contract; the message says where.
    """
    for dtype in dtypes:
        for name, check in SET_CHECKS.items():
            if name not in skip:
                check(SetCase(make_set, torch.zeros(*shape, dtype=dtype), trials, seed))
